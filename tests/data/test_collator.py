"""Batches against the examples that tests/reference builds item by item, one row to an example and packed."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from glm.data.collator import Collator, pack, padded_width
from glm.models.glm.geometry import BlankInfilling, Example, GLMGeometry
from glm.models.protocol import GeometryOptions
from reference.geometry import build_example

MASKS, SOP, EOP, PAD = (91, 92, 93), 81, 82, 0
SOURCES = [[1, 10, 11, 93, 0], [1, 93, 0], [1, 20, 91, 21, 22, 92, 23, 24, 0], [1, 30, 93, 31, 0, 0]]
SPANS = [[[50, 51]], [[60, 61, 62, 63, 64, 65, 66]], [[70, 71], [72]], [[]]]
LENGTHS = [5 + 3, 3 + 8, 9 + 5, 6 + 1]


def examples_of(rows, *, tgt_length: int = 100, block_position: bool = True) -> list[Example]:
    geometry = BlankInfilling(MASKS, SOP, EOP, block_position)
    return [geometry.example(SOURCES[row], SPANS[row], tgt_length=tgt_length) for row in rows]


def batch_of(rows, *, multiple: int = 1, row_tokens: int | None = None, **options) -> dict[str, np.ndarray]:
    commands = SimpleNamespace(
        special_ids={"[gMASK]": MASKS[2]}, mask_token_ids=MASKS, sop_token_id=SOP, eop_token_id=EOP
    )
    geometry = GLMGeometry(commands, GeometryOptions("[gMASK]", options.get("block_position", True)))
    collator = Collator(geometry, pad_token_id=PAD, multiple=multiple, row_tokens=row_tokens)
    return collator(examples_of(rows, **options))


def expected_parts(row: int, *, tgt_length: int, block_position: bool) -> dict:
    """The reference's example, without padding."""
    T = min(tgt_length, sum(len(span) + 1 for span in SPANS[row]))
    return build_example(
        SOURCES[row],
        SPANS[row],
        mask_ids=set(MASKS),
        sop=SOP,
        eop=EOP,
        pad=PAD,
        src_length=len(SOURCES[row]),
        tgt_length=T,
        block_position=block_position,
    )


@pytest.mark.parametrize("row_tokens", [None, 14, 22, 40])
@pytest.mark.parametrize("block_position", [True, False])
@pytest.mark.parametrize("tgt_length", [100, 4, 1])
def test_batch_holds_the_examples_of_the_reference(tgt_length, block_position, row_tokens):
    """Each once, found through `segments`; behind them padding without labels."""
    batch = batch_of(range(4), tgt_length=tgt_length, block_position=block_position, row_tokens=row_tokens)
    found = []
    for ids, positions, labels, segments in zip(*(batch[name] for name in NAMES), strict=True):
        start = 0
        for S, T in segments.tolist():
            part = slice(start, start + S + T)
            found += [(ids[part].tolist(), positions[:, part].tolist(), labels[part].tolist(), S)] if S else []
            start = part.stop
        assert (ids[start:] == PAD).all() and (labels[start:] == -100).all()
    expected = []
    for row in range(4):
        parts = expected_parts(row, tgt_length=tgt_length, block_position=block_position)
        expected.append((parts["input_ids"], parts["position_ids"], parts["labels"], len(SOURCES[row])))
    assert sorted(found) == sorted(expected)
    if row_tokens is None:
        assert found == expected and batch["segments"].shape == (4, 1, 2)


NAMES = ("input_ids", "position_ids", "labels", "segments")


def test_two_rows_by_hand():
    batch = batch_of([0, 1], tgt_length=4)
    assert batch["input_ids"].tolist() == [[1, 10, 11, 93, 0, SOP, 50, 51], [1, 93, 0, SOP, 60, 61, 62, PAD]]
    assert batch["labels"].tolist() == [
        [-100] * 5 + [50, 51, EOP],
        [-100] * 3 + [60, 61, 62, 63, -100],  # no eop: the span is cut
    ]
    assert batch["position_ids"].tolist() == [
        [[0, 1, 2, 3, 4, 3, 3, 3], [0, 0, 0, 0, 0, 1, 2, 3]],
        [[0, 1, 2, 1, 1, 1, 1, 0], [0, 0, 0, 1, 2, 3, 4, 0]],
    ]
    assert batch["segments"].tolist() == [[[5, 3]], [[3, 4]]]


