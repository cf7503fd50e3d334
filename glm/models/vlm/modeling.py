"""VLM: a GPT-2 with an adapter for each task behind each of its blocks.

Sources: Radford et al. 2019; Lin, Madotto and Fung 2020, section 3. It is two-part attention with an empty Part A, one
row of positions, and segments that are rows of the word table.
"""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.models.protocol import IGNORE_INDEX, NO_TASK
from glm.models.vlm.configuration import VLMConfig
from glm.models.vlm.geometry import TASK_TAGS, Prompt
from glm.models.vlm.tokenization import ADDED
from glm.models.vlm.weights import SINGLE, TASK_NAMES, adapter_widths
from glm.modules.block import Block
from glm.modules.bottleneck import add_adapters
from glm.modules.cache import MASKED, KVCache
from glm.modules.head import TiedHead
from glm.modules.layers import Dropout, LayerNorm, TiedEmbedding
from glm.modules.packing import Packing
from glm.modules.pretrained import SafePretrainedModel
from glm.modules.split_layers import draw
from glm.modules.stack import Stack
from glm.modules.tensors import as_tensor

ENDS = tuple(ADDED.index(tags.eos) for tags in TASK_TAGS)  # index among the added tokens of each task's end token


class VLMTransformer(Stack):
    """GPT-2's transformer: positions, blocks and the final LayerNorm."""

    def __init__(self, config: VLMConfig):
        super().__init__()
        self.embedding_dropout = Dropout(config.embedding_dropout_prob)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.set_layers([Block(config.block) for _ in range(config.num_layers)])
        self.final_layernorm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        widths = adapter_widths(config.to_dict())
        for name, width in widths.items():
            add_adapters(self, name, width, up_std=config.initializer_range, std=config.initializer_range)
        if widths:
            self.adapter_names = tuple(name if name in widths else "" for name in TASK_NAMES)
        if SINGLE in widths:
            self.adapter_names = (SINGLE,) * len(TASK_NAMES)

    @property
    def final_norm(self) -> LayerNorm:
        return self.final_layernorm


class VLMPretrainedModel(SafePretrainedModel):
    """What loading and saving need to know about a VLM."""

    config_class = VLMConfig
    base_model_prefix = "vlm"


