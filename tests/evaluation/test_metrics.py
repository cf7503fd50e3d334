"""Figures of corpora against values worked by hand, PaddleNLP's formula and published scores; buckets; signatures."""

import gc
import json
import math
import random
import tracemalloc

import pytest

from glm.evaluation import metrics
from glm.evaluation.metrics import FIGURES, Scorer, Scores, bucket_of, signatures
from glm.evaluation.segmentation import SEGMENTERS
from glm.evaluation.statistics import Pair


def pairs_of(predictions, references) -> list[Pair]:
    """One reference each, or a tuple of them."""
    return [
        Pair(prediction, (reference,) if isinstance(reference, str) else reference)
        for prediction, reference in zip(predictions, references, strict=True)
    ]


def score(predictions, references) -> dict[str, float]:
    return metrics.score(pairs_of(predictions, references)).figures


def random_text(generator: random.Random, *, alphabet: str = "甲乙丙丁戊a1 .😀") -> str:
    return "水" + "".join(generator.choices(alphabet, k=generator.randrange(40)))


def random_pairs(generator: random.Random, count: int) -> list[Pair]:
    return [
        Pair(
            random_text(generator)[generator.randrange(2) :],
            tuple(random_text(generator) for _ in range(generator.randrange(1, 3))),
            random_text(generator) * generator.randrange(1, 20),
            generator.choice("甲乙"),
        )
        for _ in range(count)
    ]


def test_names_and_order():
    assert list(FIGURES) == [
        *(f"bleu-{order} (char, corpus)" for order in (1, 2, 3, 4)),
        *("rouge-1 (char)", "rouge-2 (char)", "rouge-l (char)", "distinct-1 (char)", "distinct-2 (char)"),
        *(f"bleu-{order} (jieba, corpus)" for order in (1, 2, 3, 4)),
        *("rouge-1 (jieba)", "rouge-2 (jieba)", "rouge-l (jieba)", "distinct-1 (jieba)", "distinct-2 (jieba)"),
        *("exact match", "answer leaks", "length ratio (char)", "repeated 4-grams (char)", "generated length"),
        *("empty predictions", "empty references", "records"),
    ]
    found = metrics.score([Pair("北京", ("北京",), answer="北")]).figures
    assert list(found) == list(FIGURES)
    assert list(score(["北京"], ["北京"])) == [name for name in FIGURES if name != "answer leaks"]


# -- figures by hand


def test_bleu_char_by_hand():
    # 我 有 3 台 iphone ? against 我 有 3 个 iphone ?: 5/6; bigrams 3/5; trigrams 1/4; no 4-gram
    figures = score(["我有3台iPhone？"], ["我有3个 iPhone?"])
    found = [figures[f"bleu-{order} (char, corpus)"] for order in (1, 2, 3, 4)]
    expected = [5 / 6, (5 / 6 * 3 / 5) ** (1 / 2), (5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3), 0]
    assert found == pytest.approx([100 * value for value in expected], rel=1e-12)


def test_bleu_jieba_by_hand():
    # 我 来到 北京 清华大学 : 我 喜欢 against 我 来到 北京 清华大学 。 我 喜欢 (the punctuation differs):
    # 6/7; bigrams 4/6 (two touch it); trigrams 2/5; 4-grams 1/4
    figures = score(["我来到北京清华大学：我喜欢"], ["我来到北京清华大学。我喜欢"])
    assert SEGMENTERS["jieba"]("我来到北京清华大学。我喜欢") == ["我", "来到", "北京", "清华大学", "。", "我", "喜欢"]
    assert figures["bleu-4 (jieba, corpus)"] == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** (1 / 4))


