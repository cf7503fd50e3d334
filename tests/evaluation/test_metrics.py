"""Metrics against values worked by hand, against the libraries called directly and against published scores."""

import gc
import json
import math
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from rouge import Rouge
from sacrebleu.metrics import BLEU

from glm.evaluation.metrics import Scorer, score
from glm.evaluation.segmentation import SEGMENTERS

# Texts that trip scorers, each in the place of a prediction and of a reference.
TRICKY = [
    "iPhone 15 Pro多少钱?",
    "ｉＰｈｏｎｅ１５多少钱？",
    "长3.5厘米.宽2.0厘米",
    "？！……。",
    "今天😀真好👨\u200d👩\u200d👧",
    "Hello, world. 你好.",
    "水",
    ". . 水",
    "北京大学\u3000在\n哪里 ",
]


def rouge_directly(prediction: str, reference: str, *, segmenter: str) -> list[float]:
    """F of ROUGE-1/2/L in percent by the package's public call, which raises where it cannot score."""
    segment = SEGMENTERS[segmenter]
    (figures,) = Rouge().get_scores(" ".join(segment(prediction)), " ".join(segment(reference)))
    return [100 * figures[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]


def rouge_of(figures: dict[str, float], *, segmenter: str) -> list[float]:
    return [figures[f"{name} ({segmenter})"] for name in ("rouge-1", "rouge-2", "rouge-l")]


def random_text(generator: random.Random, *, alphabet: str = "甲乙丙丁戊a1 .😀") -> str:
    return "水" + "".join(generator.choices(alphabet, k=generator.randrange(40)))


def test_keys_and_order():
    assert list(score(["北京"], ["北京"])) == [
        "bleu-4 (char)",
        "rouge-1 (char)",
        "rouge-2 (char)",
        "rouge-l (char)",
        "bleu-4 (jieba)",
        "rouge-1 (jieba)",
        "rouge-2 (jieba)",
        "rouge-l (jieba)",
        "generated length",
        "empty predictions",
    ]


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        # n-grams 5/5 4/4 3/3 2/2; 5 characters against 6: brevity penalty exp(1 - 6/5)
        (["甲乙丙丁戊"], ["甲乙丙丁戊己"], math.exp(-1 / 5)),
        # too long has no penalty: 5/6 4/5 3/4 2/3, product 1/3
        (["甲乙丙丁戊己"], ["甲乙丙丁戊"], (1 / 3) ** (1 / 4)),
        # 4/5 (no 丁), 2/4 (甲乙 乙丙), 1/3 (甲乙丙), 0/2 smoothed to 1/(2*2)
        (["甲乙丙丁戊"], ["甲乙丙己戊"], (4 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** (1 / 4)),
        # counts are clipped: 1/4, then 0/3 0/2 0/1 smoothed to 1/(2*3) 1/(4*2) 1/(8*1)
        (["的的的的"], ["的"], (1 / 4 * 1 / 6 * 1 / 8 * 1 / 8) ** (1 / 4)),
        # corpus, not a mean of sentences: 4+4 of 4+4, 3+0 of 3+3, 2+0 of 2+2, 1+0 of 1+1
        (["天地玄黄", "甲乙丙丁"], ["天地玄黄", "甲丙乙丁"], (8 / 8 * 3 / 6 * 2 / 4 * 1 / 2) ** (1 / 4)),
        # an empty prediction still lengthens the reference: 4 against 4 + 4, penalty exp(1 - 8/4)
        (["天地玄黄", ""], ["天地玄黄", "甲乙丙丁"], math.exp(-1)),
        # white space is no token: 天 地 玄 黄 against 天地玄黄
        (["天 地\u3000玄\n黄"], ["天地玄黄"], 1.0),
        # full width is another character: 3/4 2/3 1/2, 0/1 smoothed to 1/2
        (["甲乙丙Ａ"], ["甲乙丙A"], (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
        # case counts: 2/4 (甲 乙), 1/3, then 0/2 0/1 smoothed to 1/(2*2) 1/(4*1)
        (["甲乙AB"], ["甲乙ab"], (2 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4)),
        # fewer than 4 tokens in the whole corpus: no 4-gram, no score
        (["甲乙丙"], ["甲乙丙"], 0.0),
        (["甲"], ["乙"], 0.0),
    ],
)
def test_bleu_char_by_hand(predictions, references, expected):
    assert score(predictions, references)["bleu-4 (char)"] == pytest.approx(100 * expected, rel=1e-12)


def test_bleu_jieba_by_hand():
    # 我 来到 北京 清华大学 , 我 喜欢 against 我 来到 北京 清华大学 ， 我 喜欢 (the comma differs):
    # 6/7; bigrams 4/6 (two touch the comma); trigrams 2/5; 4-grams 1/4
    figures = score(["我来到北京清华大学,我喜欢"], ["我来到北京清华大学，我喜欢"])
    assert SEGMENTERS["jieba"]("我来到北京清华大学,我喜欢") == ["我", "来到", "北京", "清华大学", ",", "我", "喜欢"]
    assert figures["bleu-4 (jieba)"] == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** (1 / 4), rel=1e-12)


def test_bleu_does_not_cut_jieba_words_again():
    # 利率 为 3.5% 左右 的 产品 against 利率 为 4.5% 左右 的 产品: 5/6; bigrams 3/5; trigrams 1/4 (左右 的 产品);
    # 4-grams 0/3 smoothed to 1/(2*3). A tokenizer of sacrebleu's that parts the "%" would find more matches.
    bleu = score(["利率为3.5%左右的产品"], ["利率为4.5%左右的产品"])["bleu-4 (jieba)"]
    assert bleu == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** (1 / 4), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # precision 5/5, recall 5/6: F 10/11; bigrams 4/4, 4/5: 8/9; common subsequence 5 of 5, 5 of 6
        ("甲乙丙丁戊", "甲乙丙丁戊己", (10 / 11, 8 / 9, 10 / 11)),
        # same characters, no common bigram; longest common subsequence 2 of 4 (such as 甲丁)
        ("丙乙甲丁", "甲乙丙丁", (1, 0, 1 / 2)),
        # distinct n-grams count once: {哈 笑}, {哈哈 哈笑} against {哈笑}: 1/2, 1/1
        ("哈哈哈笑", "哈笑", (1, 2 / 3, 1)),
        # a dot ends a sentence and is no token: {甲 乙 丙}; the bigram 乙丙 spans the dot
        ("甲乙.丙", "甲乙丙", (1, 1, 1)),
        # ROUGE-L joins the matches of all sentence pairs: 丙 and 甲 乙 both count
        ("丙.甲乙", "甲乙丙", (1, 1 / 2, 1)),
        # a full stop does not end a sentence: 3 of 4 against 3 of 3; bigrams 甲乙 of {甲乙 乙。 。丙}, {甲乙 乙丙}
        ("甲乙。丙", "甲乙丙", (6 / 7, 2 / 5, 6 / 7)),
        ("ＡＢ", "AB", (0, 0, 0)),
        ("？！", "甲乙", (0, 0, 0)),
        # no bigram in one character: ROUGE-2 is 0 even if it is right
        ("水", "水", (1, 0, 1)),
        ("水", "火", (0, 0, 0)),
        # the face is one of 2 characters and the only common one
        ("好😀", "坏😀", (1 / 2, 0, 1 / 2)),
    ],
)
def test_rouge_char_by_hand(prediction, reference, expected):
    # The package adds 1e-8 to the denominator of F, so its figures are below the fractions by less than 1e-6.
    assert rouge_of(score([prediction], [reference]), segmenter="char") == pytest.approx(
        [100 * f for f in expected], abs=1e-6
    )