class VLMModel(VLMPretrainedModel):
    """VLM without a head: hidden states after the final LayerNorm."""

    def __init__(self, config: VLMConfig):
        super().__init__(config)
        self.seed = draw_seed()  # of the random weights
        self.word_embeddings = TiedEmbedding(config.vocab_size, config.hidden_size)
        self.transformer = VLMTransformer(config)

    def draw_weights(self) -> None:
        """Initialises from N(0, initializer_range); biases are 0."""
        numbers = np.random.default_rng(self.seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                draw(weight, name, {}, numbers, self.config.initializer_range, degree=1, rank=0)

    def embed(self, ids: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """Adds words, positions, and segments, which are rows of the word table too (-1 for none): [...] int64 each ->
        [..., H]."""
        states = self.word_embeddings(ids) + self.transformer.position_embeddings(positions)
        if bool((segments >= 0).any()):
            of_segments = self.word_embeddings(segments.clip(0))
            states = states + of_segments * (segments >= 0).astype(states.dtype).unsqueeze(-1)
        return self.transformer.embedding_dropout(states)

    def forward(
        self, input_ids: Tensor, segment_ids: Tensor, packing: Packing, tasks: np.ndarray | None = None
    ) -> Tensor:
        """Runs the stack on packed tokens.

        Args:
            input_ids, segment_ids: [B, L] int64.
            tasks: [examples], the number of each one's task.

        Returns:
            [n, H]
        """
        places = as_tensor(packing.places)  # [n]
        ids, segments = (table.flatten().gather(places) for table in (input_ids, segment_ids))
        positions = as_tensor(np.concatenate([np.arange(sum(parts)) for parts in packing.examples]))
        return self.transformer(self.embed(ids, segments, positions), packing, tasks)


class VLMForConditionalGeneration(VLMPretrainedModel):
    """VLM with its head, tied to the word embedding: trains on targets and generates them.

    Generation knows one end of a text, `<|endoftext|>`. Where a task has an end of its own, that one's logit stands in
    this column, GPT-2's `<|endoftext|>`, which is only a word there, in one more behind the vocabulary, and no tag has
    a share in probabilities.

    Attributes:
        head: turns states into logits, or into the loss.
    """

    task_names = TASK_NAMES  # by number
    nucleus_keeps_edge = True  # see `glm.generation.sampling.keep_likely`

    def __init__(self, config: VLMConfig):
        super().__init__(config)
        self.vlm = VLMModel(config)
        self.head = TiedHead(self.vlm.word_embeddings, None)

    @property
    def stacks(self) -> list[Stack]:
        """Its stacks of blocks: one."""
        return [self.vlm.transformer]

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor,
        tasks: Tensor | None = None,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        num_items: int | None = None,
    ) -> Tensor:
        """Returns logits of all tokens; with labels the loss, for which the head sees labelled positions only.

        Args:
            input_ids: [B, L] int64; each row one or more examples, one behind the other, and padding behind them.
            segment_ids: [B, L] int64, ids of tags, -1 for none.
            lengths: [B, E] int64, tokens of each example of a row, left to right; 0 where a row has fewer than E.
            tasks: [B, E] int64, the number of each one's task, -1 for none.
            labels: [B, L] int64 next tokens, -100 where there is no loss.
            label_smoothing: e, see `glm.modules.loss`.
            num_items: labelled tokens that the loss is a mean over, if they are not those of this batch.

        Returns:
            [B, L, V] logits, 0 at padding; or [] the summed loss of the labelled positions, divided by their number.

        Raises:
            ValueError: the examples of a row have more tokens than the row.
        """
        B, L = input_ids.shape
        packing, states = self._states(input_ids, segment_ids, lengths, tasks)  # [n, H]
        places = as_tensor(packing.places)
        if labels is not None:
            labels = labels.flatten().gather(places)  # [n]
            labelled = (labels != IGNORE_INDEX).nonzero().flatten()
            return self.head.loss(
                states.gather(labelled), labels.gather(labelled), label_smoothing=label_smoothing, num_items=num_items
            )
        logits = self.head.logits(states)  # [n, V]
        return paddle.scatter(paddle.zeros([B * L, logits.shape[-1]], logits.dtype), places, logits).reshape(
            [B, L, -1]
        )

    def _states(self, input_ids, segment_ids, lengths, tasks) -> tuple[Packing, Tensor]:
        lengths = lengths.numpy()
        packing = Packing.of(np.stack([np.zeros_like(lengths), lengths], axis=2), input_ids.shape[1])
        of_examples = None if tasks is None else tasks.numpy()[lengths > 0]
        return packing, self.vlm(input_ids, segment_ids, packing, of_examples)

    @paddle.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, KVCache]:
        """Reads prompts.

        Returns:
            [B, V + 1] float32 logits of the first token to generate, and the cache with one live row per example.
        """
        ids, segments = (
            np.concatenate([getattr(prompt, name) for prompt in prompts]) for name in ("input_ids", "segment_ids")
        )
        positions = np.concatenate([np.arange(len(prompt)) for prompt in prompts])
        embedded = self.vlm.embed(*map(as_tensor, (ids, segments, positions)))  # [n, H]
        parts = [(0, len(prompt)) for prompt in prompts]
        states, cache = self.vlm.transformer.prefill(embedded, parts, prompts)
        return self._own_logits(states.unsqueeze(1), prompts)[:, 0], cache

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, numbers: np.ndarray, cache: KVCache) -> np.ndarray:
        """Reads one token per live row.

        Args:
            tokens: [B, R].
            numbers: [B], which generated token of its text each is, from 0.

        Returns:
            [B, R, V + 1] float32 logits of the tokens that follow.
        """
        R, prompts = tokens.shape[1], cache.prompts
        tokens = np.where(tokens == self.config.vocab_size, self._end_of_text, tokens)
        segments = np.repeat([[prompt.segment] for prompt in prompts], R, axis=1)
        starts = np.array([len(prompt) for prompt in prompts])
        positions = np.repeat((starts + numbers)[:, None], R, axis=1)
        embedded = self.vlm.embed(*map(as_tensor, (tokens, segments, positions)))  # [B, R, H]
        return self._own_logits(self.vlm.transformer.step(embedded, cache), prompts)

    @property
    def _end_of_text(self) -> int:
        """Id of `<|endoftext|>`, GPT-2's last word."""
        return self.config.vocab_size - len(ADDED) - 1

    def _own_logits(self, states: Tensor, prompts: Sequence[Prompt]) -> np.ndarray:
        """Returns the logits of words and of each row's own end token: [B, R, H] -> [B, R, V + 1]."""
        logits = self.head.logits(states).astype("float32").numpy()
        own = np.full((*logits.shape[:2], logits.shape[2] + 1), np.float32(MASKED))
        own[..., :-1] = logits
        end = self._end_of_text
        for row, prompt in zip(own, prompts, strict=True):
            if prompt.task != NO_TASK:
                row[:, -1] = row[:, end]
                row[:, end] = row[:, end + 1 + ENDS[prompt.task]]
                row[:, end + 1 : -1] = MASKED
        return own
