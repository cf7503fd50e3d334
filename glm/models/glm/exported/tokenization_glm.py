"""Tokenizer of a GLM for Hugging Face's transformers: a SentencePiece model, and GLM's own tokens after its pieces.

What a text becomes can be generated from: `[CLS] text <|endoftext|> <|startofpiece|>`. The blank to fill stands in the
text: `[MASK]`, `[sMASK]` or `[gMASK]`; without one `[gMASK]` is appended. Nothing follows a last `[gMASK]`.
"""

import shutil
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer

MODEL_FILE = "cog-pretrain.model"


class GLMTokenizer(PreTrainedTokenizer):
    """Ids of texts, and back.

    Args:
        vocab_file: the SentencePiece model.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs):
        self.vocab_file = vocab_file
        self.sp_model = SentencePieceProcessor(model_file=vocab_file)
        super().__init__(**{"padding_side": "left", **kwargs})

    @property
    def vocab_size(self) -> int:
        """Number of pieces; GLM's own tokens are added ones."""
        return len(self.sp_model)

    def get_vocab(self) -> dict[str, int]:
        pieces = {self.sp_model.id_to_piece(number): number for number in range(len(self.sp_model))}
        return pieces | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: object) -> list[str]:
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.sp_model.id_to_piece(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self.sp_model.decode([token for token in tokens if token not in self.added_tokens_encoder])

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """A text as a prompt. Raises ValueError for two texts."""
        if token_ids_1 is not None:
            raise ValueError("GLM reads one text; write both into one, with the blank where the answer goes")
        names = ("[MASK]", "[sMASK]", "[gMASK]")
        blanks = [self.convert_tokens_to_ids(name) for name in names]
        ids = [self.cls_token_id, *token_ids_0]
        if not any(blank in token_ids_0 for blank in blanks):
            ids.append(blanks[-1])
        if ids[-1] != blanks[-1]:
            ids.append(self.eos_token_id)
        return [*ids, self.convert_tokens_to_ids("<|startofpiece|>")]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copies the SentencePiece model."""
        target = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{MODEL_FILE}"
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)
