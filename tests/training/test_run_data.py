"""The data of a run: every row counted, refused rows written beside, examples cached by content, runs repeated."""

import csv
import json
import shutil

import pytest
from paddle.utils import unique_name
from safetensors.numpy import load_file

import finetune_generation
from glm.errors import InputError, UsageError
from glm.options.finetune import parse_finetune_arguments
from glm.options.run_config import RUN_CONFIG_NAME
from glm.runtime.entry import INCOMPLETE
from glm.training import run_data
from tools.run_tools import arguments, logged, make_workspace, read_lines, write_records

SHORT = {"max_steps": 2, "logging_steps": 1}


@pytest.fixture
def workspace(tmp_path, sentencepiece_file):
    return make_workspace(tmp_path, sentencepiece_file)


@pytest.fixture
def partly_bad(workspace):
    """20 good rows and two bad ones, in lines 3 and 8."""
    lines = (workspace.folder / "train.json").read_text(encoding="utf-8").splitlines()
    lines.insert(2, '{"context": "甲", "answer": "", "question": "谁？"}')
    lines.insert(7, "bad")
    path = workspace.folder / "partly_bad.json"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def report_of(folder) -> dict:
    return json.loads((folder / "data_report.json").read_text(encoding="utf-8"))


def counts(report: dict) -> dict[str, tuple[int, int, int]]:
    return {split: (found["read"], found["used"], found["refused"]) for split, found in report.items()}


def test_bad_rows_stop_a_run_before_the_model_is_loaded(workspace, partly_bad, monkeypatch):
    monkeypatch.setattr("glm.training.setup.load_model", None)
    for most in (None, 0, 1):
        with pytest.raises(
            InputError, match=f"2 of the 22 rows read cannot be used, and max_bad_records is {most or 0}"
        ):
            workspace.finetune("run", train_file=partly_bad, max_bad_records=most)
    assert not (workspace.folder / "run").exists()


def test_bad_rows_that_are_allowed(workspace, partly_bad):
    allowed = workspace.finetune("allowed", train_file=partly_bad, max_bad_records=2, **SHORT)
    assert counts(report_of(allowed)) == {"train": (22, 20, 2)}
    first, second = read_lines(allowed / "refused-train.jsonl")
    assert first == {
        "error": f"{partly_bad}, line 3, field answer: empty",
        "row": {"context": "甲", "answer": "", "question": "谁？"},
    }
    assert second["error"].startswith(f"{partly_bad}, line 8: not JSON") and second["row"] == {}
    plain = workspace.finetune("plain", **SHORT)
    assert logged(plain, "loss") == logged(allowed, "loss")  # what is left out does not matter
    assert counts(report_of(plain)) == {"train": (20, 20, 0)} and not list(plain.glob("refused-*"))


def test_fewer_allowed_than_the_cached_report_has(workspace, partly_bad):
    workspace.finetune("first", train_file=partly_bad, max_bad_records=2, **SHORT)
    with pytest.raises(InputError, match="2 of the 22 rows read cannot be used, and max_bad_records is 1"):
        workspace.finetune("second", train_file=partly_bad, max_bad_records=1, **SHORT)


def test_dev_and_test_rows(workspace, partly_bad):
    options = {"dev_file": partly_bad, "test_file": partly_bad, "do_eval": True, "do_predict": True}
    folder = workspace.finetune("run", max_bad_records=2, per_device_eval_batch_size=8, **options, **SHORT)
    report = report_of(folder)
    assert counts(report) == {"train": (20, 20, 0), "dev": (22, 20, 2), "test": (22, 20, 2)}
    (shared,) = [group for group in report["dev"]["problems"] if group["kind"] == "row in two files"]
    assert shared["count"] == 20
    rows = read_lines(folder / "predictions.jsonl")
    assert [number for number, row in enumerate(rows) if "error" in row] == [2, 7] and len(rows) == 22
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (figures["records"], figures["failed records"]) == (20, 2)
    assert len(read_lines(next((folder / "eval").glob("*.jsonl")))) == 20


def test_exit_code_of_predictions_with_errors(workspace, partly_bad):
    options = workspace.options | {"output_dir": workspace.folder / "run", "test_file": partly_bad, **SHORT}
    options |= {"max_bad_records": 2, "do_predict": True}
    assert finetune_generation.main(list(arguments(options))) == INCOMPLETE


