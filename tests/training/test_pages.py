"""What a run leaves for a browser: its page, reports of evaluations, figures for curves, a model card."""

import math
import shlex
from pathlib import Path

import paddle
import pytest
from huggingface_hub import ModelCard
from paddle import nn
from paddlenlp.trainer import TrainerState

from glm.report.provenance import Provenance
from glm.training import pages
from glm.training.pages import TrainingPage
from glm.training.parameters import gradient_norm
from glm.training.progress import GradientNorm
from tools.run_tools import logged, read_lines


@pytest.fixture(scope="module")
def run(workspace) -> Path:
    """4 steps, evaluated at 2 and 4."""
    dev = workspace.folder / "dev.json"
    return workspace.finetune("run", max_steps=4, do_eval=True, dev_file=dev, eval_steps=2, num_beams=3)


def test_a_report_of_each_evaluation(run):
    for step in (2, 4):
        folder = run / "eval" / f"step-{step}.report"
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert f"run: the dev records at step {step}" in page and "beam 3" in page  # all beams
        assert all(title in page for title in ("Loss", "Gradient norm", "Speed", "Memory", "Learning rate"))
        assert (folder / "plots" / "gradient-norm.png").is_file()
    assert {len(row["predictions"]) for row in read_lines(run / "eval" / "step-4.jsonl")} == {1}  # as asked for


def test_the_page_of_an_ended_run(run):
    page = (run / "training.html").read_text(encoding="utf-8")
    assert "4 / 4" in page and 'http-equiv="refresh"' not in page
    assert [f'href="eval/step-{step}.report/report.html"' in page for step in (2, 3, 4)] == [True, False, True]
    assert (run / "plots" / "loss.png").is_file()


def test_figures_for_the_curves(run):
    for name in ("loss", "learning_rate", "gradient_norm", "interval_tokens_per_second", "memory_gib"):
        figures = logged(run, name)
        assert len(figures) == 4 and all(math.isfinite(figure) and figure > 0 for figure in figures), name


def test_the_model_card(run, workspace):
    card = ModelCard.load(run / "README.md")
    (figure,) = (item for item in card.data.eval_results if item.metric_name == "rouge-l (char)")
    assert figure.metric_value == pytest.approx(logged(run, "eval_rouge-l (char)")[-1], abs=0.005)
    assert "20 rows read = 20 used" in card.text and shlex.quote(str(run)) in card.text


def test_another_run_into_the_folder(workspace):
    """The old run's pages are gone, the user's own README is not."""
    options = {"max_steps": 2, "do_eval": True, "dev_file": workspace.folder / "dev.json", "eval_steps": 1}
    folder = workspace.finetune("twice", **options)
    (folder / "README.md").write_text("my words", encoding="utf-8")
    (folder / "eval" / "notes.report").mkdir()
    workspace.finetune("twice", max_steps=1, overwrite_output_dir=True)
    assert (folder / "README.md").read_text(encoding="utf-8") == "my words"
    assert [path.name for path in (folder / "eval").iterdir()] == ["notes.report"]
    assert "1 / 1" in (folder / "training.html").read_text(encoding="utf-8")


def test_without_training_there_is_no_training_page(workspace, run):
    options = {"model_name_or_path": run, "do_train": None, "train_file": None, "do_eval": True}
    folder = workspace.finetune("only-evaluated", **options, dev_file=workspace.folder / "dev.json")
    assert not (folder / "training.html").exists() and not (folder / "README.md").exists()
    assert (folder / "eval" / "step-0.report" / "report.html").is_file()


# -- how often the page is drawn


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def drawing(monkeypatch):
    """A training page whose drawing takes 3 seconds, the pages drawn, and the clock."""
    clock, drawn = Clock(), []

    def draw(folder, provenance, **values):
        clock.now += 3.0
        drawn.append(values)

    import glm.report.page

    monkeypatch.setattr(glm.report.page, "write_training_page", draw)
    monkeypatch.setattr(pages, "time", clock)
    return TrainingPage(Provenance("", {}, "cpu")), drawn, clock


class Arguments:
    output_dir = "unused"


def test_drawing_takes_a_fiftieth_of_the_time(drawing):
    page, drawn, clock = drawing
    state = TrainerState(global_step=0, max_steps=1000)
    page.on_train_begin(Arguments, state, None)
    for step in range(1, 1001):
        clock.now += 1.0
        state.global_step = step
        page.on_log(Arguments, state, None)
    assert 6 <= len(drawn) <= 8  # at the beginning, then each 150 seconds
    page.on_train_end(Arguments, state, None)
    assert [values["running"] for values in drawn] == [True] * (len(drawn) - 1) + [False]
    assert drawn[-1]["seconds_left"] is None


def test_time_left(drawing):
    page, drawn, clock = drawing
    state = TrainerState(global_step=100, max_steps=1000)  # a resumed run
    page.on_train_begin(Arguments, state, None)
    assert drawn[0]["seconds_left"] is None
    clock.now += 197.0  # and the 3 of drawing
    state.global_step = 200
    page.on_evaluate(Arguments, state, None)
    assert drawn[1]["seconds_left"] == pytest.approx(2.0 * 800)


def test_other_ranks_draw_nothing(drawing):
    page, drawn, _ = drawing
    page.on_train_begin(Arguments, TrainerState(is_world_process_zero=False), None)
    assert drawn == []


# -- the norm of the gradients


def model_with_gradients() -> nn.Layer:
    model = nn.Linear(3, 2)
    (3.0 * model.weight.sum() + 4.0 * model.bias.sum()).backward()
    return model


def test_the_norm_of_all_gradients():
    model = model_with_gradients()
    assert gradient_norm(model) == pytest.approx(math.sqrt(6 * 9 + 2 * 16))
    model.bias.stop_gradient = True  # frozen
    assert gradient_norm(model) == pytest.approx(math.sqrt(6 * 9))


class Logging:
    sharding, tensor_parallel_degree, logging_steps = [], 1, 3


@pytest.mark.parametrize(("step", "changed", "measured"), [
    (2, {}, True), (5, {}, True), (1, {}, False),
    (2, {"sharding": ["stage1"]}, False),
])  # fmt: skip
def test_which_steps_are_measured(step, changed, measured):
    callback, arguments = GradientNorm(), type("Changed", (Logging,), changed)
    callback.on_optimizer_begin(arguments, TrainerState(global_step=step), None, model=model_with_gradients())
    assert (callback.value is not None) == measured


def test_the_scale_of_float16_is_taken_out():
    class Scaler:
        _scale = paddle.to_tensor([8.0])

    callback = GradientNorm()
    state = TrainerState(global_step=2)
    callback.on_optimizer_begin(Logging, state, None, scaler=Scaler, model=model_with_gradients())
    assert callback.value == pytest.approx(math.sqrt(6 * 9 + 2 * 16) / 8)
