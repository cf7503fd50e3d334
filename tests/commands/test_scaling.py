"""`python -m glm scaling`: figures worked by hand, and what it prints."""

import math
import re

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
from glm.errors import UsageError


def test_parameters_by_hand():
    # A block of H 2, F 3: attention 4 * (4 + 2), MLP (6 + 3) + (6 + 2), two LayerNorms 8; a pooler layer 4 + 2.
    assert network_parameters(layers=1, hidden=2, mlp=3) == 24 + 17 + 8
    assert network_parameters(layers=2, hidden=2, mlp=3, pooler_layers=1) == 2 * 49 + 6


def test_laws_by_hand():
    assert data_needed(1.0) == 5e3 and data_needed(10.0) == pytest.approx(5e3 * 10**0.74)
    assert loss_of_data(6.4e13, 1e30) == pytest.approx(1.0)
    assert loss_of_data(1e40, 1.8e13) == pytest.approx(1.0, rel=1e-3)
    assert loss_of_steps(6.5e13, None) == 1.0 and loss_of_steps(6.5e13, 2100) == 2.0
    assert critical_batch(1.0) == 2e8 and math.isclose(loss_of_batch(critical_batch(3.3)), 3.3)


def test_what_is_printed(capsys):
    """Values, each with the formula that gives it."""
    sizes = {"LAYERS": 2, "H": 32, "F": 48, "POOLER_LAYERS": 1, "VOCABULARY": 100, "POSITIONS": 64}
    inputs = {"D": 216830, "S": 800, "LOSS": 3.0}
    names = {"H": "hidden", "F": "mlp", "D": "tokens", "S": "steps"}
    argv = [(f"--{names.get(name, name.lower())}", str(value)) for name, value in (sizes | inputs).items()]
    main([part for pair in argv for part in pair])
    lines = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    shown = {name: value for name, value, _ in lines}
    given = sizes | inputs | {"N": network_parameters(layers=2, hidden=32, mlp=48, pooler_layers=1)}
    assert shown["parameters of the network, without embeddings and heads"] == f"{given['N']:,}"
    share = 216830 / data_needed(given["N"])
    assert lines[3] == ["tokens given", "216,830", f"D, too few: {share:.2%} of them"]
    assert "loss after S = 800 steps" in shown
    for name, value, formula in lines[:3] + lines[4:]:
        expected = eval(formula.removeprefix("N = ").replace("^", "**"), {}, given)
        assert float(value.replace(",", "")) == pytest.approx(expected, rel=1e-4), name
    assert len(lines) == 9


@pytest.mark.parametrize("argv", [["--layers", "0"], ["--tokens", "-1"], ["--loss", "0"], ["--pooler_layers", "-1"]])
def test_numbers_that_are_none(argv):
    with pytest.raises(UsageError, match=f"{argv[0][2:]} {argv[1]}"):
        main(["--layers", "2", "--hidden", "32", *argv])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--loss", "nan"], "--loss: nan: use a finite number"),
        (["--loss", "1e400"], "--loss: 1e400: use a finite number"),
        (["--loss", "1e-300"], "loss 1e-300: use a number from 0.001 to 1000"),
        (["--layers", "9" * 400], "--layers: 9.*: is beyond every size"),
        (["--vocabulary", "-" + "9" * 30], "--vocabulary: -9.*: is beyond every size"),
        (["--tokens", "1" * 5000], "--tokens"),
    ],
)
def test_absurd_numbers(argv, message):
    with pytest.raises(UsageError, match=message):
        main(["--layers", "2", "--hidden", "32", *argv])


def test_the_largest_numbers(capsys):
    most = str((1 << 63) - 1)
    names = ("layers", "hidden", "mlp", "pooler_layers", "vocabulary", "positions", "tokens", "steps")
    main([word for name in names for word in (f"--{name}", most)] + ["--loss", "0.001"])
    assert "critical batch at a loss of 0.001" in capsys.readouterr().out
