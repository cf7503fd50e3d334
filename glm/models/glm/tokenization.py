"""Text as ids and back, without PaddleNLP: a SentencePiece model, and GLM's command tokens after its pieces."""

from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from glm.errors import InputError
from glm.models.glm.command_tokens import COMMAND_TOKENS

MODEL_FILE = "cog-pretrain.model"  # the SentencePiece model in a tokenizer's folder


class Pieces:
    """The ids of texts and of GLM's own tokens.

    Args:
        model_file: a SentencePiece model, as `cog-pretrain.model`.

    Raises:
        InputError: the file is missing or is no SentencePiece model.
    """

    def __init__(self, model_file: str):
        if not Path(model_file).is_file():
            raise InputError(f"{model_file or 'tokenizer'}: no such file; a SentencePiece model is expected")
        try:
            self.sp_model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError) as error:
            raise InputError(f"{model_file}: not a SentencePiece model ({error})") from error
        self.model_file = str(model_file)
        self.command_ids = {token: len(self.sp_model) + offset for token, offset in COMMAND_TOKENS.items()}
        self.command_tokens = {number: token for token, number in self.command_ids.items()}

    # -- ids of GLM's own tokens

    @property
    def cls_token_id(self) -> int:
        """Opens a source: `[CLS]`."""
        return self.command_ids["[CLS]"]

    @property
    def eos_token_id(self) -> int:
        """Closes a source, and is its padding: `<|endoftext|>`."""
        return self.command_ids["<|endoftext|>"]

    @property
    def sop_token_id(self) -> int:
        """Opens a span: `<|startofpiece|>`."""
        return self.command_ids["<|startofpiece|>"]

    @property
    def eop_token_id(self) -> int:
        """Closes a span: `<|endofpiece|>`."""
        return self.command_ids["<|endofpiece|>"]

    @property
    def mask_token_ids(self) -> tuple[int, int, int]:
        """Ids of `[MASK]`, `[sMASK]` and `[gMASK]`."""
        return self.command_ids["[MASK]"], self.command_ids["[sMASK]"], self.command_ids["[gMASK]"]

    # -- text and ids, without command tokens

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Ids of a text or of each text of a list, nothing added; command tokens in it are text like any other.

        A list is encoded by several threads.
        """
        return self.sp_model.encode(text)

    def decode_ids(self, ids: Iterable[int]) -> str:
        """The text of ids; command tokens and ids beyond the vocabulary are left out."""
        return self.sp_model.decode([int(number) for number in ids if number < len(self.sp_model)])

    def token_of(self, number: int) -> str:
        """The piece or command token of an id."""
        return self.sp_model.id_to_piece(number) if number < len(self.sp_model) else self.command_tokens[number]


def find_model_file(name_or_path: str) -> str | None:
    """The SentencePiece model of a tokenizer that is a file or a folder; None for a published name."""
    path = Path(name_or_path)
    if path.is_dir():
        path = path / MODEL_FILE
    return str(path) if path.is_file() else None
