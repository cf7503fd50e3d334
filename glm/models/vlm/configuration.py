"""The size and shape of a VLM, which is a GPT-2 with adapters."""

from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.models.vlm.tokenization import TASKS
from glm.modules.block import BlockNames, BlockOptions

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


class VLMConfig(ModelConfig):
    """Configuration of a VLM; the defaults are GPT-2 small's.

    Args:
        vocab_size: V, GPT-2's words and the tags.
        hidden_size: H.
        num_layers: transformer layers (`num_hidden_layers` is the same).
        num_attention_heads: N; divides `hidden_size`.
        max_position_embeddings: most tokens of source and target.
        layer_norm_eps: epsilon of every LayerNorm.
        embedding_dropout_prob, attention_dropout_prob, output_dropout_prob: dropout after the embeddings, on attention
            probabilities, on the output of attention and MLP.
        initializer_range: standard deviation of random weights.
        bottlenecks: width of the adapters that belong to the model, of each task by its number; 0 for none.
        single_bottleneck: width of the adapters in files that hold one task and do not say which.
        kwargs: other fields, see `ModelConfig`.

    Raises:
        InputError: an entry has a value that no VLM has.
    """

    model_type = "vlm"
    attribute_map = {"num_hidden_layers": "num_layers", "torch_dtype": "dtype"}

    def __init__(
        self,
        vocab_size: int = 50287,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_attention_heads: int = 12,
        max_position_embeddings: int = 1024,
        layer_norm_eps: float = 1e-5,
        embedding_dropout_prob: float = 0.1,
        attention_dropout_prob: float = 0.1,
        output_dropout_prob: float = 0.1,
        initializer_range: float = 0.02,
        bottlenecks: list[int] | None = None,
        single_bottleneck: int = 0,
        **kwargs,
    ):
        num_layers = kwargs.pop("num_hidden_layers", num_layers)
        super().__init__(**kwargs)
        if hidden_size % num_attention_heads:
            raise InputError(f"hidden_size {hidden_size} is no multiple of num_attention_heads {num_attention_heads}")
        if bottlenecks and (len(bottlenecks) != len(TASKS) or min(bottlenecks) < 0):
            raise InputError(f"bottlenecks {bottlenecks}: {len(TASKS)} numbers are expected, of {', '.join(TASKS)}")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.embedding_dropout_prob = embedding_dropout_prob
        self.attention_dropout_prob = attention_dropout_prob
        self.output_dropout_prob = output_dropout_prob
        self.initializer_range = initializer_range
        self.bottlenecks = bottlenecks or []
        self.single_bottleneck = single_bottleneck

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
            attention_dropout=self.attention_dropout_prob,
            output_dropout=self.output_dropout_prob,
        )
