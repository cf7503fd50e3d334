"""The scores of other tools against their formulas, written out with the libraries they call, and by hand."""

import json
import random

import jieba
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge import Rouge
from sacrebleu.metrics import BLEU

from glm.evaluation import metrics
from glm.evaluation.protocols import PROTOCOLS, llama_factory, ms_swift, own, paddlenlp, paddlenlp_rouge_l, sacrebleu
from glm.evaluation.rouge import rouge_chinese
from glm.evaluation.statistics import Pair


def pairs_of(count: int, seed: int, *, references: int = 1, empty: bool = True) -> list[Pair]:
    """Questions with mixed scripts, predictions that share a part with them, some empty."""
    generator = random.Random(seed)
    alphabet = "京都大学在哪里我来到北京清华多少钱？?，.iPhone 15\n"

    def text() -> str:
        return "水" + "".join(generator.choices(alphabet, k=generator.randrange(25)))

    found = []
    for number in range(count):
        expected = tuple(text() for _ in range(generator.randrange(1, references + 1)))
        prediction = expected[0][: generator.randrange(len(expected[0]) + 1)] + text()[1:4]
        found.append(Pair("" if empty and number % 10 == 0 else prediction, expected))
    return found


def mean(values) -> float:
    return sum(values) / len(values)


METHOD_3 = SmoothingFunction().method3


def test_protocols_by_hand():
    """One record of five Chinese characters; jieba has two words for each."""
    pairs = [Pair("北京大学好", ("北京大学在",))]
    assert jieba.lcut("北京大学好") == ["北京大学", "好"] and jieba.lcut("北京大学在") == ["北京大学", "在"]
    # characters: 4/5, 3/4, 2/3, 1/2; words: 1/2, then 0/1, 0/1, 0/1 smoothed to 1/2, 1/4, 1/8
    char = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    words = 100 * (1 / 2 * 1 / 2 * 1 / 4 * 1 / 8) ** (1 / 4)
    found = {name: protocol(pairs).figures for name, protocol in PROTOCOLS.items()}
    assert found["sacrebleu (char)"] == found["sacrebleu (zh)"] == {"bleu-4": pytest.approx(char)}
    assert found["paddlenlp"]["bleu-4"] == pytest.approx(char)
    assert found["llama-factory"]["bleu-4"] == round(char, 4)
    assert found["ms-swift"]["bleu-4"] == pytest.approx(words, abs=1e-6)
    # words: 1 of 2; no bigram in common; subsequence 1 of 2
    for name in ("llama-factory", "ms-swift"):
        assert [found[name][f"rouge-{kind}"] for kind in "12l"] == pytest.approx([50, 0, 50], abs=1e-4)
    # recall of distinct n-grams 4/5 and 3/4; the longest common subsequence is 4 of 5 and 5, whatever gamma is
    assert [found["paddlenlp"][f"rouge-{kind}"] for kind in "12l"] == pytest.approx([80, 75, 80])


def test_own_figures_are_among_them():
    scores = metrics.score(pairs_of(20, 0))
    found = own(scores, "jieba")
    assert found.figures == {
        "bleu-4": scores.figures["bleu-4 (jieba, corpus)"],
        **{name: scores.figures[f"{name} (jieba)"] for name in ("rouge-1", "rouge-2", "rouge-l")},
    }
    assert scores.signatures["bleu-4 (jieba, corpus)"] in found.signature
    assert scores.signatures["rouge-l (jieba)"] in found.signature


@pytest.mark.parametrize("tokenize", ["char", "zh"])
def test_sacrebleu_equals_its_command(tokenize):
    pairs = pairs_of(40, 1, references=3)
    bleu = BLEU(tokenize=tokenize)
    references = [[pair.references[k] if k < len(pair.references) else None for pair in pairs] for k in range(3)]
    theirs = bleu.corpus_score([pair.prediction for pair in pairs], references)
    found = sacrebleu(pairs, tokenize)
    assert 1 < found.figures["bleu-4"] == theirs.score
    assert found.signature == f"nrefs:var|case:mixed|eff:no|tok:{tokenize}|smooth:exp|version:2.6.0"


