"""GLM: a stack of pre-LN transformer blocks over words, positions and block positions, with a tied head.

Source: Du et al. 2022, section 2; layer for layer as THUDM/GLM (mpu/transformer.py, model/modeling_glm.py). The names
of the weights are PaddleNLP's, so its checkpoints load without a map.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute
from paddlenlp.transformers import PretrainedModel, register_base_model

from glm.cpu.arrays import HEAD_SIZE, draw_seed
from glm.errors import InputError
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import IGNORE_INDEX, Prompt, prefix_mask
from glm.modules.attention import Layout, TwoPartAttention, flashmask_attention, has_flashmask
from glm.modules.cache import MASKED, KeysValues, KVCache, LayerCache
from glm.modules.layers import GELU, Dropout, LayerNorm
from glm.modules.loss import smoothed_cross_entropy
from glm.modules.split_layers import (
    draw,
    enter,
    randomness_of_rank,
    side_by_side,
    split_embedding,
    split_linear,
    tensor_parallel_group,
)
from glm.modules.tensors import as_tensor

RESIDUAL_WEIGHTS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")  # of linears that end in a residual sum
WEIGHTS_NAME = "model.safetensors"  # what the toolkit saves
WEIGHTS_URL = "https://paddlenlp.bj.bcebos.com/models/community/{name}.pdparams"


class GLMAttention(nn.Layer):
    """Multi-head attention with one fused linear for queries, keys and values, laid out [all Q | all K | all V].

    A tensor-parallel rank has heads of its own: between the two linears N and H are those of the rank.
    """

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads // config.tensor_parallel_degree  # of this rank
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scale = config.attention_scale
        self.group = tensor_parallel_group(config)
        self.query_key_value = split_linear(
            config, "attention.query_key_value", config.hidden_size, 3 * config.hidden_size
        )
        self.dense = split_linear(config, "attention.dense", config.hidden_size, config.hidden_size)
        self.attention_dropout = Dropout(config.attention_dropout_prob)
        self.output_dropout = Dropout(config.output_dropout_prob)

    def split(self, projected: Tensor) -> Tensor:
        """Queries (scaled), keys and values of [B, L, 3H]: [3, B, N, L, D]."""
        B, L, _ = projected.shape
        heads = projected.reshape([B, L, 3, self.num_heads, self.head_size]).transpose([2, 0, 3, 1, 4])
        query, keys, values = heads.unbind(0)  # [B, N, L, D] each
        return query / (math.sqrt(self.head_size) * self.scale), keys, values

    def attend(self, query: Tensor, parts: list[KeysValues], bias: Tensor | None) -> Tensor:
        """Attention to all the keys and values of `parts` at once.

        Args:
            query: [B, N, R, D], scaled.
            parts: keys and values [B, N, length, D] each.
            bias: [B, N, R, keys of all parts], added to the scores; None hides nothing.

        Returns:
            [B, R, H]
        """
        scores = [paddle.matmul(query, keys, transpose_y=True).astype("float32") for keys, _ in parts]
        scores = paddle.concat(scores, axis=-1) if len(scores) > 1 else scores[0]
        if self.scale != 1.0:
            scores = scores * self.scale
        if bias is not None:
            scores = scores + bias
        probabilities = F.softmax(scores, axis=-1)
        probabilities = self.attention_dropout(probabilities).astype(query.dtype)
        lengths = [keys.shape[2] for keys, _ in parts]
        shares = probabilities.split(lengths, axis=-1) if len(parts) > 1 else [probabilities]
        context = paddle.matmul(shares[0], parts[0][1])
        for share, (_, values) in zip(shares[1:], parts[1:], strict=True):
            context = context + paddle.matmul(share, values)
        B, N, R, D = context.shape
        return context.transpose([0, 2, 1, 3]).reshape([B, R, N * D])

    def forward(self, projected: Tensor, layout: Layout) -> Tensor:
        """Each example of a batch by itself: [n, 3H] -> [n, H], without the rows of virtual tokens."""
        return layout.without_prefix(self.attend_by_example(projected, layout))

    def attend_by_example(self, projected: Tensor, layout: Layout) -> Tensor:
        """As `forward`; what stands in the rows of virtual tokens has no meaning."""
        dropout = self.attention_dropout.p if self.training else 0.0
        with randomness_of_rank(self.group if dropout else None):
            if projected.place.is_cpu_place():
                return host_attention(projected, layout, self.num_heads, dropout)
            if has_flashmask(projected, self.head_size):
                return flashmask_attention(projected, layout, self.num_heads, dropout)
            return self.attend_by_part(projected, layout)

    def attend_by_part(self, projected: Tensor, layout: Layout) -> Tensor:
        """As `attend_by_example`, in Paddle's operators on any device."""
        contexts = []
        for start, middle, end in layout.spans():
            S, T = middle - start, end - middle
            query, keys, values = self.split(projected[start:end].unsqueeze(0))  # [1, N, S + T, D]
            if S:
                contexts.append(self.attend(query[:, :, :S], [(keys[:, :, :S], values[:, :, :S])], None)[0])
            if T:
                bias = as_tensor(_hidden(S, T)).expand([1, self.num_heads, -1, -1])
                contexts.append(self.attend(query[:, :, S:], [(keys, values)], bias)[0])
        return paddle.concat(contexts)