def test_rouge_jieba_by_hand():
    # 我 来到 北京大学 against 我 来到 北京 清华大学: 2/3, 2/4: F 4/7; bigrams 1/2, 1/3: 2/5; subsequence as unigrams
    figures = score(["我来到北京大学"], ["我来到北京清华大学"])
    assert rouge_of(figures, segmenter="jieba") == pytest.approx([400 / 7, 200 / 5, 400 / 7], abs=1e-6)
    # characters: 7 of 7, 7 of 9: 7/8; bigrams all but 京大: 5 of 6, 5 of 8: 5/7
    assert rouge_of(figures, segmenter="char") == pytest.approx([700 / 8, 500 / 7, 700 / 8], abs=1e-6)


def test_rouge_is_the_mean_over_records():
    # ROUGE-1 of the four: 1, 1/2 (one of two), 0 (empty), 0 (wrong)
    figures = score(["水", "好人", "", "火"], ["水", "坏人", "甲", "乙"])
    assert figures["rouge-1 (char)"] == pytest.approx(100 * (1 + 1 / 2) / 4, abs=1e-6)


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_perfect_match_is_100(segmenter):
    texts = [
        "我来到北京清华大学，学习计算机科学。",
        "iPhone 15 Pro 多少钱？价格是 5999.00 元",
        "今天😀真好，我们去公园玩吧",
    ]
    figures = score(texts, texts)
    assert figures[f"bleu-4 ({segmenter})"] == pytest.approx(100, rel=1e-12)
    assert rouge_of(figures, segmenter=segmenter) == pytest.approx([100] * 3, abs=1e-6)


