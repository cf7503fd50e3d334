"""`python -m glm show FILE --line N --tokenizer_name_or_path T`: shows a record as the model sees it."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from glm.commands.corpora import add_corpus_options, show_samples
from glm.commands.options import Layouts, add_layout_options
from glm.commands.parser import Parser
from glm.commands.show_task import show_questions
from glm.data.columns import ColumnOptions
from glm.data.examples import ExampleEncoder
from glm.data.records import Record, RecordFile, record_of_row
from glm.data.tasks import GENERATE
from glm.data.view import RecordView, view_record
from glm.errors import InputError, UsageError
from glm.models.protocol import IGNORE_INDEX, TokenTable

CHINESE_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "SimHei", "PingFang SC")
CHINESE_FONTS += ("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Arial Unicode MS")
PIPE_WIDTH = 120  # columns if the output is not a terminal
MOST_LABELS = 120  # most tokens of a picture with readable axes
INCHES_PER_TOKEN, FEWEST_INCHES, MOST_INCHES = 0.16, 5, 24


def main(argv: list[str]) -> int:
    """Shows the record, after checking that training and prediction agree."""
    parser = Parser(prog="python -m glm show", description="Shows one record as the model sees it.")
    parser.add_argument("file", metavar="FILE", help="Records, in any format of training.")
    parser.add_argument("--line", type=int, metavar="N", help="Its line (or row), as in messages.")
    parser.add_argument(
        "--objective", help="FILE is running text: show samples of this objective of pretraining; any draws it."
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="With --objective: how many [1].")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="With --objective: of the run [42].")
    add_layout_options(parser)
    parser.add_argument("--allow_cut_targets", action="store_true", help="A target longer than tgt_length is cut.")
    parser.add_argument("--image", metavar="PNG", help="Draw who attends to whom into this file.")
    parser.add_argument("--overwrite_output", action="store_true", help="Replace the picture if it exists.")
    add_corpus_options(parser)
    values = parser.parse_args(argv)
    if (values.line is None) == (values.objective is None):
        raise UsageError("give --line N for a record, or --objective NAME for samples of running text")
    if values.image and Path(values.image).exists() and not values.overwrite_output:
        raise InputError(f"image {values.image}: exists; choose another name, or add --overwrite_output")
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=PIPE_WIDTH)
    if values.objective is not None:
        show_samples(values, console)
        return 0
    data, encoder = Layouts(values, allow_cut_targets=values.allow_cut_targets).of()
    if encoder.kind != GENERATE:
        if values.image:
            raise UsageError(f"--image {values.image}: has no effect on a task of kind {encoder.kind}; leave it out")
        show_questions(values.file, values.line, encoder, data.columns, console)
        return 0
    record = find_record(values.file, values.line, encoder, data.columns)
    view = view_record(record, encoder)
    print_view(record, view, encoder, console)
    if values.image:
        draw(view.tokens, encoder, Path(values.image))
    return 0


def find_record(path: str, line: int, encoder: ExampleEncoder, columns: ColumnOptions) -> Record:
    """Finds the record of a line, or of a row where a file has no lines.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    file = RecordFile(path, encoder.template, columns, need_target=False, reserved=encoder.family.reserved)
    last = 0
    for row in file.rows():
        last = row.number
        if last == line:
            if row.error is not None:
                raise row.error
            return record_of_row(row, file.columns, need_target=False, reserved=file.reserved)
    raise InputError(f"line {line}: {path} has no record there; its last one is {last}")


