"""GLM's tokenizer without PaddleNLP: a SentencePiece model, with GLM's command tokens behind its pieces."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import sentencepiece

from glm.errors import InputError

MODEL_FILE = "cog-pretrain.model"  # the SentencePiece model in a tokenizer's folder
# Published names whose tokenizer can be fetched.
PUBLISHED_TOKENIZERS = ("THUDM/glm-large-chinese", "THUDM/glm-10b-chinese")

# THUDM/GLM, data_utils/tokenization.py, ChineseSPTokenizer with fix_command_token; offset 5 is unused there.
# Behind cog-pretrain.model's 50,000 pieces they are 50000 (<|endoftext|>) to 50009 ([gMASK]).
COMMAND_TOKENS = {
    "<|endoftext|>": 0,
    "[SEP]": 1,
    "[CLS]": 2,
    "[MASK]": 3,
    "[UNK]": 4,
    "<|startofpiece|>": 6,
    "<|endofpiece|>": 7,
    "[sMASK]": 8,
    "[gMASK]": 9,
}
COMMAND_ROWS = 10
BLOCK_MASK, BLOCK_MASK_OFFSET = "[dBLOCK]", 10  # used in pretraining only, where it hides tokens of a span
SPECIAL_TOKENS = {
    "eos_token": "<|endoftext|>",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "<|endoftext|>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "additional_special_tokens": ["<|startofpiece|>", "<|endofpiece|>", "[sMASK]", "[gMASK]"],
}
# Files that PaddleNLP's tokenizer class expects beside the SentencePiece model.
PADDLENLP_FILES = {
    "special_tokens_map.json": SPECIAL_TOKENS,
    "tokenizer_config.json": {"added_tokens_decoder": {}, "tokenizer_class": "GLMTokenizer"},
}


class GLMSentencePieceTokenizer:
    """Tokenizer of a SentencePiece model with GLM's command tokens.

    Args:
        model_file: a SentencePiece model, as `cog-pretrain.model`.
        sp_model: what was read of it, if it was.

    Raises:
        InputError: the file is missing or is no SentencePiece model.

    Attributes:
        commands: the command tokens, and how far behind the last piece each stands.
    """

    commands: Mapping[str, int] = COMMAND_TOKENS

    def __init__(self, model_file: str, sp_model: sentencepiece.SentencePieceProcessor | None = None):
        self.sp_model = sp_model or _read_model(model_file)
        self.model_file = str(model_file)
        self.command_ids = {token: len(self.sp_model) + offset for token, offset in self.commands.items()}
        self.command_tokens = {number: token for token, number in self.command_ids.items()}

    # -- ids of GLM's own tokens

    @property
    def cls_token_id(self) -> int:
        """Opens a source: `[CLS]`."""
        return self.command_ids["[CLS]"]

    @property
    def eos_token_id(self) -> int:
        """Closes a source, and pads it: `<|endoftext|>`."""
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

    @property
    def block_mask_id(self) -> int:
        """Hides tokens of a span in pretraining: `[dBLOCK]`."""
        return len(self.sp_model) + BLOCK_MASK_OFFSET

    # -- what the toolkit asks of a tokenizer, see `glm.models.protocol.Tokenizer`

    @property
    def vocab_size(self) -> int:
        """Number of pieces and command tokens, the unused offset included."""
        return len(self.sp_model) + COMMAND_ROWS

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the command tokens, by their texts."""
        return self.command_ids

    @property
    def end_token_id(self) -> int:
        """Closes a span: `<|endofpiece|>`."""
        return self.eop_token_id

    @property
    def pad_token_id(self) -> int:
        """Fills rows up: `<|endoftext|>`."""
        return self.eos_token_id

    @property
    def unknown_token_id(self) -> int:
        """The piece for characters that have none."""
        return self.sp_model.unk_id()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the SentencePiece model."""
        return hashlib.sha256(self.sp_model.serialized_model_proto()).hexdigest()

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list, without special tokens; a command token's name in a text is only
        text.

        A list is encoded by several threads.
        """
        return self.sp_model.encode(text)

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids; command tokens and ids beyond the vocabulary are left out."""
        return self.sp_model.decode([int(number) for number in ids if number < len(self.sp_model)])

    def token_of(self, number: int) -> str:
        """Returns the piece or command token of an id; `[UNK]` for the unused offset among the command tokens."""
        if number < len(self.sp_model):
            return self.sp_model.id_to_piece(int(number))
        if number == self.block_mask_id:
            return BLOCK_MASK
        return self.command_tokens.get(int(number), "[UNK]")

    def unknown_parts(self, text: str) -> list[str]:
        """Returns the parts of a text that have no piece."""
        pieces = zip(self.sp_model.encode(text, out_type=str), self.sp_model.encode(text), strict=True)
        return [piece.lstrip("▁") for piece, number in pieces if number == self.unknown_token_id]

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids of unknown and control pieces, command tokens, and rows behind the vocabulary."""
        model = self.sp_model
        no_text = {piece for piece in range(len(model)) if model.is_unknown(piece) or model.is_control(piece)}
        return no_text | {*range(len(model), rows)}


def _read_model(path: str) -> sentencepiece.SentencePieceProcessor:
    if not Path(path).is_file():
        raise InputError(f"{path or 'tokenizer'}: no such file; a SentencePiece model is expected")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: not a SentencePiece model ({error})") from error


def open_tokenizer(path: Path) -> GLMSentencePieceTokenizer:
    """Opens the tokenizer of a SentencePiece file, or of a folder that has one.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    return open_pieces(path, MODEL_FILE, GLMSentencePieceTokenizer)


def open_pieces(path: Path, name: str, kind: type[GLMSentencePieceTokenizer]) -> GLMSentencePieceTokenizer:
    """Opens a tokenizer of this class, whose folders have a file of this name."""
    # The file is all that is needed; other files beside it may be another library's.
    return kind(str(path / name if path.is_dir() else path))
