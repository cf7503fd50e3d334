"""The mixture of pretraining: shares, cuts and chosen tokens by count, over draws of one passage."""

import numpy as np
import pytest

from glm.errors import InputError
from glm.models.unilm.geometry import BIDIRECTIONAL, RIGHT_TO_LEFT, SEQ2SEQ
from glm.models.unilm.objectives import SHARES, Mixture
from glm.models.unilm.tokenization import WordPieceTokenizer
from tools.unilm_tools import in_text_order, write_vocabulary

TEXT = "的一是不了，人我在有他。这中大来上！国和说们为，的一是。不了人我在？有他这中。"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPieceTokenizer:
    words = "的一是不了人我在有他这中大来上国和说们为。？！，"
    return WordPieceTokenizer(write_vocabulary(tmp_path_factory.mktemp("unilm") / "vocab.txt", words))


def flat(passage) -> list[int]:
    return [number for piece in passage for number in piece]


def clean(example) -> list[int]:
    """The ids that stood in a row before tokens were chosen, in the order of the text."""
    return in_text_order(example, np.where(example.labels == -100, example.input_ids, example.labels)).tolist()


def test_pieces_fill_passages(tokenizer):
    mixture = Mixture(tokenizer, seq_length=12)
    passages = list(mixture.passages(TEXT))
    assert [number for passage in passages for number in flat(passage)] == tokenizer.encode_text(TEXT)
    assert all(len(passage) > 1 for passage in passages)
    assert all(len(flat(passage)) >= 12 > len(flat(passage[:-1])) for passage in passages[:-1])


@pytest.mark.parametrize("document", ["", "的", "的一是不了。", "。。。", "，"])
def test_one_piece_is_no_pair(tokenizer, document):
    assert list(Mixture(tokenizer).passages(document)) == []


def test_a_piece_of_one_character_is_dropped(tokenizer):
    (passage,) = Mixture(tokenizer).passages("的一。。是不，")
    assert flat(passage) == tokenizer.encode_text("的一。是不，")


def test_draws(tokenizer):
    """Of one passage, 4,000 draws: tasks, order, cuts, chosen tokens; the passage is as it was."""
    mixture = Mixture(tokenizer, seq_length=30)
    (passage, *_) = mixture.passages(TEXT)
    before = [list(piece) for piece in passage]
    random, draws = np.random.default_rng(4), 4000
    examples = [mixture.example(passage, random) for _ in range(draws)]
    assert passage == before
    tokens, cls, sep = flat(passage), tokenizer.cls_token_id, tokenizer.sep_token_id
    for task, share in SHARES.items():
        count = sum(example.task == task for example in examples)
        assert abs(count / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)
    swapped = [example.order == 0 for example in examples if example.task == BIDIRECTIONAL]
    assert abs(np.mean(swapped) - 0.5) <= 4 * 0.5 / np.sqrt(len(swapped))
    last, total = 0, 0
    for example in examples:
        ids = clean(example)
        assert ids[0] == cls and ids[-1] == sep and len(ids) <= 30
        labels = in_text_order(example, example.labels)
        chosen = np.flatnonzero(labels != -100)
        inner = ids.index(sep) if example.task in (BIDIRECTIONAL, SEQ2SEQ) else None
        assert 0 not in chosen and inner not in chosen
        parts = [ids[1:inner], ids[inner + 1 : -1]] if inner else [ids[1:-1]]
        counted = len(parts[1]) if example.task == SEQ2SEQ else sum(map(len, parts))
        assert len(chosen) == min(48, max(1, round(counted * 0.15)))
        if example.task == SEQ2SEQ:
            assert chosen.min() > inner
        if inner:
            text = ",".join(map(str, tokens))
            assert all(",".join(map(str, part)) in text for part in parts)
        last += len(ids) - 1 in chosen
        total += 1
    assert 0.05 < last / total < 0.3
    assert {example.order for example in examples if example.task != BIDIRECTIONAL} == {-100}
    assert {example.order for example in examples if example.task == BIDIRECTIONAL} == {0, 1}


def test_a_row_from_right_to_left_has_its_own_positions(tokenizer):
    mixture = Mixture(tokenizer, seq_length=30)
    (passage, *_) = mixture.passages(TEXT)
    random = np.random.default_rng(0)
    example = next(e for e in (mixture.example(passage, random) for _ in range(100)) if e.task == RIGHT_TO_LEFT)
    assert example.position_ids.tolist() == list(range(len(example)))[::-1]
    assert set(example.segment_ids.tolist()) == {3} and example.parts == (0, len(example), 0)


def test_the_same_random_draws_the_same(tokenizer):
    mixture = Mixture(tokenizer, seq_length=20)
    (passage, *_) = mixture.passages(TEXT)
    one, two = (mixture.example(passage, np.random.default_rng([1, 2, 3])) for _ in range(2))
    assert (one.input_ids == two.input_ids).all() and (one.labels == two.labels).all()


@pytest.mark.parametrize(
    ("name", "value"), [("seq_length", 7), ("mask_prob", 0.0), ("mask_prob", 1.1), ("max_pred", 0)]
)
def test_options_out_of_range(tokenizer, name, value):
    with pytest.raises(InputError, match=f"{name} {value}"):
        Mixture(tokenizer, **{name: value})