def test_paddlenlp_equals_its_classes():
    from paddlenlp.metrics import BLEU as PaddleBLEU
    from paddlenlp.metrics import Rouge1, Rouge2, RougeL
    from paddlenlp.transformers import BasicTokenizer

    pairs = pairs_of(40, 2, references=3)
    cut = BasicTokenizer().tokenize
    texts = [(cut(pair.prediction), [cut(text) for text in pair.references]) for pair in pairs]
    rouge_l = RougeL()
    bleus = {order: PaddleBLEU(n_size=order) for order in (1, 2, 3, 4)}
    for prediction, references in texts:
        rouge_l.add_inst(prediction, references)
        for bleu in bleus.values():
            bleu.add_inst(prediction, references)
    predictions, first = [text[0] for text in texts], [text[1][0] for text in texts]
    expected = {f"bleu-{order}": 100 * bleu.score() for order, bleu in bleus.items()}
    expected |= {
        "rouge-1": 100 * Rouge1().score(predictions, first),
        "rouge-2": 100 * Rouge2().score(predictions, first),
    }
    expected["rouge-l"] = 100 * rouge_l.score()
    assert paddlenlp(pairs).figures == pytest.approx(expected, rel=1e-12)


def test_paddlenlp_rouge_l_by_hand():
    # precision 3/4, recall 3/6: (1 + 1.44) * 3/8 / (1/2 + 1.44 * 3/4)
    expected = 2.44 * 0.375 / (0.5 + 1.08)
    assert paddlenlp_rouge_l("甲乙丙庚", ["甲乙丙丁戊己"]) == pytest.approx(expected, rel=1e-12)
    assert paddlenlp_rouge_l("", ["甲"]) == paddlenlp_rouge_l("甲", ["", "乙"]) == 0


def test_llama_factory_equals_its_formula():
    pairs = pairs_of(40, 3)
    bleu = [
        round(sentence_bleu([list(pair.references[0])], list(pair.prediction), smoothing_function=METHOD_3) * 100, 4)
        for pair in pairs
    ]
    found = llama_factory(pairs).figures
    assert found["bleu-4"] == pytest.approx(mean(bleu), rel=1e-12)
    # rouge_chinese itself is tested in test_rouge.py
    rows = [rouge_chinese(jieba.lcut(pair.prediction), jieba.lcut(pair.references[0])) for pair in pairs]
    for name, column in zip(("rouge-1", "rouge-2", "rouge-l"), zip(*rows, strict=True), strict=True):
        assert found[name] == pytest.approx(mean([round(100 * value, 4) for value in column]), rel=1e-12)


def test_llama_factory_counts_empty_texts_as_0():
    assert set(llama_factory([Pair("", ("水",)), Pair("水", ("",))]).figures.values()) == {0}


