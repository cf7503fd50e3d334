"""Lays out texts for VLM, a GPT-2: ids, segments, labels. NumPy only.

Every token sees itself and what stands before it; positions are 0, 1, 2, ... A task's row has tags, and the tag that a
token belongs to is its segment, whose row of the word table is added to the token's:

    mt            <bos_mt> <source_mt> s1 s2 <target_mt> t1 t2
    segments      bos      source  source  source target target target
    labels        -        -       -   -   t1    t2  <eos_mt>

The segment of a token is the last tag up to it; `<bos_...>` is its own, but in dialogue and qa one of the first part.
So a row of ids says its task and all segments. Without a task it is GPT-2's: `<|endoftext|>`, source, target, no
segments. Source: Lin et al. 2020; zlinao/VGLM. There, an even number of turns has segments that are not its tags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.protocol import IGNORE_INDEX, NO_TASK, GeometryOptions, TokenTable, pad_rows
from glm.models.vlm.tokenization import TASKS, BytePairTokenizer

NO_SEGMENT = -1
TASK_TAGS = tuple(TASKS.values())


@dataclass(frozen=True)
class Example:
    """A training example: tokens of source and target in a row; each label is the token that follows.

    Args:
        input_ids, segment_ids, labels: [L]; segments are -1, and labels -100, where there is none.
        task: its number, -1 for none.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    labels: np.ndarray
    task: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_labels(self) -> int:
        """Tokens of the target, its end among them."""
        return int((self.labels != IGNORE_INDEX).sum())


