"""Shows a question as the model sees it, with its candidates or windows (`python -m glm show`)."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from glm.data.choices import ChoiceEncoder, EncodedChoice
from glm.data.columns import ColumnOptions
from glm.data.formats import read_rows
from glm.data.frames import Encoder
from glm.data.pairs import EncodedPair, PairEncoder
from glm.data.records import BadRecord
from glm.data.task_records import TaskRecord, reader_of
from glm.data.tasks import CHOOSE
from glm.data.windows import EncodedQuestion, WindowEncoder
from glm.errors import InputError


def show_questions(path: str, line: int, encoder: Encoder, columns: ColumnOptions, console: Console) -> None:
    """Prints the questions of a line, or of a row where a file has no lines.

    Raises:
        InputError: there is none, or one cannot be used.
    """
    for note in encoder.notes:
        console.print(note)
    for record in _questions(path, line, encoder, columns):
        (encoded,) = encoder.encode([record])
        if problem := encoder.source_problem(encoded):
            raise problem
        console.print(f"{record.origin}, id {record.id}", style="bold")
        if isinstance(encoder, PairEncoder):
            _show_pair(encoded, encoder, console)
        elif encoder.kind == CHOOSE:
            _show_choice(encoded, encoder, console)
        else:
            _show_windows(encoded, encoder, console)


def _questions(path: str, line: int, encoder: Encoder, columns: ColumnOptions) -> Iterator[TaskRecord]:
    reader = reader_of(
        encoder.task, columns, pattern_id=encoder.pattern_id, need_label=False, reserved=encoder.family.reserved
    )
    last = 0
    for row in read_rows(path):
        last = row.number
        if last != line:
            continue
        for record in reader.records(row):
            if isinstance(record, BadRecord):
                raise InputError(record.error)
            yield record
        return
    raise InputError(f"line {line}: {path} has no record there; its last one is {last}")


def _show_choice(encoded: EncodedChoice, encoder: ChoiceEncoder, console: Console) -> None:
    ids = [*encoder.lay_out_source(encoded), *encoded.opening]
    console.print(_pieces(ids, encoder))
    console.print(f"{len(ids)} tokens before the candidates, src_length {encoder.src_length}; {encoded.lost} were cut")
    table = Table(title="candidates", show_edge=False)
    for heading in ("", "label", "text", "tokens", "pieces", "ids"):
        table.add_column(heading, overflow="fold")
    record = encoded.record
    for place, (label, word, own) in enumerate(zip(record.labels, record.words, encoded.candidates, strict=True)):
        pieces = " ".join(map(encoder.tokenizer.token_of, own))
        mark = "right" if place in record.right else ""
        table.add_row(mark, label, word.strip(), str(len(own)), pieces, " ".join(map(str, own)))
    console.print(table)
    how = "the logit of its one piece" if encoder.is_single else "the sum of log p of its pieces"
    console.print(f"the score of a candidate is {how}, read behind the text, which is read once")


def _show_pair(encoded: EncodedPair, encoder: PairEncoder, console: Console) -> None:
    for number, (example, place) in enumerate(encoder.rows(encoded)):
        batch = encoder.geometry.collate([[example]], len(example), encoder.tokenizer.pad_token_id)
        console.print(_pieces(batch["input_ids"][0].tolist(), encoder))
        console.print(f"row {number}: {len(example)} tokens; the state at place {place} is classified")
    console.print(f"src_length {encoder.src_length}; {encoded.lost} tokens were cut")


def _show_windows(encoded: EncodedQuestion, encoder: WindowEncoder, console: Console) -> None:
    table = Table(title=f"windows of a passage of {len(encoded.before)} tokens", show_edge=False)
    for heading in ("", "tokens", "answer", "text"):
        table.add_column(heading, overflow="fold")
    for number, window in enumerate(encoded.windows):
        table.add_row(str(number), str(len(window.source_ids)), "in it" if window.has_answer else "", window.text)
    console.print(table)
    console.print("the first window as the model reads it:")
    console.print(_pieces(encoded.windows[0].source_ids, encoder))


def _pieces(ids: list[int], encoder: Encoder) -> str:
    return " ".join(f"{encoder.tokenizer.token_of(number)} {number}" for number in ids)
