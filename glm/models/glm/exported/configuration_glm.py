"""Configuration of a GLM for Hugging Face's transformers; see modeling_glm.py."""

from transformers import PretrainedConfig


class GLMConfig(PretrainedConfig):
    """Sizes of a GLM, and the ids that say how a row is laid out.

    Args:
        sop_token_id: opens a span.
        mask_token_ids: ids of the blanks.
        block_position: False: every token of a span has block position 1.
    """

    model_type = "glm"
    attribute_map = {"num_hidden_layers": "num_layers", "max_position_embeddings": "max_sequence_length"}

    def __init__(
        self,
        num_layers: int = 24,
        vocab_size: int = 50048,
        hidden_size: int = 1024,
        num_attention_heads: int = 16,
        embedding_dropout_prob: float = 0.1,
        attention_dropout_prob: float = 0.1,
        output_dropout_prob: float = 0.1,
        max_sequence_length: int = 512,
        block_position_encoding: bool = True,
        initializer_range: float = 0.02,
        layernorm_epsilon: float = 1e-5,
        sop_token_id: int | None = None,
        mask_token_ids: list[int] | None = None,
        block_position: bool = True,
        **kwargs,
    ):
        self.num_layers = num_layers
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.embedding_dropout_prob = embedding_dropout_prob
        self.attention_dropout_prob = attention_dropout_prob
        self.output_dropout_prob = output_dropout_prob
        self.max_sequence_length = max_sequence_length
        self.block_position_encoding = block_position_encoding
        self.initializer_range = initializer_range
        self.layernorm_epsilon = layernorm_epsilon
        self.sop_token_id = sop_token_id
        self.mask_token_ids = mask_token_ids or []
        self.block_position = block_position
        super().__init__(**{"is_encoder_decoder": False, **kwargs})
