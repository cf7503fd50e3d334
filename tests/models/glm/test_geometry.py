"""The geometry against examples written out by hand and against the slow reference."""

import numpy as np
import pytest

from glm.models.glm.geometry import BlankInfilling, attention_mask, prefix_mask
from glm.models.protocol import pad_rows
from reference.geometry import build_example

CLS, MASK, GMASK, EOS, SOP, EOP, PAD = 100, 101, 102, 103, 104, 105, 106
GEOMETRY = BlankInfilling(mask_token_ids=(MASK, GMASK), sop_token_id=SOP, eop_token_id=EOP)
FLAT = BlankInfilling(mask_token_ids=(MASK, GMASK), sop_token_id=SOP, eop_token_id=EOP, block_position=False)


def test_worked_example_of_the_fact_sheet():
    # section 10: a b c are 1 2 3, t1 t2 are 11 12
    example = GEOMETRY.example([CLS, 1, 2, 3, MASK, EOS], [[11, 12]], tgt_length=4)
    assert example.source_ids.tolist() == [CLS, 1, 2, 3, MASK, EOS]
    assert example.target_ids.tolist() == [SOP, 11, 12]
    assert example.labels.tolist() == [11, 12, EOP]
    assert example.target_position_ids.tolist() == [[4, 4, 4], [1, 2, 3]]
    assert GEOMETRY.source_positions(8).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [0] * 8]
    part_a = [1, 1, 1, 1, 1, 1, 0, 0]
    assert attention_mask([6], 8, 4).astype(int)[0, 0].tolist() == [part_a + [0, 0, 0, 0]] * 8 + [
        part_a + [1, 0, 0, 0],
        part_a + [1, 1, 0, 0],
        part_a + [1, 1, 1, 0],
        part_a + [1, 1, 1, 1],
    ]


def test_figure_2_of_the_paper():
    # x1 .. x6, [x3] and [x5 x6] are blanks, here filled from left to right; the paper counts positions from 1
    example = GEOMETRY.example([1, MASK, 4, GMASK], [[13], [15, 16]], tgt_length=9)
    assert example.target_ids.tolist() == [SOP, 13, SOP, 15, 16]
    assert example.labels.tolist() == [13, EOP, 15, 16, EOP]
    assert example.target_position_ids.tolist() == [[1, 1, 3, 3, 3], [1, 2, 1, 2, 3]]


@pytest.mark.parametrize(
    "tgt_length, inputs, labels",
    [(3, [SOP, 11, 12], [11, 12, EOP]), (2, [SOP, 11], [11, 12]), (1, [SOP], [11])],
)
def test_cut_target_loses_its_eop(tgt_length, inputs, labels):
    example = GEOMETRY.example([CLS, MASK], [[11, 12]], tgt_length=tgt_length)
    assert example.target_ids.tolist() == inputs and example.labels.tolist() == labels
    assert example.target_position_ids.tolist() == [[1] * tgt_length, list(range(1, tgt_length + 1))]


def test_without_block_positions_all_of_part_b_is_1():
    example = FLAT.example([1, MASK, 4, GMASK], [[13], [15, 16]], tgt_length=9)
    assert example.target_position_ids.tolist() == [[1, 1, 3, 3, 3], [1, 1, 1, 1, 1]]
    assert FLAT.span_positions(7, 5, 2).tolist() == [[7, 7], [1, 1]]


