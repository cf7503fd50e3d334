"""UniLM: one BERT used as four language models, which attention masks and segments tell apart.

Source: Dong et al. 2019, "Unified Language Model Pre-training"; layer for layer as the Chinese UniLM
(BERT's post-LN blocks and head, four position tables and a four-fold head in pretraining).
"""

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.models.protocol import IGNORE_INDEX
from glm.models.unilm.configuration import UniLMConfig
from glm.models.unilm.geometry import SEQ2SEQ, TARGET_SEGMENT, Prompt
from glm.models.unilm.initialization import draw_weights
from glm.models.unilm.weights import PUBLISHED, TASKS
from glm.modules.cache import KVCache
from glm.modules.head import TiedHead
from glm.modules.layers import Dropout, ExactGELU, LayerNorm, Linear, TiedEmbedding
from glm.modules.loss import Smoothing
from glm.modules.packing import Packing
from glm.modules.post_norm import PostNormBlock
from glm.modules.pretrained import SafePretrainedModel
from glm.modules.stack import Stack
from glm.modules.tensors import as_tensor

NOTHING = 1e-5  # added to the number of predicted tokens before the masked loss is divided by it, as in the originals
PAD = 0  # [PAD], which gets no share of label smoothing

KINDS = {"bert": "bert", "macb": "macbert"}  # folder at WEIGHTS_URL, by the first letters of a model's name
WEIGHTS_URL = "https://bj.bcebos.com/paddlenlp/models/transformers/{kind}/{name}.pdparams"


class UniLMEncoder(Stack):
    """UniLM's encoder: positions and segments with their LayerNorm, and the blocks."""

    def __init__(self, config: UniLMConfig):
        super().__init__()
        self.tables = TASKS if config.new_pos_ids else 1
        H = config.hidden_size
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, H * self.tables)
        self.segment_embeddings = nn.Embedding(config.type_vocab_size, H)
        self.embedding_layernorm = LayerNorm(H, epsilon=config.layer_norm_eps)
        self.embedding_dropout = Dropout(config.embedding_dropout_prob)
        self.set_layers([PostNormBlock(config.block) for _ in range(config.num_hidden_layers)])

    def embed(self, words: Tensor, position_ids: Tensor, segment_ids: Tensor, tasks: Tensor) -> Tensor:
        """Adds positions and segments of each token's task, then LayerNorm: word embeddings [..., H] -> [..., H]."""
        if self.tables > 1:  # a row of the table holds the vectors of all tasks side by side
            position_ids = position_ids * self.tables + tasks
        table = self.position_embeddings.weight.reshape([-1, words.shape[-1]])
        states = words + F.embedding(position_ids, table) + self.segment_embeddings(segment_ids)
        return self.embedding_dropout(self.embedding_layernorm(states))


class LanguageHead(nn.Layer):
    """BERT's head before the words: a linear, GELU and a LayerNorm; holds the bias of the words too."""

    def __init__(self, config: UniLMConfig):
        super().__init__()
        self.parts = config.relax_projection or 1
        H = config.hidden_size
        self.dense = Linear(H, H * self.parts)
        self.activation = ExactGELU()
        self.layernorm = LayerNorm(H * self.parts, epsilon=config.layer_norm_eps)
        self.bias = self.create_parameter([config.vocab_size], is_bias=True)

    def forward(self, states: Tensor, tasks: Tensor) -> Tensor:
        """[n, H] and each token's task [n] -> [n, H]."""
        wide = self.layernorm(self.activation(self.dense(states)))  # [n, H * parts]
        if self.parts == 1:
            return wide
        n, H = states.shape
        return wide.reshape([n * self.parts, H]).gather(paddle.arange(n) * self.parts + tasks)


class UniLMPretrainedModel(SafePretrainedModel):
    """What loading and saving need to know about a UniLM."""

    config_class = UniLMConfig
    base_model_prefix = "unilm"
    pretrained_init_configuration = UniLMConfig.pretrained_init_configuration
    pretrained_resource_files_map = {
        "model_state": {name: WEIGHTS_URL.format(kind=KINDS[name[:4]], name=name) for name in PUBLISHED}
    }


