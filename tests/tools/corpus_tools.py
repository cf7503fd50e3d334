"""Reconstructs the text in which blanks were made, from an example alone."""

from collections.abc import Sequence


def original_text(example, mask_ids: Sequence[int], blocked: int) -> list[int]:
    """Returns the original text from Part A, labels and positions alone; labels undo [dBLOCK]. For a continuation this
    is Part A followed by the labels."""
    spans = {}
    for place, block, label in zip(*example.target_position_ids.tolist(), example.labels.tolist(), strict=True):
        spans.setdefault(place, []).append((block, label))
    text = []
    for place, token in enumerate(example.source_ids.tolist()):
        if token in mask_ids:
            labels = [label for _, label in sorted(spans.pop(place))]
            text += labels
        else:
            text.append(token)
    assert not spans
    return text
