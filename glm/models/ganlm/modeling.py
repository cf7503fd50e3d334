"""GanLM: an encoder, a generator, and a discriminator that judges every token the generator wrote.

Source: Yang et al. 2023, "GanLM: Encoder-Decoder Pre-training with an Auxiliary Discriminator"; layer for layer as
CSJianYang/GanLM (fairseq, electra_encoder_decoder_v6).
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.models.ganlm.classification import ClassificationHead
from glm.models.ganlm.configuration import GanLMConfig
from glm.models.ganlm.geometry import FIRST_POSITION, Prompt, position_rows
from glm.models.ganlm.initialization import draw_weights
from glm.models.ganlm.losses import Batch, Drawn, fairseq_smoothing, figures_of, three_losses
from glm.models.ganlm.relative import bucket_of
from glm.models.protocol import IGNORE_INDEX
from glm.modules.cross_attention import CrossBlock, CrossCache, CrossStack
from glm.modules.head import TiedHead
from glm.modules.layers import Dropout, ExactGELU, LayerNorm, Linear, TiedEmbedding
from glm.modules.paired import Pairs, paired_attention
from glm.modules.post_norm import PostNormBlock
from glm.modules.pretrained import SafePretrainedModel
from glm.modules.stack import Stack
from glm.modules.tensors import as_tensor, float32_at_least


class Embedded:
    """Embeds the input of a stack: words times sqrt(H) plus positions, then LayerNorm. Mixed into a `Stack`."""

    def set_embedding(self, config: GanLMConfig, positions: int, dropout: float) -> None:
        """Adds a table with this many positions, its LayerNorm, and dropout."""
        self.scale = math.sqrt(config.hidden_size)
        self.position_embeddings = nn.Embedding(positions + FIRST_POSITION, config.hidden_size)
        self.embedding_norm = LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)
        self.embedding_dropout = Dropout(dropout)

    def embed(self, words: Tensor, rows: np.ndarray) -> Tensor:
        """Embedded words [..., H] and rows of positions [...] -> [..., H]."""
        states = words * self.scale + self.position_embeddings(as_tensor(rows))
        return self.embedding_dropout(self.embedding_norm(states))


class Encoder(Embedded, Stack):
    """Encoder whose layers share a bias by distance; every token sees the whole source."""

    def __init__(self, config: GanLMConfig):
        super().__init__()
        self.set_embedding(config, config.max_source_positions, config.embedding_dropout_prob)
        self.relative_bias = None
        if config.relative_buckets:
            self.relative_bias = nn.Embedding(config.relative_buckets, config.num_attention_heads)
        self.set_layers([PostNormBlock(config.block) for _ in range(config.encoder_layers)])

    def bias(self, longest: int) -> Tensor | None:
        """Returns the bias [N, 2 longest - 1] of distances 1 - longest to longest - 1; None if the model has none."""
        if self.relative_bias is None:
            return None
        buckets = bucket_of(np.arange(1 - longest, longest), self.relative_bias.weight.shape[0])
        return self.relative_bias(as_tensor(buckets)).transpose([1, 0])

    def forward(self, words: Tensor, lengths: Sequence[int]) -> Tensor:
        """Runs the encoder on the embedded words of packed sources of these lengths: [m, H] -> [m, H]."""
        seen, bias = Pairs(tuple(lengths), tuple(lengths)), self.bias(max(lengths))
        states = self.embed(words, rows_of(lengths))
        for index, layer in enumerate(self.layers):
            states = self.run(index, partial(self._block, layer), states, seen, bias)
        return states

    def _block(self, layer: PostNormBlock, states: Tensor, seen: Pairs, bias: Tensor | None) -> Tensor:
        """The work of one layer: [m, H] -> [m, H]."""
        H, projected = states.shape[1], layer.before_attention(states)  # [m, 3H]
        dropout = layer.attention.attention_dropout.p if self.training else 0.0
        context = paired_attention(
            projected[:, :H], projected[:, H:], seen, self.num_heads, dropout=dropout, bias=bias
        )
        return layer.after_attention(states, context)


class Decoder(Embedded, CrossStack):
    """Decoder stack with cross-attention to the source; used to write and to judge.

    Args:
        config: the model's configuration.
        layers: how many.
        drops: whether it has the model's dropout.
    """

    def __init__(self, config: GanLMConfig, layers: int, *, drops: bool = True):
        super().__init__()
        dropouts = config.attention_dropout_prob, config.output_dropout_prob
        options = config.block_with(*(dropouts if drops else (0.0, 0.0)))
        self.set_embedding(config, config.max_target_positions, config.embedding_dropout_prob if drops else 0.0)
        self.set_layers([CrossBlock(options) for _ in range(layers)])

    def read(self, words: Tensor, batch: Batch, memory: Tensor, *, causal: bool = True, most: int | None = None):
        """Returns the states of all targets of a batch.

        Args:
            words: [n, H], embedded.
            memory: [m, H], the encoder's states.
            causal: whether a token sees only its own past of the target.
            most: how many layers, from the first on; all if None.

        Returns:
            [n, H]
        """
        states = self.embed(words, rows_of(batch.targets))
        packing = batch.packing(causal=causal)
        return self(states, packing, memory, Pairs(batch.targets, batch.sources), most=most)


class DiscriminatorHead(nn.Layer):
    """Classifies each token as replaced (0) or original (1)."""

    def __init__(self, config: GanLMConfig):
        super().__init__()
        H = config.hidden_size
        self.dense, self.activation = Linear(H, H), ExactGELU()
        self.layer_norm = LayerNorm(H, epsilon=config.layernorm_epsilon)
        self.out_proj = Linear(H, 2)

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., 2]"""
        return self.out_proj(self.layer_norm(self.activation(self.dense(states))))


