"""`python -m glm check FILE… --tokenizer_name_or_path T`: finds problems in data files without loading a model."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import combinations

from rich.console import Console
from rich.table import Table

from glm.commands.corpora import add_corpus_options, build_corpus
from glm.commands.options import Layouts, add_layout_options
from glm.commands.parser import Parser, print_json
from glm.data.check import QUANTILES, FileCheck, check_file
from glm.data.corpus_check import CorpusCheck
from glm.data.frames import Encoder
from glm.data.mixture import named_file
from glm.data.report import SHOWN, FileReport
from glm.data.task_records import open_records
from glm.errors import InputError, UsageError
from glm.options.data import DataArguments

FILES = "Records: training, dev and test files together. NAME=FILE says task or language, as in training."


def main(argv: list[str]) -> int:
    """Checks the files; returns 1 if there are rows that training, or prediction, refuses."""
    parser = Parser(prog="python -m glm check", description="Looks for problems in data files, all in one pass.")
    parser.add_argument("files", nargs="+", metavar="FILE", help=FILES)
    add_layout_options(parser)
    parser.add_argument("--without_targets", action="store_true", help="Records to predict: they need no target.")
    parser.add_argument("--allow_cut_targets", action="store_true", help="Targets longer than tgt_length are cut.")
    parser.add_argument("--shown", type=int, default=SHOWN, help=f"Problems listed of each kind [{SHOWN}].")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="Of the report [text].")
    parser.add_argument("--corpus", action="store_true", help="FILEs are running text, as pretraining reads it.")
    add_corpus_options(parser)
    parser.add_argument(
        "--most_repeats", type=int, metavar="N", help="With --corpus: a passage in more documents is named [10]."
    )
    values = parser.parse_args(argv)
    if values.shown < 0:
        raise UsageError(f"--shown {values.shown}: 0 or more is expected")
    if values.corpus:
        return print_reports(check_corpora(values), values.format)
    if values.most_repeats is not None:
        raise UsageError(f"--most_repeats {values.most_repeats}: has no effect without --corpus; leave it out")
    layouts = Layouts(values, allow_cut_targets=values.allow_cut_targets)
    files = [named_file(value) for value in values.files]
    for note in dict.fromkeys(note for file in files for note in layouts.of(file.name)[1].notes):
        print(note, file=sys.stderr)
    checks = [
        _checked(file.path, *layouts.of(file.name), need_target=not values.without_targets, shown=values.shown)
        for file in files
    ]
    for earlier, later in combinations(checks, 2):
        later.compare(earlier.name, earlier.row_hashes)
    return print_reports([check.report() for check in checks], values.format)


def check_corpora(values: Namespace) -> list[FileReport]:
    """Checks the texts of pretraining."""
    corpora, frame = build_corpus(values)
    most = 10 if values.most_repeats is None else values.most_repeats
    if most < 1:
        raise UsageError(f"--most_repeats {most}: use 1 or more")
    found = []
    for path in (named_file(value).path for value in values.files):
        check = CorpusCheck(path, frame.tokenizer, frame.pretraining, most_repeats=most, shown=values.shown)
        for _ in check.encoded(corpora.files_of(path, frame.family)):
            pass
        if not check.read:
            raise InputError(f"{path}: no document in it")
        found.append(check.report())
    return found


def print_reports(reports: Sequence[FileReport], form: str) -> int:
    """Prints the reports as text or JSON; returns 1 if rows are refused."""
    problems, refused = sum(report.problem_count for report in reports), sum(report.refused for report in reports)
    lengths = recommended_lengths(reports)
    if form == "json":
        found = {"problems": problems, "refused": refused, "recommended": lengths}
        print_json(found | {"files": [report.as_dict() for report in reports]})
    else:
        console = Console(soft_wrap=True, highlight=False, markup=False)
        for report in reports:
            print_report(report, console)
        if lengths:
            given = " ".join(f"--{name} {value}" for name, value in lengths.items())
            console.print(f"lengths that fit all files: {given}")
        console.print(verdict(problems, refused))
    return 1 if refused else 0


def recommended_lengths(reports: Sequence[FileReport]) -> dict[str, int]:
    """Returns lengths that fit all files, by option."""
    names = dict.fromkeys(name for report in reports for name in report.recommended)
    return {name: max(report.recommended.get(name, 0) for report in reports) for name in names}


def verdict(problems: int, refused: int) -> str:
    """Summarises the check in a sentence."""
    if not problems:
        return "no problems"
    return f"{refused or 'no'} rows are refused; {problems} problems"


def _checked(path: str, data: DataArguments, encoder: Encoder, *, need_target: bool, shown: int) -> FileCheck:
    file = open_records(
        path,
        encoder.template,
        data.columns,
        need_target=need_target,
        several_targets=True,
        reserved=encoder.family.reserved,
        pattern_id=encoder.pattern_id,
    )
    check, batches = check_file(file, encoder, learns_targets=need_target, is_training=need_target, shown=shown)
    for _ in batches:
        pass
    return check


def print_report(report: FileReport, console: Console) -> None:
    """Prints the report of a file."""
    console.print(report.summary(), style="bold")
    for group in report.problems:
        console.print(f"  {group.kind}, {group.count} times: {group.advice}")
        for message in group.first:
            console.print(f"    {message}")
        if group.count > len(group.first):
            console.print(f"    … and {group.count - len(group.first)} more (--shown)")
    if report.lengths:
        console.print(_lengths_table(report))
    for warning in report.warnings:
        console.print(f"  warning: {warning}")
    if report.unknown_rows:
        shown = {piece if piece.isprintable() else repr(piece): n for piece, n in report.unknown_pieces.items()}
        pieces = " ".join(f"{piece} ({count})" for piece, count in shown.items())
        named = f": {pieces}" if pieces else ""
        console.print(f"  {report.unknown_rows} rows hold text that the tokenizer has no piece for{named}")
    for note in report.notes:
        console.print(f"  note: {note}")
    console.print()


def _lengths_table(report: FileReport) -> Table:
    table = Table(show_edge=False)
    table.add_column("length")
    for quantile in QUANTILES:
        table.add_column(quantile, justify="right")
    for name, units in report.lengths.items():
        for unit, quantiles in units.items():
            note = " (with its template)" if (name, unit) == ("source", "tokens") else ""
            table.add_row(f"{name}, {unit}{note}", *map(str, quantiles.values()))
    return table
