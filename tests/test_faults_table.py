"""Every test that the table of faults names is there, and has the marker."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROWS = [line for line in (TESTS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| F")]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`(\S+\.py::\w+)`", row)})


def marks(tree: ast.Module, function: str) -> str:
    """The decorators of a test, and what marks its whole module."""
    of_module = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return " ".join(ast.unparse(node) for node in [*of_module, *found.decorator_list])


@pytest.mark.parametrize("name", NAMED)
def test_a_test_of_the_table_is_there_and_marked(name):
    path, _, function = name.partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    assert "pytest.mark.fault" in marks(tree, function)


def test_a_sweep_is_called_one():
    for row in ROWS:
        for path, function, sweep in re.findall(r"`(\S+\.py)::(\w+)`( \(sweep\))?", row):
            tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
            only_sweep = any(line == "pytest.mark.sweep" for line in marks(tree, function).split())
            assert only_sweep == bool(sweep), function
