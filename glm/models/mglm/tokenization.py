"""The multilingual GLM's tokenizer: a unigram SentencePiece model, and GLM's command tokens after its pieces."""

from pathlib import Path

from glm.models.glm.tokenization import (
    BLOCK_MASK,
    BLOCK_MASK_OFFSET,
    COMMAND_TOKENS,
    GLMSentencePieceTokenizer,
    open_pieces,
)

MODEL_FILE = "mglm250k-uni.model"  # the SentencePiece model in a tokenizer's folder


class MGLMTokenizer(GLMSentencePieceTokenizer):
    """Has one command token more than GLM's; behind 250,000 pieces they are 250000 (<|endoftext|>) to 250010."""

    commands = {**COMMAND_TOKENS, BLOCK_MASK: BLOCK_MASK_OFFSET}


def open_tokenizer(path: Path) -> MGLMTokenizer:
    """The tokenizer of a SentencePiece file, or of a folder that has one.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    return open_pieces(path, MODEL_FILE, MGLMTokenizer)


def save_tokenizer(tokenizer: MGLMTokenizer, folder: Path) -> None:
    """Writes the SentencePiece model into a folder."""
    (folder / MODEL_FILE).write_bytes(tokenizer.sp_model.serialized_model_proto())
