"""GLM: autoregressive blank infilling with 2D positions (Du et al. 2022)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm.errors import InputError
from glm.models.glm.geometry import GLMGeometry
from glm.models.glm.objectives import OBJECTIVES
from glm.models.glm.tokenization import (
    COMMAND_TOKENS,
    MODEL_FILE,
    PADDLENLP_FILES,
    PUBLISHED_TOKENIZERS,
    SPECIAL_TOKENS,
    GLMSentencePieceTokenizer,
    open_tokenizer,
)
from glm.models.glm.weights import PUBLISHED, GLMWeights
from glm.models.protocol import ABILITIES, Family, Trial


def _config_class() -> type:
    from glm.models.glm.configuration import GLMConfig

    return GLMConfig


def _model_class() -> type:
    from glm.models.glm.modeling import GLMForConditionalGeneration

    return GLMForConditionalGeneration


def _code_settings(tokenizer: GLMSentencePieceTokenizer, trained: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the class names and ids that the exported code needs to lay out a row."""
    model = "modeling_glm.GLMForConditionalGeneration"
    return {
        "auto_map": {
            "AutoConfig": "configuration_glm.GLMConfig",
            "AutoModel": model,
            "AutoModelForCausalLM": model,
            "AutoModelForSeq2SeqLM": model,
        },
        "sop_token_id": tokenizer.sop_token_id,
        "mask_token_ids": list(tokenizer.mask_token_ids),
        "eos_token_id": tokenizer.end_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "block_position": not trained.get("no_block_position", False),
    }


def _code_tokenizer(tokenizer: GLMSentencePieceTokenizer) -> dict[str, Any]:
    """Class and special tokens, as transformers reads them."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "GLMTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_glm.GLMTokenizer", None]},
        "added_tokens_decoder": {
            str(number): {"content": token, **flags} for token, number in tokenizer.command_ids.items()
        },
        **SPECIAL_TOKENS,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }


def _trial() -> Trial:
    from glm.models.glm.trial import trial

    return trial()


def _fetch_tokenizer(name: str) -> GLMSentencePieceTokenizer:
    """Fetches the tokenizer of a published name with PaddleNLP, or takes it from PaddleNLP's cache."""
    from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer

    tokenizer = GLMTokenizer.from_pretrained(name)
    if tokenizer is None:
        raise InputError("no published tokenizer has this name")
    return tokenizer


def _save_tokenizer(tokenizer: GLMSentencePieceTokenizer, folder: Path) -> None:
    """Writes the SentencePiece model, and what PaddleNLP's `GLMTokenizer` reads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(tokenizer.sp_model.serialized_model_proto())
    for name, content in PADDLENLP_FILES.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


OF_OTHERS = {"objectives", "pair_length", "three_losses", "starts", "positions"}  # abilities of other families
OF_GLM = frozenset({*ABILITIES, "memory_forecast"} - OF_OTHERS)

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
    abilities=OF_GLM,
    blanks=("[MASK]", "[sMASK]", "[gMASK]"),
    reserved=tuple(COMMAND_TOKENS),
    published=PUBLISHED,
    published_tokenizers=PUBLISHED_TOKENIZERS,
    trial=_trial,
    code=Path(__file__).with_name("exported"),
    code_settings=_code_settings,
    code_tokenizer=_code_tokenizer,
    pretraining=OBJECTIVES,
)