def test_cut_targets(workspace):
    with pytest.raises(InputError, match="20 of the 20 rows read cannot be used.*allow_cut_targets|allow_cut_targets"):
        workspace.finetune("run", tgt_length=17, **SHORT)
    folder = workspace.finetune("run", tgt_length=17, allow_cut_targets=True, **SHORT)
    assert report_of(folder)["train"]["cut_targets"] == 20


def test_overwriting_removes_what_was_said_of_other_data(workspace, partly_bad):
    folder = workspace.finetune("run", train_file=partly_bad, max_bad_records=2, **SHORT)
    workspace.finetune("run", overwrite_output_dir=True, **SHORT)
    assert not list(folder.glob("refused-*")) and counts(report_of(folder)) == {"train": (20, 20, 0)}


def test_negative_number_of_bad_records(workspace):
    with pytest.raises(UsageError, match="max_bad_records -1: use 0 or more"):
        workspace.finetune("run", max_bad_records=-1)


# -- the cache


@pytest.fixture
def written(monkeypatch):
    """The folders that examples were written into."""
    found = []
    new_store = run_data.new_store

    def noted(folder):
        found.append(folder)
        return new_store(folder)

    monkeypatch.setattr(run_data, "new_store", noted)
    return found


def test_examples_are_encoded_once(workspace, written):
    cache = {"data_cache_dir": workspace.folder / "cache"}
    losses = [logged(workspace.finetune(name, **cache, **SHORT), "loss") for name in ("a", "b")]
    assert len(written) == 1 and losses[0] == losses[1] and [*cache["data_cache_dir"].iterdir()] == written
    records = read_lines(workspace.folder / "train.json")
    records[0]["question"] = "白鹿湖在哪里？"
    write_records(workspace.folder / "train.json", records)
    workspace.finetune("c", **cache, **SHORT)
    workspace.finetune("d", **cache, src_length=59, **SHORT)
    workspace.finetune("e", **cache, template="{answer}：{context}[gMASK]", **SHORT)
    assert len(set(written)) == len(written) == 4
    workspace.finetune("f", **cache, no_block_position=True, **SHORT)
    assert len(written) == 4


@pytest.mark.fault
def test_a_damaged_cache_is_encoded_anew(workspace, written, caplog):
    """The run learns what it would have, and says so."""
    cache = {"data_cache_dir": workspace.folder / "cache"}
    losses = [logged(workspace.finetune("a", **cache, **SHORT), "loss")]
    ids = written[0] / "ids.bin"
    good = ids.read_bytes()
    for name, data in {"b": good[:-1], "c": bytes(byte ^ 1 for byte in good), "d": None}.items():
        ids.unlink() if data is None else ids.write_bytes(data)
        caplog.clear()
        losses.append(logged(workspace.finetune(name, **cache, **SHORT), "loss"))
        (line,) = [record.getMessage() for record in caplog.records if "encoded anew" in record.getMessage()]
        assert line.startswith(f"{ids}: ") and ids.read_bytes() == good
    assert len(written) == 4 and all(loss == losses[0] for loss in losses)
    assert [*cache["data_cache_dir"].iterdir()] == [written[0]]


def test_cache_of_a_user(workspace, written, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace.folder / "home"))
    workspace.finetune("a", **SHORT)
    assert written[0].parent == workspace.folder / "home" / "glm"


# -- other formats and templates, from training to prediction


def test_own_format_columns_and_template(workspace, capsys):
    rows = [(f"{n}号", f"白鹿湖有{n}万人。", f"有{n}万人。") for n in range(10, 30)]
    table = workspace.folder / "train.csv"
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("name", "text", "short"), *rows])
    options = {"train_file": table, "template": "{name}：{source}，摘要：[gMASK]", "target_prefix": "简："}
    options |= {"source_column": "text", "target_column": "short"}
    folder = workspace.finetune("run", **options, **SHORT)
    assert report_of(folder)["train"]["columns"] == "source = text, target = short, name = name"
    capsys.readouterr()
    workspace.predict(model_name_or_path=folder, test_file=table, output_file=workspace.folder / "out.jsonl", show=2)
    printed = capsys.readouterr()
    assert "from " in printed.err and "--template {name}：{source}，摘要：[gMASK]" in printed.err
    assert "the tokenizer" in printed.err
    assert f"{table}: 20 rows read = 20 used + 0 refused (source = text, target = short, name = name)" in printed.err
    found = read_lines(workspace.folder / "out.jsonl")
    assert [(row["source"], row["reference"]) for row in found] == [row[1:] for row in rows]
    assert all("answer" not in row for row in found)
    # another frame on the command line leaves nothing of the checkpoint's
    workspace.predict(
        model_name_or_path=folder, test_file=table, output_file=workspace.folder / "b.jsonl", task_name="pair"
    )
    assert "--template" not in capsys.readouterr().err


