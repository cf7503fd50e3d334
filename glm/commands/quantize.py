"""`python -m glm quantize`: converts a model folder to int8, for prediction on a CPU."""

from pathlib import Path

from glm.commands.parser import Parser


def main(argv: list[str]) -> None:
    """Reads a model folder and writes it in int8 to another.

    Raises:
        InputError: the folder holds no model that decodes in int8, or the output folder holds something.
    """
    parser = Parser(prog="python -m glm quantize", description=__doc__)
    parser.add_argument("model", metavar="FOLDER", help="a model's folder of any format, as predict.py takes it")
    parser.add_argument("--output_dir", required=True, metavar="FOLDER", help="where it goes; new or empty")
    arguments = parser.parse_args(argv)
    # Imported here because it loads Paddle.
    from glm.checkpoint.quantizing import quantize

    output_dir = Path(arguments.output_dir)
    quantize(arguments.model, output_dir)
    size = sum(path.stat().st_size for path in output_dir.iterdir())
    print(f"{output_dir}: {arguments.model} in int8, {size / 2**20:,.0f} MiB; predict.py takes it as it is")
