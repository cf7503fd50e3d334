"""GanLM's layouts by hand: pairs, prompts, batches, who sees whom, and documents for pretraining."""

import numpy as np
import pytest

from glm.errors import InputError
from glm.models.ganlm.geometry import GanLMGeometry
from glm.models.ganlm.objectives import SpanCorruption, corrupted, documents, noise_tokens
from glm.models.protocol import GeometryOptions

EOS = 2


@pytest.fixture(scope="module")
def geometry(ganlm_tokenizer):
    return GanLMGeometry(ganlm_tokenizer, GeometryOptions("[gMASK]"))


def test_a_pair_by_hand(geometry):
    example = geometry.example(geometry.lay_out([10, 11], [12]), [20, 21], tgt_length=5)
    assert example.source_ids.tolist() == [10, 11, 12, EOS]
    assert example.target_ids.tolist() == [EOS, 20, 21]
    assert example.labels.tolist() == [20, 21, EOS]
    assert (len(example), example.num_labels) == (7, 3)
    cut = geometry.example([10, EOS], [20, 21, 22, 23], tgt_length=3)
    assert cut.target_ids.tolist() == [EOS, 20, 21] and cut.labels.tolist() == [20, 21, 22]
    tokens, labels = geometry.sizes(np.array([4, 2]), np.array([2, 4]), tgt_length=3)
    assert (tokens.tolist(), labels.tolist()) == ([7, 5], [3, 3])


def test_a_batch_by_hand(geometry, ganlm_tokenizer):
    rows = [[geometry.example([10, EOS], [20], tgt_length=9)], [geometry.example([11, 12, EOS], [], tgt_length=9)]]
    batch = geometry.collate(rows, 6, 1)
    assert batch["input_ids"].tolist() == [[10, EOS, EOS, 20, 1, 1], [11, 12, EOS, EOS, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, 20, EOS, -100, -100], [-100, -100, -100, EOS, -100, -100]]
    assert batch["segments"].tolist() == [[[2, 2]], [[3, 1]]]
    assert batch["text_ids"].tolist() == [ganlm_tokenizer.mask_token_id]


def test_who_sees_whom(geometry):
    table = geometry.token_table(geometry.example([10, EOS], [20], tgt_length=9), geometry.prompt([10, EOS]))
    assert table.training.tolist() == [[10, EOS, EOS, 20], [2, 3, 2, 3], [-100, -100, 20, EOS]]
    assert table.prediction.tolist() == [[10, EOS, EOS], [2, 3, 2]]
    assert table.sees.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_an_opening_is_read_and_given(geometry):
    prompt = geometry.prompt([10, EOS], opening=[20, 21])
    assert prompt.opening_ids.tolist() == [EOS, 20, 21] and prompt.given == 2 and len(prompt) == 5


def test_a_corruption_by_hand():
    """The example of the module: b c and e are taken out."""
    source, spans = corrupted([0, *"abcdef", EOS], [], [], [])
    assert source == [0, *"abcdef", EOS] and spans == []
    document = [*range(100, 120)]  # 3 of 20 tokens, in one span
    source, spans = corrupted(document, [], [4], [900])
    assert source == [100, 101, 102, 103, 900, *range(107, 120)]
    assert spans == [900, 104, 105, 106]


def test_sizes_of_documents_are_those_of_what_is_drawn():
    objective, random = SpanCorruption(range(900, 1000)), np.random.default_rng(1)
    lengths = np.array([2, 3, 5, 20, 21, 64, 137, 512])
    tokens, labels = objective.sizes(lengths)
    for length, total, count in zip(lengths.tolist(), tokens.tolist(), labels.tolist(), strict=True):
        for _ in range(20):
            document = [*range(10, 10 + length)]
            example = objective.example(document, random)
            assert (len(example), example.num_labels) == (total, count)
            kept = [token for token in example.source_ids.tolist() if token < 900]
            taken = [token for token in [*example.target_ids[:1], *example.labels.tolist()] if token < 900]
            assert sorted(kept + taken) == document and len(taken) == noise_tokens(length)
            assert kept[-1] == document[-1]
            assert example.target_ids[1:].tolist() == example.labels[:-1].tolist()


def test_the_same_generator_corrupts_the_same():
    objective, document = SpanCorruption(range(900, 1000)), [*range(100)]
    twins = [objective.example(document, np.random.default_rng([7, 3])).source_ids.tolist() for _ in range(2)]
    assert twins[0] == twins[1] != objective.example(document, np.random.default_rng([7, 4])).source_ids.tolist()


def test_more_spans_than_sentinels_are_refused():
    objective, random = SpanCorruption(range(900, 1000)), np.random.default_rng(1)
    objective.example([*range(2019)], random)
    with pytest.raises(InputError, match="2020 tokens: needs 101 sentinels, and there are 100"):
        objective.example([*range(2020)], random)
    with pytest.raises(InputError, match="at least 2"):
        objective.example([5], random)


def test_documents_are_packed():
    lines = [[10] * 3, [], [11] * 2, [12] * 9, [13]]
    assert list(documents(lines, most=9)) == [[0, 10, 10, 10, EOS, 11, 11, EOS], [0, 13, EOS]]
    assert list(documents(lines, most=12)) == [
        [0, 10, 10, 10, EOS, 11, 11, EOS],
        [0, *[12] * 9, EOS],
        [0, 13, EOS],
    ]
    assert list(documents(lines, most=12, ends_at_blank=True))[:2] == [[0, 10, 10, 10, EOS], [0, 11, 11, EOS]]
