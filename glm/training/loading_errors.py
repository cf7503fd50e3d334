"""Passes errors of the data loader to the run, as data in place of the batch.

Paddle's loader reads in a thread or in processes of its own. An error in its thread ends that thread alone, and the
run waits for the next batch without end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.errors import InputError, shown

ERROR = "error while reading"  # the only entry of a batch that stands for an error


@dataclass(frozen=True)
class Unreadable:
    """An example that could not be read, with the reason."""

    text: str


class Examples(Sequence[Any]):
    """Examples in which a failure to read one becomes an `Unreadable`.

    Args:
        inner: the examples.
        place_of: where the example of a number is from, for messages.
    """

    def __init__(self, inner: Sequence[Any], place_of: Callable[[int], str]):
        self.inner = inner
        self.place_of = place_of

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.inner[index]
        except Exception as error:
            return Unreadable(f"{self.place_of(index)}: cannot be read ({_reason(error)})")


def guarded(collate: Callable[[Sequence[Any]], dict[str, np.ndarray]]) -> Callable:
    """Wraps a collator: an error in it, or in one of its examples, becomes a batch with the error's text."""

    def collated(items: Sequence[Any]) -> dict[str, np.ndarray]:
        text = next((item.text for item in items if isinstance(item, Unreadable)), None)
        try:
            if text is None:
                return collate(items)
        except Exception as error:
            text = f"a batch cannot be made of its examples ({_reason(error)})"
        return {ERROR: np.frombuffer(text.encode("utf-8", "backslashreplace"), dtype=np.uint8)}

    return collated


def check_batch(batch: dict[str, Any]) -> None:
    """Raises InputError if a batch stands for an error."""
    if ERROR in batch:
        raise InputError(np.asarray(batch[ERROR]).astype(np.uint8).tobytes().decode())


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"
