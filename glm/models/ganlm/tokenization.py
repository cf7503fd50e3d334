"""Text as ids and back: a SentencePiece model, and the dictionary of fairseq that numbers its pieces.

    0 <s>   1 <pad>   2 </s>   3 <unk>   4 ... the lines of dict.txt   <mask>   <mask_0> ... <mask_99>   filler

The dictionary decides: a piece of the SentencePiece model has the number of its line. Filler rows, up to a multiple of
8, are in embedding tables only.
"""

import hashlib
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import sentencepiece

from glm.errors import InputError
from glm.runtime.text_lines import read_lines

MODEL_FILE = "spm.model"
DICTIONARY_FILE = "dict.txt"
BOS, PAD, EOS, UNK = range(4)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
SENTINELS = 100
ROW_MULTIPLE = 8  # embedding tables have a multiple of so many rows
SPACE = "▁"


class GanLMTokenizer:
    """Tokenizer of a SentencePiece model with fairseq's dictionary. Text never becomes a special token.

    Args:
        folder: holds `spm.model` and `dict.txt`.

    Raises:
        InputError: one of the files is missing or cannot be read, or the dictionary lacks a piece of the model.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.sp_model = _read_model(self.folder / MODEL_FILE)
        self.pieces = [*SPECIAL, *_read_dictionary(self.folder / DICTIONARY_FILE)]
        numbers = {piece: number for number, piece in enumerate(self.pieces)}
        self.numbers = _numbers_of_pieces(self.sp_model, numbers, self.folder)

    # -- ids of the family's own tokens

    @property
    def mask_token_id(self) -> int:
        """`<mask>`: the first id behind the dictionary's words."""
        return len(self.pieces)

    @property
    def sentinel_ids(self) -> range:
        """Ids of `<mask_0>` to `<mask_99>`."""
        return range(self.mask_token_id + 1, self.mask_token_id + 1 + SENTINELS)

    # -- what the toolkit asks of a tokenizer, see `glm.models.protocol.Tokenizer`

    @property
    def vocab_size(self) -> int:
        """Words, special tokens and sentinels, without filler."""
        return len(self.pieces) + 1 + SENTINELS

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens, by their texts."""
        sentinels = {f"<mask_{number}>": token for number, token in enumerate(self.sentinel_ids)}
        return {text: number for number, text in enumerate(SPECIAL)} | {"<mask>": self.mask_token_id} | sentinels

    @property
    def end_token_id(self) -> int:
        """`</s>`, which closes a text and starts generation."""
        return EOS

    @property
    def pad_token_id(self) -> int:
        return PAD

    @property
    def unknown_token_id(self) -> int:
        return UNK

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the SentencePiece model and the dictionary."""
        digest = hashlib.sha256(self.sp_model.serialized_model_proto())
        digest.update("\n".join(self.pieces).encode())
        return digest.hexdigest()

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list in several threads, without special tokens."""
        numbers = self.numbers
        if isinstance(text, str):
            return [numbers[piece] for piece in self.sp_model.encode(text)]
        return [[numbers[piece] for piece in pieces] for pieces in self.sp_model.encode(text)]

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids: joins pieces, their mark as a space, and leaves out what is no piece."""
        pieces = (self.pieces[number] for number in ids if len(SPECIAL) <= number < len(self.pieces))
        return "".join(pieces).replace(SPACE, " ").strip()

    def token_of(self, number: int) -> str:
        """Returns the piece or special token of an id; `<unk>` for filler."""
        if number < len(self.pieces):
            return self.pieces[int(number)]
        return next((text for text, token in self.special_ids.items() if token == number), SPECIAL[UNK])

    def unknown_parts(self, text: str) -> list[str]:
        """Returns the parts of a text that the model or the dictionary does not know."""
        pieces = zip(self.sp_model.encode(text, out_type=str), self.encode_text(text), strict=True)
        return [piece.lstrip(SPACE) for piece, number in pieces if number == UNK]

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids of special tokens, sentinels, and the filler behind them."""
        return {*range(len(SPECIAL)), *range(len(self.pieces), rows)}

    def save(self, folder: Path) -> None:
        """Writes both files into a folder."""
        for name in (MODEL_FILE, DICTIONARY_FILE):
            if (self.folder / name).resolve() != (folder / name).resolve():
                shutil.copyfile(self.folder / name, folder / name)


def _read_model(path: Path) -> sentencepiece.SentencePieceProcessor:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a SentencePiece model is expected")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: not a SentencePiece model ({error})") from error


def _read_dictionary(path: Path) -> list[str]:
    """Reads a fairseq dictionary: each line has a word, a space and a count."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; the dictionary that numbers the pieces is expected")
    words: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        word, blank, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not blank or not word or not count.isdecimal():
            raise InputError(f"{path}, line {number}: a word and its count are expected, not {line!r:.80}")
        if word in words or word in SPECIAL:
            raise InputError(f"{path}, line {number}: {word!r:.80} is a special token or in line {words.get(word)}")
        words[word] = number
    if not words:
        raise InputError(f"{path}: holds no word")
    return list(words)


def _numbers_of_pieces(
    model: sentencepiece.SentencePieceProcessor, numbers: dict[str, int], folder: Path
) -> list[int]:
    """Maps each piece of a SentencePiece model to its id.

    Raises:
        InputError: the dictionary lacks some.
    """
    found, missing = [], []
    for piece in range(len(model)):
        text = model.id_to_piece(piece)
        is_text = not (model.is_unknown(piece) or model.is_control(piece) or model.is_unused(piece))
        if is_text and text not in numbers:
            missing.append(text)
        found.append(numbers.get(text, UNK) if is_text else UNK)
    if missing:
        some = ", ".join(repr(text) for text in missing[:5])
        raise InputError(
            f"{folder / DICTIONARY_FILE}: lacks {len(missing)} pieces of {MODEL_FILE} ({some}"
            f"{', ...' if len(missing) > 5 else ''}); the two belong to different models"
        )
    return found


def open_tokenizer(path: Path) -> GanLMTokenizer:
    """Opens the tokenizer of a folder, or of a SentencePiece file with its dictionary beside it.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if path.suffix == ".json":
        raise InputError(f"model {path}: a configuration has no tokenizer; set tokenizer_name_or_path")
    folder = path if path.is_dir() else path.parent
    if not (folder / MODEL_FILE).is_file():
        raise InputError(
            f"tokenizer {path}: the folder has no {MODEL_FILE} (and {DICTIONARY_FILE}); set tokenizer_name_or_path"
        )
    return GanLMTokenizer(folder)
