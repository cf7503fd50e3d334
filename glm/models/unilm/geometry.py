"""Lays out texts for UniLM: ids, positions, segments, labels, and who sees whom. NumPy only.

One encoder is four language models, by what a token sees and by the segments of its tokens (Dong et al. 2019, "Unified
Language Model Pre-training", section 2.3). Each is the toolkit's two-part attention, in which Part A sees Part A, and
Part B sees Part A and its own past:

    task              tokens                     Part A          Part B             segments
    both directions   [CLS] a [SEP] b [SEP]      all             -                  0, 1 behind a [SEP]
    left to right     [CLS] a b [SEP]            -               all                2
    right to left     [CLS] a b [SEP]            -               all, last first    3
    source to target  [CLS] a [SEP] b [SEP]      [CLS] a [SEP]   b [SEP]            4 in Part A, 5 in Part B

Positions are places in the text, also where the tokens stand last first. Fine-tuning and generation are the last one:

    [CLS] a1 a2 [SEP] | b1 [MASK] [SEP]          a masked example: labels where tokens were chosen
     0    1  2   3    | 4   5      6             positions
    [CLS] a1 a2 [SEP] | b1  b2  [SEP] | [MASK] [MASK] [MASK]    a pseudo-masked one: each token of the target has
     0    1  2   3    | 4   5    6    |  4      5      6        a [MASK] of its position, which sees what comes before

The second is what generation does, so its loss is exactly that of what is generated; evaluation takes it, for it is
free of chance. Training, prediction and each decoding step ask here; nobody else computes a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.protocol import IGNORE_INDEX, GeometryOptions, TokenTable
from glm.models.unilm.tokenization import WordPieceTokenizer

# They number the tasks' position tables and parts of the head.
BIDIRECTIONAL, LEFT_TO_RIGHT, RIGHT_TO_LEFT, SEQ2SEQ = range(4)
SOURCE_SEGMENT, TARGET_SEGMENT = 4, 5  # of the last task
TASK_SEGMENTS = {LEFT_TO_RIGHT: 2, RIGHT_TO_LEFT: 3}
SPECIAL_TOKENS = 3  # tokens added to a pair: [CLS], and a [SEP] behind each part
MASKED, PSEUDO_MASKED = OBJECTIVES = ("masked", "pseudo_masked")
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # shares of chosen tokens that become [MASK], and another word; the others stay


@dataclass(frozen=True)
class Example:
    """A training example: tokens of Part A, Part B and Part C (the [MASK]s of a pseudo-masked example) in a row.

    Args:
        input_ids, position_ids, segment_ids: [L].
        labels: [L], -100 where there is no loss.
        parts: tokens of Part A, Part B and Part C.
        task: which language model.
        order: 1 if two parts stand in the document's order, 0 if swapped, -100 if nobody asks.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    segment_ids: np.ndarray
    labels: np.ndarray
    parts: tuple[int, int, int]
    task: int = SEQ2SEQ
    order: int = IGNORE_INDEX

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_labels(self) -> int:
        """Number of positions with loss."""
        return int((self.labels != IGNORE_INDEX).sum())


@dataclass(frozen=True)
class Prompt:
    """What generation of a target starts from.

    Args:
        source_ids: [S], Part A.
        opening_ids: [P], what the target starts with.
        mask_id: id of [MASK], where a token is predicted.
    """

    source_ids: np.ndarray
    opening_ids: np.ndarray
    mask_id: int

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.opening_ids)

    @property
    def given(self) -> int:
        """P."""
        return len(self.opening_ids)

    @property
    def input_ids(self) -> np.ndarray:
        """[S + P]"""
        return np.concatenate([self.source_ids, self.opening_ids])

    @property
    def segment_ids(self) -> np.ndarray:
        """[S + P]"""
        return np.repeat([SOURCE_SEGMENT, TARGET_SEGMENT], [len(self.source_ids), len(self.opening_ids)])

    def step_position(self, number: int) -> int:
        """Returns the position of the `number`-th generated token (from 0), and of the [MASK] that predicts it."""
        return len(self) + number


