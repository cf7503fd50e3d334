"""`python -m glm adapters join FOLDER …`: combines adapters of several tasks for one model in one folder."""

from pathlib import Path

from glm.commands.parser import Parser


def main(argv: list[str]) -> None:
    """Joins the folders.

    Raises:
        InputError: the adapters are of different models, a task is there twice, or the output folder holds something.
    """
    parser = Parser(prog="python -m glm adapters", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="ACTION", required=True)
    join = verbs.add_parser("join", help="combine several folders in one")
    join.add_argument("folders", nargs="+", metavar="[NAME=]FOLDER", help="runs with --adapter_bottleneck or --lora")
    join.add_argument(
        "--output_dir", "--output", required=True, metavar="FOLDER", help="folder for the result; new or empty"
    )
    arguments = parser.parse_args(argv)
    from glm.checkpoint.adapters import join_adapters

    opened = join_adapters(arguments.folders, Path(arguments.output_dir))
    for name, (folder, own) in opened.sources.items():
        print(f"{arguments.output_dir}: {name} of {folder}" + ("" if name == own else f" ({own} there)"))
