"""Scaling laws against the recorded numbers (`scaling.json`): each row to its last digit, and to those printed."""

import pytest

from glm.commands.scaling import (
    critical_batch,
    data_needed,
    loss_of_batch,
    loss_of_data,
    loss_of_steps,
    main,
    network_parameters,
)
from tools.reference_files import reference_json

pytestmark = pytest.mark.conformance


def computed(given: dict[str, float]) -> float:
    """What the command computes for the inputs of a row, told by their names."""
    names = set(given)
    if "layers" in names:
        sizes = {"layers": given["layers"], "hidden": given["d"], "mlp": given["f"]}
        return network_parameters(**sizes, pooler_layers=given["pooler_fc"])
    return {
        frozenset({"N", "D"}): lambda: loss_of_data(given["N"], given["D"]),
        frozenset({"N", "S_min"}): lambda: loss_of_steps(given["N"], given["S_min"]),
        frozenset({"B"}): lambda: loss_of_batch(given["B"]),
        frozenset({"L"}): lambda: critical_batch(given["L"]),
    }[frozenset(names)]()


def test_every_row(capsys):
    for row in reference_json("unilm", "scaling*.json")["rows"]:
        given, expected = row["in"], row["out"]
        if set(given) == {"N"}:  # the data that it needs, or the loss of any number of steps: their sizes tell
            assert expected in (
                pytest.approx(data_needed(given["N"]), rel=1e-12),
                pytest.approx(loss_of_steps(given["N"], None), rel=1e-12),
            )
        else:
            assert computed(given) == pytest.approx(expected, rel=1e-12), row["what"]


def test_printed_digits(capsys):
    rows = reference_json("unilm", "scaling*.json")["rows"]
    models = [row["in"] for row in rows if "layers" in row["in"]]
    for model, row in zip(models, (row for row in rows if "layers" in row["in"]), strict=True):
        argv = ["--layers", model["layers"], "--hidden", model["d"], "--mlp", model["f"]]
        argv += ["--pooler_layers", model["pooler_fc"]]
        of_model = [other for other in rows if other["in"].get("N") == row["out"]]
        for other in of_model:
            more = [("--tokens", other["in"].get("D")), ("--steps", other["in"].get("S_min"))]
            options = [str(part) for name, value in more if value for part in (name, int(value))]
            main([*map(str, argv), *options])
            printed = capsys.readouterr().out
            expected = other["out"]
            assert f"{row['out']:,}" in printed
            assert (f"{expected:,.0f}" if expected > 100 else f"{expected:.4f}") in printed, other["what"]
