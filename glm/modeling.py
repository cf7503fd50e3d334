"""GLM: a stack of pre-LN transformer blocks over words, positions and block positions, with a tied head.

Source: Du et al. 2022, section 2; layer for layer as THUDM/GLM (mpu/transformer.py, model/modeling_glm.py). The names
of the weights are PaddleNLP's, so its checkpoints load without a map.
"""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute
from paddlenlp.transformers import PretrainedModel, register_base_model

from glm.blank_infilling import IGNORE_INDEX
from glm.cache import MASKED, KVCache
from glm.configuration import GLMConfig
from glm.errors import InputError
from glm.loss import smoothed_cross_entropy

WEIGHTS_URL = "https://paddlenlp.bj.bcebos.com/models/community/{name}.pdparams"


class GLMAttention(nn.Layer):
    """Multi-head attention with one fused linear for queries, keys and values, laid out [all Q | all K | all V]."""

    def __init__(self, config: GLMConfig, index: int):
        super().__init__()
        self.index = index
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scale = config.attention_scale
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_dropout = nn.Dropout(config.attention_dropout_prob)
        self.output_dropout = nn.Dropout(config.output_dropout_prob)

    def split_heads(self, states: Tensor) -> Tensor:
        B, L, _ = states.shape
        return states.reshape([B, L, self.num_heads, self.head_size]).transpose([0, 2, 1, 3])  # [B, N, L, D]

    def forward(self, states: Tensor, bias: Tensor, cache: KVCache | None) -> Tensor:
        B, L, H = states.shape
        query, keys, values = (self.split_heads(part) for part in self.query_key_value(states).chunk(3, axis=-1))
        query = query / (math.sqrt(self.head_size) * self.scale)
        parts = cache.extend(self.index, keys, values) if cache else [(keys, values)]

        scores = [paddle.matmul(query, keys, transpose_y=True).astype("float32") for keys, _ in parts]
        scores = paddle.concat(scores, axis=-1) if len(scores) > 1 else scores[0]  # [B, N, L, keys of all parts]
        if self.scale != 1.0:
            scores = scores * self.scale
        probabilities = self.attention_dropout(F.softmax(scores + bias, axis=-1)).astype(values.dtype)

        if len(parts) > 1:
            probabilities = probabilities.split([keys.shape[2] for keys, _ in parts], axis=-1)
        else:
            probabilities = [probabilities]
        context = sum(paddle.matmul(p, values) for p, (_, values) in zip(probabilities, parts, strict=True))
        context = context.transpose([0, 2, 1, 3]).reshape([B, L, H])  # [B, N, L, D] -> [B, L, H]
        return self.output_dropout(self.dense(context))


class GLMMLP(nn.Layer):
    """H -> 4H -> H with the tanh approximation of GELU."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.dense_4h_to_h = nn.Linear(4 * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, states: Tensor) -> Tensor:
        return self.dropout(self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(states), approximate=True)))


class GLMBlock(nn.Layer):
    """One pre-LN layer: x + attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, config: GLMConfig, index: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)
        self.attention = GLMAttention(config, index)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)
        self.mlp = GLMMLP(config)

    def forward(self, states: Tensor, bias: Tensor, cache: KVCache | None = None) -> Tensor:
        states = states + self.attention(self.input_layernorm(states), bias, cache)
        return states + self.mlp(self.post_attention_layernorm(states))


class GLMStack(nn.Layer):
    """Positions, blocks and the last LayerNorm. `enable_recompute` is switched on by the Trainer (`--recompute`)."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.enable_recompute = False
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.block_position_embeddings = None
        if config.block_position_encoding:
            self.block_position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.layers = nn.LayerList([GLMBlock(config, index) for index in range(config.num_layers)])
        self.final_layernorm = nn.LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)

    def forward(self, words: Tensor, position_ids: Tensor, mask: Tensor, cache: KVCache | None) -> Tensor:
        states = words + self.position_embeddings(position_ids[:, 0])
        if self.block_position_embeddings is not None:
            states = states + self.block_position_embeddings(position_ids[:, 1])
        states = self.embedding_dropout(states)  # [B, L, H]

        # Expanded over heads once per pass: broadcasting in each layer costs far more on a CPU.
        bias = (1.0 - mask.astype("float32")) * MASKED
        bias = bias.expand([-1, self.num_heads, -1, -1])  # [B, 1, L, keys] -> [B, N, L, keys]
        for layer in self.layers:
            if self.enable_recompute and self.training and cache is None:
                states = recompute(layer, states, bias)
            else:
                states = layer(states, bias, cache)
        return self.final_layernorm(states)


class GLMPretrainedModel(PretrainedModel):
    """What PaddleNLP's loading, saving and initialisation need to know of a GLM."""

    config_class = GLMConfig
    base_model_prefix = "glm"
    model_config_file = "config.json"
    resource_files_names = {"model_state": "model_state.pdparams"}
    pretrained_init_configuration = GLMConfig.pretrained_init_configuration
    pretrained_resource_files_map = {
        "model_state": {name: WEIGHTS_URL.format(name=name) for name in GLMConfig.pretrained_init_configuration}
    }

    def _init_weights(self, layer: nn.Layer) -> None:
        """N(0, initializer_range), scaled down in the two linears that end in a residual sum; biases 0."""
        std = self.config.initializer_range
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.set_value(paddle.normal(0.0, std, layer.weight.shape))
        if isinstance(layer, GLMBlock) and self.config.use_scaled_init_for_output_weights:
            # Called for a block after its linears, so this value stays.
            for linear in (layer.attention.dense, layer.mlp.dense_4h_to_h):
                linear.weight.set_value(
                    paddle.normal(0.0, std / math.sqrt(2.0 * self.config.num_layers), linear.weight.shape)
                )

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, loaded_keys, *args, **kwargs):
        """PaddleNLP leaves a missing weight random and drops an unknown one, with a warning; here both are errors."""
        result = super()._load_pretrained_model(model, state_dict, loaded_keys, *args, **kwargs)
        _, missing, unexpected, _ = result
        if missing or unexpected:
            raise InputError(
                "the weights do not fit the configuration: "
                + "; ".join(
                    f"{label} {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
                    for label, names in (("missing", missing), ("unknown", unexpected))
                    if names
                )
            )
        return result


