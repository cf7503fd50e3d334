"""`python -m glm perplexity --model_name_or_path M --test_file F`: measures how well a model predicts texts."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glm.commands.parser import Parser
from glm.data.templates import GENERATION_BLANK
from glm.errors import InputError, UsageError
from glm.runtime.text_lines import read_lines

DETOKENIZERS = ("wikitext",)
MOST_BYTES = 1 << 30  # of a file of texts


def main(argv: list[str]) -> None:
    """Scores the texts window by window and prints the perplexity."""
    values = _parser().parse_args(argv)
    step = _checked_step(values.seq_length, values.overlap)
    if values.per_device_eval_batch_size < 1:
        raise UsageError(f"--per_device_eval_batch_size {values.per_device_eval_batch_size}: use 1 or more")
    from glm.checkpoint.loading import find_family, load_config, load_model
    from glm.checkpoint.tokenizers import load_tokenizer
    from glm.models.protocol import GeometryOptions
    from glm.prediction.perplexity import measure
    from glm.runtime.device import choose_device, hush, prepare

    hush()
    device = choose_device(values.device)
    prepare(device)
    family = find_family(values.model_name_or_path)
    if values.blank not in family.blanks:
        raise UsageError(f"--blank {values.blank}: {family.title} has {', '.join(family.blanks) or 'no blanks'}")
    tokenizer = load_tokenizer(family, values.tokenizer_name_or_path or values.model_name_or_path)
    texts = list(_texts(Path(values.test_file), values.text_column, values.detokenizer, family.reserved))
    config = load_config(family, values.model_name_or_path, tokenizer)
    geometry = family.geometry(tokenizer, GeometryOptions(values.blank))
    if values.seq_length > (room := geometry.room(config, 0)):
        raise UsageError(f"--seq_length {values.seq_length}: the model has {room} positions")
    model = load_model(family, values.model_name_or_path, config)
    model.eval()
    figures = measure(
        model,
        geometry,
        tokenizer,
        texts,
        blank=values.blank,
        length=values.seq_length - 1,
        step=step,
        unidirectional=values.unidirectional,
        batch_size=values.per_device_eval_batch_size,
    )
    settings = {"seq_length": values.seq_length, "overlap": step, "unidirectional": values.unidirectional}
    if values.format == "json":
        print(json.dumps({"file": values.test_file, **settings, **figures}, ensure_ascii=False, indent=2))
    else:
        _print_table(values.test_file, settings, figures)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm perplexity",
        description="Perplexity of texts, window by window: each id but a document's first is scored once, behind "
        "what stands before it in its window. Per id, per character, and per word where there are blanks.",
    )
    parser.add_argument("--model_name_or_path", required=True, help="a folder, or a published name")
    parser.add_argument("--tokenizer_name_or_path", help="the model's own if not given")
    parser.add_argument("--test_file", required=True, help="JSON lines with a text each, or .txt with a text per line")
    parser.add_argument("--text_column", default="text", help="column of the text (default text)")
    parser.add_argument("--seq_length", type=int, default=1024, help="tokens of a window, plus one (default 1024)")
    parser.add_argument("--overlap", type=int, help="tokens that a window adds to the one before it [all]")
    parser.add_argument("--unidirectional", action="store_true", help="read the whole window from left to right")
    parser.add_argument(
        "--blank", default=GENERATION_BLANK, help="blank to which the scored tokens belong (default %(default)s)"
    )
    parser.add_argument("--detokenizer", choices=DETOKENIZERS, help="undo the tokens of a published corpus first")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=8, help="windows read together (default 8)")
    parser.add_argument("--device", default="gpu", help="gpu or cpu")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser


def _checked_step(seq_length: int, overlap: int | None) -> int:
    if seq_length < 3:
        raise UsageError(f"--seq_length {seq_length}: use 3 or more")
    if overlap is not None and not 1 <= overlap <= seq_length - 1:
        raise UsageError(f"--overlap {overlap}: use 1 to {seq_length - 1}, or leave it out")
    return seq_length - 1 if overlap is None else overlap


def _texts(path: Path, column: str, detokenizer: str | None, reserved: tuple[str, ...]) -> Iterator[str]:
    """Returns the documents of a file.

    Raises:
        InputError: a row has no text, or it holds a command token; file, line and field are named.
    """
    from glm.evaluation.language_model import detokenized

    found = False
    for origin, value in _rows(path, column):
        if not isinstance(value, str) or not value.strip():
            what = "empty" if isinstance(value, str) else f"{type(value).__name__} where text is expected"
            raise InputError(f"{origin}, field {column}: {what}")
        if held := [token for token in reserved if token in value]:
            raise InputError(f"{origin}, field {column}: holds the command token {held[0]}; take it out of the text")
        found = True
        yield detokenized(value) if detokenizer else value
    if not found:
        raise InputError(f"{path}: no text in it")


def _rows(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """Yields the origin and the content of each document."""
    if path.suffix != ".txt":
        from glm.data.formats import read_rows

        for row in read_rows(path):
            if row.error is not None:
                raise row.error
            if column not in row.values:
                listed = ", ".join(row.values) or "none"
                raise InputError(f"{row.origin}: no field {column} (fields: {listed}); name it with --text_column")
            yield row.origin, row.values[column]
        return
    for number, line in enumerate(read_lines(path, most_bytes=MOST_BYTES), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _print_table(name: str, settings: dict[str, Any], figures: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    table = Table("figure", title=f"{name} ({told})")
    table.add_column("value", justify="right", no_wrap=True)
    for key, value in figures.items():
        table.add_row(key, str(value) if isinstance(value, int) else f"{value:,.4f}")
    Console(markup=False, highlight=False).print(table)
    if figures["documents"] > 1:
        print("each document's first id is not scored", file=sys.stderr)
