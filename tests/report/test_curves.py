"""Curves of a run from its log."""

import json
import math

import pytest

from glm.report.curves import CURVE_PLOTS, MOST_POINTS, curve_plots, find_log, read_log


def curves_of(log) -> dict[str, dict[str, list]]:
    return {plot.name: {curve.label: list(curve.points) for curve in plot.curves} for plot in curve_plots(log)}


def test_figures_by_step():
    log = [
        {"step": 2, "loss": 3.0, "learning_rate": 0.1},
        {"step": 4, "loss": 2.0, "learning_rate": 0.05},
        {"step": 4, "eval_loss": 2.5, "eval_rouge-l (char)": 40.0},
    ]
    assert curves_of(log) == {
        "loss": {"training, with label smoothing": [(2, 3.0), (4, 2.0)], "dev records": [(4, 2.5)]},
        "scores": {"rouge-l (char)": [(4, 40.0)]},
        "learning-rate": {"learning rate": [(2, 0.1), (4, 0.05)]},
    }


def test_losses_by_objective_and_corpus():
    row = {"eval_loss": 2.0, "eval_loss (token)": 1.0, "eval_a/loss (token)": 3.0, "eval_a/loss": 4.0}
    assert curves_of([{"step": 2, **row}, {"step": 4, "eval_loss (token)": 0.5}])["objectives"] == {
        "token": [(2, 1.0), (4, 0.5)],
        "a/token": [(2, 3.0)],
    }


def test_a_resumed_run_did_steps_again():
    log = [{"step": step, "loss": float(loss)} for step, loss in [(1, 9), (2, 8), (3, 7), (2, 6), (3, 5), (4, 4)]]
    assert curves_of(log)["loss"] == {"training, with label smoothing": [(1, 9.0), (2, 6.0), (3, 5.0), (4, 4.0)]}


@pytest.mark.parametrize("value", [math.nan, math.inf, "3", None, True, 1e101, -1e308, 10**400])
def test_what_is_no_finite_number_is_left_out(value):
    assert curves_of([{"step": 1, "loss": value}]) == {}


def test_a_long_curve_keeps_its_peaks():
    log = [{"step": step, "loss": 1.0 + (step == 70_001) - 0.5 * (step == 33_333)} for step in range(100_000)]
    (points,) = curves_of(log)["loss"].values()
    assert len(points) <= MOST_POINTS and points == sorted(points)
    assert (70_001, 2.0) in points and (33_333, 0.5) in points


def test_lines_of_a_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n[1]\n{"loss": 1}\n{"step": 2, "lo', encoding="utf-8")
    assert read_log(path) == [{"step": 1, "loss": 2.0}]
    assert read_log(tmp_path / "none.jsonl") == []


def test_the_log_of_a_model(tmp_path):
    assert find_log(tmp_path / "run") == tmp_path / "run" / "metrics.jsonl"
    assert find_log(tmp_path / "run" / "checkpoint-7") == tmp_path / "run" / "metrics.jsonl"


def test_every_key_of_a_plot_is_drawn():
    """Each of the figures of the table, given alone, makes one curve."""
    for name, (_, _, keys) in CURVE_PLOTS.items():
        for label, key in keys.items():
            log = json.loads(json.dumps([{"step": 1, key: 1.5}]))
            assert curves_of(log) == {name: {label: [(1, 1.5)]}}


def test_the_log_of_a_stranger(tmp_path):
    """What is no line of a log is left out, whatever it is."""
    lines = ["[" * 50_000, '{"step": 1e400}', '{"step": ' + "9" * 400 + ', "loss": 1}', '{"step": -1, "loss": 1}']
    lines += ['{"step": true, "loss": 1}', '{"step": 1, "loss": ' + "9" * 400 + "}", '{"step": 2, "loss": 1e400}']
    lines += ['{"step": 3, "x": "' + "a" * (1 << 20) + '"}', '{"step": 4, "loss": 5, "eval_loss (": [[1]]}', "\udcff"]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    log = read_log(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in log] == [1, 2, 4]
    (plot,) = curve_plots(log)
    assert [curve.points for curve in plot.curves] == [((4, 5),)]
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(60 << 30)
    assert read_log(tmp_path / "sparse") == []
