"""Figures of several data sets in one table: a row per set, their mean last."""

import re
from collections.abc import Mapping
from typing import Any

from glm.evaluation.metrics import TOTALS, Scores

MEAN = "mean"  # the name of the last row

OF_LANGUAGE = re.compile(r"((?:em|f1) \(\w+, )([\w-]+)\)")  # `f1 (squad, zh)`

Figures = Mapping[str, float]


def aligned(figures: Figures) -> dict[str, float]:
    """Renames a set's figures so that sets of other languages have the same names: `f1 (squad, zh)` becomes `f1
    (squad, mean)`; of a set of several languages only their mean is kept."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        of_language = OF_LANGUAGE.fullmatch(name)
        if of_language is None or of_language[2] == MEAN:
            found[name] = value
        elif (shared := f"{of_language[1]}{MEAN})") not in figures:
            found[shared] = value
    return found


def mean_figures(of_sets: Mapping[str, Figures]) -> dict[str, float]:
    """Averages each figure that every set has, with equal weights; numbers of records are summed.

    Records of different sets never meet: a figure is of one set, whatever its records are called. Sets whose questions
    are in another language than their passages (`en-zh`) are a task of their own: they take part only where there are
    no others.
    """
    of_sets = {name: aligned(figures) for name, figures in of_sets.items()}
    shared = [name for name in next(iter(of_sets.values())) if all(name in figures for figures in of_sets.values())]
    counted = [figures for name, figures in of_sets.items() if not _is_across(name)] or list(of_sets.values())
    totals = {name: sum(figures[name] for figures in counted) for name in shared}
    return {name: total if name in TOTALS else total / len(counted) for name, total in totals.items()}


def _is_across(name: str) -> bool:
    """Whether the questions of a set are in another language than their passages."""
    from glm.data.task_table import languages_of  # imported here because the table loads pydantic

    return len(set(languages_of(name))) == 2


def table_of(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Makes metrics.json of several sets: the scores of each by its name, and their mean."""
    means = mean_figures({name: found.figures for name, found in scores.items()})
    return {**{name: found.as_json() for name, found in scores.items()}, MEAN: means}


def named(figures: Mapping[str, Figures]) -> dict[str, float]:
    """Merges figures of several sets: a set's as `SET/FIGURE`, the mean as `FIGURE`."""
    of_sets = {f"{name}/{figure}": value for name, found in figures.items() for figure, value in found.items()}
    return mean_figures(figures) | of_sets


def split_name(name: str) -> tuple[str, str]:
    """Splits a name made by `named` into set (empty for the mean) and figure."""
    of_set, mark, figure = name.partition("/")
    return (of_set, figure) if mark else ("", name)


def figures_by_set(figures: Figures, *, prefix: str = "") -> dict[str, dict[str, float]]:
    """Groups figures named by `named` by set; empty for a single set without a name.

    Args:
        prefix: prefix of all names.
    """
    found: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        of_set, figure = split_name(name.removeprefix(prefix))
        if of_set:
            found.setdefault(of_set, {})[figure] = value
    return found
