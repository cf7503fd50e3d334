"""The problems that a row of data may have, with messages that say where it is and what to do."""

from enum import StrEnum

from glm.errors import InputError


class Kind(StrEnum):
    """A kind of problem; its value is its name in reports."""

    ENCODING = "wrong encoding"
    SYNTAX = "cannot be parsed"
    MISSING = "missing field"
    TYPE = "wrong type"
    EMPTY = "empty field"
    COMMAND = "command token"
    SURROGATE = "half a surrogate pair"
    SOURCE_LENGTH = "source too long"
    TARGET_LENGTH = "target too long"
    FEW_TOKENS = "too few tokens"
    LABEL = "unknown label"
    BLANK = "wrong number of blanks"
    PLACE = "place that does not match its text"
    CANDIDATES = "candidates that cannot be told apart"
    REPEATED_ID = "id of another question"
    CONTROL = "control character"
    MARK = "special token"
    INVISIBLE = "invisible character"
    NULL_WORD = "missing value as a word"
    DUPLICATE_ID = "duplicate id"
    DUPLICATE_ROW = "duplicate row"
    SHARED_ROW = "row in two files"
    SHORT = "short document"
    BOILERPLATE = "repeated passage"

    @property
    def refuses(self) -> bool:
        """Whether a row with this problem is refused; with the other problems it is used."""
        return self not in HARMLESS

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self]


HARMLESS = {
    Kind.CONTROL,
    Kind.MARK,
    Kind.INVISIBLE,
    Kind.NULL_WORD,
    Kind.DUPLICATE_ID,
    Kind.DUPLICATE_ROW,
    Kind.SHARED_ROW,
    Kind.SHORT,
    Kind.BOILERPLATE,
}

ADVICE = {
    Kind.ENCODING: "convert the file to UTF-8, e.g. iconv -f GB18030 -t UTF-8",
    Kind.SYNTAX: "mend the row: one JSON object per line, or as many cells as the header has",
    Kind.MISSING: "fill the field in, take the row out, or name other columns with --source_column, --answer_column "
    "and --target_column",
    Kind.TYPE: "write the value as text",
    Kind.EMPTY: "fill the field in, or take the row out",
    Kind.COMMAND: "take the token out of the text: the model would read it as a command",
    Kind.SURROGATE: "escape whole characters, or write them as UTF-8",
    Kind.SOURCE_LENGTH: "raise --src_length, or shorten what may not be cut",
    Kind.TARGET_LENGTH: "raise --tgt_length, shorten the target, or accept its cut with --allow_cut_targets",
    Kind.FEW_TOKENS: "take the row out of the training file; to be evaluated it may stay",
    Kind.LABEL: "write one of the task's labels, or name the words with --labels WORD=LABEL,WORD=LABEL",
    Kind.BLANK: "write exactly one blank",
    Kind.PLACE: "mend the index, or the text of the span",
    Kind.CANDIDATES: "let candidates differ: what is equal to the model cannot be told apart",
    Kind.REPEATED_ID: "give every question of a language an id of its own: figures are by language and id",
    Kind.MARK: "take it out where it is a left-over of a conversion: it is read letter by letter, as any text",
    Kind.CONTROL: "take the characters out; they are left-overs of a conversion, and the model would learn them",
    Kind.INVISIBLE: "take the characters out; they are left-overs of web pages, split words, and cannot be copied",
    Kind.NULL_WORD: "take the rows out; the words are missing values of an export, and the model would learn them",
    Kind.DUPLICATE_ID: "give every row an id of its own, or none; predictions are told apart by it",
    Kind.DUPLICATE_ROW: "take one of the rows out; it counts twice in training and in scores",
    Kind.SHARED_ROW: "take the row out of one of the files; what was trained on cannot be used to evaluate",
    Kind.SHORT: "is read beside other documents only; join it to the text it belongs to, or take it out",
    Kind.BOILERPLATE: "take out what web pages and forms repeat: the model would learn it by heart",
}


class RecordError(InputError):
    """A row of data that cannot be used.

    Args:
        kind: what is wrong.
        origin: the file and the row in it.
        message: says it.
        field: the field that is wrong, if it is one.
    """

    def __init__(self, kind: Kind, origin: str, message: str, *, field: str | None = None):
        super().__init__(f"{origin}, field {field}: {message}" if field else f"{origin}: {message}")
        self.kind = kind
        self.origin = origin
        self.field = field
