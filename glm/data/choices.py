"""Encodes questions with candidates: the text with its blank, and the ids of each candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

from glm.data.problems import Kind, RecordError
from glm.data.task_records import TaskRecord
from glm.data.tasks import CHOOSE, MASK, Cut, Part, Task, blank_of, check_pattern, text_of_part
from glm.data.templates import BLANKS, GENERATION_BLANK
from glm.errors import InputError
from glm.models.protocol import Family, GeometryOptions, Prompt, Tokenizer


@dataclass(frozen=True)
class EncodedChoice:
    """A question, encoded.

    Args:
        before, after: ids before and after the blank, shortened to fit.
        opening: what of the text stands behind the blank's opening, where it is read from left to right only.
        candidates: ids of each, its end included if that is scored.
        lost: tokens that were cut.
        too_long: tokens that may not be cut and do not fit: the record is unusable.
    """

    record: TaskRecord
    before: list[int]
    after: list[int]
    opening: list[int]
    candidates: list[list[int]]
    lost: int = 0
    too_long: int = 0

    @property
    def target(self) -> list[int] | None:
        """The ids of the right candidate; None if it is unknown."""
        return self.candidates[self.record.right[0]] if self.record.right else None


class ChoiceEncoder:
    """Encodes questions and their candidates for a family's model.

    Args:
        pattern_id: number of one of the task's patterns; None for its first.
        src_length: most tokens of the text, special ones included.
        tgt_length: most tokens of a candidate.
        multi_token: True scores every candidate piece by piece with its end; False refuses words of several pieces;
            None does what the words need.
        unidirectional: the text is read from left to right only.

    Attributes:
        is_single: whether every candidate is one piece, whose score is its logit.
        notes: what a user should know of the words.

    Raises:
        InputError: a word is no single piece where one is asked for, is a command, has no pieces, or is another's
            equal; or the family cannot lay out the pattern.
    """

    kind = CHOOSE
    opening_ids: Sequence[int] = ()
    min_tgt_length = 0
    allow_cut_targets = False

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        task: Task,
        *,
        src_length: int,
        tgt_length: int,
        pattern_id: int | None = None,
        multi_token: bool | None = None,
        unidirectional: bool = False,
        block_position: bool = True,
    ):
        self.family, self.tokenizer, self.task = family, tokenizer, task
        self.template = task
        self.pattern = task.pattern(pattern_id)
        self.pattern_id = pattern_id
        self.src_length, self.tgt_length = src_length, tgt_length
        self.unidirectional = unidirectional
        blank = MASK if callable(self.pattern.parts) else blank_of(self.pattern.parts)
        family.check_template(self._frame(blank), blank)
        check_pattern(self.pattern, family, subject=f"task {task.name}")
        if unidirectional and (self.pattern.labels or family.blanks == ()):
            raise InputError("unidirectional True: only for files of choices, last words and perplexity; leave it out")
        blank = GENERATION_BLANK if unidirectional else blank
        self.geometry = family.geometry(tokenizer, GeometryOptions(blank, block_position))
        self.notes: list[str] = []
        self.words = {word: tokenizer.encode_text(word) for word in self.pattern.labels.values()}
        self.is_single = self._scored_as_one(multi_token)
        self._check_words()

    def _frame(self, blank: str) -> str:
        """Returns the pattern as one text, for messages of the family."""
        parts = self.pattern.parts
        return f"…{blank}" if callable(parts) else "".join(map(text_of_part, parts))

    def _scored_as_one(self, multi_token: bool | None) -> bool:
        if multi_token is False and (self.task.several or not self.words):
            raise InputError(f"multi_token False: candidates of {self.task.name} are of several pieces; leave it out")
        if multi_token or self.task.several:
            return False
        pieces = {word: self._pieces(ids) for word, ids in self.words.items() if len(ids) != 1}
        listed = "; ".join(f"{word} is {pieces or 'none'}" for word, pieces in pieces.items())
        if multi_token is False and pieces:
            raise InputError(f"multi_token False: a label's word has to be a single piece; {listed}")
        if pieces:
            self.notes.append(f"labels of several pieces ({listed}): each is scored as several, its end included")
        return not pieces

    def _pieces(self, ids: Sequence[int]) -> str:
        return " ".join(map(self.tokenizer.token_of, ids))

    def _check_words(self) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for word, ids in self.words.items():
            subject = f"labels: the word {word} ({self._pieces(ids) or 'no piece'})"
            if not ids or self.tokenizer.unknown_token_id in ids:
                raise InputError(f"{subject}: the tokenizer has no pieces for all of it; choose another")
            if tuple(ids) in seen:
                raise InputError(f"{subject}: is the same to the model as {seen[tuple(ids)]}; choose another")
            seen[tuple(ids)] = word
            if len(ids) + 1 > self.tgt_length:
                raise InputError(f"{subject}: longer than tgt_length {self.tgt_length}; raise it")

    # -- for a check of a file

    @property
    def described(self) -> list[str]:
        """Everything beside lengths and tokenizer that the ids of a question depend on."""
        options = f"single {self.is_single}, unidirectional {self.unidirectional}"
        return [*self.task.described(self.pattern_id), options]

    @property
    def special_tokens(self) -> int:
        """Number of tokens of a source beside its text."""
        if self.unidirectional and not self.task.exact:
            return len(self.geometry.lay_out_blanks([GENERATION_BLANK]))
        return self.geometry.special_tokens

    @property
    def source_budget(self) -> int:
        """Most tokens of a source without special ones."""
        return self.src_length - self.special_tokens

    @property
    def target_budget(self) -> int:
        """Most tokens of a candidate."""
        return self.tgt_length

    @property
    def constant_text(self) -> str:
        """Text that every question holds, with the words of labels."""
        return "".join([self.pattern.constant_text, *self.words])

    def uncut_length(self, encoded: EncodedChoice) -> int:
        """Returns the number of tokens of the text without any cut."""
        return len(encoded.before) + len(encoded.after) + len(encoded.opening) + encoded.lost + self.special_tokens

    def overflow(self, encoded: EncodedChoice) -> int:
        """Returns by how many tokens the text was longer than `src_length`."""
        return encoded.lost

    def source_problem(self, encoded: EncodedChoice) -> RecordError | None:
        """Says why a question cannot be used: its text or a candidate does not fit, or two candidates are equal."""
        record = encoded.record
        if encoded.too_long:
            message = f"{encoded.too_long} tokens that may not be cut do not fit into src_length {self.src_length}"
            return RecordError(Kind.SOURCE_LENGTH, record.origin, message, field="template")
        if len(encoded.candidates) == 1 and not (record.lone or self.task.exact):
            return RecordError(
                Kind.CANDIDATES, record.origin, "one choice; two at least to choose from", field="choices"
            )
        seen: dict[tuple[int, ...], int] = {}
        for place, ids in enumerate(encoded.candidates):
            name, text = f"choices[{place}]", record.words[place].strip()
            if not ids or (len(ids) == 1 and ids[0] == self.tokenizer.end_token_id):
                message = f"{text}: the tokenizer has no pieces for it"
                return RecordError(Kind.EMPTY, record.origin, message, field=name)
            if len(ids) > self.tgt_length:
                message = f"{text:.40}: {len(ids)} tokens, and tgt_length {self.tgt_length} has no room for them"
                return RecordError(Kind.TARGET_LENGTH, record.origin, message, field=name)
            if tuple(ids) in seen:
                message = f"{text:.40}: is the same to the model as choices[{seen[tuple(ids)]}]"
                return RecordError(Kind.CANDIDATES, record.origin, message, field=name)
            seen[tuple(ids)] = place
        return None

    def target_problem(self, encoded: EncodedChoice) -> RecordError | None:
        """Returns nothing: candidates are checked by `source_problem`."""

    # -- ids

    def encode(self, records: Sequence[TaskRecord]) -> list[EncodedChoice]:
        """Encodes questions; SentencePiece uses several threads."""
        parts = [self.pattern.parts_of(record.values) for record in records]
        texts = {text for found in parts for part in found for text in _texts(part)}
        if not self.words:
            texts |= {word for record in records for word in record.words}
        listed = list(texts)
        known = dict(zip(listed, self.tokenizer.encode_text(listed), strict=True)) if listed else {}
        return [self._encoded(record, found, known) for record, found in zip(records, parts, strict=True)]

    def _encoded(self, record: TaskRecord, parts: Sequence[Part], known: dict[str, list[int]]) -> EncodedChoice:
        flat = [piece for part in parts for piece in _split(part)]
        ids = [[] if BLANKS.fullmatch(piece.text) else known[piece.text] for piece in flat]
        cuts = [piece if piece.group >= 0 else None for piece in flat]
        shortened, lost, too_long = shorten(ids, cuts, self.source_budget)
        place = next(place for place, piece in enumerate(flat) if BLANKS.fullmatch(piece.text))
        before = [token for part in shortened[:place] for token in part]
        after = [token for part in shortened[place + 1 :] for token in part]
        opening: list[int] = []
        if self.unidirectional:  # the last word's tokens except the first are read behind the blank
            given = 1 if self.task.exact else 0
            before, after, opening = before[:given], [], [*before[given:], *after]
        candidates = [self.words[word] if word in self.words else known[word] for word in record.words]
        if not self.is_single and self.task.ends:
            candidates = [[*ids, self.tokenizer.end_token_id] for ids in candidates]
        return EncodedChoice(record, before, after, opening, list(candidates), lost, too_long)

    def lay_out_source(self, encoded: EncodedChoice) -> list[int]:
        """Returns the ids of a source. Raises RecordError: see `source_problem`."""
        if error := self.source_problem(encoded):
            raise error
        if self.unidirectional and not encoded.before:
            return self.geometry.lay_out_blanks([GENERATION_BLANK])
        return self.geometry.lay_out(encoded.before, encoded.after)

    def prompt(self, encoded: EncodedChoice) -> Prompt:
        """Returns the prompt that candidates are read behind. Raises RecordError: see `source_problem`."""
        return self.geometry.prompt(self.lay_out_source(encoded), opening=encoded.opening)


def _texts(part: Part) -> list[str]:
    return [piece.text for piece in _split(part) if not BLANKS.fullmatch(piece.text)]


def _split(part: Part) -> list[Cut]:
    """Splits a part into texts that are encoded separately, the blank one of them; those that may not be cut have
    group -1."""
    if isinstance(part, Cut):
        return [part]
    return [Cut(text, -1) for text in BLANKS.split(part) if text]


def shorten(
    parts: Sequence[Sequence[int]], cuts: Sequence[Cut | None], budget: int
) -> tuple[list[list[int]], int, int]:
    """Shortens parts one token at a time until they fit: takes it from the group with most tokens left (of equal ones
    the later), and there from the last part that has any (THUDM/GLM, tasks/superglue/pvp.py).

    Args:
        parts: ids.
        cuts: which parts may be cut, and how; None may not.

    Returns:
        What is left of each part, how many tokens were taken, and by how many it is too long although nothing more
        may be cut.
    """
    sizes = [len(part) for part in parts]
    over = max(0, sum(sizes) - budget)
    lost = 0
    groups: dict[int, list[int]] = {}
    for place, cut in enumerate(cuts):
        if cut is not None:
            groups.setdefault(cut.group, []).append(place)
    while lost < over:
        left = {group: sum(sizes[place] for place in places) for group, places in groups.items()}
        most = max(left.values(), default=0)
        if not most:
            break
        group = max(group for group, size in left.items() if size == most)
        last = max(place for place in groups[group] if sizes[place])
        sizes[last] -= 1
        lost += 1
    kept = [
        list(part[len(part) - size :] if cut is not None and cut.keeps_end else part[:size])
        for part, size, cut in zip(parts, sizes, cuts, strict=True)
    ]
    return kept, lost, over - lost