class UniLMModel(UniLMPretrainedModel):
    """UniLM without its heads: hidden states after the last block."""

    def __init__(self, config: UniLMConfig):
        super().__init__(config)
        self.word_embeddings = TiedEmbedding(config.vocab_size, config.hidden_size)
        self.encoder = UniLMEncoder(config)
        self.pooler = Linear(config.hidden_size, config.hidden_size) if config.pooler else None

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor, tasks: Tensor, packing: Packing
    ) -> Tensor:
        """Runs the encoder on packed tokens.

        Args:
            input_ids, position_ids, segment_ids: [B, L] int64.
            tasks: [n] int64, of each token.

        Returns:
            [n, H]
        """
        places = as_tensor(packing.places)  # [n]
        ids, positions, segments = (
            part.flatten().gather(places) for part in (input_ids, position_ids, segment_ids)
        )  # [n] each
        return self.encoder(self.encoder.embed(self.word_embeddings(ids), positions, segments, tasks), packing)


class UniLMForConditionalGeneration(UniLMPretrainedModel):
    """UniLM with its heads: predicts the tokens at [MASK]s, and generates targets that way.

    Attributes:
        head: turns what `lm_head` makes of states into logits, or into the loss.
        terms: the parts of the last loss by name, as numbers that are still on the device; for the log.
    """

    def __init__(self, config: UniLMConfig):
        super().__init__(config)
        self.seed = draw_seed()  # of the random weights
        self.unilm = UniLMModel(config)
        self.lm_head = LanguageHead(config)
        self.sentence_order = Linear(config.hidden_size, 2) if config.sentence_order else None
        self.head = TiedHead(self.unilm.word_embeddings, None, self.lm_head.bias)
        self.terms: dict[str, Tensor] = {}

    def draw_weights(self) -> None:
        """See `glm.models.unilm.initialization`."""
        draw_weights(self)

    @property
    def finished_rule(self) -> str:
        """The finishing rule of decoding, if the user does not choose one."""
        return self.config.finished_rule

    @property
    def stacks(self) -> list[Stack]:
        """Its stacks of blocks: one."""
        return [self.unilm.encoder]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        parts: Tensor,
        tasks: Tensor,
        order: Tensor | None = None,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        num_items: int | None = None,
    ) -> Tensor:
        """Returns logits of all tokens; with labels the loss, for which the head sees labelled positions only.

        Args:
            input_ids, position_ids, segment_ids: [B, L] int64; each row one or more examples, one behind the other,
                and padding behind them.
            parts: [B, E, 3] int64, tokens of Part A, Part B and Part C of each example of a row, left to right; 0
                where a row has fewer than E.
            tasks: [B, E] int64, which language model each is.
            order: [B, E] int64, 1 for an example whose two parts are in order, 0 where they are swapped, else -100;
                the model's head of sentence order learns it.
            labels: [B, L] int64, what stood at a position, -100 where there is no loss.
            label_smoothing: e, see `glm.modules.loss.Smoothing`; [PAD] has no share of it.
            num_items: labelled tokens that the loss is a mean over, if they are not those of this batch.

        Returns:
            [B, L, V] logits, 0 at padding; or [] the loss of the labelled tokens, and of sentence order beside it.

        Raises:
            ValueError: the examples of a row have more tokens than the row.
        """
        B, L = input_ids.shape
        packing = Packing.of(parts.numpy(), L)
        token_tasks, firsts = _by_token(parts.numpy(), tasks.numpy(), L)
        places = as_tensor(packing.places)
        token_tasks = as_tensor(token_tasks).gather(places)  # [n]
        states = self.unilm(input_ids, position_ids, segment_ids, token_tasks, packing)  # [n, H]
        if labels is None:
            logits = self.head.logits(self.lm_head(states, token_tasks))  # [n, V]
            table = paddle.zeros([B * L, logits.shape[-1]], logits.dtype)
            return paddle.scatter(table, places, logits).reshape([B, L, -1])
        labels = labels.flatten().gather(places)  # [n]
        least = 0.0 if packing.twins else NOTHING
        loss = self._masked_loss(states, token_tasks, labels, label_smoothing, num_items, least)
        if order is None or self.sentence_order is None:
            return loss
        order_loss = self._order_loss(states, order.flatten(), firsts, packing)
        self.terms = {"mlm_loss": loss.detach(), "order_loss": order_loss.detach()}
        return loss + order_loss

    def _masked_loss(
        self,
        states: Tensor,
        token_tasks: Tensor,
        labels: Tensor,
        label_smoothing: float,
        num_items: int | None,
        least: float,
    ) -> Tensor:
        """Returns the loss of the labelled tokens, []; `least` is added to their number."""
        labelled = (labels != IGNORE_INDEX).nonzero().flatten()
        items = len(labelled) if num_items is None else num_items
        return self.head.loss(
            self.lm_head(states.gather(labelled), token_tasks.gather(labelled)),
            labels.gather(labelled),
            label_smoothing=Smoothing(label_smoothing, spared=PAD),
            num_items=items + least,
        )

    def _order_loss(self, states: Tensor, order: Tensor, firsts: np.ndarray, packing: Packing) -> Tensor:
        """Returns the loss of sentence order, [], a mean over the examples that have a label; 0 without any."""
        asked = np.flatnonzero(order.numpy() != IGNORE_INDEX)
        if not len(asked):
            return paddle.zeros([])
        rows = np.searchsorted(packing.clean.places, firsts[asked])  # rows of these examples' first tokens
        logits = self.sentence_order(F.tanh(self.unilm.pooler(states.gather(as_tensor(rows)))))  # [asked, 2]
        return F.cross_entropy(logits, order.gather(as_tensor(asked)))

    @paddle.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, KVCache]:
        """Reads prompts, each followed by a [MASK].

        Returns:
            [B, V] float32 logits of the first token to generate, and the cache with one live row per example.
        """
        encoder = self.unilm.encoder
        tables = [
            np.concatenate(part)
            for part in zip(
                *((prompt.input_ids, np.arange(len(prompt)), prompt.segment_ids) for prompt in prompts), strict=True
            )
        ]
        words, positions, segments = (as_tensor(table) for table in tables)  # [n] each
        tasks = paddle.full_like(positions, SEQ2SEQ)
        states = encoder.embed(self.unilm.word_embeddings(words), positions, segments, tasks)
        parts = [(len(prompt.source_ids), len(prompt.opening_ids)) for prompt in prompts]
        _, cache = encoder.prefill(states, parts, prompts)
        return self._step(np.zeros((len(prompts), 0), np.int64), np.zeros(len(prompts), np.int64), cache)[:, 0], cache

    @paddle.no_grad()
    def step(self, tokens: np.ndarray, numbers: np.ndarray, cache: KVCache) -> np.ndarray:
        """Reads one token per live row followed by a [MASK], whose keys and values are dropped at once.

        Args:
            tokens: [B, R].
            numbers: [B], which generated token of its text each is, from 0.

        Returns:
            [B, R, V] float32 logits of the tokens that follow.
        """
        return self._step(tokens, numbers + 1, cache)

    def _step(self, tokens: np.ndarray, numbers: np.ndarray, cache: KVCache) -> np.ndarray:
        """Returns the logits [B, R, V] of a [MASK] in each row, at the place of the `numbers`-th generated token [B],
        behind the token before it [B, R] ([B, 0] where there is none yet)."""
        encoder, rows = self.unilm.encoder, max(tokens.shape[1], 1)
        masks = np.repeat([[prompt.mask_id] for prompt in cache.prompts], rows, axis=1)
        at_mask = np.array([prompt.step_position(n) for prompt, n in zip(cache.prompts, numbers, strict=True)])
        words = np.concatenate([tokens, masks], axis=1)  # [B, R + R]
        positions = np.repeat(at_mask[:, None] - 1, words.shape[1], axis=1)
        positions[:, tokens.shape[1] :] += 1
        words, positions = as_tensor(words), as_tensor(positions)
        tasks = paddle.full_like(positions, SEQ2SEQ)
        states = encoder.embed(
            self.unilm.word_embeddings(words), positions, paddle.full_like(positions, TARGET_SEGMENT), tasks
        )
        states = encoder.step(states, cache, looks=rows)[:, tokens.shape[1] :]  # [B, R, H]
        states = states.flatten(0, 1)
        logits = self.head.logits(self.lm_head(states, paddle.full([states.shape[0]], SEQ2SEQ, "int64")))
        return logits.astype("float32").reshape([len(tokens), rows, -1]).numpy()


def _by_token(parts: np.ndarray, tasks: np.ndarray, L: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the task of each place of a batch [B * L], and the place of each example's first token [B * E]."""
    lengths = parts.sum(axis=2)  # [B, E]
    firsts = np.arange(len(parts))[:, None] * L + np.cumsum(lengths, axis=1) - lengths  # [B, E]
    of_tokens = np.zeros(len(parts) * L, dtype=np.int64)
    for first, length, task in zip(firsts.flatten(), lengths.flatten(), tasks.flatten(), strict=True):
        of_tokens[first : first + length] = task
    return of_tokens, firsts.flatten()