def test_the_configuration_in_the_output_folder_repeats_the_run(workspace):
    first = workspace.finetune("first", dev_file=workspace.folder / "dev.json", do_eval=True, **SHORT)
    config = workspace.folder / "again.json"
    shutil.copy(first / RUN_CONFIG_NAME, config)
    settings = json.loads(config.read_text(encoding="utf-8"))
    assert settings["learning_rate"] == 5e-3 and settings["seed"] == 42  # given, and a default
    assert settings["weight_decay"] == 0.0 and settings["lr_scheduler_type"] == "linear"
    finetune_generation.main([str(config), "--output_dir", str(workspace.folder / "second")])
    second = workspace.folder / "second"
    assert logged(second, "loss") == logged(first, "loss") != []
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    again = json.loads((second / RUN_CONFIG_NAME).read_text(encoding="utf-8"))
    assert {name for name in settings if settings[name] != again.get(name)} == {"output_dir"}


# -- several data sets


@pytest.fixture(scope="module")
def languages(tmp_path_factory, sentencepiece_file):
    """A workspace with two sets of equal ids for training, and two to look at."""
    space = make_workspace(tmp_path_factory.mktemp("languages"), sentencepiece_file)
    records = read_lines(space.folder / "train.json")
    for name, part in {"a": records[:16], "b": records[16:], "da": records[:2], "db": records[2:5]}.items():
        write_records(space.folder / f"{name}.json", [{"id": i, **record} for i, record in enumerate(part)])
    return space


def sets(space, **files):
    return [f"{name}={space.folder / path}" for name, path in files.items()]


def finetune(space, name, **options):
    """As `Workspace.finetune`, with lists as several values."""
    settings = {**space.options, "output_dir": space.folder / name, **options}
    argv = []
    for option, value in settings.items():
        argv += [f"--{option}", *([] if value is True else map(str, value if isinstance(value, list) else [value]))]
    with unique_name.guard():
        finetune_generation.main(argv)
    return space.folder / name