def cut_lengths(a: np.ndarray, b: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts pairs to at most `most` tokens: the longer part, or the second of equal ones, loses a token at a time."""
    a, b = np.asarray(a), np.asarray(b)
    shorter_a = np.minimum(a, np.maximum(most - b, -(-most // 2)))
    fits = a + b <= most
    return np.where(fits, a, shorter_a), np.where(fits, b, most - shorter_a)


def chosen_count(length: np.ndarray | int, share: float, most: int) -> np.ndarray:
    """Returns how many tokens of a part are predicted; halves are rounded to the even number, as by Python's
    `round`."""
    return np.minimum(most, np.maximum(1, np.rint(np.asarray(length) * share))).astype(np.int64)


def in_task(task: int, ids: Sequence[int], source_part: int, **options: Any) -> Example:
    """Lays out a row of one of the four language models, without labels.

    Args:
        ids: in the order of the text, special tokens included.
        source_part: how many are the first part: [CLS] a [SEP].
        options: options of `Example`.
    """
    ids, places = np.asarray(ids, dtype=np.int64), np.arange(len(ids))
    if task == RIGHT_TO_LEFT:
        ids, places = ids[::-1], places[::-1]
    if task in TASK_SEGMENTS:
        segments = np.full(len(ids), TASK_SEGMENTS[task])
    else:
        first = (SOURCE_SEGMENT, TARGET_SEGMENT) if task == SEQ2SEQ else (0, 1)
        segments = np.where(places < source_part, *first)
    a = {BIDIRECTIONAL: len(ids), SEQ2SEQ: source_part}.get(task, 0)
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
    return Example(ids, places, segments, labels, (a, len(ids) - a, 0), task, **options)


def pair_in_task(
    tokenizer: WordPieceTokenizer, task: int, a: Sequence[int], b: Sequence[int], **options: Any
) -> Example:
    """Lays out a pair of texts, given as ids without special tokens, as a row of one of the four language models."""
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    inner = [] if task in TASK_SEGMENTS else [sep]
    return in_task(task, [cls, *a, *inner, *b, sep], 1 + len(a) + len(inner), **options)


class TokenMasker:
    """Replaces chosen tokens for masked prediction: 80 % by [MASK], 10 % by a random word; the rest stay.

    Args:
        tokenizer: brings the words, BERT's own tokens not among them.
    """

    def __init__(self, tokenizer: WordPieceTokenizer):
        special = set(tokenizer.special_ids.values())
        self.mask_id = tokenizer.mask_token_id
        self.words = np.array([number for number in range(tokenizer.vocab_size) if number not in special])

    def draw(self, ids: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draws what replaces tokens: [n] -> [n]."""
        draws = random.random(len(ids))
        words = random.choice(self.words, len(ids))
        found = np.where(draws < MASK_SHARE + RANDOM_SHARE, words, ids)
        return np.where(draws < MASK_SHARE, self.mask_id, found)


class UniLMGeometry:
    """Lays out records as `[CLS] source [SEP] target [SEP]`.

    Args:
        tokenizer: brings BERT's own tokens.
        options: the objective of training, and how a pair that is too long is cut.

    Raises:
        InputError: an option is out of its range, or the objective leaves it without effect.
    """

    special_tokens = 2  # of a source: [CLS] and [SEP]

    def __init__(self, tokenizer: WordPieceTokenizer, options: GeometryOptions):
        self.tokenizer = tokenizer
        self.objective = options.objective or MASKED
        _check(options, self.objective)
        self.mask_prob = 0.2 if options.mask_prob is None else options.mask_prob  # as in run_seq2seq.py
        self.max_pred = 20 if options.max_pred is None else options.max_pred
        self.target_mask_prob = options.target_mask_prob or 0.0
        self.max_seq_length = options.max_seq_length
        self.prompt_length = None if options.max_seq_length is None else options.max_seq_length - options.tgt_length
        self.masker = TokenMasker(tokenizer)

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns Part A: the text before the target; a template may have none behind it."""
        return [self.tokenizer.cls_token_id, *before, *after, self.tokenizer.sep_token_id]

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """Makes the training example of a source and its target; without `random`, the example that evaluation
        uses."""
        if self.max_seq_length is not None:
            a, b = cut_lengths(len(source_ids) - 2, len(span), self.max_seq_length - SPECIAL_TOKENS)
            source_ids, span = [*source_ids[: a + 1], source_ids[-1]], span[:b]
        source = np.asarray(source_ids, dtype=np.int64)
        target = np.array([*span, self.tokenizer.sep_token_id][: self._target_limit(tgt_length)], dtype=np.int64)
        if random is not None and self.objective == MASKED:
            return self._masked(source, target, len(span), random)
        return self._pseudo_masked(source, target, len(span), random)

    def _masked(self, source: np.ndarray, target: np.ndarray, length: int, random: np.random.Generator) -> Example:
        S = len(source)
        example = in_task(SEQ2SEQ, np.concatenate([source, target]), S)
        count = int(chosen_count(min(length, len(target)), self.mask_prob, self.max_pred))
        places = S + np.sort(random.choice(len(target), count, replace=False))
        example.labels[places] = example.input_ids[places]
        example.input_ids[places] = self.masker.draw(example.input_ids[places], random)
        return example

    def _pseudo_masked(
        self, source: np.ndarray, target: np.ndarray, length: int, random: np.random.Generator | None
    ) -> Example:
        S, T = len(source), len(target)
        past = target.copy()
        if random is not None and self.target_mask_prob:
            count = int(chosen_count(min(length, T), self.target_mask_prob, T))
            places = random.choice(T, count, replace=False)
            past[places] = self.masker.draw(past[places], random)
        places = np.arange(S + T)
        return Example(
            input_ids=np.concatenate([source, past, np.full(T, self.tokenizer.mask_token_id)]),
            position_ids=np.concatenate([places, places[S:]]),
            segment_ids=np.repeat([SOURCE_SEGMENT, TARGET_SEGMENT], [S, 2 * T]),
            labels=np.concatenate([np.full(S + T, IGNORE_INDEX), target]),
            parts=(S, T, T),
        )

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """Returns what generation of a target that begins with `opening` starts from."""
        if self.prompt_length is not None and len(source_ids) > self.prompt_length:
            source_ids = [*source_ids[: self.prompt_length - 1], source_ids[-1]]
        ids = (np.asarray(part, dtype=np.int64) for part in (source_ids, opening))
        return Prompt(*ids, self.tokenizer.mask_token_id)

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of training examples, [n] each."""
        if self.max_seq_length is not None:
            a, spans = cut_lengths(sources - 2, spans, self.max_seq_length - SPECIAL_TOKENS)
            sources = a + 2
        targets = np.minimum(spans + 1, self._target_limit(tgt_length))
        if self.objective == PSEUDO_MASKED:
            return sources + 2 * targets, targets
        return sources + targets, chosen_count(np.minimum(spans, targets), self.mask_prob, self.max_pred)

    def _target_limit(self, tgt_length: int) -> int:
        """Returns the longest target with its [SEP]; no limit of its own where pairs are cut together."""
        return tgt_length if self.max_seq_length is None else self.max_seq_length

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Collates rows of examples, one behind the other, with padding at the end.

        Returns:
            input_ids, position_ids, segment_ids and labels [B, L] (-100 where there is no loss), parts [B, E, 3],
            tasks and order [B, E], all int64; where a row has fewer examples, parts and tasks are 0 and order is -100.
        """
        fills = {"input_ids": pad, "position_ids": 0, "segment_ids": 0, "labels": IGNORE_INDEX}
        batch = {name: np.full((len(rows), width), fill, dtype=np.int64) for name, fill in fills.items()}
        most = max(map(len, rows))
        batch["parts"] = np.zeros((len(rows), most, 3), dtype=np.int64)
        batch["tasks"] = np.zeros((len(rows), most), dtype=np.int64)
        batch["order"] = np.full((len(rows), most), IGNORE_INDEX, dtype=np.int64)
        for number, row in enumerate(rows):
            for name in fills:
                joined = np.concatenate([getattr(example, name) for example in row])
                batch[name][number, : len(joined)] = joined
            batch["parts"][number, : len(row)] = [example.parts for example in row]
            batch["tasks"][number, : len(row)] = [example.task for example in row]
            batch["order"][number, : len(row)] = [example.order for example in row]
        return batch

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """See `Geometry.token_table`, with the example that evaluation uses; asserts that evaluation and generation
        agree."""
        prediction = np.stack([prompt.input_ids, np.arange(len(prompt)), prompt.segment_ids])
        training = None
        if example is not None:
            if len(prompt.source_ids) == example.parts[0]:  # the pair and the prompt may be cut to different lengths
                check_alike(example, prompt)
            training = np.stack([example.input_ids, example.position_ids, example.segment_ids, example.labels])
        parts = example.parts if example else (len(prompt.source_ids), len(prompt.opening_ids), 0)
        return TokenTable(parts[0], training, prediction, ("position", "segment"), attention_mask(*parts))

    def room(self, config: Any, src_length: int) -> int:
        """Longest target beside `src_length` tokens of source: both share the positions."""
        return config.max_position_embeddings - src_length

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if source and target together are longer than the model's positions."""
        length, asked = src_length + tgt_length, f"src_length {src_length} + tgt_length {tgt_length} ="
        if self.max_seq_length is not None:
            length, asked = self.max_seq_length, "max_seq_length"
        if length > config.max_position_embeddings:
            raise InputError(
                f"{asked} {length}: the model has {config.max_position_embeddings} positions "
                "(max_position_embeddings); shorten it"
            )


def _check(options: GeometryOptions, objective: str) -> None:
    """Raises InputError for an option that is out of its range or has no effect."""
    if objective not in OBJECTIVES:
        raise InputError(f"objective {objective}: unknown; use {' or '.join(OBJECTIVES)}")
    for name, needed in (("mask_prob", MASKED), ("max_pred", MASKED), ("target_mask_prob", PSEUDO_MASKED)):
        value = getattr(options, name)
        if value is not None and objective != needed:
            raise InputError(f"{name} {value}: has no effect with objective {objective}; it belongs to {needed}")
    if options.mask_prob is not None and not 0 < options.mask_prob <= 1:
        raise InputError(f"mask_prob {options.mask_prob}: use a number above 0, at most 1")
    if options.target_mask_prob is not None and not 0 <= options.target_mask_prob <= 1:
        raise InputError(f"target_mask_prob {options.target_mask_prob}: use a number from 0 to 1")
    if options.max_pred is not None and options.max_pred < 1:
        raise InputError(f"max_pred {options.max_pred}: use 1 or more")


def attention_mask(a: int, b: int, c: int) -> np.ndarray:
    """Returns who sees whom among the tokens of Part A, Part B and Part C: [L, L] bool, True = row may attend to
    column."""
    rows, columns = np.indices((a + b + c, a + b + c))
    past = (columns < a) | (rows >= a) & (columns <= rows)
    twins = (columns < rows - b) | (columns == rows)
    return np.where(rows < a + b, past & (columns < a + b), twins)


def check_alike(example: Example, prompt: Prompt) -> None:
    """Asserts that generation starts from and continues with the ids, positions and segments of evaluation."""
    S, T, _ = example.parts
    given = min(len(prompt), S + T)  # a target that was cut may end within the opening
    assert (prompt.input_ids[:given] == example.input_ids[:given]).all(), "the tokens differ"
    assert (prompt.segment_ids[:given] == example.segment_ids[:given]).all(), "the segments differ"
    steps = [prompt.step_position(number) for number in range(S + T - len(prompt))]
    positions = np.concatenate([np.arange(len(prompt)), np.array(steps, dtype=np.int64)])[: S + T]
    assert (positions == example.position_ids[: S + T]).all(), "the positions differ"
    assert (example.position_ids[S + T :] == positions[S:]).all(), "the positions of the [MASK]s differ"
