"""`python -m glm score FILE`: scores a file of predictions and references, without loading a model."""

import math
import shlex
import sys
from argparse import Namespace
from typing import Any

from glm.commands.parser import Parser, print_json
from glm.errors import UsageError

OURS, ALL = "ours", "all"
TABLE, FULL, JSON = "table", "full", "json"


def main(argv: list[str]) -> int:
    """Reads, scores, prints."""
    arguments = _parser().parse_args(argv)
    from glm.evaluation.scored_file import read_scored_file
    from glm.evaluation.table import print_warnings
    from glm.evaluation.task_file import kind_of_file

    limits = dict(_limit(text) for text in arguments.fail_under)
    if kind_of_file(arguments.file) is not None:
        return _score_task(arguments, limits)
    file = read_scored_file(arguments.file, by_id=False)
    for note in file.notes():
        print(note, file=sys.stderr)
    result = _scored(file, with_others=arguments.protocols == ALL)
    _print(arguments, result)
    if arguments.format != JSON:
        print_warnings(file.symptoms.lines())
        _print_next(arguments)
    return int(_falls_short(result, limits))


def _score_task(arguments: Namespace, limits: dict[str, float]) -> int:
    """Scores choices or answers."""
    from glm.evaluation.scored_file import unscored_notes
    from glm.evaluation.symptoms import Symptoms
    from glm.evaluation.table import print_warnings
    from glm.evaluation.task_file import read_task_file

    file = read_task_file(arguments.file)
    if arguments.protocols == ALL and file.kind == "choose":
        raise UsageError("--protocols all: is for texts and answers; a choice has one protocol")
    for note in unscored_notes(file.path, len(file.scored), len(file.failed), len(file.rows) - len(file.scored)):
        print(note, file=sys.stderr)
    result = {
        "file": str(file.path),
        "format": f"ours ({file.kind})",
        **file.score(all_protocols=arguments.protocols == ALL).as_json(),
        "failed records": len(file.failed),
    }
    _print(arguments, result)
    if arguments.format != JSON:
        symptoms = Symptoms()
        for row in file.rows.values():
            symptoms.add_row(row)
        print_warnings(symptoms.lines())
        _print_next(arguments)
    return int(_falls_short(result, limits))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm score",
        description="Scores predictions against references: ROUGE, BLEU, distinct-n, exact match, … overall and by "
        "length of the source; accuracy of choices, EM and F1 of answers. Takes files of predict.py, LLaMA-Factory "
        "and ms-swift, and lines of "
        '{"prediction": …, "reference": … or "references": […]}.',
    )
    parser.add_argument("file", help="one JSON object per line")
    parser.add_argument(
        "--protocols",
        choices=(OURS, ALL),
        default=OURS,
        help="all: also the scores that sacrebleu, PaddleNLP, LLaMA-Factory, ms-swift and ROUGE-1.5.5 give; of "
        "answers also those of the multilingual GLM, which takes words of the same sound for one",
    )
    parser.add_argument(
        "--fail_under",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help='exit with 1 if the figure is lower, e.g. "bleu-4 (char, corpus)=30"; may be repeated',
    )
    parser.add_argument(
        "--format",
        choices=(TABLE, FULL, JSON),
        default=TABLE,
        help="table: the figures that tell most; full: all of them, with signatures and by length of the source; "
        "json: all of them, for programs",
    )
    return parser


def _limit(text: str) -> tuple[str, float]:
    """Parses a `--fail_under` to the figure and its limit."""
    from glm.evaluation.accuracy import SIGNATURES
    from glm.evaluation.answers import ALL_PROTOCOLS, answer_figures
    from glm.evaluation.metrics import FIGURES, name_advice

    name, _, value = text.rpartition("=")
    name = name.strip()
    known = [*FIGURES, *SIGNATURES, *answer_figures(ALL_PROTOCOLS)]
    if name not in known and not name.startswith("accuracy ("):
        raise UsageError(f"--fail_under {text}: no figure of this name; {name_advice(name, known)}")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise UsageError(f"--fail_under {text}: {value} is no number; write NAME=VALUE")
    return name, limit


def _scored(file, *, with_others: bool) -> dict[str, Any]:
    """Returns what `--format json` prints."""
    from tqdm import tqdm

    from glm.evaluation import coco
    from glm.evaluation.metrics import score
    from glm.evaluation.protocols import PROTOCOLS, ProtocolScores, own
    from glm.evaluation.segmentation import SEGMENTERS

    pairs = list(file.pairs.values())
    scores = score(tqdm(pairs, desc="scoring", unit="record", disable=None, leave=False))
    result = {"file": str(file.path), "format": file.format, **scores.as_json(), "failed records": len(file.failed)}
    if with_others:
        tables = {f"ours ({name})": own(scores, name) for name in SEGMENTERS}
        for name in tqdm(PROTOCOLS, desc="protocols", unit="protocol", disable=None, leave=False):
            tables[name] = PROTOCOLS[name](pairs)
        if missing := coco.what_is_missing():
            print(f"{file.path}: {missing}", file=sys.stderr)
        else:
            tables[coco.PROTOCOL] = ProtocolScores(coco.coco_scores(pairs), coco.SIGNATURE)
        result["protocols"] = {name: {**found.figures, "signature": found.signature} for name, found in tables.items()}
    return result


def _print(arguments: Namespace, result: dict[str, Any]) -> None:
    """Prints the figures in the format that was asked for."""
    if arguments.format == JSON:
        print_json(result)
        return
    from glm.evaluation.table import print_by_length, print_headlines, print_protocols, print_scores

    figures = {name: result[name] for name in result["signatures"]} | {"failed records": result["failed records"]}
    print_figures = print_scores if arguments.format == FULL else print_headlines
    print_figures(figures, result["signatures"], title=f"scores of {result['file']} ({result['format']})")
    if arguments.format == FULL:
        print_by_length(result["by source length (characters)"])
    if "protocols" in result:
        print_protocols(result["protocols"])


def _print_next(arguments: Namespace) -> None:
    """Says how to see more of the same file."""
    page = shlex.join(["python", "-m", "glm", "report", arguments.file])
    all_figures = "" if arguments.format == FULL else " (a page), or the same command with --format full (all figures)"
    print(f"next: {page}{all_figures}", file=sys.stderr)


def _falls_short(result: dict[str, Any], limits: dict[str, float]) -> bool:
    """Whether a figure is below its limit or missing, which is reported on standard error."""
    short = {name: limit for name, limit in limits.items() if result.get(name, -math.inf) < limit}
    for name, limit in short.items():
        found = f"{result[name]:.4f}" if name in result else "absent, for no record has what it needs"
        print(f"--fail_under {name}={limit:g}: it is {found}", file=sys.stderr)
    return bool(short)
