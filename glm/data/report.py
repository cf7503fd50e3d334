"""What a check found in a file of records: counts, problems, lengths; to be printed, stored, and insisted on."""

from dataclasses import asdict, dataclass, field
from typing import Any

from glm.data.problems import Kind
from glm.errors import InputError

SHOWN = 10  # problems of a kind that are kept in words; all are counted


@dataclass(frozen=True)
class ProblemGroup:
    """The problems of one kind.

    Args:
        count: how many there are.
        refused: rows with it are not used.
        first: some of them in words, with file, line and field.
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
    """What was found in one file; all of it JSON values.

    Args:
        columns: where its fields were taken from.
        read: number of rows, which is `used` + `refused`.
        lengths: quantiles of characters and of tokens, for source and target.
        cut_sources, cut_targets: how many are cut; `lost_tokens` is what the sources lose at least.
        unknown_rows: rows that hold text without a piece; `unknown_pieces` counts the most frequent of such.
        warnings: what else should be known.
        recommended: lengths that fit, by option.
        bad_rows: the refused rows that were kept.
        notes: what is good to know, and wrong with nothing.
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
        """The report of which `as_dict` gave these values."""
        return cls(**{**values, "problems": [ProblemGroup(**group) for group in values["problems"]]})

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)

    @property
    def problem_count(self) -> int:
        """Number of problems of all kinds."""
        return sum(group.count for group in self.problems)

    def summary(self) -> str:
        """The count of rows, in a line."""
        columns = f" ({self.columns})" if self.columns else ""
        return f"{self.file}: {self.read} rows read = {self.used} used + {self.refused} refused{columns}"

    def notices(self) -> list[str]:
        """Summary, warnings, the first problem of each kind, and notes: what a run says of its data."""
        groups = [
            f"{group.kind}, {group.count} times ({group.advice}); the first: {group.first[0]}"
            for group in self.problems
        ]
        warnings = [f"warning: {text}" for text in [*groups, *self.warnings]]
        return [self.summary(), *warnings, *(f"note: {text}" for text in self.notes)]

    def require(self, most_refused: int) -> None:
        """Raises InputError if more rows than that were refused, or all."""
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