def test_generated_length_and_empty_predictions():
    # 0, 0, 0, 1, 4 and 8 characters
    figures = score(["", "  ", "\u3000\n", ".", "天 地玄黄", "iPhone\t15"], ["水"] * 6)
    assert figures["generated length"] == pytest.approx(13 / 6)
    assert figures["empty predictions"] == 3


@pytest.mark.parametrize("prediction", ["", " \u3000\n", ".", "..", "...", ". .", "……", "。"])
def test_predictions_without_a_word_score_0(prediction):
    figures = score([prediction], ["天地玄黄"])
    assert all(value == 0 for name, value in figures.items() if name.startswith(("bleu", "rouge")))
    assert figures["empty predictions"] == (prediction.strip() == "")


def test_reference_of_dots_scores_0():
    # It is not empty, so it is no error; the package alone would raise.
    with pytest.raises(ValueError, match="empty"):
        rouge_directly("水", ".", segmenter="char")
    assert rouge_of(score(["水"], ["."]), segmenter="char") == [0, 0, 0]


@pytest.mark.parametrize("reference", ["", " ", "\u3000\n"])
def test_empty_reference_is_an_error_that_names_its_index(reference):
    with pytest.raises(ValueError, match=r"references\[2\] is empty"):
        score(["甲", "乙", "丙"], ["甲", "乙", reference])


def test_different_numbers_are_an_error():
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        score(["甲", "乙"], ["甲"])


def test_no_records_is_an_error():
    with pytest.raises(ValueError, match="no records"):
        score([], [])


def test_bleu_char_equals_sacrebleu_char():
    generator = random.Random(0)
    for _ in range(50):
        references = [random_text(generator) for _ in range(8)] + TRICKY
        predictions = [random_text(generator)[generator.randrange(2) :] for _ in range(8)] + TRICKY[::-1]
        theirs = BLEU(tokenize="char").corpus_score(predictions, [references]).score
        assert 0 < theirs < 100
        assert score(predictions, references)["bleu-4 (char)"] == theirs


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_rouge_equals_the_package_exactly(segmenter):
    generator = random.Random(1)
    pairs = [(prediction, reference) for prediction in TRICKY for reference in TRICKY]
    pairs += [(random_text(generator), random_text(generator)) for _ in range(400)]
    # Two characters only: many equally long common subsequences, so the choice among them shows.
    pairs += [
        (random_text(generator, alphabet="甲乙丙"), random_text(generator, alphabet="甲乙丙")) for _ in range(100)
    ]
    for prediction, reference in pairs:
        ours = rouge_of(score([prediction], [reference]), segmenter=segmenter)
        assert ours == rouge_directly(prediction, reference, segmenter=segmenter), (prediction, reference)


