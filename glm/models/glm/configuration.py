"""The size and shape of a GLM. The names are those of PaddleNLP's GLMConfig, so its files load unchanged; the defaults
too, but for `use_scaled_init_for_output_weights`, which is on as in THUDM/GLM."""

from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.models.glm.weights import PUBLISHED, GLMWeights, position_rows
from glm.models.presets import published_presets
from glm.modules.block import BlockNames, BlockOptions
from glm.parallel.plan import check_degree

# As in THUDM/GLM and PaddleNLP, so that their files load without renaming.
NAMES = BlockNames(
    attention="attention",
    mlp="mlp",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    projection="query_key_value",
    output="dense",
    up="dense_h_to_4h",
    down="dense_4h_to_h",
)


class GLMConfig(ModelConfig):
    """Configuration of a GLM.

    Args:
        num_layers: transformer layers (`num_hidden_layers` is the same).
        vocab_size: rows of the word embedding, a multiple of 128.
        hidden_size: H.
        num_attention_heads: N; divides `hidden_size`.
        embedding_dropout_prob, attention_dropout_prob, output_dropout_prob: dropout after the embeddings, on attention
            probabilities, on the output of attention and MLP.
        max_sequence_length: most tokens of Part A and Part B together.
        block_position_encoding: add an embedding of the block position; each position table then has one more row.
        attention_scale: scores are divided by it before the product and multiplied after, against fp16 overflow; no
            effect on the result.
        initializer_range: standard deviation of random weights.
        use_scaled_init_for_output_weights: divide it by sqrt(2 * num_layers) in the two linears that end in a residual
            sum (THUDM/GLM, mpu/transformer.py).
        layernorm_epsilon: epsilon of every LayerNorm.
        bad_words_id: ids that are never generated (50009 in glm-10b-chinese, whose row equals that of eop).
        kwargs: other fields, see `ModelConfig`.

    Raises:
        InputError: `hidden_size` is no multiple of `num_attention_heads`, or the model cannot be split over so many
            ranks.
    """

    model_type = "glm"
    attribute_map = {"num_hidden_layers": "num_layers", "torch_dtype": "dtype"}
    pretrained_init_configuration = published_presets(PUBLISHED)

    def __init__(
        self,
        num_layers: int = 24,
        vocab_size: int = 30592,
        hidden_size: int = 1024,
        num_attention_heads: int = 16,
        embedding_dropout_prob: float = 0.1,
        attention_dropout_prob: float = 0.1,
        output_dropout_prob: float = 0.1,
        max_sequence_length: int = 512,
        block_position_encoding: bool = True,
        attention_scale: float = 1.0,
        initializer_range: float = 0.02,
        use_scaled_init_for_output_weights: bool = True,
        layernorm_epsilon: float = 1e-5,
        bad_words_id: list[int] | None = None,
        **kwargs,
    ):
        num_layers = kwargs.pop("num_hidden_layers", num_layers)
        super().__init__(**kwargs)
        if hidden_size % num_attention_heads:
            raise InputError(f"hidden_size {hidden_size} is no multiple of num_attention_heads {num_attention_heads}")
        sizes = {"num_attention_heads": num_attention_heads, "vocab_size": vocab_size}
        check_degree(self.tensor_parallel_degree, sizes, GLMWeights.divided)
        self.num_layers = num_layers
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.embedding_dropout_prob = embedding_dropout_prob
        self.attention_dropout_prob = attention_dropout_prob
        self.output_dropout_prob = output_dropout_prob
        self.max_sequence_length = max_sequence_length
        self.block_position_encoding = block_position_encoding
        self.attention_scale = attention_scale
        self.initializer_range = initializer_range
        self.use_scaled_init_for_output_weights = use_scaled_init_for_output_weights
        self.layernorm_epsilon = layernorm_epsilon
        self.bad_words_id = bad_words_id or []

    @property
    def position_rows(self) -> int:
        """Rows of each position table."""
        return position_rows(vars(self))

    @property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated."""
        return self.bad_words_id

    @property
    def block(self) -> BlockOptions:
        """The settings of its blocks."""
        return BlockOptions(
            hidden_size=self.hidden_size,
            num_heads=self.num_attention_heads,
            names=NAMES,
            epsilon=self.layernorm_epsilon,
            attention_dropout=self.attention_dropout_prob,
            output_dropout=self.output_dropout_prob,
            attention_scale=self.attention_scale,
            degree=self.tensor_parallel_degree,
        )