def test_rouge_by_hand():
    # 我 来到 北京大学 against 我 来到 北京 清华大学: 2/3, 2/4: F 4/7; bigrams 1/2, 1/3: 2/5; subsequence as unigrams
    figures = score(["我来到北京大学"], ["我来到北京清华大学"])
    jieba = [figures[f"{name} (jieba)"] for name in ("rouge-1", "rouge-2", "rouge-l")]
    assert jieba == pytest.approx([400 / 7, 200 / 5, 400 / 7], abs=1e-6)
    # characters: 7 of 7, 7 of 9: 7/8; bigrams all but 京大: 5 of 6, 5 of 8: 5/7
    char = [figures[f"{name} (char)"] for name in ("rouge-1", "rouge-2", "rouge-l")]
    assert char == pytest.approx([700 / 8, 500 / 7, 700 / 8], abs=1e-6)


def test_rouge_is_the_mean_over_records():
    # ROUGE-1 of the four: 1, 1/2 (one of two), 0 (empty), 0 (wrong)
    figures = score(["水", "好人", "", "火"], ["水", "坏人", "甲", "乙"])
    assert figures["rouge-1 (char)"] == pytest.approx(100 * (1 + 1 / 2) / 4, abs=1e-6)


def test_distinct_by_hand():
    # 哈 哈 笑 and 哈 哈: unigrams {哈 笑} of 5, bigrams {哈哈 哈笑} of 3
    figures = score(["哈哈笑", "", "哈 哈"], ["甲", "乙", "丙"])
    assert figures["distinct-1 (char)"] == pytest.approx(200 / 5)
    assert figures["distinct-2 (char)"] == pytest.approx(200 / 3)


def test_distinct_equals_paddlenlp():
    from paddlenlp.metrics import Distinct

    generator = random.Random(9)
    predictions = [random_text(generator) for _ in range(20)]
    for n in (1, 2):
        theirs = Distinct(n_size=n)
        for prediction in predictions:
            theirs.add_inst(SEGMENTERS["char"](prediction))
        found = score(predictions, ["水"] * 20)[f"distinct-{n} (char)"]
        assert found == pytest.approx(100 * theirs.accumulate(), rel=1e-12)


def test_exact_match_by_hand():
    # equal but for white space and width; another case; the second reference; both empty
    pairs = pairs_of(["在 哪里?", "IP68级", "朱砂", ""], ["在哪里？", "ip68级", ("林思意", "朱砂"), ""])
    assert metrics.score(pairs).figures["exact match"] == 50


def test_repeated_4grams_by_hand():
    # 哈 x 6 has three 4-grams, two of them again; 天地玄黄宇 two different ones; 天地玄 none
    figures = score(["哈哈哈哈哈哈", "天地玄黄宇", "天地玄"], ["水"] * 3)
    assert figures["repeated 4-grams (char)"] == pytest.approx(100 * (2 / 3) / 3)


def test_answer_leaks_by_hand():
    pairs = [
        Pair("李白是哪个朝代的人", ("水",), answer="唐代"),
        Pair("李白是 唐\u3000代人吗", ("水",), answer="唐代"),  # white space is no difference
        Pair("售价１５元吗", ("水",), answer="15元"),  # nor is width
        Pair("谁", ("水",), answer=" "),  # no answer
        Pair("谁", ("水",)),
    ]
    assert metrics.score(pairs).figures["answer leaks"] == pytest.approx(200 / 3)


def test_length_ratio_by_hand():
    # 2 + 4 tokens; references of 4 (the nearer one) and 4
    figures = score(["甲乙", "iPhone 15多少"], [("甲乙丙丁", "甲乙丙丁戊"), "天地玄黄"])
    assert figures["length ratio (char)"] == pytest.approx(6 / 8)


def test_generated_length_and_empty_texts():
    # 0, 0, 0, 1, 4 and 8 characters
    figures = score(["", "  ", "\u3000\n", ".", "天 地玄黄", "iPhone\t15"], ["水"] * 5 + [" "])
    assert figures["generated length"] == pytest.approx(13 / 6)
    assert (figures["empty predictions"], figures["empty references"], figures["records"]) == (3, 1, 6)


