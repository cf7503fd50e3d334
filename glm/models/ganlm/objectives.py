"""Span corruption: spans of a document are taken out, and written behind sentinels that stand in their places.

    document   <s> a b c d e f </s>
    source     <s> a <mask_0> d <mask_1> f </s>
    spans      <mask_0> b c <mask_1> e
    reads      <mask_0> b c <mask_1>       what the decoder reads: all but the last
    writes     b c <mask_1> e              its labels: all but the first

As the loader of CSJianYang/GanLM: there is no `</s>` at the end of the labels, two spans never touch, and the last
token of a document stays.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.ganlm.geometry import Example, GanLMGeometry
from glm.models.ganlm.tokenization import BOS, EOS, GanLMTokenizer
from glm.models.protocol import Corpus, GeometryOptions, Objectives, Sample

NOISE = 0.15  # share of a document's tokens that is removed
SPAN_LENGTH = 3  # mean length of a span
NAMES = ("span_corruption",)
SENTENCE = re.compile(r"[^\n。？！]+[。？！]*|[。？！]+")  # of a document
SHORTEST_DOCUMENT = 8  # least value of a packed document's most tokens
SHORTEST = 2  # tokens of a document: one to remove, one to keep


def corrupted(
    document: Sequence[int], cuts: Sequence[int], inserts: Sequence[int], sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Builds source and spans of a document from given places.

    The noise tokens number `n`; cuts divide them into spans, and each span goes before a kept token.

    Args:
        document: [L] ids.
        cuts: [k - 1], ascending, of 1 to n - 1: how many noise tokens are in the spans before.
        inserts: [k], ascending, of 0 to L - n - 1: the kept token that each span stands before.
        sentinels: ids of `<mask_0>`, `<mask_1>`, ...

    Returns:
        What the encoder reads, and the spans behind their sentinels.

    Raises:
        InputError: there are more spans than sentinels.
    """
    if len(inserts) > len(sentinels):
        raise InputError(
            f"a document of {len(document)} tokens: needs {len(inserts)} sentinels, and there are {len(sentinels)}; "
            "use shorter documents"
        )
    ends = [*cuts, noise_tokens(len(document))]
    lengths = np.diff([0, *ends]).tolist()
    source, spans, place, kept = [], [], 0, 0
    for sentinel, insert, length in zip(sentinels, inserts, lengths, strict=False):
        source += [*document[place : place + insert - kept], sentinel]
        place += insert - kept
        kept = insert
        spans += [sentinel, *document[place : place + length]]
        place += length
    return [*source, *document[place:]], spans


def noise_tokens(length: int) -> int:
    """Returns how many tokens of a document are removed."""
    return min(max(int(NOISE * length), 1), length - 1)