def test_table_of_two_dev_sets(languages):
    options = {
        "train_file": sets(languages, a="a.json", b="b.json"),
        "dev_file": sets(languages, x="da.json", y="db.json"),
    }
    options |= {"test_file": options["dev_file"], "do_eval": True, "do_predict": True, "max_steps": 2, "save_steps": 2}
    options |= {"evaluation_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "y/loss", "greater_is_better": "false"}
    run = finetune(languages, "two", **options)
    results = json.loads((run / "eval_results.json").read_text(encoding="utf-8"))
    for figure in ("loss", "rouge-l (char)", "generated length"):
        of_sets = [results[f"eval_{name}/{figure}"] for name in "xy"]
        assert results[f"eval_{figure}"] == pytest.approx(sum(of_sets) / 2)
    assert [results[f"eval_{name}records"] for name in ("x/", "y/", "")] == [2, 3, 5]
    assert results["eval_x/loss"] != results["eval_y/loss"]
    state = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_metric"] == pytest.approx(results["eval_y/loss"])
    table = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert list(table) == ["x", "y", "mean"] and table["mean"]["records"] == 5
    assert [len(read_lines(run / f"predictions.{name}.jsonl")) for name in "xy"] == [2, 3]
    at_step = json.loads((run / "eval" / "step-2.metrics.json").read_text(encoding="utf-8"))
    assert at_step["mean"]["rouge-l (char)"] == results["eval_rouge-l (char)"]
    page = (run / "eval" / "step-2.report" / "report.html").read_text(encoding="utf-8")
    assert "../step-2.x.report/report.html" in page and (run / "eval" / "step-2.x.report" / "report.html").is_file()
    report = json.loads((run / "data_report.json").read_text(encoding="utf-8"))
    assert list(report) == ["train/a", "train/b", "dev/x", "dev/y", "test/x", "test/y"]


def test_one_named_set_is_as_one_without_a_name(languages):
    plain = finetune(languages, "plain", train_file=languages.folder / "a.json", max_steps=2)
    named = finetune(languages, "named", train_file=f"a={languages.folder / 'a.json'}", max_steps=2)
    assert logged(plain, "loss") == logged(named, "loss")


def test_two_halves_of_a_file_are_as_the_file(languages):
    whole = finetune(languages, "whole", max_steps=4)
    halves = finetune(languages, "halves", train_file=sets(languages, a="a.json", b="b.json"), max_steps=4)
    assert logged(whole, "loss") == logged(halves, "loss")


@pytest.mark.parametrize("shares", [{"weights": "1,3"}, {"sampling_temperature": 0.5}])
def test_shares_resumed_to_the_bit(languages, shares):
    name = next(iter(shares))
    options = {"train_file": sets(languages, a="a.json", b="b.json"), "max_steps": 8, **shares}
    straight = finetune(languages, f"straight-{name}", **options)
    stopped = {**options, "save_strategy": "steps", "save_steps": 3}
    finetune(languages, f"resumed-{name}", **stopped)
    for path in (languages.folder / f"resumed-{name}").glob("checkpoint-6"):
        shutil.rmtree(path)
    resumed = finetune(languages, f"resumed-{name}", **stopped, resume_from_checkpoint="true")
    assert logged(straight, "loss")[-5:] == logged(resumed, "loss")[-5:]
    assert load_file(straight / "model.safetensors").keys() == load_file(resumed / "model.safetensors").keys()
    weights = [load_file(run / "model.safetensors") for run in (straight, resumed)]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    plain = finetune(languages, f"unweighted-{name}", train_file=options["train_file"], max_steps=8)
    assert logged(plain, "loss") != logged(straight, "loss")


def test_names_of_tasks_say_the_template(languages):
    base = ["--do_train", "--output_dir", "o", "--device", "cpu", "--train_file"]
    arguments = parse_finetune_arguments([*base, "title=a.json", "en=b.json"])
    title, other = (arguments.data_of(file) for file in arguments.files.of_split("train"))
    assert title.task_name == "title" and other.task_name == "dureader_qg"
    assert "task_name" not in arguments.run_config()
    arguments = parse_finetune_arguments([*base, "title=a.json", "en=b.json", "--task_name", "summary"])
    assert [arguments.data_of(file).task_name for file in arguments.files.of_split("train")] == ["summary"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "1,2"}, "weights 1,2: has no effect with one train_file"),
        ({"sampling_temperature": 0.3}, "sampling_temperature 0.3: has no effect with one train_file"),
        ({"train_file": ["a=1.json", "b=2.json"], "weights": "1"}, "weights 1: one for each of the 2"),
        ({"train_file": ["a=1.json", "b=2.json"], "weights": "1,-2"}, "weights 1,-2: write a number above 0"),
        (
            {"train_file": ["a=1.json", "b=2.json"], "sampling_temperature": 1.5},
            "sampling_temperature 1.5: use 0 to 1",
        ),
        ({"train_file": ["a=1.json", "b=2.json"], "sampling_temperature": 0.5, "weights": "1,1"}, "leave one out"),
        ({"train_file": ["a=1.json", "a=2.json"]}, "train_file a: is the name of 1.json and 2.json"),
        ({"train_file": ["a=1.json", "b=2.json"], "weights": "1,1", "max_tokens": 512}, "not beside max_tokens 512"),
    ],
)
def test_shares_that_cannot_be(languages, options, message):
    options = {"per_device_train_batch_size": 4, **options}
    if "max_tokens" in options:
        del options["per_device_train_batch_size"]
    argv = ["--do_train", "--output_dir", "o", "--device", "cpu"]
    for name, value in options.items():
        argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    with pytest.raises(UsageError, match=message):
        parse_finetune_arguments(argv)


def test_figure_of_a_set_that_is_none(languages):
    options = {"dev_file": sets(languages, x="da.json", y="db.json"), "do_eval": True, "max_steps": 1}
    with pytest.raises(UsageError, match="metric_for_best_model z/loss: z is none of them; the dev sets are x, y"):
        finetune(languages, "none", **options, metric_for_best_model="z/loss")