def host_attention(projected: Tensor, layout: Layout, num_heads: int, dropout: float) -> Tensor:
    """[n, 3H] -> [n, H] on a CPU: compiled, if heads have the size it is compiled for."""
    if projected.shape[1] == 3 * num_heads * HEAD_SIZE and projected.dtype == paddle.float32:
        from glm.cpu.two_part import HostTwoPartAttention  # here: it loads Numba

        return HostTwoPartAttention.apply(projected, layout, num_heads, dropout)
    return TwoPartAttention.apply(projected, layout, num_heads, dropout)


class GLMMLP(nn.Layer):
    """H -> 4H -> H with the tanh approximation of GELU."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        H = config.hidden_size
        self.dense_h_to_4h = split_linear(config, "mlp.dense_h_to_4h", H, 4 * H)
        self.activation = GELU()
        self.dense_4h_to_h = split_linear(config, "mlp.dense_4h_to_h", 4 * H, H)
        self.dropout = Dropout(config.output_dropout_prob)

    def forward(self, states: Tensor) -> Tensor:
        return self.dropout(self.dense_4h_to_h(self.activation(self.dense_h_to_4h(states))))


class GLMBlock(nn.Layer):
    """One pre-LN layer: x + attention(LN(x)), then x + MLP(LN(x)).

    In three parts: what comes before attention and after it works on each token by itself.
    """

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.input_layernorm = LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)
        self.attention = GLMAttention(config)
        self.post_attention_layernorm = LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)
        self.mlp = GLMMLP(config)

    def enter(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., 3H], what attention starts from."""
        return self.attention.query_key_value(self.input_layernorm(states))

    def leave(self, states: Tensor, context: Tensor) -> Tensor:
        """The block's input and what attention made of it ([..., H] each) -> [..., H]."""
        states = states + self.attention.output_dropout(self.attention.dense(context))
        return states + self.mlp(self.post_attention_layernorm(states))

    def forward(self, states: Tensor, layout: Layout, prefix: Tensor | None = None) -> Tensor:
        """[n, H] -> [n, H]. With a prefix [P, 3H] the layout is one of `Layout.with_prefix`."""
        projected = self.enter(states)
        if prefix is not None:
            projected = layout.put_before(prefix, projected)
        return self.leave(states, self.attention(projected, layout))