def test_span_positions_go_on_where_they_stopped():
    whole = GEOMETRY.span_positions(4, 0, 6)
    assert whole.tolist() == [[4] * 6, [1, 2, 3, 4, 5, 6]]
    parts = [GEOMETRY.span_positions(4, 0, 1), GEOMETRY.span_positions(4, 1, 3), GEOMETRY.span_positions(4, 4, 2)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("source, spans", [([CLS, 1], []), ([CLS, MASK], []), ([CLS, MASK], [[1], [2]]), ([1], [[2]])])
def test_each_blank_has_one_span(source, spans):
    with pytest.raises(ValueError, match=f"{len(spans)} spans for {source.count(MASK)} blanks"):
        GEOMETRY.example(source, spans, tgt_length=4)


@pytest.mark.parametrize("block_position", [True, False])
def test_random_examples_equal_the_reference(block_position):
    generator = np.random.default_rng(1)
    geometry = GEOMETRY if block_position else FLAT
    S, T = 12, 14
    lengths = []
    for _ in range(40):
        length = int(generator.integers(2, S + 1))
        source = generator.integers(90, size=length)
        blanks = generator.choice(length, size=int(generator.integers(1, min(4, length) + 1)), replace=False)
        source[blanks] = generator.choice([MASK, GMASK], size=len(blanks))
        spans = [generator.integers(90, size=generator.integers(0, 6)).tolist() for _ in blanks]
        lengths.append(length)
        want = build_example(
            source.tolist(),
            spans,
            mask_ids={MASK, GMASK},
            sop=SOP,
            eop=EOP,
            pad=PAD,
            src_length=S,
            tgt_length=T,
            block_position=block_position,
        )
        got = geometry.example(source.tolist(), spans, tgt_length=T)
        n = len(got.target_ids)
        assert want["is_pad"] == [False] * length + [True] * (S - length) + [False] * n + [True] * (T - n)
        assert got.source_ids.tolist() == want["input_ids"][:length]
        assert got.target_ids.tolist() == want["input_ids"][S : S + n]
        assert got.labels.tolist() == want["labels"][S : S + n]
        assert got.target_position_ids.tolist() == [row[S : S + n] for row in want["position_ids"]]
        assert geometry.source_positions(S).tolist() == [row[:S] for row in want["position_ids"]]
        assert np.array_equal(attention_mask([length], S, T)[0, 0], want["attention_mask"])
    batch = attention_mask(lengths, S, T)  # a batch is its examples, one by one
    assert batch.shape == (40, 1, S + T, S + T) and batch.dtype == bool
    for row, length in zip(batch, lengths, strict=True):
        assert np.array_equal(row[0], attention_mask([length], S, T)[0, 0])


def test_prompt_by_hand():
    prompt = GEOMETRY.prompt([CLS, 1, MASK, EOS], opening=[7, 8])
    assert prompt.input_ids.tolist() == [CLS, 1, MASK, EOS, SOP, 7, 8] and len(prompt) == 7
    assert prompt.position_ids.tolist() == [[0, 1, 2, 3, 2, 2, 2], [0, 0, 0, 0, 1, 2, 3]]
    assert (prompt.place, prompt.given) == (2, 2)
    assert prompt.step_position_ids(0).tolist() == [[2], [4]]  # the first generated token, behind 7 and 8
    assert prompt.step_position_ids(5).tolist() == [[2], [9]]
    assert prompt.input_ids.dtype == prompt.position_ids.dtype == prompt.step_position_ids(0).dtype == np.int64
    flat = FLAT.prompt([CLS, 1, MASK, EOS], opening=[7, 8])
    assert flat.position_ids[1].tolist() == [0, 0, 0, 0, 1, 1, 1] and flat.step_position_ids(5).tolist() == [[2], [1]]


def test_prompt_without_opening_is_the_source_and_sop():
    prompt = GEOMETRY.prompt([MASK, 5])
    assert prompt.source_ids.tolist() == [MASK, 5] and prompt.opening_ids.tolist() == [SOP]
    assert prompt.opening_position_ids.tolist() == [[0], [1]] and prompt.given == 0
    assert prompt.step_position_ids(0).tolist() == [[0], [2]]


def test_prompt_of_the_second_blank_by_hand():
    prompt = GEOMETRY.prompt([CLS, MASK, 1, GMASK, MASK], filled=[[11, 12]], opening=[13])
    assert prompt.opening_ids.tolist() == [SOP, 11, 12, SOP, 13]
    assert prompt.opening_position_ids.tolist() == [[1, 1, 1, 3, 3], [1, 2, 3, 1, 2]]
    assert (prompt.place, prompt.given) == (3, 1)
    assert prompt.step_position_ids(0).tolist() == [[3], [3]]
    third = GEOMETRY.prompt([CLS, MASK, 1, GMASK, MASK], filled=[[], [14]])
    assert third.opening_ids.tolist() == [SOP, SOP, 14, SOP] and third.place == 4
    assert third.opening_position_ids.tolist() == [[1, 3, 3, 4], [1, 1, 2, 1]]


@pytest.mark.parametrize("source, filled", [([CLS, 1], 0), ([CLS, MASK], 1), ([MASK, GMASK], 2), ([MASK, 1], 4)])
def test_prompt_needs_a_blank_that_is_not_filled(source, filled):
    blanks = len(GEOMETRY.blank_places(source))
    with pytest.raises(ValueError, match=f"{filled} blanks are filled and the source has {blanks}"):
        GEOMETRY.prompt(source, filled=[[5]] * filled)


@pytest.mark.parametrize("block_position", [True, False])
def test_random_prompts_equal_the_reference(block_position):
    """A prompt and every generated token stand where the reference puts them in the example of the whole text."""
    generator = np.random.default_rng(2)
    geometry = GEOMETRY if block_position else FLAT
    for _ in range(60):
        S = int(generator.integers(4, 13))
        source = generator.integers(90, size=S)
        blanks = generator.choice(S, size=int(generator.integers(1, 5)), replace=False)
        source[blanks] = generator.choice([MASK, GMASK], size=len(blanks))
        spans = [generator.integers(90, size=generator.integers(0, 7)).tolist() for _ in blanks]
        number = int(generator.integers(len(blanks)))  # the blank to fill
        given = int(generator.integers(len(spans[number]) + 1))
        n = sum(len(span) + 1 for span in spans[: number + 1])
        want = build_example(
            source.tolist(),
            spans,
            mask_ids={MASK, GMASK},
            sop=SOP,
            eop=EOP,
            pad=PAD,
            src_length=S,
            tgt_length=n,
            block_position=block_position,
        )
        prompt = geometry.prompt(source.tolist(), filled=spans[:number], opening=spans[number][:given])
        L = len(prompt)
        rest = len(spans[number]) - given
        assert L == S + n - rest
        assert prompt.input_ids.tolist() == want["input_ids"][:L]
        assert prompt.position_ids.tolist() == [row[:L] for row in want["position_ids"]]
        for step in range(rest):
            assert prompt.step_position_ids(step)[:, 0].tolist() == [row[L + step] for row in want["position_ids"]]
        assert np.array_equal(prefix_mask([S], S + n)[0], want["attention_mask"])


def test_prefix_mask_by_hand():
    masks = prefix_mask([2, 3], 5).astype(int)
    assert masks.tolist() == [
        [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
    ]


def test_pad_rows():
    table = pad_rows([[5, 6, 7], [], [8]], 4, -1)
    assert table.tolist() == [[5, 6, 7, -1], [-1, -1, -1, -1], [8, -1, -1, -1]]
    assert table.dtype == np.int64
    with pytest.raises(ValueError):
        pad_rows([[1, 2, 3]], 2, 0)