def test_rouge_equals_the_package_on_the_longest_texts_it_takes():
    generator = random.Random(2)
    prediction, reference = ("".join(generator.choices("天地玄黄宇宙洪荒日月盈昃", k=300)) for _ in range(2))
    ours = rouge_of(score([prediction], [reference]), segmenter="char")
    assert ours == rouge_directly(prediction, reference, segmenter="char")


def test_long_texts():
    # 3,000 different characters; the prediction has the halves exchanged, so one bigram of 2,999 is new, one is lost,
    # and the longest common subsequence is one half. The package alone ends in a RecursionError.
    reference = "".join(chr(0x4E00 + i) for i in range(3000))
    prediction = reference[1500:] + reference[:1500]
    with pytest.raises(RecursionError):
        rouge_directly(prediction[:1000], reference[1000:2000], segmenter="char")

    figures = score([prediction], [reference])
    assert rouge_of(figures, segmenter="char") == pytest.approx([100, 100 * 2998 / 2999, 50], abs=1e-6)
    # 4-grams that span the seam: 3 of 2,997; trigrams 2 of 2,998
    assert figures["bleu-4 (char)"] == pytest.approx(
        100 * (2998 / 2999 * 2996 / 2998 * 2994 / 2997) ** (1 / 4), rel=1e-12
    )


def test_long_identical_texts_are_100():
    text = "我来到北京清华大学，学习计算机科学。" * 167  # 3,006 characters
    figures = score([text], [text])
    assert figures["generated length"] == 3006
    assert [value for name, value in figures.items() if name.startswith(("bleu", "rouge"))] == pytest.approx(
        [100] * 8, abs=1e-6
    )


def test_order_of_records_does_not_matter():
    generator = random.Random(3)
    pairs = [(random_text(generator), random_text(generator)) for _ in range(60)]
    shuffled = generator.sample(pairs, k=len(pairs))
    assert score(*zip(*pairs, strict=True)) == score(*zip(*shuffled, strict=True))


def test_a_record_scores_the_same_alone_and_in_company():
    generator = random.Random(4)
    predictions = ["", ".", *(random_text(generator) for _ in range(30))]
    references = [random_text(generator) for _ in predictions]
    together = score(predictions, references)
    alone = [score([p], [r]) for p, r in zip(predictions, references, strict=True)]
    for name in together:
        if name.startswith(("rouge", "generated")):  # BLEU pools its counts: a corpus figure is no mean
            assert together[name] == pytest.approx(sum(row[name] for row in alone) / len(alone), rel=1e-12)


