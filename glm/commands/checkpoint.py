"""`python -m glm checkpoint`: inspects and converts model files of any format."""

import argparse
import sys
from pathlib import Path

from glm.checkpoint.convert import RANKED, WRITERS, export_checkpoint, import_checkpoint, reshard_checkpoint
from glm.checkpoint.inspection import inspect_checkpoint, report
from glm.checkpoint.whole import WholeModel
from glm.commands.parser import Parser

DEGREE = "--tensor_parallel_degree"


def main(argv: list[str]) -> int | None:
    """Runs one of the four actions.

    Returns:
        1 if `inspect` found a problem.
    """
    options = _parser().parse_args(argv)
    return options.action(options)


def _parser() -> Parser:
    parser = Parser(prog="python -m glm checkpoint", description="Checkpoints of all families: look, convert.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _action(actions, "inspect", _inspect, "print names, shapes, dtypes, size, format, guessed preset and problems")
    importing = _action(actions, "import", _import, "write a model of any format in this toolkit's own", target=True)
    importing.add_argument(
        "--base", type=Path, metavar="DIR", help="whole model, if SRC has only the weights that were trained"
    )
    importing.add_argument("--positions", type=int, metavar="N", help="more positions, which repeat those there are")
    importing.add_argument(
        "--tasks", type=int, metavar="N", help="position tables and parts of the head: 4, or 1 (UniLM's pretraining)"
    )
    export = _action(actions, "export", _export, "write a model in another format", target=True)
    export.add_argument("--to", required=True, choices=WRITERS, metavar="FORMAT", help=", ".join(WRITERS))
    export.add_argument(DEGREE, type=int, default=1, metavar="N", help=f"ranks ({', '.join(RANKED)}); default 1")
    reshard = _action(actions, "reshard", _reshard, "write a model for another number of ranks", target=True)
    reshard.add_argument(DEGREE, type=int, required=True, metavar="N", help="ranks")
    return parser


def _action(actions, name: str, function, text: str, *, target: bool = False) -> Parser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder or file of the model")
    if target:
        parser.add_argument("target", type=Path, metavar="DST", help="folder to write; must not exist yet")
    parser.add_argument("--preset", help="a published name, a name in configs/model or a .json file it must fit")
    parser.set_defaults(action=function)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    inspection = inspect_checkpoint(options.source, preset=options.preset)
    print("\n".join(report(inspection)))
    return 1 if inspection.problem else 0


def _import(options: argparse.Namespace) -> None:
    wishes = {name: getattr(options, name) for name in ("preset", "base", "positions", "tasks")}
    _done(options, import_checkpoint(options.source, options.target, **wishes))


def _export(options: argparse.Namespace) -> None:
    degree = options.tensor_parallel_degree
    model = export_checkpoint(options.source, options.target, to=options.to, degree=degree, preset=options.preset)
    _done(options, model)


def _reshard(options: argparse.Namespace) -> None:
    degree = options.tensor_parallel_degree
    _done(options, reshard_checkpoint(options.source, options.target, degree=degree, preset=options.preset))


def _done(options: argparse.Namespace, model: WholeModel) -> None:
    print(f"{options.source} ({model.summary}) -> {options.target}")
    name = model.source.family.tokenizer_files[0]
    if not (options.target / name).is_file():
        print(f"{options.target}: no tokenizer came along; put {name} there", file=sys.stderr)
