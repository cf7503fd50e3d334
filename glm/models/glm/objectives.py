"""GLM's pretraining objectives on running text: blanks of tokens, of sentences, and of most of a document.

A sample is at most `seq_length` ids of one document or several, each `[CLS] text <|endoftext|>`; a long one is a
window that begins and ends, where it can, with a sentence. Of a sample one objective is drawn:

    level      spans                                                            blank
    token      lengths from Poisson(3), until 15 % of the tokens are in one     [MASK]
    sentence   whole sentences, until 15 % of the tokens are in one             [sMASK]
    document   one span of most of the text, or the end of it (continuation)    [gMASK]

The spans come in random order behind the text, in the geometry of `glm.models.glm.geometry`. A continuation has no
`eop`: the text may go on. All of it is a function of the corpus and of the generator.

Source: Du et al. 2022, sections 2.1 and 2.2; rules and rates as THUDM/GLM (blocklm_utils.py), whose batches share an
objective, where here each sample draws its own, and which drops samples whose spans do not fit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.glm.geometry import BlankInfilling, Example, GLMGeometry
from glm.models.glm.spans import SentenceEnds, Span, draw_spans, fits, span_lengths
from glm.models.glm.tokenization import GLMSentencePieceTokenizer
from glm.models.protocol import Corpus, GeometryOptions, Objectives, Sample

TOKEN, SENTENCE, DOCUMENT = NAMES = ("token", "sentence", "document")
BLANKS = {TOKEN: "[MASK]", SENTENCE: "[sMASK]", DOCUMENT: "[gMASK]"}
# Least ids of a sample with short blanks; in a shorter one nothing is left between them, so its level is document.
SHORTEST = 8
SHORTEST_CUT = 32  # least ids of a piece of a sample that is cut, `short_seq_prob`


@dataclass(frozen=True)
class Rates:
    """How often each objective is drawn and how large it is, by THUDM/GLM's names.

    Args:
        seq_length: most ids of a sample.
        bert_prob, gap_sentence_prob: shares of samples at token and at sentence level; the rest is at document level.
        bert_ratio, gap_sentence_ratio: share of the ids of a sample that is in spans at these levels.
        gpt_min_ratio: least share of a sample that is generated at document level.
        infill_prob: share of samples at document level, of one document, that are an infilling; the others are a
            continuation. (THUDM/GLM's `gpt_infill_prob` is the share of continuations.)
        block_mask_prob: share of the ids read in spans at token level that are hidden by [dBLOCK].
        short_seq_prob: share of samples that are cut into shorter ones.
        single_span_prob: share of samples with one span at token level.
        non_sentence_start: share of windows that begin where they are drawn.
        sample_one_document: no other document is put behind a short one.

    Raises:
        InputError: a number is out of its range.
    """

    seq_length: int = 512
    bert_prob: float = 0.4
    gap_sentence_prob: float = 0.3
    bert_ratio: float = 0.15
    gap_sentence_ratio: float = 0.15
    gpt_min_ratio: float = 0.25
    infill_prob: float = 0.5
    block_mask_prob: float = 0.1
    short_seq_prob: float = 0.02
    single_span_prob: float = 0.0
    non_sentence_start: float = 0.0
    sample_one_document: bool = False

    def __post_init__(self):
        if self.seq_length < 2 * SHORTEST:
            raise InputError(f"seq_length {self.seq_length}: use {2 * SHORTEST} or more")
        for name in ("bert_ratio", "gap_sentence_ratio", "gpt_min_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: use a number above 0 and less than 1")
        for name, value in asdict(self).items():
            if (name.endswith("_prob") or name == "non_sentence_start") and not 0 <= value <= 1:
                raise InputError(f"{name} {value}: use 0 to 1")
        if self.bert_prob + self.gap_sentence_prob > 1 + 1e-9:
            raise InputError(
                f"bert_prob {self.bert_prob} + gap_sentence_prob {self.gap_sentence_prob}: are above 1 together; what "
                "is left of 1 is the document level's"
            )
        if self.short_seq_prob and self.seq_length < SHORTEST_CUT + 2:
            raise InputError(
                f"short_seq_prob {self.short_seq_prob}: cuts into pieces of {SHORTEST_CUT} ids or more; use a "
                f"seq_length of {SHORTEST_CUT + 2} or more, or 0"
            )


class BlankPretraining:
    """GLM's objectives on running text (`glm.models.protocol.Pretraining`).

    Args:
        tokenizer: brings the command tokens, and pieces in which sentences end.
        rates: see `Rates`.
        block_position: see `GeometryOptions`.
    """

    geometry_class = GLMGeometry
    described_units: dict[str, Any] = {}

    def __init__(self, tokenizer: GLMSentencePieceTokenizer, *, block_position: bool = True, **rates: Any):
        self.tokenizer = tokenizer
        self.rates = Rates(**rates)
        self.geometry = self.geometry_class(tokenizer, GeometryOptions(BLANKS[DOCUMENT], block_position))
        self.ends = SentenceEnds(tokenizer)
        self.described = asdict(self.rates) | {"block_position": block_position}

    @property
    def infilling(self) -> BlankInfilling:
        """Computes positions and labels."""
        return self.geometry.infilling

    @property
    def planned(self) -> tuple[int, int]:
        """Most tokens and labels of a sample: each span has one token or more, and adds a blank and `sop`."""
        rates = self.rates
        pieces = (rates.seq_length - 1) // SHORTEST_CUT if rates.short_seq_prob else 1
        ids = rates.seq_length - 1 + pieces  # each piece begins with [CLS]
        spans = pieces - 1 + max(1, int(max(rates.bert_ratio, rates.gap_sentence_ratio) * ids))
        return ids + 2 * spans, ids + spans

    def check(self, config: Any) -> None:
        """Raises InputError if a model of this configuration has no positions, or no [dBLOCK], for its samples."""
        if self.rates.seq_length > (room := self.geometry.room(config, 0)):
            raise InputError(
                f"seq_length {self.rates.seq_length}: the model has {room} positions; use at most so many"
            )
        if self.rates.block_mask_prob and self.tokenizer.block_mask_id >= config.vocab_size:
            raise InputError(
                f"block_mask_prob {self.rates.block_mask_prob}: [dBLOCK] has the id {self.tokenizer.block_mask_id}, "
                f"and the model {config.vocab_size} rows; use 0"
            )

    # -- from a document to the text of a sample

    def parts(self, document: str) -> list[str]:
        """A document is encoded as a whole."""
        return [document]

    def units(self, parts: Sequence[Sequence[int]]) -> Iterable[list[Sequence[int]]]:
        """A document is one unit, if it has a token."""
        return [list(parts)] if parts[0] else []

    def samples(self, corpus: Corpus) -> int:
        """The number of full samples that hold all documents."""
        room = self.rates.seq_length - 1
        if self.rates.sample_one_document:
            return int((-(-(corpus.lengths() + 1) // room)).sum())
        return max(1, -(-(corpus.tokens + 2 * len(corpus)) // self.rates.seq_length))

    def text(self, corpus: Corpus, random: np.random.Generator) -> np.ndarray:
        """Draws the ids of a sample: [n], at most `seq_length`."""
        cls, most = self.tokenizer.cls_token_id, self.rates.seq_length
        document = self._document(corpus, random)
        if len(document) >= most:
            return np.concatenate([[cls], self._window(document, most - 1, random)])
        found, size = [[cls], document], 1 + len(document)
        while not self.rates.sample_one_document and size < most - 1:
            document = self._document(corpus, random)[: most - size - 1]
            found += [[cls], document]
            size += 1 + len(document)
        return np.concatenate(found)

    def _document(self, corpus: Corpus, random: np.random.Generator) -> np.ndarray:
        """Draws a document, in proportion to its length, and adds <|endoftext|>."""
        (ids,) = corpus.unit(corpus.at(int(random.integers(corpus.tokens))))
        return np.append(ids, self.tokenizer.eos_token_id).astype(np.int64)

    def _window(self, document: np.ndarray, room: int, random: np.random.Generator) -> np.ndarray:
        """Takes at most `room` ids of a longer document, from the start of a sentence to the end of one where
        possible."""
        start = int(random.integers(len(document) - room + 1))
        ends = self.ends(document)
        if random.random() >= self.rates.non_sentence_start:
            start = _sentence_start(ends, start, room // 2, goes_left=random.random() < 0.5)
        stop = min(start + room, len(document))
        if stop == len(document):
            return document[start:]
        return document[start : _sentence_end(ends, start, stop)]

    def _cut(self, text: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        """Cuts a text into shorter samples of about `length` ids, from and to a sentence where possible."""
        size = int(random.integers(SHORTEST_CUT, self.rates.seq_length - 1))
        inner = text[1:]
        ends = self.ends(inner) | (inner == self.tokenizer.eos_token_id)
        found = []
        for _ in range((self.rates.seq_length - 1) // size):
            start, stop = 0, len(inner)
            if size < len(inner):
                before = np.flatnonzero(ends[: int(random.integers(len(inner) - size))])
                start = int(before[-1]) + 1 if len(before) else 0
                stop = _sentence_end(ends, start, start + size)
            if inner[start] == self.tokenizer.cls_token_id:
                start += 1
            found.append(np.concatenate([text[:1], inner[start:stop]]))
        return found

    # -- from the text of a sample to examples

    def draw(self, corpus: Corpus, number: int, random: np.random.Generator, objective: str | None = None) -> Sample:
        """Draws a sample; each number has its own draw from all documents."""
        text, rates = self.text(corpus, random), self.rates
        texts = self._cut(text, random) if random.random() < rates.short_seq_prob else [text]
        has_one_span = random.random() < rates.single_span_prob
        share = random.random()
        if objective is None:
            levels = ((TOKEN, rates.bert_prob), (SENTENCE, rates.bert_prob + rates.gap_sentence_prob))
            objective = next((level for level, up_to in levels if share < up_to), DOCUMENT)
            objective = TOKEN if has_one_span else objective
        if len(text) < SHORTEST:
            objective = DOCUMENT
        examples = tuple(self.example(text, objective, random, has_one_span=has_one_span) for text in texts)
        return Sample(objective, examples)

    def example(
        self, text: np.ndarray, objective: str, random: np.random.Generator, *, has_one_span: bool = False
    ) -> Example:
        """Makes an example of a text [n] that begins with [CLS].

        Args:
            has_one_span: at token level, one span is drawn instead of as many as have `bert_ratio` of the text.
        """
        if objective == DOCUMENT:
            return self._document_example(text, random)
        if objective == SENTENCE:
            spans = self._sentence_spans(text, random)
        else:
            spans = self._token_spans(text, random, has_one_span=has_one_span)
        hidden = self.rates.block_mask_prob if objective == TOKEN else 0.0
        order = random.permutation(len(spans)).tolist()
        return self.lay_out(text, spans, order, BLANKS[objective], hide=hidden, random=random)

    def _token_spans(self, text: np.ndarray, random: np.random.Generator, *, has_one_span: bool) -> list[Span]:
        lengths = span_lengths(1 if has_one_span else int(self.rates.bert_ratio * len(text)), random)
        lengths = lengths[:1] if has_one_span else random.permutation(lengths).tolist()
        parts = self._documents(text)
        spans: list[Span] = []
        for (start, stop), own in zip(parts, share_out(lengths, parts, self.rates.bert_ratio), strict=True):
            spans += draw_spans(own, stop - start, start, random) if own else []
        return sorted(spans)

    def _sentence_spans(self, text: np.ndarray, random: np.random.Generator) -> list[Span]:
        sentences = [span for start, stop in self._documents(text) for span in self.ends.sentences(text, start, stop)]
        chosen, reached = [], 0
        for place in random.permutation(len(sentences)).tolist():
            chosen.append(sentences[place])
            reached += sentences[place][1] - sentences[place][0]
            if reached >= int(self.rates.gap_sentence_ratio * len(text)):
                break
        return sorted(chosen)

    def _document_example(self, text: np.ndarray, random: np.random.Generator) -> Example:
        n = len(text)
        least = max(int(self.rates.gpt_min_ratio * n), 1)
        length = min(int(random.integers(least, max(n - 1, least + 1))), max(n - 2, 1))
        parts = self._documents(text)
        infills = random.random() < self.rates.infill_prob
        if len(parts) > 1 or not infills or length > parts[0][1] - parts[0][0]:
            return self.continuation(text, length)
        start, stop = parts[0]
        spans = draw_spans([length], stop - start, start, random)
        return self.lay_out(text, spans, [0], BLANKS[DOCUMENT])

    def _documents(self, text: np.ndarray) -> list[Span]:
        """Returns where each document of a text stands, without its [CLS] and <|endoftext|>."""
        starts = np.flatnonzero(text == self.tokenizer.cls_token_id) + 1
        stops = [*(starts[1:] - 1).tolist(), len(text)]
        eos = self.tokenizer.eos_token_id
        bounds = [(start, stop - (text[stop - 1] == eos)) for start, stop in zip(starts.tolist(), stops, strict=True)]
        return [(start, int(stop)) for start, stop in bounds if stop > start]

    def lay_out(
        self,
        text: Sequence[int],
        spans: Sequence[Span],
        order: Sequence[int],
        blank: str,
        *,
        hide: float = 0.0,
        random: np.random.Generator | None = None,
    ) -> Example:
        """Lays out a text whose spans are taken out.

        Args:
            text: [n] ids.
            spans: in text order; they do not overlap.
            order: the numbers of the spans, as they stand in Part B.
            blank: the text of the mask token in their places.
            hide: share of the span's ids that are read as [dBLOCK]; labels stay what they are.
            random: draws these.
        """
        ids = np.asarray(text, dtype=np.int64)
        starts, stops = (np.array(bounds) for bounds in zip(*spans, strict=True))
        lengths = stops - starts
        places = starts - np.concatenate([[0], np.cumsum(lengths - 1)[:-1]])  # of the blanks in Part A
        kept = np.ones(len(ids), bool)
        for start, stop in spans:
            kept[start + 1 : stop] = False
        source = ids.copy()
        source[starts] = self.tokenizer.special_ids[blank]
        inputs, labels, positions = [], [], []
        for number in order:
            span = ids[starts[number] : stops[number]]
            read = span
            if hide:
                read = np.where(random.random(len(span)) < hide, self.tokenizer.block_mask_id, span)
            inputs += [[self.infilling.sop_token_id], read]
            labels += [span, [self.infilling.eop_token_id]]
            positions.append(self.infilling.span_positions(int(places[number]), 0, len(span) + 1))
        return Example(source[kept], np.concatenate(inputs), np.concatenate(positions, axis=1), np.concatenate(labels))

    def continuation(self, text: Sequence[int], length: int) -> Example:
        """Lays out a text whose last `length` ids are to be written behind a blank at its end, without `eop`."""
        ids = np.asarray(text, dtype=np.int64)
        source = np.append(ids[: len(ids) - length], self.tokenizer.special_ids[BLANKS[DOCUMENT]])
        labels = ids[len(ids) - length :]
        inputs = np.append(self.infilling.sop_token_id, labels[:-1])
        return Example(source, inputs, self.infilling.span_positions(len(source) - 1, 0, length), labels)


def share_out(lengths: Sequence[int], parts: Sequence[Span], ratio: float) -> list[list[int]]:
    """Distributes spans over the documents of a sample.

    The shorter ones come first, each with at most `ratio` of its tokens; what is left goes into the longest, and what
    does not fit there wherever there is room. A span that has room nowhere is left out.

    Args:
        lengths: lengths of the spans.
        parts: where each document stands.

    Returns:
        Of each document the lengths of its spans.
    """
    sizes = [stop - start for start, stop in parts]
    shortest_first = sorted(range(len(sizes)), key=sizes.__getitem__)
    own: list[list[int]] = [[] for _ in sizes]
    waiting = list(lengths)
    for place in shortest_first[:-1]:
        while waiting and sum(own[place]) + waiting[0] <= int(ratio * sizes[place]):
            if not fits([*own[place], waiting[0]], sizes[place]):
                break
            own[place].append(waiting.pop(0))
    for length in waiting:
        room = next((place for place in reversed(shortest_first) if fits([*own[place], length], sizes[place])), None)
        if room is not None:
            own[room].append(length)
    return own


def _sentence_start(ends: np.ndarray, start: int, most: int, *, goes_left: bool) -> int:
    """Returns the nearest sentence start at most `most` tokens from a place on one side of it; the place itself if
    there is none."""
    if start == 0:
        return 0
    if goes_left:
        first = max(0, start - most)
        found = np.flatnonzero(ends[max(first - 1, 0) : start])
        if len(found):
            return max(first - 1, 0) + int(found[-1]) + 1
        return 0 if first == 0 else start
    found = np.flatnonzero(ends[start - 1 : start + most])
    return start + int(found[0]) if len(found) else start


def _sentence_end(ends: np.ndarray, start: int, stop: int) -> int:
    """Returns the end of the last sentence before `stop`; `stop` if less than half would be left."""
    found = np.flatnonzero(ends[start:stop])
    if len(found) and 2 * (int(found[-1]) + 1) >= stop - start:
        return start + int(found[-1]) + 1
    return stop


OBJECTIVES = Objectives(NAMES, (*Rates.__dataclass_fields__, "block_position"), BlankPretraining)
