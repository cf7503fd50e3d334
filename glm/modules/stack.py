"""A stack of blocks, in training and in decoding."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute

from glm.modules.block import Block
from glm.modules.bottleneck import NO_TASK, Routes, adapted, routes_of_tokens
from glm.modules.cache import KVCache, LayerCache
from glm.modules.low_rank import Routing
from glm.modules.packing import Packing
from glm.modules.tensors import as_tensor


class Stack(nn.Layer):
    """Blocks, and the final LayerNorm if the family has one.

    A family's own class derives from this one: it sets `layers` with `set_layers`, adds its embeddings, and says with
    `final_norm` what comes last.

    With `enable_recompute`, which the Trainer switches on (`--recompute`), the first `recompute_layers` blocks keep no
    activations and run a second time in the backward pass, with the same dropout.

    With a `prefix_encoder` (`glm.adapters`) each layer has keys and values of P virtual tokens, which every token sees
    (Li and Liang 2021). They have no positions, and those of the others stay.

    With `adapter_names` each block has adapters (`glm.modules.bottleneck`): what leaves it passes through that of its
    example's task.

    Attributes:
        adapter_names: names of the adapters by task number; empty for a task that has none.
        layer_cache: how decoding keeps keys and values of a layer, and attends to them: a class like `LayerCache`.
        compiled_blocks: takes rows from one attention to the next in compiled loops (`glm.modules.arranged`); None
            takes them layer by layer.
        prefix_encoder: [P] numbers of virtual tokens -> [P, 2 * layers * H], all keys, then all values; or None.
        routing: which rows pass through which tasks' LoRA (`glm.modules.low_rank`).
        recompute_layers: how many layers `enable_recompute` is for.
    """

    def __init__(self):
        super().__init__()
        self.layer_cache: type = LayerCache
        self.compiled_blocks = None
        self.prefix_encoder = None
        self.adapter_names: tuple[str, ...] = ()
        self.routing = Routing()
        self.enable_recompute = False

    def set_layers(self, layers: Sequence[Block]) -> None:
        """Sets the blocks, from the first to the last."""
        self.layers = nn.LayerList(layers)
        self.recompute_layers = len(layers)
        self.num_heads = layers[0].attention.num_heads  # heads of this rank

    def run(self, index: int, block: Callable[..., Tensor], states: Tensor, *given: Any) -> Tensor:
        """Runs one layer: `block(states, *given)`, and again in the backward pass if the layer keeps no activations.

        Args:
            index: the layer's number.
        """
        if not (self.enable_recompute and self.training and index < self.recompute_layers):
            return block(states, *given)
        states.stop_gradient = False  # Paddle takes no gradient of a recomputed layer that is given frozen states
        return recompute(block, states, *given)

    @property
    def final_norm(self) -> nn.Layer | None:
        """The LayerNorm behind the last block; None if the last block ends with its own."""
        return None

    @property
    def num_virtual(self) -> int:
        """P, the number of virtual tokens; 0 without a prefix."""
        return 0 if self.prefix_encoder is None else self.prefix_encoder[0].weight.shape[0]

    def prefixes(self) -> list[Tensor | None]:
        """Returns queries (0), keys and values of the virtual tokens for each layer, [P, 3H]; None if there are
        none."""
        if self.prefix_encoder is None:
            return [None] * len(self.layers)
        numbers = self.prefix_encoder(paddle.arange(self.num_virtual))  # [P, 2 * layers * H]
        numbers = numbers.reshape([self.num_virtual, 2, len(self.layers), -1]).transpose([2, 0, 1, 3])
        tables = paddle.concat([paddle.zeros_like(numbers[:, :, :1]), numbers], axis=2)  # [layers, P, 3, H]
        return tables.flatten(2).unbind(0)

    def routes_of(self, tasks: np.ndarray | None, lengths: Iterable[int]) -> Routes:
        """The adapters that tokens pass through, see `routes_of_tokens`; linear layers with LoRA find them too."""
        self.routing.routes = routes_of_tokens(self.adapter_names, tasks, lengths)
        return self.routing.routes

    def before_attention(self, states: Tensor) -> Tensor:
        """Maps embedded tokens to the input of the first block's attention: [n, H] -> [n, 3H]."""
        return self.layers[0].before_attention(states)

    def after_attention(
        self, index: int, states: Tensor, context: Tensor, routes: Routes = ()
    ) -> tuple[Tensor, Tensor]:
        """Continues from the attention of one block to that of the next.

        Args:
            index: number of the block.
            states, context: [n, H] each, its input and what attention made of it.
            routes: the adapters that rows pass through behind the block.

        Returns:
            [n, H] and [n, 3H] for the next block; after the last one [n, H] twice, the second as the head takes it.
        """
        is_compiled = self.compiled_blocks is not None and self.compiled_blocks.takes(states, routes)
        if is_compiled and not self.routing.is_needed:
            given = [routes] if routes else []  # those that no adapters are made for take none
            return self.compiled_blocks(index, states, context, *given)
        states = adapted(self.layers[index], self.layers[index].after_attention(states, context), routes)
        if index + 1 == len(self.layers):
            return states, self._finished(states)
        return states, self.layers[index + 1].before_attention(states)

    def _finished(self, states: Tensor) -> Tensor:
        return states if self.final_norm is None else self.final_norm(states)

    def forward(self, states: Tensor, packing: Packing, tasks: np.ndarray | None = None) -> Tensor:
        """Runs the layers on embedded, packed tokens: [n, H] -> [n, H].

        Args:
            tasks: [examples], the number of each one's task; None if no adapter is for any.
        """
        prefixes, routes = self.prefixes(), self.routes_of(tasks, map(sum, packing.examples))
        if self.num_virtual:
            packing = packing.with_prefix(self.num_virtual)
        routes = list(routes)  # recompute searches tuples for tensors
        for index, (layer, prefix) in enumerate(zip(self.layers, prefixes, strict=True)):
            states = self.run(index, layer, states, packing, prefix, routes)
        return self._finished(states)

    def prefill(self, states: Tensor, parts: Sequence[tuple[int, int]], prompts: Sequence) -> tuple[Tensor, KVCache]:
        """Reads packed prompts, so that no padding is multiplied.

        Args:
            states: [n, H], the embedded tokens of all prompts.
            parts: for each prompt, the tokens of Part A, which all see each other, and of Part B behind them.
            prompts: what the cache holds place by place (`KVCache.prompts`).

        Returns:
            [B, H], the states after each prompt's last token, and the cache.
        """
        ends = np.cumsum([sum(part) for part in parts])
        packing = Packing(np.arange(ends[-1]), list(parts))
        routes = self.routes_of(tasks_of(prompts), map(sum, parts))
        if self.num_virtual:  # for the cache they are the beginning of each prompt
            packing = packing.with_prefix(self.num_virtual)
        lengths = [sum(example) for example in packing.examples]
        projected = self.before_attention(states)  # [n, 3H]
        caches = []
        for index, (layer, prefix) in enumerate(zip(self.layers, self.prefixes(), strict=True)):
            if prefix is not None:
                projected = packing.put_before(prefix, projected)
            caches.append(self.layer_cache.of_prompts(projected, lengths, self.num_heads))
            context = layer.attention(projected, packing)
            states, projected = self.after_attention(index, states, context, routes)  # [n, H], [n, 3H]
        last = projected.gather(as_tensor(ends - 1))  # [n, H] -> [B, H]
        return last, KVCache(caches, np.array(lengths), prompts)

    def step(self, states: Tensor, cache: KVCache, *, looks: int = 0, sees: np.ndarray | None = None) -> Tensor:
        """Reads one embedded token per live row, or as set by `KVCache.open_step`: [B, R, H] -> [B, R, H]."""
        B, R, H = states.shape
        sees = cache.open_step(R, looks=looks, sees=sees)
        seen = self.layer_cache.seen_by(cache.lengths, cache.width, sees, cache.capacity, self.num_heads)
        states = states.reshape([B * R, H])
        routes = self.routes_of(tasks_of(cache.prompts), [R] * B)
        projected = self.before_attention(states)  # [B * R, 3H]
        for index, layer in enumerate(self.layers):
            projected = projected.reshape([B, R, -1])
            context = cache.layers[index].attend(layer.attention, projected, seen, cache.start)
            states, projected = self.after_attention(index, states, context, routes)
        return projected.reshape([B, R, H])


def tasks_of(prompts: Sequence) -> np.ndarray:
    """Returns the task number of each prompt: [B]."""
    return np.array([getattr(prompt, "task", NO_TASK) for prompt in prompts], np.int64)