def test_a_packed_row_by_hand():
    batch = batch_of([1, 0], tgt_length=4, row_tokens=16, multiple=8)
    assert batch["input_ids"].tolist() == [[1, 10, 11, 93, 0, SOP, 50, 51, 1, 93, 0, SOP, 60, 61, 62, PAD]]
    assert batch["position_ids"].tolist() == [
        [[0, 1, 2, 3, 4, 3, 3, 3, 0, 1, 2, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 2, 3, 4, 0]]
    ]
    assert batch["labels"].tolist() == [[-100] * 5 + [50, 51, EOP] + [-100] * 3 + [60, 61, 62, 63, -100]]
    assert batch["segments"].tolist() == [[[5, 3], [3, 4]]]


def test_rows_with_fewer_examples_have_unused_segments():
    batch = batch_of([0, 1, 2], row_tokens=19)
    assert batch["segments"].tolist() == [[[9, 5], [0, 0]], [[3, 8], [5, 3]]]


def test_types():
    for row_tokens in (None, 100):
        assert {table.dtype for table in batch_of([0, 1], row_tokens=row_tokens).values()} == {np.dtype(np.int64)}


def test_padding_follows_the_batch_and_no_further():
    assert batch_of([0])["input_ids"].shape == (1, 8)
    assert batch_of([0, 3])["input_ids"].shape == (2, 8)
    assert batch_of([1, 2])["input_ids"].shape == (2, 14)


@pytest.mark.parametrize(("tokens", "multiple", "width"), [(7, 1, 7), (7, 8, 8), (8, 8, 8), (9, 8, 16), (65, 64, 128)])
def test_widths_are_multiples(tokens, multiple, width):
    assert padded_width(tokens, multiple) == width


def test_every_table_has_the_padded_width():
    batch = batch_of([1, 2], multiple=16)
    assert [batch[name].shape for name in NAMES] == [(2, 16), (2, 2, 16), (2, 16), (2, 1, 2)]


# -- packing


@pytest.mark.parametrize("seed", range(20))
def test_packed_rows_hold_everything_within_their_size(seed):
    random = np.random.default_rng(seed)
    rows = random.integers(0, 4, random.integers(1, 30)).tolist()
    row_tokens = int(random.integers(14, 60))
    examples = examples_of(rows)
    packed = pack(examples, row_tokens)
    assert sorted(id(example) for row in packed for example in row) == sorted(map(id, examples))
    filled = [sum(map(len, row)) for row in packed]
    assert min(filled) > 0 and max(filled) <= row_tokens
    if len(packed) > 1:  # never far from the fewest rows there can be: two of them together overflow one
        assert sum(sorted(filled)[:2]) > row_tokens or len(packed) == -(-sum(filled) // row_tokens)


def test_rows_are_filled_evenly():
    filled = [sum(map(len, row)) for row in pack(examples_of([0] * 8), 48)]
    assert filled == [32, 32]  # not 48 and 16


def test_an_example_longer_than_a_row_has_one_to_itself():
    assert [list(map(len, row)) for row in pack(examples_of([2, 0]), 10)] == [[14], [8]]


def test_no_fewer_rows_are_possible():
    """All ways to put four examples into rows, tried out."""
    for row_tokens in range(14, 41):
        ways = (
            max(number) + 1
            for number in itertools.product(range(4), repeat=4)
            if all(sum(LENGTHS[i] for i in range(4) if number[i] == row) <= row_tokens for row in range(4))
        )
        assert len(pack(examples_of(range(4)), row_tokens)) == min(ways), row_tokens