@pytest.mark.parametrize("prediction", ["", " \u3000\n", ".", "..", "...", ". .", "……", "。"])
@pytest.mark.parametrize("swapped", [False, True])
def test_texts_without_a_word_score_0(prediction, swapped):
    pair = ([prediction], ["天地玄黄"])
    figures = score(*(pair[::-1] if swapped else pair))
    assert all(value == 0 for name, value in figures.items() if name.startswith(("bleu", "rouge", "exact")))
    name = "empty references" if swapped else "empty predictions"
    assert figures[name] == (prediction.strip() == "")


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_perfect_match_is_100(segmenter):
    texts = [
        "我来到北京清华大学，学习计算机科学。",
        "iPhone 15 Pro 多少钱？价格是 5999.00 元",
        "今天😀真好，我们去公园玩吧",
    ]
    figures = score(texts, texts)
    names = [name for name in figures if segmenter in name and name.startswith(("bleu", "rouge"))]
    assert len(names) == 7 and [figures[name] for name in names] == pytest.approx([100] * 7, abs=1e-6)
    assert (figures["exact match"], figures["length ratio (char)"]) == (100, 1)


def test_best_of_several_references():
    figures = score(["甲乙丙丁"], [("天地玄黄", "甲乙丙丁")])
    assert figures["exact match"] == 100 == pytest.approx(figures["bleu-4 (char, corpus)"])
    assert figures["rouge-l (char)"] == pytest.approx(100, abs=1e-6)


def test_published_figure_of_dureader_qg():
    """`BasicTokenizer` and `BLEU` of PaddleNLP, as its question generation example computes it."""
    from paddlenlp.metrics import BLEU
    from paddlenlp.transformers import BasicTokenizer

    generator = random.Random(10)
    references = [random_text(generator, alphabet="京都大学在哪里?iPhone 15,+") for _ in range(100)]
    predictions = [text[: generator.randrange(len(text) + 1)] + random_text(generator)[:5] for text in references]
    tokenizer, bleu = BasicTokenizer(), BLEU(n_size=4)
    for prediction, reference in zip(predictions, references, strict=True):
        bleu.add_inst(tokenizer.tokenize(prediction), [tokenizer.tokenize(reference)])
    assert 20 < 100 * bleu.score() < 90
    assert score(predictions, references)["bleu-4 (char, corpus)"] == pytest.approx(100 * bleu.score(), rel=1e-12)


# -- properties


def test_no_reference_is_an_error():
    with pytest.raises(ValueError, match="without reference"):
        Pair("甲", ())


def test_no_records_is_an_error():
    scorer = Scorer()
    scorer.add([])
    with pytest.raises(ValueError, match="no records"):
        scorer.result()


def test_order_and_chunks_do_not_matter():
    """To the last digit."""
    generator = random.Random(3)
    pairs = random_pairs(generator, 60)
    scorer = Scorer()
    for start in range(0, 60, 7):
        scorer.add(pairs[start : start + 7])
    assert scorer.result() == metrics.score(generator.sample(pairs, k=60)) == metrics.score(pairs)


def test_a_record_scores_the_same_alone_and_in_company():
    pairs = [Pair("", ("甲",)), *random_pairs(random.Random(4), 30)]
    together = metrics.score(pairs).figures
    alone = [metrics.score([pair]).figures for pair in pairs]
    for name in together:
        if name.startswith(("rouge", "generated", "repeated", "exact")):  # a corpus figure is no mean
            assert together[name] == pytest.approx(math.fsum(row[name] for row in alone) / len(alone), rel=1e-12)


def test_every_percentage_is_between_0_and_100():
    generator = random.Random(5)
    for pair in random_pairs(generator, 100):
        for name, value in metrics.score([pair]).figures.items():
            if name.startswith(("bleu", "rouge", "distinct", "repeated")):
                assert 0 <= value <= 100 + 1e-9, (name, pair)  # exp(log(100)) may be above by an ulp