def test_every_percentage_is_between_0_and_100():
    generator = random.Random(5)
    for _ in range(200):
        reference = random_text(generator)
        half = reference[: len(reference) // 2]
        prediction = generator.choice([random_text(generator), reference, reference * 2, half])
        for name, value in score([prediction], [reference]).items():
            if name.startswith(("bleu", "rouge")):
                assert 0 <= value <= 100 + 1e-9, (name, prediction, reference)  # exp(log(100)) may be above by an ulp


# -- in chunks


def chunks_of(length: int, generator: random.Random) -> list[slice]:
    """Places of consecutive chunks, empty ones too."""
    cuts = sorted(generator.choices(range(length + 1), k=6))
    return [slice(start, end) for start, end in zip([0, *cuts], [*cuts, length], strict=True)]


def test_chunks_give_the_figures_of_the_whole():
    """To the last digit, wherever the cuts are."""
    generator = random.Random(6)
    for _ in range(20):
        references = [random_text(generator) for _ in range(25)] + TRICKY
        predictions = [random_text(generator)[generator.randrange(2) :] for _ in range(25)] + TRICKY[::-1]
        predictions[generator.randrange(30)] = ""
        scorer = Scorer()
        for chunk in chunks_of(len(references), generator):
            scorer.add(predictions[chunk], references[chunk])
        assert scorer.result() == score(predictions, references)


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_chunks_give_the_figures_of_the_libraries(segmenter):
    generator = random.Random(7)
    references = [random_text(generator) for _ in range(40)]
    predictions = [random_text(generator) for _ in range(40)]
    scorer = Scorer()
    for start in range(0, 40, 8):
        scorer.add(predictions[start : start + 8], references[start : start + 8])
    figures = scorer.result()
    segmented = [[" ".join(SEGMENTERS[segmenter](text)) for text in texts] for texts in (predictions, references)]
    assert figures[f"bleu-4 ({segmenter})"] == BLEU(tokenize="none").corpus_score(segmented[0], [segmented[1]]).score
    rows = [rouge_directly(*pair, segmenter=segmenter) for pair in zip(predictions, references, strict=True)]
    means = [math.fsum(column) / 40 for column in zip(*rows, strict=True)]
    assert rouge_of(figures, segmenter=segmenter) == pytest.approx(means, rel=1e-14)


def test_result_may_be_asked_for_on_the_way():
    scorer = Scorer()
    scorer.add(["天地玄黄"], ["天地玄黄"])
    assert scorer.result() == scorer.result() == score(["天地玄黄"], ["天地玄黄"])
    scorer.add([""], ["甲乙丙丁"])
    assert scorer.result() == score(["天地玄黄", ""], ["天地玄黄", "甲乙丙丁"])


def test_chunk_in_error_is_not_taken_in():
    scorer = Scorer()
    scorer.add(["甲乙丙丁戊"], ["甲乙丙丁戊"])
    with pytest.raises(ValueError, match=r"references\[2\] is empty"):  # counted from the first chunk on
        scorer.add(["甲", "乙"], ["甲", " "])
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        scorer.add(["甲"], ["甲", "乙"])
    assert scorer.result() == score(["甲乙丙丁戊"], ["甲乙丙丁戊"])


def test_no_chunk_and_empty_chunks_are_no_records():
    scorer = Scorer()
    scorer.add([], [])
    with pytest.raises(ValueError, match="no records"):
        scorer.result()


def test_memory_does_not_grow_with_the_records():
    scorer = Scorer()

    def add(count: int) -> int:
        """Bytes more in use than before."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            texts = [random_text(generator) for _ in range(10)]
            scorer.add(texts, texts[::-1])
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    generator = random.Random(8)
    tracemalloc.start()
    try:
        add(5)
        assert add(30) < 10_000  # 300 records; a float for each ROUGE figure would be four times that
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def zh_answers() -> tuple[dict[str, float], dict]:
    """Our figures on 706 real answers with their first reference, and the published scores."""
    folder = os.environ.get("GLM_REAL_DATA")
    if not folder:
        pytest.skip("GLM_REAL_DATA does not name a folder with data/metric_vectors/zh_answers.json")
    vectors = Path(folder) / "data" / "metric_vectors"
    rows = [json.loads(line) for line in (vectors / "zh_answers.json").read_text(encoding="utf-8").splitlines()]
    published = json.loads((vectors / "zh_answers.scores.json").read_text(encoding="utf-8"))
    assert len(rows) == published["n"] == 706
    return score([row["prediction"] for row in rows], [row["references"][0] for row in rows]), published


def test_real_bleu_char(zh_answers):
    figures, published = zh_answers
    assert figures["bleu-4 (char)"] == pytest.approx(published["sacrebleu_first_ref_char"]["score"], rel=1e-9)


@pytest.mark.parametrize("metric", ["rouge-1", "rouge-2", "rouge-l"])
def test_real_rouge_char(zh_answers, metric):
    figures, published = zh_answers
    # One prediction is empty: it was left out of the published mean (705 rows) and counts 0 in ours (706 rows).
    assert figures["empty predictions"] == published["n"] - published["n_rouge_rows"] == 1
    mean_of_705 = figures[f"{metric} (char)"] * published["n"] / published["n_rouge_rows"]
    assert mean_of_705 == pytest.approx(100 * published["rouge_pltrdy_char_first_ref_avg"][metric]["f"], rel=1e-9)
