"""GLM: a stack of pre-LN transformer blocks over words, positions and block positions, with a tied head.

Source: Du et al. 2022, section 2; layer for layer as THUDM/GLM (mpu/transformer.py, model/modeling_glm.py). The names
of the weights are PaddleNLP's, so its files load without renaming.
"""

import math
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import Prompt
from glm.models.glm.weights import FINAL_NORM, GLMWeights
from glm.models.protocol import IGNORE_INDEX, TokenScores
from glm.modules.block import Block
from glm.modules.branches import Branches, parts_of
from glm.modules.cache import KVCache
from glm.modules.head import TiedHead
from glm.modules.layers import Dropout, LayerNorm
from glm.modules.packing import Packing
from glm.modules.pretrained import SafePretrainedModel
from glm.modules.split_layers import draw, split_embedding, tensor_parallel_group
from glm.modules.stack import Stack
from glm.modules.tensors import as_tensor

RESIDUAL_WEIGHTS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")  # of linears that feed a residual sum
WEIGHTS_URL = "https://paddlenlp.bj.bcebos.com/models/community/{name}.pdparams"


class GLMTransformer(Stack):
    """GLM's transformer: positions, blocks and the final LayerNorm."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.embedding_dropout = Dropout(config.embedding_dropout_prob)
        self.position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.block_position_embeddings = None
        if config.block_position_encoding:
            self.block_position_embeddings = nn.Embedding(config.position_rows, config.hidden_size)
        self.set_layers([self.new_block(config) for _ in range(config.num_layers)])
        self.add_sublayer(FINAL_NORM, config.block.norm(config.hidden_size, epsilon=config.layernorm_epsilon))

    def new_block(self, config: GLMConfig) -> Block:
        """Makes one of its blocks."""
        return Block(config.block)

    def table_rows(self, ids: Tensor, table: str) -> Tensor:
        """Looks rows up in the position table of this name: [...] int64 -> [..., H]."""
        return self._sub_layers[table](ids)

    @property
    def final_norm(self) -> LayerNorm:
        return self._sub_layers[FINAL_NORM]

    def embed(self, words: Tensor, position_ids: Tensor) -> Tensor:
        """Adds positions to word embeddings: [B, L, H] and [B, 2, L] -> [B, L, H]."""
        states = words + self.table_rows(position_ids[:, 0], "position_embeddings")
        if self.block_position_embeddings is not None:
            states = states + self.table_rows(position_ids[:, 1], "block_position_embeddings")
        return self.embedding_dropout(states)


class GLMPretrainedModel(SafePretrainedModel):
    """What loading and saving need to know about a GLM."""

    config_class = GLMConfig
    base_model_prefix = "glm"
    pretrained_resource_files_map = {
        "model_state": {name: WEIGHTS_URL.format(name=name) for name in GLMConfig.pretrained_init_configuration}
    }


class GLMModel(GLMPretrainedModel):
    """GLM without a head: hidden states after the last LayerNorm."""

    stack_class = GLMTransformer

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        # For random weights; drawn before fleet's layers draw numbers that ordinary layers do not.
        self.seed = draw_seed()
        degree = config.tensor_parallel_degree
        self.word_embeddings = split_embedding(config.vocab_size, config.hidden_size, degree=degree)
        self.transformer = self.stack_class(config)

    def draw_weights(self) -> None:
        """Initialises from N(0, initializer_range), scaled down in the two linears that feed a residual sum; biases
        are 0."""
        config = self.config
        std = residual_std = config.initializer_range
        if config.use_scaled_init_for_output_weights:
            residual_std = std / math.sqrt(2.0 * config.num_layers)
        ranks = {"degree": config.tensor_parallel_degree, "rank": config.tensor_parallel_rank}
        numbers = np.random.default_rng(self.seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                own_std = residual_std if name.endswith(RESIDUAL_WEIGHTS) else std
                draw(weight, name, GLMWeights.plan, numbers, own_std, **ranks)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, packing: Packing, tasks: np.ndarray | None = None
    ) -> Tensor:
        """Runs the stack on packed tokens.

        Args:
            input_ids: [B, L] int64.
            position_ids: [B, 2, L] int64, the rows of `glm.models.glm.geometry`.
            tasks: [examples], the number of each one's task; None if no adapter is for any.

        Returns:
            [n, H]
        """
        places = as_tensor(packing.places)  # [n]
        words = self.word_embeddings(input_ids.flatten().gather(places).unsqueeze(0))  # [1, n, H]
        positions = position_ids.transpose([1, 0, 2]).flatten(1).gather(places, axis=1)  # [2, n]
        return self.transformer(self.transformer.embed(words, positions.unsqueeze(0))[0], packing, tasks)


class GLMForConditionalGeneration(GLMPretrainedModel):
    """GLM with its head, tied to the word embedding: trains on Part B and generates it.

    Attributes:
        head: turns states into logits, or into the loss.
    """

    base_class = GLMModel

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.glm = self.base_class(config)
        self.head = TiedHead(self.glm.word_embeddings, tensor_parallel_group(config.tensor_parallel_degree))

    @property
    def stacks(self) -> list[Stack]:
        """Its stacks of blocks: one."""
        return [self.glm.transformer]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        num_items: int | None = None,
        tasks: Tensor | None = None,
    ) -> Tensor:
        """Returns logits of all tokens; with labels the loss, for which the head sees labelled positions only.

        Args:
            input_ids: [B, L] int64; each row one or more examples, one behind the other, and padding behind them.
            position_ids: [B, 2, L] int64.
            segments: [B, E, 2] int64, tokens of Part A and of Part B of each example of a row, left to right; (0, 0)
                where a row has fewer than E.
            labels: [B, L] int64 next tokens, -100 where there is no loss.
            label_smoothing: e, see `glm.modules.loss`.
            num_items: labelled tokens that the loss is a mean over, if they are not those of this batch: of all
                batches whose gradients are added, on all processes.
            tasks: [B, E] int64, the number of each example's task, -1 for none; None if no adapter is for any.

        Returns:
            [B, L, V] logits, 0 at padding; or [] the summed loss of the labelled positions, divided by their number.

        Raises:
            ValueError: the examples of a row have more tokens than the row.
        """
        if labels is not None:
            states, labels = self._labelled(input_ids, position_ids, segments, labels, tasks)
            return self.head.loss(states, labels, label_smoothing=label_smoothing, num_items=num_items)
        B, L = input_ids.shape
        packing = Packing.of(segments.numpy(), L)
        states = self.glm(input_ids, position_ids, packing, _of_examples(tasks, segments))  # [n, H]
        logits = self.head.logits(states)  # [n, V]
        table = paddle.zeros([B * L, logits.shape[-1]], logits.dtype)
        return paddle.scatter(table, as_tensor(packing.places), logits).reshape([B, L, -1])

    def labelled_states(self, input_ids: Tensor, position_ids: Tensor, segments: Tensor, labels: Tensor) -> Tensor:
        """Returns the states of the labelled positions, row by row: [labels, H]; arguments as for `forward`."""
        return self._labelled(input_ids, position_ids, segments, labels)[0]

    def labelled_logits(self, input_ids: Tensor, position_ids: Tensor, segments: Tensor, labels: Tensor) -> Tensor:
        """Returns the logits of the labelled positions, row by row: [labels, V]; arguments as for `forward`."""
        return self.head.logits(self.labelled_states(input_ids, position_ids, segments, labels))

    def _labelled(
        self, input_ids, position_ids, segments, labels: Tensor, tasks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns states [labels, H] and labels [labels] of the labelled positions; arguments as for `forward`."""
        packing = Packing.of(segments.numpy(), input_ids.shape[1])
        states = self.glm(input_ids, position_ids, packing, _of_examples(tasks, segments))  # [n, H]
        labels = labels.flatten().gather(as_tensor(packing.places))  # [n]
        labelled = (labels != IGNORE_INDEX).nonzero().flatten()
        return states.gather(labelled), labels.gather(labelled)

    @paddle.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, KVCache]:
        """Reads prompts.

        Returns:
            [B, V] float32 logits of the first token to generate, and the cache with one live row per example.
        """
        states, cache = self._read(prompts)
        return self.head.logits(states).astype("float32").numpy(), cache

    def _read(self, prompts: Sequence[Prompt]) -> tuple[Tensor, KVCache]:
        """Returns states [B, H] after the last token of each prompt, and the cache."""
        input_ids = np.concatenate([prompt.input_ids for prompt in prompts])
        position_ids = np.concatenate([prompt.position_ids for prompt in prompts], axis=1)
        stack = self.glm.transformer
        words = self.glm.word_embeddings(as_tensor(input_ids[None]))  # [1, n, H]
        parts = [(len(prompt.source_ids), len(prompt.opening_ids)) for prompt in prompts]
        return stack.prefill(stack.embed(words, as_tensor(position_ids[None]))[0], parts, prompts)

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, numbers: np.ndarray, cache: KVCache) -> np.ndarray:
        """Reads one token per live row.

        Args:
            tokens: [B, R].
            numbers: [B], which generated token of its text each is, from 0.

        Returns:
            [B, R, V] float32 logits of the tokens that follow.
        """
        positions = [prompt.step_position_ids(number) for prompt, number in zip(cache.prompts, numbers, strict=True)]
        position_ids = np.repeat(np.stack(positions), tokens.shape[1], axis=2)  # [B, 2, 1] -> [B, 2, R]
        words = self.glm.word_embeddings(as_tensor(tokens))  # [B, R, H]
        states = self.glm.transformer.step(self.glm.transformer.embed(words, as_tensor(position_ids)), cache)
        return self.head.logits(states).astype("float32").numpy()

    @paddle.no_grad()
    def log_probs(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]], *, top: int = 0
    ) -> list[list[TokenScores]]:
        """See `glm.models.protocol.Scorable`: reads the prompts once, then all tokens of all candidates together."""
        first, cache = self._read(prompts)  # [B, H]
        found: list[list[TokenScores]] = [[] for _ in prompts]
        for part in parts_of(candidates):
            branches = Branches.of(part)
            states = first
            if branches.rows:
                states = paddle.concat([first, self._read_branches(branches, prompts, cache)])  # [B + B * R, H]
            for own, scores in zip(found, branches.token_scores(self.head, states, top=top), strict=True):
                own += [TokenScores(*score) for score in scores]
        return found

    def _read_branches(self, branches: Branches, prompts: Sequence[Prompt], cache: KVCache) -> Tensor:
        """Returns states [B * R, H] after the candidates' tokens, all read together behind their prompts."""
        cache.begin_anew(branches.rows)
        own = [prompt.span_position_ids(branches.rows) for prompt in prompts]  # [2, R] each
        positions = np.stack([row[:, n] for row, n in zip(own, branches.numbers, strict=True)])  # [B, 2, R]
        words = self.glm.word_embeddings(as_tensor(branches.tokens))  # [B, R, H]
        embedded = self.glm.transformer.embed(words, as_tensor(positions))
        return self.glm.transformer.step(embedded, cache, sees=branches.sees).flatten(0, 1)


def _of_examples(tasks: Tensor | None, segments: Tensor) -> np.ndarray | None:
    """[B, E] -> [examples], without the empty ones."""
    return None if tasks is None else tasks.numpy()[segments.numpy().sum(axis=2) > 0]
