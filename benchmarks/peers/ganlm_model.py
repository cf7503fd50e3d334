"""This toolkit's GanLM of random weights, for the two programs that measure it."""

import paddle
from ganlm_work import SIZES, VOCABULARY, GanLMWork

from glm.models.ganlm.configuration import GanLMConfig
from glm.models.ganlm.modeling import GanLMForConditionalGeneration
from glm.runtime.device import hush, prepare


def random_model(work: GanLMWork, *, dropout: float) -> GanLMForConditionalGeneration:
    """The shape with these rates of dropout."""
    hush()
    prepare("cpu")
    paddle.base.core.set_num_threads(work.threads)
    paddle.seed(0)
    H, F, N, encoder, generator, discriminator = SIZES[work.shape]
    rates = dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), dropout)
    config = GanLMConfig(
        vocab_size=VOCABULARY,
        hidden_size=H,
        mlp_size=F,
        num_attention_heads=N,
        encoder_layers=encoder,
        generator_layers=generator,
        discriminator_layers=discriminator,
        max_source_positions=1024,
        max_target_positions=1024,
        **rates,
    )
    return GanLMForConditionalGeneration(config)