def print_view(record: Record, view: RecordView, encoder: ExampleEncoder, console: Console) -> None:
    """Prints tokens, ids, positions and labels of training and prediction side by side, and who sees whom."""
    tokens = view.tokens
    console.print(_table(record, tokens, encoder))
    S, tokenizer = tokens.source_length, encoder.tokenizer
    console.print(f"source: {S} tokens, src_length {encoder.src_length}; {view.lost_source} were cut")
    if view.lost_source:
        console.print(f"what is left of it: {tokenizer.decode_ids(tokens.ids[:S])}")
    if tokens.training is None:
        console.print("no target: what is shown of Part B is what generation starts from")
    else:
        T = len(tokens.ids) - S
        console.print(f"target: {T} tokens, tgt_length {encoder.tgt_length}; {view.lost_target} were cut")
        console.print("training and prediction are laid out alike")
    for line in _who_sees_whom(tokens):
        console.print(line)
    if len(tokens.ids) <= console.width:
        for row in tokens.sees:
            console.print("".join("█" if seen else "·" for seen in row), overflow="crop", no_wrap=True)


def _table(record: Record, tokens: TokenTable, encoder: ExampleEncoder) -> Table:
    table = Table(title=f"{record.origin}, id {record.id}", show_edge=False)
    for heading in ("", "place", "piece"):
        table.add_column(heading, no_wrap=True)
    for use, names in (("train", ("id", *tokens.rows, "label")), ("predict", ("id", *tokens.rows))):
        for name in names:
            table.add_column(f"{use}\n{name}", justify="right", no_wrap=True)
    token_of = encoder.tokenizer.token_of
    for place, number in enumerate(tokens.ids):
        part = "A" if place < tokens.source_length else "B"
        training = [""] * (len(tokens.rows) + 2) if tokens.training is None else _cells(tokens.training, place)
        if tokens.training is not None:
            label = tokens.training[-1, place]
            training[-1] = "-" if label == IGNORE_INDEX else f"{token_of(label)} {label}"
        table.add_row(part, str(place), token_of(number), *training, *_cells(tokens.prediction, place))
    return table


def _cells(rows: np.ndarray, place: int) -> list[str]:
    """Returns a column of ids and positions as text, with … for what prediction has yet to generate."""
    return [str(row[place]) for row in rows] if place < rows.shape[1] else ["…"] * len(rows)


def _who_sees_whom(tokens: TokenTable) -> list[str]:
    """Describes who attends to whom; neighbours that see the same, or all up to themselves, share a line."""
    last = [int(np.flatnonzero(row)[-1]) for row in tokens.sees]  # all before it are seen too
    assert all(row[: end + 1].all() for row, end in zip(tokens.sees, last, strict=True))
    own = [end == place >= tokens.source_length for place, end in enumerate(last)]
    kinds = ["themselves" if is_own else str(end) for is_own, end in zip(own, last, strict=True)]
    lines, start = [], 0
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[start]:
            lines.append(f"places {start} to {place - 1} attend to places 0 to {kinds[start]}")
            start = place
    return lines


def draw(tokens: TokenTable, encoder: ExampleEncoder, path: Path) -> None:
    """Draws who attends to whom: a row sees the filled columns. Tokens are written if a font has their characters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    L, S = len(tokens.ids), tokens.source_length
    side = min(max(L * INCHES_PER_TOKEN, FEWEST_INCHES), MOST_INCHES)
    figure, axes = pyplot.subplots(figsize=(side, side))
    axes.imshow(tokens.sees, cmap="Blues", vmin=0, vmax=1.4)
    axes.axhline(S - 0.5, color="black", linewidth=0.8)
    axes.axvline(S - 0.5, color="black", linewidth=0.8)
    axes.set_title(f"row attends to column; Part A: 0 to {S - 1}, Part B: {S} to {L - 1}")
    installed = {font.name for font in font_manager.fontManager.ttflist}
    font = next((name for name in CHINESE_FONTS if name in installed), None)
    if L <= MOST_LABELS:
        labels = [encoder.tokenizer.token_of(number) for number in tokens.ids] if font else list(map(str, range(L)))
        axes.set_xticks(range(L), labels, rotation=90, fontfamily=font, fontsize=7)
        axes.set_yticks(range(L), labels, fontfamily=font, fontsize=7)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", bbox_inches="tight")
    except OSError as error:
        raise InputError(f"image {path}: cannot be written ({error.strerror})") from error
    finally:
        pyplot.close(figure)