def swift_formula(pairs: list[Pair]) -> dict[str, float]:
    rows = []
    for pair in pairs:
        prediction, reference = (
            [word.strip(" ") for word in jieba.cut(text) if word.strip(" ")]
            for text in (pair.prediction, pair.references[0])
        )
        if reference and prediction:
            (found,) = Rouge().get_scores(" ".join(prediction), " ".join(reference))
            bleu = sentence_bleu([reference], prediction, smoothing_function=METHOD_3)
            rows.append([bleu, *(found[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l"))])
        elif reference:
            rows.append([0, 0, 0, 0])
    names = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
    return {name: 100 * mean(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def test_ms_swift_equals_its_formula():
    pairs = pairs_of(40, 4)
    assert ms_swift(pairs).figures == pytest.approx(swift_formula(pairs), abs=6e-7)


def test_ms_swift_leaves_empty_references_out():
    pairs = [Pair("我来到北京", ("我来到北京",)), Pair("水", (" ",)), Pair("", ("水",))]
    found = ms_swift(pairs).figures
    assert found == pytest.approx(swift_formula(pairs), abs=6e-7)
    assert found["rouge-1"] == pytest.approx(50, abs=1e-5)  # of the first and the third
    assert set(ms_swift(pairs[1:2]).figures.values()) == {0}


def test_only_the_first_reference_counts_where_a_tool_takes_one():
    pairs = pairs_of(20, 5, references=3)
    first = [Pair(pair.prediction, pair.references[:1]) for pair in pairs]
    assert pairs != first
    for protocol in (llama_factory, ms_swift):
        assert protocol(pairs) == protocol(first)


def test_width_counts_by_other_protocols():
    """They do not normalize texts; ours does."""
    pairs = [Pair("我来到北京吗?", ("我来到北京吗？",))]
    assert metrics.score(pairs).figures["bleu-4 (char, corpus)"] == pytest.approx(100)
    found = [protocol(pairs).figures for name, protocol in PROTOCOLS.items() if "zh" not in name]
    assert all(figures["bleu-4"] < 90 for figures in found if "bleu-4" in figures)


# -- published scores (opt-in)


@pytest.fixture(scope="module")
def vectors(real_data):
    return real_data / "data" / "metric_vectors"


@pytest.fixture(scope="module")
def zh_answers(vectors) -> tuple[list[Pair], dict]:
    """706 real answers with all their references, and published scores."""
    rows = [json.loads(line) for line in (vectors / "zh_answers.json").read_text(encoding="utf-8").splitlines()]
    published = json.loads((vectors / "zh_answers.scores.json").read_text(encoding="utf-8"))
    assert len(rows) == published["n"] == 706
    return [Pair(row["prediction"], tuple(row["references"])) for row in rows], published


@pytest.mark.parametrize("tokenize", ["char", "zh"])
def test_real_sacrebleu(zh_answers, tokenize):
    pairs, published = zh_answers
    first = [Pair(pair.prediction, pair.references[:1]) for pair in pairs]
    for used, name in ((pairs, "multi"), (first, "first")):
        expected = published[f"sacrebleu_{name}_ref_{tokenize}"]["score"]
        assert sacrebleu(used, tokenize).figures["bleu-4"] == pytest.approx(expected, rel=1e-9)


def characters(text: str) -> list[str]:
    return [character for character in text if not character.isspace()]


def test_real_paddlenlp(zh_answers, monkeypatch):
    """Its formulas, on characters as published."""
    monkeypatch.setattr("glm.evaluation.protocols.bert_words", characters)
    pairs, published = zh_answers
    found, expected = paddlenlp(pairs).figures, published["paddlenlp_char_multi_ref"]
    for name in ("bleu1", "bleu2", "bleu4", "rouge_l"):
        ours = found[name.replace("bleu", "bleu-").replace("_", "-")]
        assert ours == pytest.approx(100 * expected[name], rel=1e-9)


@pytest.mark.parametrize("package", ["rouge_chinese", "rouge"])
def test_real_rouge_on_characters(zh_answers, package):
    """The packages behind LLaMA-Factory's and ms-swift's figures; the one empty prediction was left out."""
    from glm.evaluation import rouge as module

    pairs, published = zh_answers
    kept = [pair for pair in pairs if pair.prediction.strip()]
    assert len(kept) == published["n_rouge_rows"]
    rows = [getattr(module, package)(characters(pair.prediction), characters(pair.references[0])) for pair in kept]
    expected = published[
        "rouge_chinese_char_first_ref_avg" if package == "rouge_chinese" else "rouge_pltrdy_char_first_ref_avg"
    ]
    for name, column in zip(("rouge-1", "rouge-2", "rouge-l"), zip(*rows, strict=True), strict=True):
        assert mean(column) == pytest.approx(expected[name]["f"], rel=1e-9)


def test_real_rouge_chinese_example(vectors):
    example = json.loads((vectors / "rouge_zh_example.json").read_text(encoding="utf-8"))
    words = [example[name].split(" ") for name in ("hyp_jieba", "ref_jieba")]
    for tokens, name in (
        (words, "recomputed_rouge_chinese"),
        ((example["hyp"], example["ref"]), "char_recomputed_rouge_chinese"),
    ):
        expected = [example[name][metric]["f"] for metric in ("rouge-1", "rouge-2", "rouge-l")]
        assert rouge_chinese(*tokens) == pytest.approx(expected, rel=1e-9)
