"""BERT's WordPiece tokenizer by the library `tokenizers`. Loads no Paddle.

PaddleNLP's BertTokenizer is not this tokenizer: it also splits at symbols (4℃), and gives other ids.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from glm.errors import InputError
from glm.runtime.settings_file import Settings, read_settings
from glm.runtime.text_lines import read_lines

VOCAB_FILE, SETTINGS_FILE = "vocab.txt", "tokenizer_config.json"  # in a tokenizer's folder
PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = re.compile(r"\[unused\d+\]")  # unused rows of BERT's vocabularies
CONTINUED = "##"
LONGEST_WORD = 100  # characters; a longer word is unknown
# Decoding keeps a space only between ASCII letters or digits: any other was added by the split into words.
NEEDLESS_BLANK = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")


class _TokenizerSettings(Settings, extra="ignore"):
    """The settings of a tokenizer that are used; its file may hold many more."""

    do_lower_case: bool = True


class WordPieceTokenizer:
    """BERT's tokenizer. Text never becomes a special token: `[MASK]` in a text is text.

    Args:
        vocab_file: one token a line; its number is the id.
        lowercase: texts are lower-cased and lose their accents.

    Raises:
        InputError: the file is missing, not UTF-8, has a token twice, or lacks one of BERT's own.
    """

    def __init__(self, vocab_file: str | Path, *, lowercase: bool = True):
        self.vocab_file = str(vocab_file)
        self.lowercase = lowercase
        self.tokens = _read_vocabulary(Path(vocab_file))
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        model = WordPiece(self.ids, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
        self._pieces = tokenizers.Tokenizer(model)
        self._pieces.normalizer = BertNormalizer(lowercase=lowercase)
        self._pieces.pre_tokenizer = BertPreTokenizer()

    # -- ids of BERT's own tokens

    @property
    def cls_token_id(self) -> int:
        """Opens every row."""
        return self.ids[CLS]

    @property
    def sep_token_id(self) -> int:
        """Closes a source, and a target."""
        return self.ids[SEP]

    @property
    def mask_token_id(self) -> int:
        """Stands where a token is predicted."""
        return self.ids[MASK]

    # -- what the toolkit asks of a tokenizer, see `glm.models.protocol.Tokenizer`

    @property
    def vocab_size(self) -> int:
        """Number of lines of the vocabulary."""
        return len(self.tokens)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of BERT's own tokens, by their texts."""
        return {token: self.ids[token] for token in SPECIAL_TOKENS}

    @property
    def end_token_id(self) -> int:
        """Closes a target: `[SEP]`."""
        return self.sep_token_id

    @property
    def pad_token_id(self) -> int:
        """Fills rows up: `[PAD]`."""
        return self.ids[PAD]

    @property
    def unknown_token_id(self) -> int:
        """`[UNK]`."""
        return self.ids[UNKNOWN]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the vocabulary and of whether texts are lower-cased."""
        return hashlib.sha256("\n".join([str(self.lowercase), *self.tokens]).encode()).hexdigest()

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list in several threads, without special tokens."""
        if isinstance(text, str):
            return self._pieces.encode(text, add_special_tokens=False).ids
        return [found.ids for found in self._pieces.encode_batch(text, add_special_tokens=False)]

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids up to the first `[SEP]` or `[PAD]`: joins word pieces, with spaces only between Latin words or
        numbers."""
        ends, left_out = (self.sep_token_id, self.pad_token_id), (self.cls_token_id, self.mask_token_id)
        text = itertools.takewhile(lambda number: number not in ends, ids)
        tokens = [self.tokens[number] for number in text if number < len(self.tokens) and number not in left_out]
        return NEEDLESS_BLANK.sub("", " ".join(tokens).replace(f" {CONTINUED}", "").removeprefix(CONTINUED))

    def token_of(self, number: int) -> str:
        """Returns the token of an id; `[UNK]` beyond the vocabulary."""
        return self.tokens[number] if 0 <= number < len(self.tokens) else UNKNOWN

    def unknown_parts(self, text: str) -> list[str]:
        """Returns the words of a text that have no token."""
        found = self._pieces.encode(text, add_special_tokens=False)
        places = zip(found.ids, found.offsets, strict=True)
        return [text[start:end] for number, (start, end) in places if number == self.unknown_token_id]

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids of BERT's own tokens, its unused ones, and rows behind the vocabulary."""
        unused = {number for number, token in enumerate(self.tokens) if UNUSED.fullmatch(token)}
        return unused | {*self.special_ids.values(), *range(len(self.tokens), rows)}


def _read_vocabulary(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a vocabulary with one token a line is expected")
    lines = read_lines(path)  # U+2028 is a token here, not a line break
    first: dict[str, int] = {}
    for number, token in enumerate(lines, start=1):
        if token in first:
            raise InputError(f"{path}, line {number}: the token {token!r:.40} is in line {first[token]} too")
        first[token] = number
    if missing := [token for token in SPECIAL_TOKENS if token not in first]:
        raise InputError(f"{path}: has no {', '.join(missing)}; the vocabulary of a BERT is expected")
    return lines


def open_tokenizer(path: Path) -> WordPieceTokenizer:
    """Opens the tokenizer of a vocabulary file, or of a folder that has one and whose settings say whether it
    lower-cases.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if path.suffix == ".json":
        raise InputError(f"model {path}: a configuration has no tokenizer; set tokenizer_name_or_path")
    folder = path if path.is_dir() else path.parent
    file = path / VOCAB_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"tokenizer {path}: the folder has no {VOCAB_FILE}; set tokenizer_name_or_path")
    settings = folder / SETTINGS_FILE
    lowercase = read_settings(settings, _TokenizerSettings).do_lower_case if settings.is_file() else True
    return WordPieceTokenizer(file, lowercase=lowercase)


def save_tokenizer(tokenizer: WordPieceTokenizer, folder: Path) -> None:
    """Writes the vocabulary and whether texts are lower-cased, in files that PaddleNLP and Hugging Face read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCAB_FILE).write_text("\n".join(tokenizer.tokens) + "\n", encoding="utf-8", newline="\n")
    settings = {"do_lower_case": tokenizer.lowercase, "tokenizer_class": "BertTokenizer"}
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
