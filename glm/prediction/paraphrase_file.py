"""The file of paraphrases that UniLM's decoding writes: a line for each source, in input order.

    source U+0001 first || second || third

(without the blanks), in UTF-8. A text that holds what separates texts is refused: nobody could read the line.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glm.data.formats import FIELD_SEPARATOR
from glm.errors import InputError
from glm.runtime.atomic import write_whole

BETWEEN = "||"
ROWS_SUFFIX = ".jsonl"  # of the rows with scores, which a run writes first and goes on from


def paraphrase_line(row: dict[str, Any]) -> str:
    """The line of a row of a predictions file, without its end.

    Raises:
        InputError: a text holds a separator.
    """
    texts = [prediction["text"] for prediction in row["predictions"]]
    for text in (row["source"], *texts):
        held = [name for name, mark in (("U+0001", FIELD_SEPARATOR), ("a line break", "\n")) if mark in text]
        held += [BETWEEN] if text is not row["source"] and BETWEEN in text else []
        if held:
            raise InputError(
                f"record {row['id']}: {text!r:.80} holds {' and '.join(held)}, which separates texts in this format; "
                "use --output_format json"
            )
    return row["source"] + FIELD_SEPARATOR + BETWEEN.join(texts)


def write_paraphrases(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a predictions file's rows as such a file, all of it or nothing; a row that failed has no texts.

    Raises:
        InputError: see `paraphrase_line`.
    """
    write_whole(path, "".join(f"{paraphrase_line(row)}\n" for row in rows if "source" in row))
