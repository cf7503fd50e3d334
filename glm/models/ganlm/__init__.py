"""GanLM: an encoder, a generator and a discriminator that teaches it (Yang et al. 2023)."""

from pathlib import Path

import numpy as np

from glm.models.ganlm.geometry import XNLI_CLASSES, GanLMGeometry
from glm.models.ganlm.objectives import OBJECTIVES
from glm.models.ganlm.tokenization import DICTIONARY_FILE, MODEL_FILE, ROW_MULTIPLE, GanLMTokenizer, open_tokenizer
from glm.models.ganlm.weights import GanLMWeights
from glm.models.protocol import Family


def _config_class() -> type:
    from glm.models.ganlm.configuration import GanLMConfig

    return GanLMConfig


def _model_class() -> type:
    from glm.models.ganlm.modeling import GanLMForConditionalGeneration

    return GanLMForConditionalGeneration


def _save_tokenizer(tokenizer: GanLMTokenizer, folder: Path) -> None:
    tokenizer.save(folder)


FAMILY = Family(
    name="ganlm",
    title="GanLM",
    architecture="GanLMForConditionalGeneration",
    tokenizer_files=(MODEL_FILE, DICTIONARY_FILE),
    weights=GanLMWeights(),
    open_tokenizer=open_tokenizer,
    save_tokenizer=_save_tokenizer,
    geometry=GanLMGeometry,
    config_class=_config_class,
    model_class=_model_class,
    abilities=frozenset(
        {
            *("dropout", "freeze", "recompute", "lora", "half_precision"),
            *("three_losses", "starts", "positions", "classification_head"),
        }
    ),
    classes=XNLI_CLASSES,
    row_width=np.maximum,  # as fairseq counts tokens
    cuts_tokens=True,
    # As in fairseq's data: the source alone, without a frame.
    templates=dict.fromkeys(("paraphrase", "summary", "title", "advertisement"), "{source}[gMASK]"),
    vocabulary_multiple=ROW_MULTIPLE,
    has_exact_vocabulary=True,
    pretraining=OBJECTIVES,
)