class GLMStack(nn.Layer):
    """Positions, blocks and the last LayerNorm.

    With `enable_recompute`, which the Trainer switches on (`--recompute`), the first `recompute_layers` blocks keep no
    activations and run a second time in the backward pass, with the same dropout.

    With a `prefix_encoder` (`glm.adapters.files`) each layer has keys and values of P virtual tokens, which every
    token sees (Li and Liang 2021). They have no positions, and those of the others stay.
    """

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.layer_cache = LayerCache  # how decoding keeps keys and values, and attends to them
        self.prefix_encoder = None  # [P] numbers of virtual tokens -> [P, 2 * layers * H]: all keys, then all values
        self.enable_recompute = False
        self.recompute_layers = config.num_layers
        self.embedding_dropout = Dropout(config.embedding_dropout_prob)
        self.position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.block_position_embeddings = None
        if config.block_position_encoding:
            self.block_position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.layers = nn.LayerList([GLMBlock(config) for _ in range(config.num_layers)])
        self.num_heads = self.layers[0].attention.num_heads
        self.final_layernorm = LayerNorm(config.hidden_size, epsilon=config.layernorm_epsilon)

    def prefixes(self) -> list[Tensor | None]:
        """Of each layer the queries (0), keys and values of the virtual tokens, [P, 3H]; None if there are none."""
        if self.prefix_encoder is None:
            return [None] * len(self.layers)
        numbers = self.prefix_encoder(paddle.arange(self.num_virtual))  # [P, 2 * layers * H]
        numbers = numbers.reshape([self.num_virtual, 2, len(self.layers), -1]).transpose([2, 0, 1, 3])
        tables = paddle.concat([paddle.zeros_like(numbers[:, :, :1]), numbers], axis=2)  # [layers, P, 3, H]
        return tables.flatten(2).unbind(0)

    @property
    def num_virtual(self) -> int:
        """P; 0 without a prefix."""
        return 0 if self.prefix_encoder is None else self.prefix_encoder[0].weight.shape[0]

    def embed(self, words: Tensor, position_ids: Tensor) -> Tensor:
        """Word embeddings [B, L, H] and positions [B, 2, L] -> [B, L, H]."""
        states = words + self.position_embeddings(position_ids[:, 0])
        if self.block_position_embeddings is not None:
            states = states + self.block_position_embeddings(position_ids[:, 1])
        return self.embedding_dropout(states)

    def enter(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, 3H], what the first block's attention starts from."""
        return self.layers[0].enter(states)

    def leave(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """From the attention of one block to that of the next.

        Args:
            index: of the block. states, context: [n, H] each, its input and what attention made of it.

        Returns:
            [n, H] and [n, 3H] for the next block; after the last one [n, H] twice, the second as the head takes it.
        """
        states = self.layers[index].leave(states, context)
        if index + 1 == len(self.layers):
            return states, self.final_layernorm(states)
        return states, self.layers[index + 1].enter(states)

    def forward(self, words: Tensor, position_ids: Tensor, layout: Layout) -> Tensor:
        """Word embeddings [1, n, H] and positions [1, 2, n] of the tokens of a layout -> [n, H]."""
        states = self.embed(words, position_ids)[0]
        prefixes = self.prefixes()
        if self.num_virtual:
            layout = layout.with_prefix(self.num_virtual)
        recomputed = self.recompute_layers if self.enable_recompute and self.training else 0
        if recomputed:  # Paddle takes no gradient of a recomputed layer that is given states without one (frozen)
            states.stop_gradient = False
        for layer, prefix in zip(self.layers[:recomputed], prefixes[:recomputed], strict=True):
            states = recompute(layer, states, layout, prefix)
        for layer, prefix in zip(self.layers[recomputed:], prefixes[recomputed:], strict=True):
            states = layer(states, layout, prefix)
        return self.final_layernorm(states)

    def prefill(self, words: Tensor, position_ids: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, KVCache]:
        """Reads prompts, which stand one behind the other: no padding enters a product.

        Args:
            words: [1, n, H], n the tokens of all prompts. position_ids: [1, 2, n].

        Returns:
            [B, H], the states after each prompt's last token, and the cache.
        """
        ends = np.cumsum([len(prompt) for prompt in prompts])
        layout = Layout(np.arange(ends[-1]), [(len(prompt.source_ids), len(prompt.opening_ids)) for prompt in prompts])
        if self.num_virtual:  # to the cache they are the beginning of each prompt
            layout = layout.with_prefix(self.num_virtual)
        lengths = [sum(example) for example in layout.examples]
        states = self.embed(words, position_ids)[0]  # [n, H]
        projected = self.enter(states)  # [n, 3H]
        caches = []
        for index, (layer, prefix) in enumerate(zip(self.layers, self.prefixes(), strict=True)):
            if prefix is not None:
                projected = layout.put_before(prefix, projected)
            caches.append(self.layer_cache.of_prompts(projected, lengths, self.num_heads))
            states, projected = self.leave(index, states, layer.attention(projected, layout))  # [n, H], [n, 3H]
        last = projected.gather(as_tensor(ends - 1))  # [n, H] -> [B, H]
        return last, KVCache(caches, np.array(lengths))

    def step(self, words: Tensor, position_ids: Tensor, cache: KVCache) -> Tensor:
        """Reads one token per live row: words [B, R, H], position_ids [B, 2, R] -> [B, R, H]."""
        B, R, H = words.shape
        cache.open_step()
        sight = self.layer_cache.sight(cache, self.num_heads)
        states = self.embed(words, position_ids).reshape([B * R, H])
        projected = self.enter(states)  # [B * R, 3H]
        for index, layer in enumerate(self.layers):
            projected = projected.reshape([B, R, -1])
            context = cache.layers[index].attend(layer.attention, projected, sight, cache.start)
            states, projected = self.leave(index, states, context)
        return projected.reshape([B, R, H])


def _hidden(S: int, T: int) -> np.ndarray:
    """What is added to the scores of T tokens behind S, which see those S and their own past: [T, S + T]."""
    return np.where(prefix_mask([S], S + T)[0, S:], 0.0, MASKED).astype(np.float32)


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
        if not isinstance(layer, GLMModel):  # PaddleNLP comes here with every part of a model; this one has them all
            return
        std = residual_std = self.config.initializer_range
        if self.config.use_scaled_init_for_output_weights:
            residual_std = std / math.sqrt(2.0 * self.config.num_layers)
        numbers = np.random.default_rng(layer.seed)
        for name, weight in layer.named_parameters():
            if weight.ndim == 2:
                draw(weight, name, self.config, numbers, residual_std if name.endswith(RESIDUAL_WEIGHTS) else std)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As PaddleNLP's, but of a folder with safetensors only: with a pickle PaddleNLP runs what the file asks for.

        `glm.checkpoint.loading.load_model` reads every format, and published names.

        Raises:
            InputError: the folder has no model.safetensors, or the weights do not fit.
        """
        if not (Path(pretrained_model_name_or_path) / WEIGHTS_NAME).is_file():
            raise InputError(
                f"{pretrained_model_name_or_path}: no folder with {WEIGHTS_NAME}; use load_model of "
                "glm.checkpoint.loading, or import it: python -m glm checkpoint import"
            )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

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
        # Of the random weights; taken before fleet's layers draw what ordinary ones do not.
        self.seed = draw_seed()
        self.word_embeddings = split_embedding(config)
        self.transformer = GLMStack(config)

    def get_input_embeddings(self) -> nn.Layer:
        return self.word_embeddings

    def forward(self, input_ids: Tensor, position_ids: Tensor, layout: Layout) -> Tensor:
        """Runs the stack on the tokens of a layout.

        Args:
            input_ids: [B, L] int64.
            position_ids: [B, 2, L] int64, the rows of `glm.models.glm.geometry`.

        Returns:
            [n, H]
        """
        places = as_tensor(layout.places)  # [n]
        words = self.word_embeddings(input_ids.flatten().gather(places).unsqueeze(0))  # [1, n, H]
        positions = position_ids.transpose([1, 0, 2]).flatten(1).gather(places, axis=1)  # [2, n]
        return self.transformer(words, positions.unsqueeze(0), layout)


class GLMForConditionalGeneration(GLMPretrainedModel):
    """GLM with its head, tied to the word embedding: trains on Part B and generates it."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.glm = GLMModel(config)
        self.group = tensor_parallel_group(config)

    def logits(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., V]"""
        parts = paddle.matmul(enter(states, self.group), self.glm.word_embeddings.weight, transpose_y=True)
        return side_by_side(parts, self.group)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        num_items: int | None = None,
    ) -> Tensor:
        """Logits of all tokens; with labels the loss, for which only labelled positions meet the head.

        Args:
            input_ids: [B, L] int64; each row one or more examples, one behind the other, and padding behind them.
            position_ids: [B, 2, L] int64.
            segments: [B, E, 2] int64, tokens of Part A and of Part B of each example of a row, left to right; (0, 0)
                where a row has fewer than E.
            labels: [B, L] int64 next tokens, -100 where there is no loss.
            label_smoothing: e, see `glm.modules.loss`.
            num_items: labelled tokens that the loss is a mean over, if they are not those of this batch: of all
                batches whose gradients are added, on all processes.

        Returns:
            [B, L, V] logits, 0 at padding; or [] the summed loss of the labelled positions, divided by their number.

        Raises:
            ValueError: the examples of a row have more tokens than the row.
        """
        B, L = input_ids.shape
        layout = Layout.of(segments.numpy(), L)
        states = self.glm(input_ids, position_ids, layout)  # [n, H]
        places = as_tensor(layout.places)
        if labels is None:
            logits = self.logits(states)  # [n, V]
            return paddle.scatter(paddle.zeros([B * L, logits.shape[-1]], logits.dtype), places, logits).reshape(
                [B, L, -1]
            )
        labels = labels.flatten().gather(places)  # [n]
        labelled = (labels != IGNORE_INDEX).nonzero().flatten()
        return smoothed_cross_entropy(
            enter(states.gather(labelled), self.group),
            self.glm.word_embeddings.weight,
            labels.gather(labelled),
            label_smoothing=label_smoothing,
            num_items=num_items,
            group=self.group,
        )

    @paddle.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, KVCache]:
        """Reads prompts.

        Returns:
            [B, V] float32 logits of the first token to generate, and the cache with one live row per example.
        """
        input_ids = np.concatenate([prompt.input_ids for prompt in prompts])
        position_ids = np.concatenate([prompt.position_ids for prompt in prompts], axis=1)
        states, cache = self.glm.transformer.prefill(
            self.glm.word_embeddings(as_tensor(input_ids[None])), as_tensor(position_ids[None]), prompts
        )
        return self.logits(states).astype("float32").numpy(), cache

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, position_ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Reads one token per live row.

        Args:
            tokens: [B, R]. position_ids: [B, 2, R].

        Returns:
            [B, R, V] float32 logits of the tokens that follow.
        """
        words = self.glm.word_embeddings(as_tensor(tokens))  # [B, R, H]
        states = self.glm.transformer.step(words, as_tensor(position_ids), cache)
        return self.logits(states).astype("float32").numpy()
