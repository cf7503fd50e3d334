"""GLM: autoregressive blank infilling with 2D positions (Du et al. 2022)."""

import json
from pathlib import Path

from glm.errors import InputError
from glm.models.glm.geometry import GLMGeometry
from glm.models.glm.tokenization import (
    COMMAND_TOKENS,
    MODEL_FILE,
    PADDLENLP_FILES,
    PUBLISHED_TOKENIZERS,
    GLMPieces,
    open_tokenizer,
)
from glm.models.glm.weights import PUBLISHED, GLMWeights
from glm.models.protocol import ABILITIES, Family


def _config_class() -> type:
    from glm.models.glm.configuration import GLMConfig

    return GLMConfig


def _model_class() -> type:
    from glm.models.glm.modeling import GLMForConditionalGeneration

    return GLMForConditionalGeneration


def _fetch_tokenizer(name: str) -> GLMPieces:
    """The tokenizer of a published name, fetched by PaddleNLP where it is not in its cache yet."""
    from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer

    tokenizer = GLMTokenizer.from_pretrained(name)
    if tokenizer is None:
        raise InputError("no published tokenizer has this name")
    return tokenizer


def _save_tokenizer(tokenizer: GLMPieces, folder: Path) -> None:
    """Writes the SentencePiece model, and what PaddleNLP's `GLMTokenizer` reads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(tokenizer.sp_model.serialized_model_proto())
    for name, content in PADDLENLP_FILES.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


FAMILY = Family(
    name="glm",
    title="GLM",
    architecture="GLMForConditionalGeneration",
    tokenizer_files=(MODEL_FILE,),
    weights=GLMWeights(),
    open_tokenizer=open_tokenizer,
    fetch_tokenizer=_fetch_tokenizer,
    save_tokenizer=_save_tokenizer,
    geometry=GLMGeometry,
    config_class=_config_class,
    model_class=_model_class,
    abilities=frozenset({*ABILITIES, "memory_forecast"} - {"objectives", "pair_length"}),
    blanks=("[MASK]", "[sMASK]", "[gMASK]"),
    reserved=tuple(COMMAND_TOKENS),
    published=PUBLISHED,
    published_tokenizers=PUBLISHED_TOKENIZERS,
)
