"""What a run shows and logs."""

import io
import json
from types import SimpleNamespace

import pytest
import tqdm as tqdm_package

import glm.training.progress
from glm.training.progress import MetricsLog, ProgressBar, shows_bar


def state(step, **settings):
    ranks = {"is_world_process_zero": True, "is_local_process_zero": True}
    return SimpleNamespace(**({"global_step": step, "max_steps": 4} | ranks | settings))


def test_everything_logged_is_in_the_file(tmp_path):
    args, log = SimpleNamespace(output_dir=str(tmp_path)), MetricsLog()
    log.on_log(args, state(5), None, logs={"loss": 1.5, "learning_rate": 1e-3})
    log.on_log(args, state(6, is_world_process_zero=False), None, logs={"loss": 9.0})
    log.on_log(args, state(7), None, logs={"eval_bleu-4 (char, corpus)": 12.0})
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "loss": 1.5, "learning_rate": 1e-3},
        {"step": 7, "eval_bleu-4 (char, corpus)": 12.0},
    ]


@pytest.mark.parametrize(
    ("disabled", "watched", "expected"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_a_bar_is_for_a_terminal(disabled, watched, expected, monkeypatch):
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: watched))
    assert shows_bar(SimpleNamespace(disable_tqdm=disabled)) is expected


def test_the_bar_counts_tokens_and_tells_the_time_left(monkeypatch):
    """Steps of 10, 30, 20 and 60 tokens; after the second a third of the tokens is done, not a half."""
    out = io.StringIO()
    monkeypatch.setattr(
        glm.training.progress, "tqdm", lambda **options: tqdm_package.tqdm(file=out, mininterval=0, **options)
    )
    tokens = [10, 30, 20, 60]
    bar = ProgressBar(lambda step: tokens[step], 30.0)
    bar.on_train_begin(None, state(0), None)
    for step in (1, 2):
        bar.on_step_end(None, state(step), None)
    bar.on_log(None, state(2), None, logs={"loss": 2.5})
    assert (bar.bar.n, bar.bar.total) == (40, 120)
    figures = bar.bar.format_dict | {"elapsed": 8.0}
    line = bar.bar.format_meter(**figures)
    assert "33%" in line and "00:08<00:16" in line and "5.00 tokens/s" in line and "step 2 of 4, loss 2.5000" in line
    bar.on_train_end(None, state(4), None)
    assert bar.bar is None


def test_a_resumed_bar_starts_where_the_run_is(monkeypatch):
    monkeypatch.setattr(
        glm.training.progress, "tqdm", lambda **options: tqdm_package.tqdm(file=io.StringIO(), **options)
    )
    bar = ProgressBar(lambda step: 30, 30.0)
    bar.on_train_begin(None, state(3), None)
    assert (bar.bar.n, bar.bar.total) == (90, 120)
