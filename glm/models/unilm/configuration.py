"""The size and shape of a UniLM. The names are BERT's, so its files load unchanged."""

from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.models.presets import published_presets
from glm.models.unilm.weights import (
    ATTENTION_NORM,
    DOWN,
    FUSED,
    MLP_NORM,
    OUTPUT,
    PUBLISHED,
    SEGMENT_TYPES,
    TASKS,
    UP,
    default_epsilon,
)
from glm.modules.block import BlockNames, BlockOptions

FINISHED_RULES = ("glm", "unilm")  # finishing rules of `glm.generation.finished`
NAMES = BlockNames(
    attention="attention",
    mlp="mlp",
    attention_norm=ATTENTION_NORM,
    mlp_norm=MLP_NORM,
    projection=FUSED.rpartition(".")[2],
    output=OUTPUT.rpartition(".")[2],
    up=UP.rpartition(".")[2],
    down=DOWN.rpartition(".")[2],
)


class UniLMConfig(ModelConfig):
    """Configuration of a UniLM; the defaults are those of the Chinese base model.

    Args:
        vocab_size: V.
        hidden_size: H.
        num_hidden_layers: transformer layers (`num_layers` is the same).
        num_attention_heads: N; divides `hidden_size`.
        intermediate_size: F, of the MLP.
        max_position_embeddings: most tokens of a text and what belongs to it.
        type_vocab_size: segment types, 6 whatever files of a BERT say.
        layer_norm_eps: epsilon of every LayerNorm [1e-5 with four tables or a four-fold head, else 1e-12].
        hidden_act: `gelu`, by the error function.
        hidden_dropout_prob, attention_probs_dropout_prob, embedding_dropout_prob: dropout on the output of attention
            and MLP, on attention probabilities, and after the embeddings [as the first]; fine-tuning's options call
            the first two `output_dropout_prob` and `attention_dropout_prob`.
        initializer_range: standard deviation of random weights.
        mimetic_init: random weights begin with the structure that trained ones are found to have; a small model that
            is trained from nothing learns to copy much sooner.
        new_pos_ids: each of the four language models has a position table of its own (UniLM, pretraining script).
        relax_projection: 4: each has a quarter of a head four times as wide; 0: there is one head.
        pooler: whether there is BERT's pooler, which sentence order reads.
        sentence_order: whether there is a head that tells whether two parts are in order; needs `pooler`.
        finished_rule: how decoding ends a text, see `glm.generation.config`.

    Raises:
        InputError: an entry has a value that no UniLM has.
    """

    model_type = "unilm"
    pretrained_init_configuration = published_presets(PUBLISHED)
    attribute_map = {"num_layers": "num_hidden_layers", "torch_dtype": "dtype"}

    def __init__(
        self,
        vocab_size: int = 21128,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 512,
        type_vocab_size: int = SEGMENT_TYPES,
        layer_norm_eps: float | None = None,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        embedding_dropout_prob: float | None = None,
        initializer_range: float = 0.02,
        mimetic_init: bool = False,
        new_pos_ids: bool = False,
        relax_projection: int = 0,
        pooler: bool = False,
        sentence_order: bool = False,
        finished_rule: str = "unilm",
        **kwargs,
    ):
        num_hidden_layers = kwargs.pop("num_layers", num_hidden_layers)
        hidden_dropout_prob = kwargs.pop("output_dropout_prob", hidden_dropout_prob)
        attention_probs_dropout_prob = kwargs.pop("attention_dropout_prob", attention_probs_dropout_prob)
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.embedding_dropout_prob = hidden_dropout_prob if embedding_dropout_prob is None else embedding_dropout_prob
        self.initializer_range = initializer_range
        self.mimetic_init = mimetic_init
        self.new_pos_ids = new_pos_ids
        self.relax_projection = relax_projection
        self.pooler = pooler
        self.sentence_order = sentence_order
        self.finished_rule = finished_rule
        self._check()
        self.layer_norm_eps = default_epsilon(vars(self)) if layer_norm_eps is None else layer_norm_eps

    def _check(self) -> None:
        H, N = self.hidden_size, self.num_attention_heads
        if H % N:
            raise InputError(f"hidden_size {H} is no multiple of num_attention_heads {N}")
        if self.hidden_act != "gelu":
            raise InputError(f"hidden_act {self.hidden_act}: a UniLM's is gelu")
        if self.relax_projection not in (0, TASKS):
            raise InputError(f"relax_projection {self.relax_projection}: use 0 (one head) or {TASKS}")
        if self.type_vocab_size < SEGMENT_TYPES:
            raise InputError(f"type_vocab_size {self.type_vocab_size}: there are {SEGMENT_TYPES} segment types")
        if self.finished_rule not in FINISHED_RULES:
            raise InputError(f"finished_rule {self.finished_rule!r:.40}: use {' or '.join(FINISHED_RULES)}")
        if self.sentence_order and not self.pooler:
            raise InputError("sentence_order True: needs pooler True")

    @property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated, beside those that stand for no text."""
        return []

    @property
    def block(self) -> BlockOptions:
        """The settings of its blocks."""
        return BlockOptions(
            hidden_size=self.hidden_size,
            num_heads=self.num_attention_heads,
            names=NAMES,
            epsilon=self.layer_norm_eps,
            attention_dropout=self.attention_probs_dropout_prob,
            output_dropout=self.hidden_dropout_prob,
            mlp_size=self.intermediate_size,
            activation="gelu",
        )
