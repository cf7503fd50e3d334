"""VLM: one frozen GPT-2 with a small adapter for each task (Lin, Madotto, Fung 2020)."""

from glm.models.protocol import Family
from glm.models.vlm.geometry import VLMGeometry
from glm.models.vlm.tokenization import MERGES_FILE, TASKS, VOCAB_FILE, open_tokenizer, save_tokenizer
from glm.models.vlm.weights import VLMWeights


def _config_class() -> type:
    from glm.models.vlm.configuration import VLMConfig

    return VLMConfig


def _model_class() -> type:
    from glm.models.vlm.modeling import VLMForConditionalGeneration

    return VLMForConditionalGeneration


FAMILY = Family(
    name="vlm",
    title="VLM",
    architecture="VLMForConditionalGeneration",
    tokenizer_files=(VOCAB_FILE, MERGES_FILE),
    weights=VLMWeights(),
    open_tokenizer=open_tokenizer,
    save_tokenizer=save_tokenizer,
    geometry=VLMGeometry,
    config_class=_config_class,
    model_class=_model_class,
    abilities=frozenset(
        {
            *("dropout", "freeze", "recompute", "layers", "lora", "prefix_tuning", "packing", "half_precision"),
            "bottleneck",
        }
    ),
    aliases=("gpt2",),
    cuts_tokens=True,
    vocabulary_multiple=1,
    has_exact_vocabulary=True,
    tasks=tuple(TASKS),
)
