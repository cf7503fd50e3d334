"""No function is longer than a screen: 50 lines from its `def` to its end, docstring included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 50
FILES = [*sorted((ROOT / "glm").rglob("*.py")), ROOT / "predict.py", ROOT / "finetune_generation.py"]


def too_long(source: str) -> list[str]:
    """The functions of a program that are longer than `LONGEST` lines."""
    return [
        f"line {node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= LONGEST
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    assert too_long(path.read_text(encoding="utf-8")) == []


def test_a_long_function_is_found():
    body = "    pass\n" * (LONGEST - 1)
    assert too_long("def short():\n" + body) == []
    assert too_long("async def long():\n    pass\n" + body) == [f"line 1: long has {LONGEST + 1} lines"]
