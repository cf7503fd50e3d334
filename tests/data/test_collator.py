"""Batches against the examples that tests/reference builds item by item."""

import numpy as np
import pytest

from glm.blank_infilling import BlankInfilling
from glm.data.collator import Collator
from reference.geometry import build_example

MASKS, SOP, EOP, PAD = (91, 92, 93), 81, 82, 0
SOURCES = [[1, 10, 11, 93, 0], [1, 93, 0], [1, 20, 91, 21, 22, 92, 23, 24, 0], [1, 30, 93, 31, 0, 0]]
SPANS = [[[50, 51]], [[60, 61, 62, 63, 64, 65, 66]], [[70, 71], [72]], [[]]]
S = 9  # the longest source


def batch_of(rows, *, tgt_length: int = 100, block_position: bool = True) -> dict[str, np.ndarray]:
    geometry = BlankInfilling(MASKS, SOP, EOP, block_position)
    collator = Collator(geometry, pad_token_id=PAD)
    return collator([geometry.example(SOURCES[row], SPANS[row], tgt_length=tgt_length) for row in rows])


@pytest.mark.parametrize("block_position", [True, False])
@pytest.mark.parametrize(("tgt_length", "T"), [(100, 8), (4, 4), (1, 1)])
def test_batch_equals_the_reference(block_position, tgt_length, T):
    batch = batch_of(range(4), tgt_length=tgt_length, block_position=block_position)
    assert {name: table.shape for name, table in batch.items()} == {
        "input_ids": (4, S + T),
        "position_ids": (4, 2, S + T),
        "attention_mask": (4, 1, S + T, S + T),
        "labels": (4, S + T),
    }
    for row, (source, spans) in enumerate(zip(SOURCES, SPANS, strict=True)):
        expected = build_example(
            source,
            spans,
            mask_ids=set(MASKS),
            sop=SOP,
            eop=EOP,
            pad=PAD,
            src_length=S,
            tgt_length=T,
            block_position=block_position,
        )
        assert batch["input_ids"][row].tolist() == expected["input_ids"]
        assert batch["position_ids"][row].tolist() == expected["position_ids"]
        assert batch["labels"][row].tolist() == expected["labels"]
        real = ~np.array(expected["is_pad"])
        mask = np.array(expected["attention_mask"])
        assert (batch["attention_mask"][row, 0][real] == mask[real]).all()
        assert batch["attention_mask"][row, 0].any(axis=-1).all()  # no softmax over nothing


def test_two_rows_by_hand():
    batch = batch_of([0, 1], tgt_length=4)
    assert batch["input_ids"].tolist() == [
        [1, 10, 11, 93, 0, SOP, 50, 51, PAD],
        [1, 93, 0, PAD, PAD, SOP, 60, 61, 62],
    ]
    assert batch["labels"].tolist() == [
        [-100] * 5 + [50, 51, EOP, -100],
        [-100] * 5 + [60, 61, 62, 63],  # no eop: the span is cut
    ]
    assert batch["position_ids"].tolist() == [
        [[0, 1, 2, 3, 4, 3, 3, 3, 3], [0, 0, 0, 0, 0, 1, 2, 3, 4]],
        [[0, 1, 2, 3, 4, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 2, 3, 4]],
    ]
    assert batch["attention_mask"][1, 0].astype(int).tolist() == [
        *[[1, 1, 1, 0, 0, 0, 0, 0, 0]] * 5,
        [1, 1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1, 1, 1, 1],
    ]


def test_types():
    batch = batch_of([0, 1])
    assert {name: table.dtype for name, table in batch.items()} == {
        "input_ids": np.int64,
        "position_ids": np.int64,
        "attention_mask": np.bool_,
        "labels": np.int64,
    }


def test_padding_follows_the_batch_and_no_further():
    assert batch_of([0])["input_ids"].shape == (1, 5 + 3)
    assert batch_of([0, 3])["input_ids"].shape == (2, 6 + 3)
    assert batch_of([1, 2])["input_ids"].shape == (2, 9 + 8)
