"""Measures the perplexity of documents in windows, which are laid out as in training."""

from typing import Any

from tqdm import tqdm

from glm.data.collator import Collator
from glm.errors import InputError
from glm.evaluation.language_model import Perplexity, Window, windows_of
from glm.models.protocol import IGNORE_INDEX, Example, Geometry, Tokenizer
from glm.modules.tensors import loss_of


def measure(
    model: Any,
    geometry: Geometry,
    tokenizer: Tokenizer,
    texts: list[str],
    *,
    blank: str,
    length: int,
    step: int,
    unidirectional: bool,
    batch_size: int,
) -> dict[str, float]:
    """Measures documents, see `glm.evaluation.language_model`.

    Args:
        blank: stands where the scored ids belong.
        length, step: ids of a window, and by how many the next one starts later.

    Raises:
        InputError: no document has two ids.
    """
    total, windows = Perplexity(), []
    for text, ids in zip(texts, tokenizer.encode_text(texts), strict=True):
        found = windows_of(ids, length=length, step=step, unidirectional=unidirectional)
        total.add_document(text, ids, tokenizer.decode_ids(ids[:1]), len(found))
        windows += found
    windows.sort(key=lambda window: len(window.source) + len(window.opening) + len(window.scored))
    collate = Collator(geometry, pad_token_id=tokenizer.pad_token_id)
    with tqdm(total=len(windows), desc="scoring", unit="window", disable=None) as bar:
        for start in range(0, len(windows), batch_size):
            part = windows[start : start + batch_size]
            batch = collate([_example(geometry, window, blank) for window in part])
            for labels, window in zip(batch["labels"], part, strict=True):
                places = (labels != IGNORE_INDEX).nonzero()[0]
                labels[places[: len(window.opening)]] = IGNORE_INDEX
            count = sum(len(window.scored) for window in part)
            total.loss += count * loss_of(model, batch)
            bar.update(len(part))
    try:
        return total.figures()
    except ValueError as error:
        raise InputError(str(error)) from error


def _example(geometry: Geometry, window: Window, blank: str) -> Example:
    """Lays out a window as training does."""
    source = geometry.lay_out_blanks([window.source, blank] if window.source else [blank])
    span = [*window.opening, *window.scored]
    return geometry.example(source, span, tgt_length=len(span))