@dataclass(frozen=True)
class Prompt:
    """What generation starts from.

    Args:
        input_ids, segment_ids: [P].
        task: its number, -1 for none.
        given: tokens of the target that are given.
        source_length: tokens of the source, the tag that opens the target among them.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    task: int
    given: int
    source_length: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def segment(self) -> int:
        """Segment of all generated tokens."""
        return int(self.segment_ids[-1])


class VLMGeometry:
    """Lays out records of one task, or of none.

    Args:
        tokenizer: brings the tags.
        options: which task.
    """

    def __init__(self, tokenizer: BytePairTokenizer, options: GeometryOptions):
        self.tokenizer = tokenizer
        self.tags = TASK_TAGS[options.task] if options.task != NO_TASK else None

    @property
    def special_tokens(self) -> int:
        """Number of special tokens of a source with one part: the task's opening tag, and the tags of source and
        target; or `<|endoftext|>`."""
        return 1 if self.tags is None else 3

    @cached_property
    def _is_tag(self) -> np.ndarray:
        """[V] bool, whether an id is a tag."""
        return np.arange(self.tokenizer.vocab_size) > self.tokenizer.pad_token_id

    @cached_property
    def _tasks(self) -> dict[int, int]:
        """Maps the id of an opening tag to its task's number."""
        return {self.tokenizer.tag_ids[tags.bos]: number for number, tags in enumerate(TASK_TAGS)}

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns the ids of a source; one that does not start with a tag is plain text and gets the tag of the task's
        source."""
        if self.tags is None:
            return [self.tokenizer.end_token_id, *before, *after]
        ids = self.tokenizer.tag_ids
        is_tagged = len(before) and self._is_tag[before[0]]
        part = [] if is_tagged else [ids[self.tags.parts[0]]]
        return [ids[self.tags.bos], *part, *before, *after, ids[self.tags.target]]

    def lay_out_parts(self, parts: Sequence[tuple[str, Sequence[int]]], *, document_length: int) -> list[int]:
        """Returns the ids of a source given in parts, each behind its tag, for `lay_out`.

        Args:
            parts: what each is, and its ids.
            document_length: most tokens of a document.

        Raises:
            InputError: the task has no such part.
        """
        found: list[int] = []
        before = None
        for name, ids in parts:
            if self.tags is not None and f"<{name}>" not in self.tags.parts:
                raise InputError(f"parts: {name} is none of {', '.join(self.tags.parts)}")
            if self.tags is not None and name != before:  # a persona's sentences share one tag
                found.append(self.tokenizer.tag_ids[f"<{name}>"])
            before = name
            found += ids[:document_length] if name == "document" else ids
        return found

    def task_of(self, ids: Sequence[int]) -> int:
        """Returns the number of the task that a row belongs to; -1 for none."""
        return self._tasks.get(int(ids[0]), NO_TASK)

    def segments(self, ids: np.ndarray) -> np.ndarray:
        """Returns the segment of each token of a row: [L] -> [L], -1 for none.

        Raises:
            InputError: an id is no token's.
        """
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.tokenizer.vocab_size:
            raise InputError(f"token ids {int(ids.min())} to {int(ids.max())}: there are {self.tokenizer.vocab_size}")
        tagged = np.where(self._is_tag[ids], np.arange(len(ids)), -1)
        last = np.maximum.accumulate(tagged)
        segments = np.where(last < 0, NO_SEGMENT, ids[np.maximum(last, 0)])
        task = self.task_of(ids)
        if task != NO_TASK and TASK_TAGS[task].opens_with_part and len(ids) > 1:
            segments[0] = segments[1]
        return segments

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """See `Geometry.example`; nothing is random in it, and a target that is cut keeps its end."""
        task, span = self.task_of(source_ids), [*span][: tgt_length - 1]
        ids = np.array([*source_ids, *span], dtype=np.int64)
        end = self.tokenizer.end_token_id if task == NO_TASK else self.tokenizer.tag_ids[TASK_TAGS[task].eos]
        labels = np.array([*[IGNORE_INDEX] * (len(source_ids) - 1), *span, end], dtype=np.int64)
        return Example(ids, self.segments(ids), labels, task)

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """See `Geometry.prompt`."""
        ids = np.array([*source_ids, *opening], dtype=np.int64)
        return Prompt(ids, self.segments(ids), self.task_of(source_ids), len(opening), len(source_ids))

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of examples, [n] each: the end token is a label, but not read."""
        labels = np.minimum(spans + 1, tgt_length)
        return sources + labels - 1, labels

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Collates rows of examples, one behind the other, with padding at the end.

        Returns:
            input_ids, segment_ids, labels [B, L] int64; lengths and tasks [B, E] of each row's examples from left to
            right, 0 and -1 where a row has fewer.
        """
        most = max(map(len, rows))
        lengths, tasks = np.zeros((len(rows), most), np.int64), np.full((len(rows), most), NO_TASK, np.int64)
        for number, row in enumerate(rows):
            lengths[number, : len(row)] = [len(example) for example in row]
            tasks[number, : len(row)] = [example.task for example in row]

        def joined(name: str, filler: int) -> np.ndarray:
            return pad_rows([np.concatenate([getattr(one, name) for one in row]) for row in rows], width, filler)

        return {
            "input_ids": joined("input_ids", pad),
            "segment_ids": joined("segment_ids", NO_SEGMENT),
            "labels": joined("labels", IGNORE_INDEX),
            "lengths": lengths,
            "tasks": tasks,
        }

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """See `Geometry.token_table`; asserts that training and prediction agree."""
        training = None
        if example is not None:
            given = min(len(prompt), len(example))
            assert (prompt.input_ids[:given] == example.input_ids[:given]).all(), "the tokens differ"
            assert (prompt.segment_ids[:given] == example.segment_ids[:given]).all(), "the segments differ"
            assert (example.segment_ids[prompt.source_length :] == prompt.segment).all(), (
                "segments of the target differ"
            )
            assert prompt.task == example.task, "the tasks differ"
            positions = np.arange(len(example))
            training = np.stack([example.input_ids, positions, example.segment_ids, example.labels])
        return TokenTable(
            source_length=prompt.source_length,
            training=training,
            prediction=np.stack([prompt.input_ids, np.arange(len(prompt)), prompt.segment_ids]),
            rows=("position", "segment"),
            sees=np.tri(len(example or prompt), dtype=bool),
        )

    def room(self, config: Any, src_length: int) -> int:
        """Longest target beside `src_length` tokens of source: both share the positions; the end token needs none."""
        return config.max_position_embeddings - src_length + 1

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if source and target together are longer than the model's positions."""
        if tgt_length > self.room(config, src_length):
            raise InputError(
                f"src_length {src_length} + tgt_length {tgt_length}: the model has {config.max_position_embeddings} "
                "positions; shorten one of them"
            )
