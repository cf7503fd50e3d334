"""Samples and scores as a table in the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def print_samples(rows: Iterable[tuple[str, ...]], headings: tuple[str, ...], *, title: str) -> None:
    """Prints rows of text, long cells folded; Chinese counts as two columns a character."""
    table = Table(title=title, show_lines=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def print_scores(scores: dict[str, float], *, title: str, to_stderr: bool = False) -> None:
    """Prints named figures; on standard error where standard output carries the results."""
    table = Table("figure", title=title)
    table.add_column("value", justify="right")
    for name, value in scores.items():
        table.add_row(name, f"{value:.2f}")
    _console(to_stderr=to_stderr).print(table)


def _console(*, to_stderr: bool = False) -> Console:
    console = Console(markup=False, highlight=False, stderr=to_stderr)
    return console if console.is_terminal else Console(width=120, markup=False, highlight=False, stderr=to_stderr)
