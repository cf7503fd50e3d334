"""The size and shape of a GanLM."""

from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.modules.block import BlockNames, BlockOptions

NAMES = BlockNames(
    attention="self_attn",
    mlp="mlp",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    projection="qkv_proj",
    output="out_proj",
    up="fc1",
    down="fc2",
)


def ramp(step: int, *, weight: float, warmup: float, start: float) -> float:
    """Returns a loss's weight at an update (counted from 0; -1 is validation): 0 before `start`, then a linear rise
    over `warmup` updates."""
    if step < start:
        return 0.0
    return weight if warmup <= 0 else min((step - start) * weight / warmup, weight)


class GanLMConfig(ModelConfig):
    """Configuration of a GanLM; defaults are those of the base model.

    Args:
        vocab_size: rows of the table of words, filler included.
        hidden_size: H.
        mlp_size: F, of every MLP between its two linears.
        num_attention_heads: N; divides `hidden_size`.
        encoder_layers, generator_layers: layers of the encoder, and of the decoder that writes.
        discriminator_layers: layers of the decoder that judges; 0 if there is none.
        share_generator_discriminator: the discriminator is the generator's first layers, with a head of its own.
        max_source_positions, max_target_positions: most tokens of a source, and of a target.
        relative_buckets: number of buckets of the encoder's bias by distance; 0 for none.
        layernorm_epsilon: epsilon of every LayerNorm.
        embedding_dropout_prob, attention_dropout_prob, output_dropout_prob: dropout after the embeddings, on attention
            probabilities, on the output of attention and MLP. A discriminator with layers of its own has none.
        rescale_init: random weights of output linears of layer l (from 1) are divided by sqrt(2 l).
        mimetic_init: random weights begin with the structure that trained ones are found to have; a small model that
            learns from little data begins by copying.
        classes: number of classes of a classifier of text pairs, on the decoder's first position; 0 for none.
        classifier_sees_all: whether its decoder sees all of what it reads, not its own past alone.
        discriminator_weight, inconsistency_weight: weights of the losses beside the generator's in training.
        discriminator_warmup_steps, inconsistency_warmup_steps: updates over which a weight grows from 0; 0 for none.
        discriminator_start_warmup_steps, inconsistency_start_warmup_steps: updates before, in which it is 0.
        discriminator_sampling_temperature: logits are divided by it before tokens are drawn.

    Raises:
        InputError: a size is out of its range or does not go with another.
    """

    model_type = "ganlm"
    attribute_map = {"torch_dtype": "dtype"}

    def __init__(
        self,
        vocab_size: int = 250104,
        hidden_size: int = 768,
        mlp_size: int = 3072,
        num_attention_heads: int = 12,
        encoder_layers: int = 12,
        generator_layers: int = 12,
        discriminator_layers: int = 4,
        share_generator_discriminator: bool = False,
        max_source_positions: int = 1024,
        max_target_positions: int = 1024,
        relative_buckets: int = 32,
        layernorm_epsilon: float = 1e-5,
        embedding_dropout_prob: float = 0.1,
        attention_dropout_prob: float = 0.1,
        output_dropout_prob: float = 0.1,
        rescale_init: bool = True,
        mimetic_init: bool = False,
        classes: int = 0,
        classifier_sees_all: bool = False,
        discriminator_weight: float = 5.0,
        discriminator_warmup_steps: int = 0,
        discriminator_start_warmup_steps: int = 0,
        inconsistency_weight: float = 1.0,
        inconsistency_warmup_steps: int = 0,
        inconsistency_start_warmup_steps: int = 0,
        discriminator_sampling_temperature: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.num_attention_heads = vocab_size, num_attention_heads
        self.hidden_size, self.mlp_size = hidden_size, mlp_size
        self.encoder_layers, self.generator_layers = encoder_layers, generator_layers
        self.discriminator_layers = discriminator_layers
        self.share_generator_discriminator = share_generator_discriminator
        self.max_source_positions, self.max_target_positions = max_source_positions, max_target_positions
        self.relative_buckets, self.layernorm_epsilon = relative_buckets, layernorm_epsilon
        self.rescale_init, self.mimetic_init = rescale_init, mimetic_init
        self.embedding_dropout_prob = embedding_dropout_prob
        self.attention_dropout_prob = attention_dropout_prob
        self.output_dropout_prob = output_dropout_prob
        self.classes, self.classifier_sees_all = classes, classifier_sees_all
        self.discriminator_weight, self.inconsistency_weight = discriminator_weight, inconsistency_weight
        self.discriminator_warmup_steps = discriminator_warmup_steps
        self.inconsistency_warmup_steps = inconsistency_warmup_steps
        self.discriminator_start_warmup_steps = discriminator_start_warmup_steps
        self.inconsistency_start_warmup_steps = inconsistency_start_warmup_steps
        self.discriminator_sampling_temperature = discriminator_sampling_temperature
        self._check()

    def _check(self):
        H, N = self.hidden_size, self.num_attention_heads
        if N < 1 or H % N:
            raise InputError(f"hidden_size {H} is no multiple of num_attention_heads {N}")
        for name in ("encoder_layers", "generator_layers", "mlp_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: use 1 or more")
        if self.relative_buckets % 4 or self.relative_buckets < 0:
            raise InputError(f"relative_buckets {self.relative_buckets}: use 0 (none) or a multiple of 4")
        if self.share_generator_discriminator and not 1 <= self.discriminator_layers <= self.generator_layers:
            raise InputError(
                f"discriminator_layers {self.discriminator_layers}: a discriminator that shares the generator's "
                f"layers (share_generator_discriminator) has 1 to {self.generator_layers} of them"
            )

    def loss_weights(self, step: int) -> tuple[float, float]:
        """Returns the weights of the discriminator's and the inconsistency loss at an update, counted from 0."""
        return (
            ramp(
                step,
                weight=self.discriminator_weight,
                warmup=self.discriminator_warmup_steps,
                start=self.discriminator_start_warmup_steps,
            ),
            ramp(
                step,
                weight=self.inconsistency_weight,
                warmup=self.inconsistency_warmup_steps,
                start=self.inconsistency_start_warmup_steps,
            ),
        )

    @property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated, beside those that stand for no text."""
        return []

    @property
    def block(self) -> BlockOptions:
        """The settings of the encoder's and the generator's blocks."""
        return self.block_with(self.attention_dropout_prob, self.output_dropout_prob)

    def block_with(self, attention_dropout: float, output_dropout: float) -> BlockOptions:
        """Returns the settings of blocks with these dropout rates."""
        return BlockOptions(
            hidden_size=self.hidden_size,
            num_heads=self.num_attention_heads,
            names=NAMES,
            epsilon=self.layernorm_epsilon,
            attention_dropout=attention_dropout,
            output_dropout=output_dropout,
            mlp_size=self.mlp_size,
            activation="gelu",
        )
