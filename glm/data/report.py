"""The report of a check of a data file: counts, problems, lengths; printed, stored, and enforced."""

from dataclasses import asdict, dataclass, field
from typing import Any

from glm.data.problems import Kind
from glm.errors import InputError

SHOWN = 10  # messages kept of each kind of problem; all are counted


@dataclass(frozen=True)
class ProblemGroup:
    """The problems of one kind.

    Args:
        count: number of problems.
        refused: whether rows with this problem are not used.
        first: the first messages, with file, line and field.
    """

    kind: str
    count: int
    refused: bool
    advice: str
    first: list[str]

    @classmethod
    def of(cls, kind: Kind, count: int, first: list[str]) -> "ProblemGroup":
        return cls(str(kind), count, kind.refuses, kind.advice, first)


@dataclass(frozen=True)
class FileReport:
    """The findings for one file, as JSON values.

    Args:
        columns: which columns were read.
        read: number of rows; it equals `used` + `refused`.
        lengths: quantiles of characters and of tokens, for source and target.
        cut_sources, cut_targets: number of cut ones; `lost_tokens` is what the sources lose at least.
        unknown_rows: rows with text that the tokenizer does not know; `unknown_pieces` counts the most frequent.
        warnings: other things that may be wrong.
        recommended: lengths that fit, by option.
        bad_rows: the refused rows that were kept.
        notes: information that is no problem.
        full_width: whether most punctuation of the targets is full-width; None if there is none.
    """

    file: str
    columns: str
    read: int
    used: int
    refused: int
    problems: list[ProblemGroup]
    lengths: dict[str, dict[str, dict[str, int]]]
    cut_sources: int
    lost_tokens: int
    cut_targets: int
    unknown_rows: int
    unknown_pieces: dict[str, int]
    warnings: list[str]
    recommended: dict[str, int]
    bad_rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    full_width: bool | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FileReport":
        """Restores a report from the result of `as_dict`."""
        return cls(**{**values, "problems": [ProblemGroup(**group) for group in values["problems"]]})

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return asdict(self)

    @property
    def problem_count(self) -> int:
        """Number of problems of all kinds."""
        return sum(group.count for group in self.problems)

    def summary(self) -> str:
        """The numbers of rows, in one line."""
        columns = f" ({self.columns})" if self.columns else ""
        return f"{self.file}: {self.read} rows read = {self.used} used + {self.refused} refused{columns}"

    def notices(self) -> list[str]:
        """The lines that a run logs: summary, warnings, the first problem of each kind, notes."""
        groups = [
            f"{group.kind}, {group.count} times ({group.advice}); the first: {group.first[0]}"
            for group in self.problems
        ]
        warnings = [f"warning: {text}" for text in [*groups, *self.warnings]]
        return [self.summary(), *warnings, *(f"note: {text}" for text in self.notes)]

    def require(self, most_refused: int) -> None:
        """Raises InputError if more than `most_refused` rows were refused, or all."""
        refusals = [message for group in self.problems if group.refused for message in group.first]
        if self.refused > most_refused and self.refused == 1:
            raise InputError(refusals[0])
        if self.refused > most_refused:
            listed = "\n  ".join(refusals[:SHOWN])
            raise InputError(
                f"{self.file}: {self.refused} of the {self.read} rows read cannot be used, and max_bad_records is "
                f"{most_refused}; `python -m glm check` lists all problems. The first:\n  {listed}"
            )
        if not self.used:
            raise InputError(f"{self.file}: none of its {self.read} rows can be used; the first: {refusals[0]}")