@register_base_model
class GLMModel(GLMPretrainedModel):
    """GLM without a head: hidden states after the last LayerNorm."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer = GLMStack(config)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word_embeddings

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, *, cache: KVCache | None = None
    ) -> Tensor:
        """Runs the stack over new tokens.

        Args:
            input_ids: [B, L] int64.
            position_ids: [B, 2, L] int64, the rows of `glm.blank_infilling`.
            attention_mask: [B, 1, L, keys], nonzero = may attend; `keys` is L, or with a cache all it holds.
            cache: where keys and values of the new tokens are added.

        Returns:
            [B, L, H]
        """
        return self.transformer(self.word_embeddings(input_ids), position_ids, attention_mask, cache)


class GLMForConditionalGeneration(GLMPretrainedModel):
    """GLM with its head, tied to the word embedding: trains on Part B and generates it."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.glm = GLMModel(config)

    def logits(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., V]"""
        return paddle.matmul(states, self.glm.word_embeddings.weight, transpose_y=True)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Logits of all positions; with labels the loss, for which only labelled positions meet the head.

        Args:
            input_ids: [B, L] int64.
            position_ids: [B, 2, L] int64.
            attention_mask: [B, 1, L, L], nonzero = may attend.
            labels: [B, L] int64 next tokens, -100 where there is no loss.
            label_smoothing: e, see `glm.loss`.

        Returns:
            [B, L, V] logits, or [] the mean loss of the labelled positions.
        """
        states = self.glm(input_ids, position_ids, attention_mask)  # [B, L, H]
        if labels is None:
            return self.logits(states)
        labels = labels.flatten()  # [B * L]
        labelled = (labels != IGNORE_INDEX).nonzero().flatten()  # [n]
        states = states.flatten(0, 1).gather(labelled)  # [B, L, H] -> [n, H]
        return smoothed_cross_entropy(self.logits(states), labels.gather(labelled), label_smoothing=label_smoothing)

    @paddle.no_grad()
    def prefill(
        self,
        source_ids: np.ndarray,
        source_position_ids: np.ndarray,
        source_lengths: np.ndarray,
        opening_ids: np.ndarray,
        opening_position_ids: np.ndarray,
    ) -> tuple[Tensor, KVCache]:
        """Reads the source and the opening of the span.

        Args:
            source_ids: [B, S]. source_position_ids: [B, 2, S]. source_lengths: [B], tokens without padding.
            opening_ids: [B, P], `sop` and what follows it. opening_position_ids: [B, 2, P].

        Returns:
            [B, V] logits of the first token to generate, and the cache with one live row per example.
        """
        B, S = source_ids.shape
        source_mask = np.arange(S)[None, :] < source_lengths[:, None]  # [B, S]
        cache = KVCache(self.config.num_layers, source_mask)
        mask = np.broadcast_to(source_mask[:, None, None], (B, 1, S, S))
        self.glm(
            paddle.to_tensor(source_ids), paddle.to_tensor(source_position_ids), paddle.to_tensor(mask), cache=cache
        )
        logits = self._step(opening_ids, opening_position_ids, cache, causal=True)
        cache.reorder(np.full((B, 1), opening_ids.shape[1] - 1))
        return logits[:, 0], cache

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, position_ids: np.ndarray, cache: KVCache) -> Tensor:
        """One new token per live row.

        Args:
            tokens: [B, R]. position_ids: [B, 2, R].

        Returns:
            [B, R, V] logits of the tokens that follow.
        """
        return self._step(tokens, position_ids, cache, causal=False)

    def _step(self, tokens: np.ndarray, position_ids: np.ndarray, cache: KVCache, *, causal: bool) -> Tensor:
        mask = cache.open_step(tokens.shape[1], causal=causal)[:, None]  # [B, 1, R, keys]
        states = self.glm(
            paddle.to_tensor(tokens), paddle.to_tensor(position_ids), paddle.to_tensor(mask), cache=cache
        )
        return self.logits(states[:, -1:] if causal else states)
