"""Writes UniLM's paraphrase format: a line for each source, in input order.

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
ROWS_SUFFIX = ".jsonl"  # ending of the file of rows with scores that a run writes first and resumes from


def paraphrase_line(row: dict[str, Any]) -> str:
    """Formats a row of a predictions file as a line, without line break.

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
    """Converts a predictions file to this format, completely or not at all; a row that failed has no texts.

    Raises:
        InputError: see `paraphrase_line`.
    """
    write_whole(path, "".join(f"{paraphrase_line(row)}\n" for row in rows if "source" in row))
