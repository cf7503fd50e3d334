"""`python -m glm compare A B`: compares two files of predictions for the same records, with significance tests."""

import sys
from argparse import Namespace
from typing import Any

from glm.commands.parser import Parser, print_json
from glm.errors import InputError, UsageError

SORTED_BY = "rouge-l (char)"  # the figure by which single records are compared


def main(argv: list[str]) -> None:
    """Compares the files and prints the differences."""
    arguments = _parser().parse_args(argv)
    if arguments.show < 0:
        raise UsageError(f"--show {arguments.show}: 0 or more is expected")
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: 0 or more is expected")
    from glm.evaluation.scored_file import read_scored_file
    from glm.evaluation.task_file import kind_of_file

    paths = (arguments.first, arguments.second)
    kinds = {kind_of_file(path) for path in paths}
    if len(kinds) > 1:
        raise InputError(f"{arguments.first} and {arguments.second}: predictions of tasks of different kinds")
    if kinds != {None}:
        return _compare_tasks(arguments)
    files = [read_scored_file(path) for path in paths]
    result = _compared(*_same_records(*files), seed=arguments.seed, show=arguments.show)
    result = {"first": str(files[0].path), "second": str(files[1].path), **result}
    if arguments.format == "json":
        print_json(result)
    else:
        _print_tables(result)


def _compare_tasks(arguments: Namespace) -> None:
    """Compares choices or answers."""
    from glm.evaluation.significance import PERMUTATIONS, RESAMPLES, compare
    from glm.evaluation.task_file import read_task_file, signatures_of, tables_of

    first, second = (read_task_file(path) for path in (arguments.first, arguments.second))
    ids = _common_ids(first, second)
    rows = [[file.rows[identity] for identity in ids] for file in (first, second)]
    *tables, figures = tables_of(*rows, first.kind)
    differences = compare(*tables, seed=arguments.seed, figures=figures)
    result = {
        "first": str(first.path),
        "second": str(second.path),
        "records": len(ids),
        "seed": arguments.seed,
        "resamples": RESAMPLES,
        "permutations": PERMUTATIONS,
        "differences": {name: _as_json(found) for name, found in differences.items()},
        "signatures": signatures_of(list(differences), first.kind),
        "records where they differ": [
            {"id": identity, "reference": a[first.reference], "A": a["prediction"], "B": b["prediction"]}
            for identity, a, b in zip(ids, *rows, strict=True)
            if a["prediction"] != b["prediction"]
        ][: arguments.show],
    }
    if arguments.format == "json":
        print_json(result)
        return
    from glm.evaluation.table import print_differences, print_samples

    title = f"A: {first.path}, B: {second.path}, {len(ids)} records, seed {arguments.seed}"
    print_differences(result["differences"], result["signatures"], title=title)
    cells = [tuple(str(value) for value in row.values()) for row in result["records where they differ"]]
    if cells:
        print_samples(cells, ("id", "reference", "A", "B"), title="where they differ")


def _common_ids(first, second) -> list:
    """Returns the ids of records that failed in neither file. Raises InputError as `_same_records`."""
    files = f"{first.path} and {second.path}"
    ids = [{*file.rows, *file.failed} for file in (first, second)]
    if only := ids[0] ^ ids[1]:
        raise InputError(f"{files}: their ids differ: {len(only)} are in one only (such as {min(only, key=str)})")
    common = [identity for identity in first.scored if identity in second.scored]
    if not common:
        raise InputError(f"{files}: no record with a reference and without failure in both")
    for identity in common:
        if first.rows[identity][first.reference] != second.rows[identity][second.reference]:
            raise InputError(f"{files}: record {identity} has another reference in each")
    return common


