"""A tokenizer, and tiny models with random weights, none of them 0 or 1."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import pytest
import sentencepiece

from glm.models.ganlm.configuration import GanLMConfig
from glm.models.ganlm.modeling import GanLMForConditionalGeneration
from glm.models.ganlm.tokenization import GanLMTokenizer

PIECES = 320


@pytest.fixture(scope="session")
def ganlm_folder(tmp_path_factory, sentences) -> Path:
    """`spm.model` and `dict.txt` of a tokenizer; the dictionary has another order than the model."""
    folder = tmp_path_factory.mktemp("ganlm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "spm"),
        vocab_size=PIECES,
        character_coverage=1.0,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    words = [model.id_to_piece(piece) for piece in range(3, len(model))][::-1]
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def ganlm_tokenizer(ganlm_folder) -> GanLMTokenizer:
    return GanLMTokenizer(ganlm_folder)


@pytest.fixture(scope="session")
def ganlm_config() -> Callable[..., GanLMConfig]:
    """A factory: `ganlm_config(option=value, ...)`, without dropout where not asked for."""

    def make(**options) -> GanLMConfig:
        defaults = {
            "vocab_size": 40,
            "hidden_size": 24,
            "mlp_size": 36,
            "num_attention_heads": 3,
            "encoder_layers": 2,
            "generator_layers": 2,
            "discriminator_layers": 1,
            "max_source_positions": 60,
            "max_target_positions": 30,
            "embedding_dropout_prob": 0.0,
            "attention_dropout_prob": 0.0,
            "output_dropout_prob": 0.0,
        }
        return GanLMConfig(**{**defaults, **options})

    return make


@pytest.fixture(scope="session")
def ganlm_model(ganlm_config) -> Callable[..., GanLMForConditionalGeneration]:
    """A factory: `ganlm_model(seed=0, dtype="float32", option=value, ...)`, in evaluation mode."""

    def make(*, seed: int = 0, dtype: str = "float32", **options) -> GanLMForConditionalGeneration:
        paddle.set_default_dtype(dtype)
        try:
            model = GanLMForConditionalGeneration(ganlm_config(**options))
        finally:
            paddle.set_default_dtype("float32")
        generator = np.random.default_rng(seed)
        for name, weight in model.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            weight.set_value(generator.normal(centre, 0.3, weight.shape).astype(dtype))
        model.eval()
        return model

    return make
