"""GLM for Hugging Face's transformers: a folder with this file, configuration_glm.py and the weights loads there with
`trust_remote_code=True`. The toolkit itself does not use it.

A row of `input_ids` is a source (Part A) with its blanks, then for each blank from left to right `sop` and the tokens
of its span. Part A sees itself; a span sees Part A, earlier spans, and its own past. Positions follow from the ids.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_glm import GLMConfig


class Attention(nn.Module):
    """Multi-head attention with one projection: [all queries | all keys | all values].

    Args:
        layer: its number, by which a cache holds its keys and values.
    """

    def __init__(self, config: GLMConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = config.attention_dropout_prob

    def forward(self, states: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        """[B, L, H] -> [B, L, H]; the mask [B, 1, L, past + L] is True where a row sees a column."""
        B, L, H = states.shape
        parts = self.query_key_value(states).view(B, L, 3, self.heads, H // self.heads)
        query, keys, values = parts.permute(2, 0, 3, 1, 4)  # [B, N, L, D] each
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer)  # [B, N, past + L, D]
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, dropout_p=dropout)
        return self.dense(context.transpose(1, 2).reshape(B, L, H))


class MLP(nn.Module):
    """Two linear layers around GELU in its tanh form."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.dense_4h_to_h = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(states), approximate="tanh"))


class Block(nn.Module):
    """A layer, with a LayerNorm before attention and before the MLP."""

    def __init__(self, config: GLMConfig, layer: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = Attention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, states: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        states = states + self.dropout(self.attention(self.input_layernorm(states), mask, cache))
        return states + self.dropout(self.mlp(self.post_attention_layernorm(states)))


class Transformer(nn.Module):
    """Both tables of positions, the layers, and the last LayerNorm."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        rows = config.max_sequence_length + (1 if config.block_position_encoding else 0)
        self.position_embeddings = nn.Embedding(rows, config.hidden_size)
        if config.block_position_encoding:
            self.block_position_embeddings = nn.Embedding(rows, config.hidden_size)
        self.dropout = nn.Dropout(config.embedding_dropout_prob)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)

    def forward(self, words: Tensor, position_ids: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        """Word embeddings [B, L, H] and positions [B, 2, L] -> [B, L, H]."""
        states = words + self.position_embeddings(position_ids[:, 0])
        if hasattr(self, "block_position_embeddings"):
            states = states + self.block_position_embeddings(position_ids[:, 1])
        states = self.dropout(states)
        for layer in self.layers:
            states = layer(states, mask, cache)
        return self.final_layernorm(states)


class GLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """GLM with its head, which shares the word embedding."""

    config_class = GLMConfig
    base_model_prefix = "glm"
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer = Transformer(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        **_: object,
    ) -> CausalLMOutputWithPast:
        """Returns the logits [B, L, V] of each next token, and the loss of `labels`.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L], 0 at padding, which may stand on either side; or [B, 1, L, L], 1 where a row sees a
                column, [B, 1, L, past + L] with a cache.
            position_ids: [B, 2, L]; those that the ids say if not given.
            labels: [B, L], the token that follows each; -100 where there is no loss.
            past_key_values: of the tokens before `input_ids`; positions and mask have to be given then, as `generate`
                does.
            use_cache: whether a cache is returned where none was given.

        Raises:
            ValueError: with a filled cache, positions or the mask are missing.
        """
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            if position_ids is None or attention_mask is None or attention_mask.dim() != 4:
                raise ValueError("past_key_values: give position_ids and a mask [B, 1, L, past + L] beside it")
        elif past_key_values is None and use_cache:
            past_key_values = DynamicCache()
        there = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
        there = torch.ones_like(input_ids) if there is None else there
        if position_ids is None:
            position_ids = self.positions(input_ids, there)
        if attention_mask is not None and attention_mask.dim() == 4:
            mask = attention_mask.bool()
        else:
            mask = self.visible(input_ids, there)
        states = self.transformer(self.word_embeddings(input_ids), position_ids, mask, past_key_values)
        logits = F.linear(states, self.word_embeddings.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def visible(self, input_ids: Tensor, there: Tensor) -> Tensor:
        """Returns who sees whom, [B, 1, L, L]; a row of padding sees itself, so that its softmax is defined."""
        L = input_ids.shape[1]
        is_span = (input_ids == self.config.sop_token_id).cumsum(1) > 0  # [B, L]
        past = torch.ones(L, L, dtype=torch.bool, device=input_ids.device).tril()
        mask = ~is_span[:, None, :] | (is_span[:, :, None] & past)  # [B, L, L]
        mask = mask & there[:, None, :].bool() | torch.eye(L, dtype=torch.bool, device=input_ids.device)
        return mask[:, None]

    def positions(self, input_ids: Tensor, there: Tensor) -> Tensor:
        """Returns both position rows, [B, 2, L]: the place in Part A (a span repeats its blank's), and the place in
        the span."""
        starts = input_ids == self.config.sop_token_id
        number = starts.cumsum(1)  # place in the span, from 1; 0 in Part A
        places = (there.cumsum(1) - 1).clamp(min=0)
        is_blank = torch.isin(input_ids, torch.tensor(self.config.mask_token_ids, device=input_ids.device))
        is_blank = is_blank & (number == 0) & there.bool()
        # The place of the nth blank, at n: [B, L + 1]
        blanks = torch.zeros(len(places), places.shape[1] + 1, dtype=places.dtype, device=places.device)
        blanks.scatter_(1, is_blank.cumsum(1) * is_blank, places * is_blank)
        index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(places)
        begun = torch.where(starts, index, 0).cummax(1).values  # where the span starts
        if self.config.block_position:
            block = torch.where(number > 0, index - begun + 1, 0)
        else:
            block = (number > 0).to(places.dtype)
        return torch.stack([torch.where(number > 0, blanks.gather(1, number), places), block], dim=1)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        **_: object,
    ) -> dict[str, object]:
        """Returns what a step reads: the tokens that are not cached; positions and mask follow from the whole text."""
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "input_ids": input_ids[:, past:],
            "position_ids": self.positions(input_ids, there)[:, :, past:],
            "attention_mask": self.visible(input_ids, there)[:, :, past:],
            "past_key_values": past_key_values,
            "use_cache": use_cache,
        }