def rows_of(lengths: Sequence[int]) -> np.ndarray:
    """Returns the position rows of packed texts."""
    return np.concatenate([position_rows(length) for length in lengths])


class GanLMForConditionalGeneration(SafePretrainedModel):
    """GanLM: an encoder, a generator whose head is tied to the word embedding, and a discriminator if the model has
    one.

    Attributes:
        head: turns the generator's states into logits, or into the loss.
        terms: sums of the last loss's parts and counts, by name; see `figures_of`.
        weights: weights of the discriminator's loss and of the inconsistency loss in the present update.
    """

    config_class = GanLMConfig
    base_model_prefix = "ganlm"

    def __init__(self, config: GanLMConfig):
        super().__init__(config)
        self.seed = draw_seed()  # of the random weights
        self.word_embeddings = TiedEmbedding(config.vocab_size, config.hidden_size)
        self.encoder = Encoder(config)
        self.generator = Decoder(config, config.generator_layers)
        self.discriminator = self.discriminator_head = None
        if config.discriminator_layers:
            if not config.share_generator_discriminator:
                self.discriminator = Decoder(config, config.discriminator_layers, drops=False)
            self.discriminator_head = DiscriminatorHead(config)
        self.classification_head = None
        if config.classes:
            self.classification_head = ClassificationHead(
                config.hidden_size, config.classes, config.output_dropout_prob
            )
        self.head = TiedHead(self.word_embeddings, None)
        self.terms: dict[str, float] = {}
        self.begin_update(0)

    figures_of = staticmethod(figures_of)

    def begin_update(self, step: int) -> None:
        """Sets the losses' weights for an optimizer step, counted from 0."""
        self.weights = self.config.loss_weights(step) if self.discriminator_head is not None else (0.0, 0.0)

    @property
    def idle(self) -> tuple[str, ...]:
        """Name prefixes of the weights that the present update does not train."""
        return () if self.weights[0] else ("discriminator",)

    @property
    def stacks(self) -> list[Stack]:
        """Encoder, generator and discriminator."""
        return [stack for stack in (self.encoder, self.generator, self.discriminator) if stack is not None]

    def draw_weights(self) -> None:
        """See `glm.models.ganlm.initialization`."""
        draw_weights(self)

    # -- training

    def encode(self, batch: Batch) -> Tensor:
        """Runs the encoder on all sources of a batch: [m, H]."""
        return self.encoder(self.word_embeddings(batch.source_ids), batch.sources)

    def generate_from(self, ids: Tensor, batch: Batch, memory: Tensor) -> Tensor:
        """Runs the generator on the ids it reads: [n] -> [n, H]."""
        return self.generator.read(self.word_embeddings(ids), batch, memory)

    def judge(self, ids: Tensor, batch: Batch, memory: Tensor) -> Tensor:
        """Returns the discriminator's logits for tokens in the labels' places: ids [n] -> [n, 2]."""
        words = self.word_embeddings(ids)
        decoder, most = self.discriminator or self.generator, self.config.discriminator_layers
        return self.discriminator_head(decoder.read(words, batch, memory, causal=False, most=most))

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor,
        text_ids: Tensor | None = None,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        num_items: int | None = None,
        drawn: Drawn | None = None,
    ) -> Tensor:
        """Returns the generator's logits; with labels the loss: of the generator alone in evaluation, all three in
        training.

        Args:
            input_ids: [B, L] int64; each row a source, behind it what the decoder reads, and padding behind both.
            segments: [B, 1, 2] int64, tokens of source and target of each row.
            text_ids: [1] int64, how many ids stand for text or end it; needed for the three losses.
            labels: [B, L] int64, what the decoder writes; -100 at sources and padding.
            label_smoothing: e in fairseq's form, e / (V - 1) for each of the other ids.
            num_items: labels that the loss is a mean over, if they are not those of this batch.
            drawn: replaced tokens in place of those that would be drawn.

        Returns:
            [B, T, V] logits of the decoder's positions, 0 at padding; or [] the loss.
        """
        batch = Batch.of(input_ids, segments)
        memory = self.encode(batch)
        states = self.generate_from(batch.target_ids, batch, memory)
        if labels is None:
            return batch.padded(self.head.logits(states))
        labels = labels.flatten().gather(as_tensor(batch.target_places))
        smoothing = fairseq_smoothing(label_smoothing, self.config.vocab_size)
        options = {"label_smoothing": smoothing, "num_items": num_items or len(labels)}
        if not self.training or not any(self.weights):
            loss = self.head.loss(states, labels, **options)
            self.terms = {"items": len(labels), "generator": float(loss) * options["num_items"]}
            return loss
        loss, self.terms = three_losses(self, batch, memory, states, labels, int(text_ids), drawn=drawn, **options)
        return loss

    def labelled_states(
        self, input_ids: Tensor, segments: Tensor, labels: Tensor, text_ids: Tensor | None = None
    ) -> Tensor:
        """Returns the decoder's states at labelled positions of texts to classify: [labels, H].

        A decoder that was the discriminator sees all of what it reads, the generator its own past alone.

        Args:
            input_ids, segments, labels: as of `forward`; a label is any number but -100.
            text_ids: without effect.
        """
        batch = Batch.of(input_ids, segments)
        words = self.word_embeddings(batch.target_ids)
        states = self.generator.read(words, batch, self.encode(batch), causal=not self.config.classifier_sees_all)
        labels = labels.flatten().gather(as_tensor(batch.target_places))
        return states.gather((labels != IGNORE_INDEX).nonzero().flatten())

    def classify(self, input_ids: Tensor, segments: Tensor, labels: Tensor) -> Tensor:
        """Returns class logits of text pairs from the decoder's states at labelled positions: [labels, classes]."""
        return self.classification_head(self.labelled_states(input_ids, segments, labels))

    # -- decoding

    @paddle.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, CrossCache]:
        """Reads prompts.

        Returns:
            [B, V] float32 logits of the first token to generate, and the cache with one live row per example.
        """
        sources = tuple(len(prompt.source_ids) for prompt in prompts)
        given = tuple(len(prompt.opening_ids) for prompt in prompts)
        ids = [np.concatenate([getattr(prompt, part) for prompt in prompts]) for part in ("source_ids", "opening_ids")]
        source_words, words = (self.word_embeddings(as_tensor(part)) for part in ids)
        memory = self.encoder(source_words, sources)
        states, cache = self.generator.prefill(
            self.generator.embed(words, rows_of(given)), memory, (sources, given), prompts
        )
        return float32_at_least(self.head.logits(states)).numpy(), cache

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, numbers: np.ndarray, cache: CrossCache) -> np.ndarray:
        """Reads one token per live row.

        Args:
            tokens: [B, R].
            numbers: [B], which generated token of its text each is, from 0.

        Returns:
            [B, R, V] float32 logits of the tokens that follow.
        """
        given = np.array([len(prompt.opening_ids) for prompt in cache.prompts])
        rows = np.repeat((FIRST_POSITION + given + numbers)[:, None], tokens.shape[1], axis=1)  # [B, R]
        states = self.generator.embed(self.word_embeddings(as_tensor(tokens)), rows)
        return float32_at_least(self.head.logits(self.generator.step(states, cache))).numpy()
