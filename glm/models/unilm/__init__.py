"""UniLM: one BERT trained as four language models by its attention masks (Dong et al. 2019), as the Chinese UniLM."""

from pathlib import Path

from glm.errors import InputError
from glm.models.protocol import Family
from glm.models.unilm.geometry import UniLMGeometry
from glm.models.unilm.objectives import OBJECTIVES
from glm.models.unilm.tokenization import (
    SPECIAL_TOKENS,
    VOCAB_FILE,
    WordPieceTokenizer,
    open_tokenizer,
    save_tokenizer,
)
from glm.models.unilm.weights import PUBLISHED, UniLMWeights


def _config_class() -> type:
    from glm.models.unilm.configuration import UniLMConfig

    return UniLMConfig


def _model_class() -> type:
    from glm.models.unilm.modeling import UniLMForConditionalGeneration

    return UniLMForConditionalGeneration


def _fetch_tokenizer(name: str) -> WordPieceTokenizer:
    """Fetches the vocabulary of a published name with PaddleNLP, or takes it from PaddleNLP's cache."""
    from paddlenlp.transformers import BertTokenizer
    from paddlenlp.utils.download import resolve_file_path

    urls = BertTokenizer.pretrained_resource_files_map["vocab_file"]
    if name not in PUBLISHED:
        raise InputError("no published vocabulary has this name")
    return open_tokenizer(Path(resolve_file_path(name, [urls[name]])))


FAMILY = Family(
    name="unilm",
    title="UniLM",
    architecture="UniLMForConditionalGeneration",
    tokenizer_files=(VOCAB_FILE,),
    weights=UniLMWeights(),
    open_tokenizer=open_tokenizer,
    save_tokenizer=save_tokenizer,
    fetch_tokenizer=_fetch_tokenizer,
    published=PUBLISHED,
    published_tokenizers=PUBLISHED,
    geometry=UniLMGeometry,
    config_class=_config_class,
    model_class=_model_class,
    abilities=frozenset(
        {"objectives", "pair_length", "dropout", "freeze", "recompute", "layers", "lora", "packing", "half_precision"}
    ),
    aliases=("bert",),
    marks=SPECIAL_TOKENS,
    vocabulary_multiple=1,
    has_exact_vocabulary=True,
    # Segments tell source and target apart: the originals add no words around them.
    templates=dict.fromkeys(("paraphrase", "summary", "title", "advertisement"), "{source}[gMASK]"),
    pretraining=OBJECTIVES,
)