def span_count(noise: int) -> int:
    """Returns the number of spans that these tokens are split into."""
    return max(noise // SPAN_LENGTH, 1)


def draw_places(length: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws `cuts` and `inserts` for `corrupted`: distinct places, uniformly distributed."""
    noise = noise_tokens(length)
    spans = span_count(noise)
    cuts = 1 + random.choice(noise - 1, spans - 1, replace=False) if spans > 1 else np.empty(0, np.int64)
    inserts = random.choice(length - noise, min(spans, length - noise), replace=False)
    return np.sort(cuts), np.sort(inserts)


class SpanCorruption:
    """Makes span-corruption examples of documents; the spans depend only on the generator of random numbers.

    Args:
        sentinels: ids of `<mask_0>` to `<mask_99>`.
    """

    def __init__(self, sentinels: Sequence[int]):
        self.sentinels = sentinels

    def example(self, document: Sequence[int], random: np.random.Generator) -> Example:
        """Makes the training example of a document's ids.

        Raises:
            InputError: the document is shorter than two tokens, or needs more sentinels than there are.
        """
        if len(document) < SHORTEST:
            raise InputError(f"a document of {len(document)} tokens: at least {SHORTEST} are needed")
        source, spans = corrupted(document, *draw_places(len(document), random), self.sentinels)
        return Example(*(np.asarray(ids, dtype=np.int64) for ids in (source, spans[:-1], spans[1:])))

    def sizes(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels [n] of examples of documents of these lengths [n]; they do not depend on what is
        drawn."""
        noise = np.clip((NOISE * lengths).astype(np.int64), 1, lengths - 1)
        spans = np.maximum(noise // SPAN_LENGTH, 1)
        labels = noise + spans - 1
        return lengths - noise + spans + labels, labels


class CorruptionPretraining:
    """Pretrains by span corruption of running text (`glm.models.protocol.Pretraining`).

    A document's sentences, which its lines and the marks in them end, are packed up to `seq_length` tokens.

    Args:
        tokenizer: brings the sentinels.
        seq_length: most tokens of a packed document.

    Raises:
        InputError: there are not enough sentinels for such lengths.
    """

    def __init__(self, tokenizer: GanLMTokenizer, *, seq_length: int = 512):
        sentinels = tokenizer.sentinel_ids
        if seq_length < SHORTEST_DOCUMENT:
            raise InputError(f"seq_length {seq_length}: use {SHORTEST_DOCUMENT} or more")
        if span_count(noise_tokens(seq_length)) > len(sentinels):
            raise InputError(
                f"seq_length {seq_length}: needs {span_count(noise_tokens(seq_length))} sentinels, and there are "
                f"{len(sentinels)}; shorten it"
            )
        self.seq_length = seq_length
        self.corruption = SpanCorruption(sentinels)
        self.geometry = GanLMGeometry(tokenizer, GeometryOptions(blank=""))
        self.described = self.described_units = {"seq_length": seq_length}

    @property
    def planned(self) -> tuple[int, int]:
        """Tokens and labels of a full document's sample."""
        tokens, labels = self.corruption.sizes(np.array([self.seq_length]))
        return int(tokens[0]), int(labels[0])

    def check(self, config: Any) -> None:
        """Raises InputError if a model of this configuration has no positions for its samples."""
        self.geometry.check_lengths(config, self.planned[0] - self.planned[1], self.planned[1])

    def parts(self, document: str) -> list[str]:
        """Splits a document into its sentences."""
        return [sentence for sentence in SENTENCE.findall(document) if sentence.strip()]

    def units(self, parts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """Packs sentences into documents; a sentence that is too long is cut, so that none of it is lost."""
        room = self.seq_length - 2
        pieces = [part[start : start + room] for part in parts for start in range(0, len(part), room)]
        yield from ([document] for document in documents(pieces, most=self.seq_length))

    def samples(self, corpus: Corpus) -> int:
        """One sample per packed document."""
        return len(corpus)

    def draw(self, corpus: Corpus, number: int, random: np.random.Generator, objective: str | None = None) -> Sample:
        """Makes the sample of a packed document."""
        (document,) = corpus.unit(number)
        return Sample(NAMES[0], (self.corruption.example(document.tolist(), random),))


def documents(sentences: Sequence[Sequence[int]], *, most: int, ends_at_blank: bool = False) -> Iterator[list[int]]:
    """Packs sentences into documents of at most `most` tokens: `<s>`, then each sentence closed by `</s>`.

    Args:
        sentences: ids of each line of a text; of an empty line none.
        most: tokens of a document; a sentence that is longer by itself is left out.
        ends_at_blank: whether an empty line ends a document (fairseq's `complete_doc`), or means nothing (`complete`).
    """
    document = [BOS]
    for sentence in sentences:
        ends = not sentence and ends_at_blank
        if len(document) > 1 and (ends or len(document) + len(sentence) + 1 > most):
            yield document
            document = [BOS]
        if sentence and len(sentence) + 2 <= most:
            document += [*sentence, EOS]
    if len(document) > 1:
        yield document


OBJECTIVES = Objectives(NAMES, ("seq_length",), CorruptionPretraining)
