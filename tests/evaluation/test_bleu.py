"""BLEU against values worked by hand, sacrebleu, nltk and PaddleNLP called directly."""

import math
import random

import pytest
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_sentence_bleu
from sacrebleu.metrics import BLEU

from glm.evaluation.bleu import BLEU_COUNTS, bleu_counts, corpus_bleu, sentence_bleu


def random_tokens(generator: random.Random, *, most: int = 14) -> list[str]:
    return generator.choices("甲乙丙丁戊", k=generator.randrange(most))


def summed(texts) -> list[int]:
    """The counts of (prediction, references) pairs."""
    return [sum(column) for column in zip(*(bleu_counts(*text) for text in texts), strict=True)]


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        # lengths, matches of 1- to 4-grams, numbers of 1- to 4-grams
        ("甲乙丙丁戊", ["甲乙丙己戊"], [5, 5, 4, 2, 1, 0, 5, 4, 3, 2]),
        # clipped to what one reference holds: 的 once in the first, twice in the second
        ("的的的", ["的", "的好的"], [3, 3, 2, 0, 0, 0, 3, 2, 1, 0]),
        # 4 is as near to 3 as to 5: the shorter counts
        ("甲乙丙丁", ["甲乙丙丁戊", "甲乙丙"], [4, 3, 4, 3, 2, 1, 4, 3, 2, 1]),
        ("", ["甲乙"], [0, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("甲乙", [""], [2, 0, 0, 0, 0, 0, 2, 1, 0, 0]),
        # tokens of white space are tokens here
        ("甲\n乙", ["甲 乙"], [3, 3, 2, 0, 0, 0, 3, 2, 1, 0]),
    ],
)
def test_counts_by_hand(prediction, references, expected):
    assert bleu_counts(list(prediction), [list(reference) for reference in references]) == expected
    assert len(BLEU_COUNTS) == len(expected)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # n-grams 5/5 4/4 3/3 2/2; 5 against 6: brevity penalty exp(1 - 6/5)
        ([("甲乙丙丁戊", "甲乙丙丁戊己")], [math.exp(-1 / 5)] * 4),
        # too long has no penalty: 5/6 4/5 3/4 2/3
        ([("甲乙丙丁戊己", "甲乙丙丁戊")], [5 / 6, (2 / 3) ** (1 / 2), (1 / 2) ** (1 / 3), (1 / 3) ** (1 / 4)]),
        # 4/5, 2/4, 1/3, and no 4-gram: unsmoothed 0
        ([("甲乙丙丁戊", "甲乙丙己戊")], [4 / 5, (2 / 5) ** (1 / 2), (2 / 15) ** (1 / 3), 0]),
        # corpus, no mean: 4+4 of 4+4, 3+0 of 3+3, 2+0 of 2+2, 1+0 of 1+1
        ([("天地玄黄", "天地玄黄"), ("甲丙乙丁", "甲乙丙丁")], [1, *((1 / 2) ** (k / (k + 1)) for k in (1, 2, 3))]),
        # an empty prediction still lengthens the references: 4 against 8
        ([("天地玄黄", "天地玄黄"), ("", "甲乙丙丁")], [math.exp(-1)] * 4),
        # no 4-gram in the corpus: no BLEU-4
        ([("甲乙丙", "甲乙丙")], [1, 1, 1, 0]),
        ([("甲", "乙")], [0] * 4),
        ([("", "乙")], [0] * 4),
    ],
)
def test_corpus_by_hand(texts, expected):
    counts = summed((list(prediction), [list(reference)]) for prediction, reference in texts)
    found = [corpus_bleu(counts, order) for order in (1, 2, 3, 4)]
    assert found == pytest.approx([100 * value for value in expected], rel=1e-12, abs=1e-300)


def test_corpus_equals_sacrebleu():
    """With several references, not of one number."""
    generator = random.Random(0)
    for _ in range(30):
        texts = [
            (random_tokens(generator), [random_tokens(generator) + ["甲"] for _ in range(generator.randrange(1, 4))])
            for _ in range(12)
        ]
        streams = [[" ".join(refs[k]) if k < len(refs) else None for _, refs in texts] for k in range(3)]
        hypotheses = [" ".join(tokens) for tokens, _ in texts]
        for order in (1, 2, 3, 4):
            bleu = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
            theirs = bleu.corpus_score(hypotheses, streams).score
            assert corpus_bleu(summed(texts), order) == pytest.approx(theirs, rel=1e-12)


def test_sentence_by_hand():
    # 4/5, 2/4, 1/3, then 0/2 smoothed to 1/(2*2)
    counts = bleu_counts(list("甲乙丙丁戊"), [list("甲乙丙己戊")])
    assert sentence_bleu(counts) == pytest.approx((4 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** (1 / 4), rel=1e-12)
    # a perfect text of two tokens: 2/2, 1/1, then no trigram and no 4-gram: 1/2 and 1/4
    assert sentence_bleu(bleu_counts(["甲", "乙"], [["甲", "乙"]])) == pytest.approx((1 / 8) ** (1 / 4), rel=1e-12)


def test_sentence_equals_nltk():
    generator = random.Random(1)
    smoothing = SmoothingFunction().method3
    zeros = 0
    for _ in range(500):
        prediction, reference = random_tokens(generator), random_tokens(generator)
        theirs = nltk_sentence_bleu([reference], prediction, smoothing_function=smoothing)
        assert sentence_bleu(bleu_counts(prediction, [reference])) == pytest.approx(theirs, rel=1e-12)
        zeros += theirs == 0
    assert 0 < zeros < 250


def test_corpus_equals_paddlenlp():
    from paddlenlp.metrics import BLEU as PaddleBLEU

    generator = random.Random(2)
    for _ in range(20):
        texts = [
            (random_tokens(generator), [random_tokens(generator) for _ in range(generator.randrange(1, 3))])
            for _ in range(10)
        ]
        for order in (1, 2, 3, 4):
            theirs = PaddleBLEU(n_size=order)
            for prediction, references in texts:
                theirs.add_inst(prediction, references)
            # It counts a missing order as the smallest float, not as 0.
            assert corpus_bleu(summed(texts), order) == pytest.approx(100 * theirs.score(), rel=1e-12, abs=1e-60)