def _as_json(found) -> dict[str, Any]:
    return {
        "A": found.first,
        "B": found.second,
        "difference": found.difference,
        "95 % interval": [found.low, found.high],
        "p": found.p_value,
    }


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm compare",
        description="Differences of two files of predictions for the same records: B - A of every figure with its "
        "95 % interval (paired bootstrap, 1,000 resamples), p-value (paired permutation test, 10,000 permutations), "
        f"and the records that differ most in {SORTED_BY}. Takes the files that `score` takes.",
    )
    parser.add_argument("first", metavar="A", help="predictions, one JSON object per line")
    parser.add_argument("second", metavar="B", help="other predictions for the same records")
    parser.add_argument("--seed", type=int, default=42, help="of the draws (default 42)")
    parser.add_argument(
        "--show", type=int, default=5, help="number of records shown for which each is better (default 5)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser


def _same_records(first, second) -> tuple[list, list, list]:
    """Returns the ids of records that failed in neither file, with their pairs in the first and in the second.

    Raises:
        InputError: ids, sources or references differ, or no record is left.
    """
    files = f"{first.path} and {second.path}"
    if first.has_ids != second.has_ids:
        raise InputError(f"{files}: only one has ids, so it is not known which records belong together")
    ids = [{*file.pairs, *file.failed, *file.unscored} for file in (first, second)]
    if only := [(file.path, ids[i] - ids[1 - i]) for i, file in enumerate((first, second)) if ids[i] - ids[1 - i]]:
        told = "; ".join(f"{len(missing)} only in {path} (such as {min(missing, key=str)})" for path, missing in only)
        raise InputError(f"{files}: their {'ids' if first.has_ids else 'lines'} differ: {told}")
    common = [identity for identity in first.pairs if identity in second.pairs]
    if not common:
        raise InputError(f"{files}: no record with a reference and without failure in both")
    for identity in common:
        _check_same(first, second, identity)
    if left_out := len(ids[0]) - len(common):
        print(
            f"{left_out} of {len(ids[0])} records failed in one of the files, or have no reference, and are left out",
            file=sys.stderr,
        )
    return common, [first.pairs[identity] for identity in common], [second.pairs[identity] for identity in common]


def _check_same(first, second, identity: str | int) -> None:
    left, right = first.pairs[identity], second.pairs[identity]
    name = f"{'record' if first.has_ids else 'line'} {identity}"
    if left.references != right.references:
        raise InputError(f"{first.path} and {second.path}: {name} has another reference in each")
    # Two tools frame the same source differently; one tool does not.
    if first.format == second.format and left.source != right.source:
        raise InputError(f"{first.path} and {second.path}: {name} has another source in each")


def _compared(ids: list, first: list, second: list, *, seed: int, show: int) -> dict[str, Any]:
    """Returns what `--format json` prints."""
    from tqdm import tqdm

    from glm.evaluation.metrics import reference_signature, signatures
    from glm.evaluation.significance import PERMUTATIONS, RESAMPLES, compare, table_of_statistics
    from glm.evaluation.statistics import COUNTS, VALUES

    tables = [
        table_of_statistics(tqdm(pairs, desc=f"scoring {name}", unit="record", disable=None, leave=False))
        for name, pairs in (("A", first), ("B", second))
    ]
    differences = compare(*tables, seed=seed)
    column = len(COUNTS) + VALUES.index(SORTED_BY)
    values = [(100 * table[:, column]).tolist() for table in tables]
    rows = [
        {
            "id": identity,
            "references": list(a.references),
            "A": a.prediction,
            "B": b.prediction,
            "score A": x,
            "score B": y,
        }
        for identity, a, b, x, y in zip(ids, first, second, *values, strict=True)
    ]
    better = {  # sorting is stable: ties stay in the order of the file
        "A": sorted(rows, key=lambda row: row["score B"] - row["score A"])[:show],
        "B": sorted(rows, key=lambda row: row["score A"] - row["score B"])[:show],
    }
    references = reference_signature({len(pair.references) for pair in first})
    return {
        "records": len(ids),
        "seed": seed,
        "resamples": RESAMPLES,
        "permutations": PERMUTATIONS,
        "differences": {name: _as_json(found) for name, found in differences.items()},
        "signatures": signatures(differences, references=references),
        f"records by {SORTED_BY}": {
            "A is better": [row for row in better["A"] if row["score A"] > row["score B"]],
            "B is better": [row for row in better["B"] if row["score B"] > row["score A"]],
        },
    }


def _print_tables(result: dict[str, Any]) -> None:
    from glm.evaluation.table import print_differences, print_samples

    print_differences(
        result["differences"],
        result["signatures"],
        title=f"A: {result['first']}, B: {result['second']}, {result['records']} records, seed {result['seed']}",
    )
    for who, rows in result[f"records by {SORTED_BY}"].items():
        cells = [
            (
                str(row["id"]),
                " / ".join(row["references"]),
                row["A"],
                row["B"],
                f"{row['score A']:.1f}, {row['score B']:.1f}",
            )
            for row in rows
        ]
        if cells:
            headings = ("id", "reference", "A", "B", f"{SORTED_BY}: A, B")
            print_samples(cells, headings, title=f"where {who}, by most")
