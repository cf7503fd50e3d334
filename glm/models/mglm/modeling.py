"""The multilingual GLM: GLM's model, with sandwich LayerNorm, longer position tables and a prompt in each layer where
its configuration says so.

Source: THUDM/Multilingual-GLM (model/modeling_multilingual.py, model/prompt.py).
"""

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.models.glm.modeling import GLMForConditionalGeneration, GLMModel, GLMTransformer
from glm.models.mglm.configuration import MGLMConfig
from glm.modules.block import Block
from glm.modules.sandwich import SandwichBlock


class PromptEncoder(nn.Layer):
    """Makes N vectors for each layer: learnt directly (`none`), or through one network for all layers (`mlp`, `lstm`).

    Args:
        config: `prefix_prompt` is N, `prompt_func` the network.
    """

    def __init__(self, config: MGLMConfig):
        super().__init__()
        H = config.hidden_size
        self.num_layers = config.num_layers
        self.embedding = nn.Embedding(config.prefix_prompt, config.num_layers * H)
        self.lstm_head = self.mlp_head = None
        if config.prompt_func == "lstm":
            self.lstm_head = _lstm(H)
        if config.prompt_func != "none":
            width = 2 * H if config.prompt_func == "lstm" else H
            self.mlp_head = nn.Sequential(nn.Linear(width, H), nn.ReLU(), nn.Linear(H, H))

    def forward(self) -> Tensor:
        """[layers, N, H]"""
        N = self.embedding.weight.shape[0]
        vectors = self.embedding.weight.reshape([N, self.num_layers, -1]).transpose([1, 0, 2])
        if self.lstm_head is not None:
            vectors, _ = self.lstm_head(vectors)  # [layers, N, 2H]
        return vectors if self.mlp_head is None else self.mlp_head(vectors)


def _lstm(H: int) -> nn.LSTM:
    """Runs a two-layer bidirectional LSTM, [B, N, H] -> [B, N, 2H]."""
    lstm = nn.LSTM(H, H, num_layers=2, direction="bidirect")
    lstm._sub_layers.clear()  # Paddle lists each weight twice: as the LSTM's own, which it uses, and as a cell's
    return lstm


class MGLMTransformer(GLMTransformer):
    """GLM's stack with a prompt in each layer and additional positions.

    The vectors of a prompt stand in front of the normalised input of each layer's attention: the layer's own linear
    makes keys and values of them, all tokens see these, and they have neither queries nor positions. This is another
    form than prefix tuning, which learns keys and values (Li and Liang 2021), and both can be there.
    """

    def __init__(self, config: MGLMConfig):
        super().__init__(config)
        extra, H = config.additional_sequence_length, config.hidden_size
        if extra:
            self.additional_position_embeddings = nn.Embedding(extra, H)
            self.additional_block_position_embeddings = nn.Embedding(extra, H)
        self.has_additional = bool(extra)
        self.prompt_encoder = PromptEncoder(config) if config.prefix_prompt else None

    def new_block(self, config: MGLMConfig) -> Block:
        """See `GLMTransformer.new_block`."""
        return SandwichBlock(config.block) if config.sandwich_ln else super().new_block(config)

    def table_rows(self, ids: Tensor, table: str) -> Tensor:
        """See `GLMTransformer.table_rows`; additional rows are behind the table's."""
        if not self.has_additional:
            return super().table_rows(ids, table)
        tables = [self._sub_layers[name].weight for name in (table, f"additional_{table}")]
        return F.embedding(ids, paddle.concat(tables))

    @property
    def num_virtual(self) -> int:
        """Number of virtual tokens of each layer: the prompt's and prefix tuning's."""
        own = 0 if self.prompt_encoder is None else self.prompt_encoder.embedding.weight.shape[0]
        return own + super().num_virtual

    def prefixes(self) -> list[Tensor | None]:
        """See `Stack.prefixes`."""
        learnt = super().prefixes()
        if self.prompt_encoder is None:
            return learnt
        prompts = [
            layer.attention.projection(vectors)
            for layer, vectors in zip(self.layers, self.prompt_encoder().unbind(0), strict=True)
        ]
        return [
            prompt if prefix is None else paddle.concat([prompt, prefix.astype(prompt.dtype)])
            for prompt, prefix in zip(prompts, learnt, strict=True)
        ]


class MGLMModel(GLMModel):
    """The multilingual GLM without a head."""

    config_class = MGLMConfig
    stack_class = MGLMTransformer


class MGLMForConditionalGeneration(GLMForConditionalGeneration):
    """The multilingual GLM with its head."""

    config_class = MGLMConfig
    base_class = MGLMModel
