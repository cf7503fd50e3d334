"""Prints samples and scores as tables in the terminal."""

import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from rich.console import Console
from rich.table import Table

from glm.evaluation.data_sets import MEAN, aligned, mean_figures
from glm.evaluation.metrics import HEADLINES, figure_text

# Shown beside the headline figures, because they say when those cannot be trusted.
COUNTS = ("loss", "generated length", "empty predictions", "failed records", "records", "records per second")


def print_samples(rows: Iterable[tuple[str, ...]], headings: tuple[str, ...], *, title: str) -> None:
    """Prints rows of text with long cells folded; a Chinese character counts as two columns."""
    table = Table(title=title, show_lines=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def print_scores(
    scores: Mapping[str, float], signatures: Mapping[str, str], *, title: str, to_stderr: bool = False
) -> None:
    """Prints named figures with their signatures; on standard error where standard output carries the results."""
    table = Table("figure", title=title)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("signature", overflow="fold")
    for name, value in scores.items():
        table.add_row(name, figure_text(name, value), signatures.get(name, ""))
    _console(to_stderr=to_stderr).print(table)


def print_headlines(
    scores: Mapping[str, float], signatures: Mapping[str, str], *, title: str, to_stderr: bool = False
) -> None:
    """Prints the most important figures with one signature per family of figures; all figures are in a file.

    Of a task that does not generate all figures are printed: they are few.
    """
    if HEADLINES[0] not in {name.removeprefix("eval_") for name in scores}:
        print_scores(scores, signatures, title=title, to_stderr=to_stderr)
        return
    shown = {name: value for name, value in scores.items() if name.removeprefix("eval_") in (*HEADLINES, *COUNTS)}
    table = Table("figure", title=title)
    table.add_column("value", justify="right", no_wrap=True)
    for name, value in shown.items():
        table.add_row(name, figure_text(name.removeprefix("eval_"), value))
    console = _console(to_stderr=to_stderr)
    console.print(table)
    for name in shown:
        if signature := signatures.get(name) if name.removeprefix("eval_") in HEADLINES else None:
            console.print(f"{family_of(name)}: {signature}", style="dim", soft_wrap=True)


def family_of(name: str) -> str:
    """Returns the family of a figure: `bleu` of `bleu-4 (char, corpus)`."""
    return name.removeprefix("eval_").split("-")[0].split(" (")[0]


def print_sets(of_sets: Mapping[str, Mapping[str, float]], *, title: str, to_stderr: bool = False) -> None:
    """Prints a column of figures for each data set, and their mean last."""
    means = mean_figures(of_sets)
    of_sets = {name: aligned(figures) for name, figures in of_sets.items()}
    table = Table("figure", title=title)
    for name in (*of_sets, MEAN):
        table.add_column(name, justify="right", no_wrap=True)
    for figure, mean in means.items():
        cells = [figure_text(figure, found[figure]) for found in of_sets.values()]
        table.add_row(figure.replace(f", {MEAN})", ")"), *cells, figure_text(figure, mean))
    _console(to_stderr=to_stderr).print(table)


def print_warnings(lines: Iterable[str]) -> None:
    """Prints warnings, one per line, on standard error."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def print_by_length(buckets: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the figures of each bucket of source length, if there are buckets."""
    if not buckets:
        return
    table = Table("figure", title="by length of the source, in characters")
    for name in buckets:
        table.add_column(name, justify="right", no_wrap=True)
    for figure in dict.fromkeys(chain.from_iterable(buckets.values())):
        cells = (figure_text(figure, found[figure]) if figure in found else "" for found in buckets.values())
        table.add_row(figure, *cells)
    _console().print(table)


def print_protocols(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what each tool makes of the same texts."""
    names = ["bleu-4", "rouge-1", "rouge-2", "rouge-l"]
    names += [name for name in ("nist-5", "meteor", "cider") if any(name in found for found in protocols.values())]
    table = Table("protocol", title="the same texts by the protocols of other tools", show_lines=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("signature", overflow="fold")
    for protocol, found in protocols.items():
        cells = (figure_text(name, found[name]) if name in found else "" for name in names)
        table.add_row(protocol, *cells, found["signature"])
    _console().print(table)


def print_differences(
    differences: Mapping[str, Mapping[str, Any]], signatures: Mapping[str, str], *, title: str
) -> None:
    """Prints each figure of two files, the difference with its interval, and its p-value."""
    table = Table("figure", title=title)
    for heading in ("A", "B", "B - A", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("signature", overflow="fold")
    for name, found in differences.items():
        low, high = found["95 % interval"]
        cells = (f"{found['A']:.2f}", f"{found['B']:.2f}", f"{found['difference']:+.2f}", f"{low:+.2f} {high:+.2f}")
        table.add_row(name, *cells, f"{found['p']:.4f}", signatures[name])
    _console().print(table)


def _console(*, to_stderr: bool = False) -> Console:
    console = Console(markup=False, highlight=False, stderr=to_stderr)
    return console if console.is_terminal else Console(width=120, markup=False, highlight=False, stderr=to_stderr)
