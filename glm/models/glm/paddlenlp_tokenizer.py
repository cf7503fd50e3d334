"""The Chinese GLMs' tokenizer as a PaddleNLP class: callable, and saved and fetched by name."""

from pathlib import Path

import sentencepiece
from paddlenlp.transformers import PretrainedTokenizer

from glm.errors import InputError
from glm.models.glm.tokenization import (
    COMMAND_TOKENS,
    MODEL_FILE,
    PUBLISHED_TOKENIZERS,
    SPECIAL_TOKENS,
    GLMSentencePieceTokenizer,
)

MODEL_URL = "https://paddlenlp.bj.bcebos.com/models/community/THUDM/cog-pretrain.model"


class GLMTokenizer(GLMSentencePieceTokenizer, PretrainedTokenizer):
    """PaddleNLP's tokenizer with GLM's SentencePiece model and command tokens.

    Calling the tokenizer splits a text at command tokens and wraps it as `[CLS] text <|endoftext|>`, as PaddleNLP's
    class does. The toolkit itself uses `encode_text`, for which a command token in a user's text is only text.

    Args:
        model_file: a SentencePiece model, as `cog-pretrain.model`.

    Raises:
        InputError: the file is missing or is no SentencePiece model.
    """

    resource_files_names = {"model_file": MODEL_FILE}
    pretrained_resource_files_map = {"model_file": dict.fromkeys(PUBLISHED_TOKENIZERS, MODEL_URL)}
    pretrained_init_configuration = {name: {} for name in PUBLISHED_TOKENIZERS}
    max_model_input_sizes = dict.fromkeys(PUBLISHED_TOKENIZERS, 1024)
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, model_file: str, sp_model: sentencepiece.SentencePieceProcessor | None = None, **kwargs):
        GLMSentencePieceTokenizer.__init__(self, model_file, sp_model)
        PretrainedTokenizer.__init__(self, **{**SPECIAL_TOKENS, **kwargs})
        # They are known already; this only makes calls split texts at them.
        self.add_tokens(list(COMMAND_TOKENS), special_tokens=True)

    # -- what PaddleNLP's base class asks for

    vocab_size = GLMSentencePieceTokenizer.vocab_size  # PaddleNLP's class has a property of this name

    def get_vocab(self) -> dict[str, int]:
        pieces = {self.sp_model.id_to_piece(number): number for number in range(len(self.sp_model))}
        return {**pieces, **self.command_ids}

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        return [self.sp_model.id_to_piece(number) for number in self.sp_model.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.command_ids.get(token, self.sp_model.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return self.token_of(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Joins pieces and command tokens to text; the latter are written literally."""
        words, pieces = [], []
        for token in tokens:
            if token in self.command_ids:
                words += [self.sp_model.decode(pieces), token]
                pieces = []
            else:
                pieces.append(token)
        return "".join([*words, self.sp_model.decode(pieces)])

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list:
        """`[CLS] X <|endoftext|>`."""
        if token_ids_1 is not None:
            raise InputError("GLM reads single texts, not pairs")
        return [self.cls_token_id, *token_ids_0, self.eos_token_id]

    def save_pretrained(self, save_directory: str, filename_prefix: str | None = None, **kwargs) -> None:
        """Saves the tokenizer; the files do not depend on where it was loaded from."""
        for origin in ("name_or_path", "from_slow", "special_tokens_map_file", "sp_model"):
            self.init_kwargs.pop(origin, None)
        super().save_pretrained(save_directory, filename_prefix, **kwargs)

    def save_resources(self, save_directory: str) -> None:
        """Writes the SentencePiece model into the folder, even if the file it was read from is gone."""
        target = Path(save_directory) / self.resource_files_names["model_file"]
        target.write_bytes(self.sp_model.serialized_model_proto())
