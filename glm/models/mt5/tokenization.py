"""mT5's tokenizer: a unigram SentencePiece model whose first pieces are `<pad>`, `</s>` and `<unk>`."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import sentencepiece

from glm.errors import InputError

MODEL_FILE = "spiece.model"  # Hugging Face's file name
PAD, END = 0, 1  # ids of `<pad>`, which also starts a text, and `</s>`


class MT5Tokenizer:
    """Tokenizer of mT5's SentencePiece model; see `glm.models.protocol.Tokenizer`.

    Args:
        sp_model: the SentencePiece model.
    """

    end_token_id, pad_token_id = END, PAD

    def __init__(self, sp_model: sentencepiece.SentencePieceProcessor):
        self.sp_model = sp_model
        self.vocab_size = len(sp_model)
        self.special_ids = {sp_model.id_to_piece(number): number for number in (PAD, END)}

    @property
    def unknown_token_id(self) -> int:
        """The piece for text that has no other."""
        return self.sp_model.unk_id()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the SentencePiece model."""
        return hashlib.sha256(self.sp_model.serialized_model_proto()).hexdigest()

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list in several threads, without special tokens."""
        return self.sp_model.encode(text)

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids; special tokens and ids beyond the vocabulary are left out."""
        return self.sp_model.decode([int(number) for number in ids if END < number < self.vocab_size])

    def token_of(self, number: int) -> str:
        """The piece of an id."""
        return self.sp_model.id_to_piece(int(number)) if number < self.vocab_size else "<unk>"

    def unknown_parts(self, text: str) -> list[str]:
        """Returns the parts of a text that have no piece."""
        pieces = zip(self.sp_model.encode(text, out_type=str), self.sp_model.encode(text), strict=True)
        return [piece.lstrip("▁") for piece, number in pieces if number == self.unknown_token_id]

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids of unknown and control pieces, and rows behind the last piece."""
        model = self.sp_model
        no_text = {piece for piece in range(len(model)) if model.is_unknown(piece) or model.is_control(piece)}
        return no_text | {*range(len(model), rows)}


def open_tokenizer(path: Path) -> MT5Tokenizer:
    """Opens the tokenizer of a SentencePiece file, or of a folder that has one.

    Raises:
        InputError: it cannot be read, or is not one of an mT5.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{file}: not a SentencePiece model ({error})") from error
    if len(model) <= END or model.id_to_piece(END) != "</s>" or not model.is_control(PAD):
        raise InputError(f"{file}: its first pieces are not <pad> and </s>, as mT5's are")
    return MT5Tokenizer(model)


def save_tokenizer(tokenizer: MT5Tokenizer, folder: Path) -> None:
    """Writes the SentencePiece model into a folder."""
    (folder / MODEL_FILE).write_bytes(tokenizer.sp_model.serialized_model_proto())