def test_memory_does_not_grow_with_the_records():
    scorer = Scorer()

    def add(count: int) -> int:
        """Bytes more in use than before."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            texts = generator.choices(known, k=10)  # no new n-grams, which would be kept
            scorer.add(pairs_of(texts, texts[::-1]))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    generator = random.Random(8)
    known = [random_text(generator) for _ in range(20)]
    tracemalloc.start()
    try:
        add(30)
        assert add(30) < 10_000  # 300 records; a float for each figure would be ten times that
    finally:
        tracemalloc.stop()


# -- buckets


@pytest.mark.parametrize(
    ("length", "bucket"),
    [(0, "1-64"), (64, "1-64"), (65, "65-128"), (1024, "513-1024"), (1025, "1025-"), (9999, "1025-")],
)
def test_bucket_by_characters_without_white_space(length, bucket):
    assert bucket_of(" 水\n" * length) == bucket


def test_figures_of_a_bucket_are_those_of_its_records():
    pairs = random_pairs(random.Random(6), 40)
    found = metrics.score(pairs).by_source_length
    buckets = {bucket_of(pair.source) for pair in pairs}
    assert len(buckets) > 2 and set(found) == buckets
    assert list(found) == sorted(found, key=lambda name: int(name.split("-")[0]))
    for name in buckets:
        assert found[name] == metrics.score([pair for pair in pairs if bucket_of(pair.source) == name]).figures


def test_records_without_source_have_no_bucket():
    pairs = [Pair("甲", ("甲",), "水"), Pair("甲", ("乙",))]
    scores = metrics.score(pairs)
    assert scores.figures["records"] == 2
    assert {name: found["records"] for name, found in scores.by_source_length.items()} == {"1-64": 1}
    assert metrics.score(pairs[1:]).by_source_length == {}


# -- signatures


def test_every_figure_has_a_signature():
    found = metrics.score(random_pairs(random.Random(7), 5))
    assert list(found.signatures) == list(found.figures) == list(FIGURES)
    assert all(text and " " not in text for text in found.signatures.values())


def test_signature_names_what_was_done():
    texts = signatures(FIGURES)
    assert texts["bleu-4 (char, corpus)"] == (
        "nrefs:1|norm:nfkc|case:lower|tok:bert-basic|smooth:none|empty:length-0|sacrebleu:2.6.0"
    )
    assert texts["rouge-l (jieba)"] == (
        "nrefs:1|norm:nfkc|case:mixed|tok:jieba-0.42.1|f:1|refs:best|avg:records|empty:0|rouge:1.0.1"
    )


@pytest.mark.parametrize(
    ("references", "nrefs"), [(["甲", "乙"], "1"), ([("甲", "乙")] * 2, "2"), (["甲", ("乙", "丙")], "var")]
)
def test_signature_counts_the_references(references, nrefs):
    texts = metrics.score(pairs_of(["甲", "乙"], references)).signatures
    assert texts["exact match"].startswith(f"nrefs:{nrefs}|")
    assert "nrefs" not in texts["distinct-1 (char)"]


def test_as_json():
    scores = Scores({"a": 1.0}, {"a": "x:1"}, {"1-64": {"a": 1.0}}).with_figures({"b": 2})
    expected = {"a": 1.0, "b": 2, "signatures": {"a": "x:1"}, "by source length (characters)": {"1-64": {"a": 1.0}}}
    assert scores.as_json() == expected


# -- published scores (opt-in)


@pytest.fixture(scope="module")
def zh_answers(real_data) -> tuple[dict[str, float], dict]:
    """Our figures on 706 real answers with their first reference, and the published scores."""
    vectors = real_data / "data" / "metric_vectors"
    rows = [json.loads(line) for line in (vectors / "zh_answers.json").read_text(encoding="utf-8").splitlines()]
    published = json.loads((vectors / "zh_answers.scores.json").read_text(encoding="utf-8"))
    assert len(rows) == published["n"] == 706
    return score([row["prediction"] for row in rows], [row["references"][0] for row in rows]), published


def test_real_exact_match(zh_answers):
    figures, published = zh_answers
    # One prediction is empty: it was left out of the published mean (705 rows) and counts 0 in ours (706 rows).
    assert figures["empty predictions"] == published["n"] - published["n_rouge_rows"] == 1
    mean_of_705 = figures["exact match"] * published["n"] / published["n_rouge_rows"]
    assert mean_of_705 == pytest.approx(100 * published["exact_match_first_ref"], rel=1e-9)
