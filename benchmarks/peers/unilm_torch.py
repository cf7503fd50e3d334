"""UniLM in torch, plainly: decoding appends a [MASK] at every step and keeps the hidden states of every layer, from
which keys and values are computed anew, as the original does; training is transformers' BertForMaskedLM on the padded
batch.
"""

import math

import torch
from torch import Tensor, nn
from unilm_work import MASK, PAD, POSITIONS, SEP, VOCABULARY, UniLMWork, run, timed


class Layer(nn.Module):
    """A post-LN layer; `history` are the hidden states of what new tokens may see, before the layer."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.first_norm, self.second_norm = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, new: Tensor, history: Tensor, hidden: Tensor) -> Tensor:
        """[B, R, H], [B, n, H] and what is hidden [B or 1, 1, R, n + R] -> [B, R, H]."""
        everything = torch.cat([history, new], dim=1)
        query = self.split(self.query(new))
        keys, values = self.split(self.key(everything)), self.split(self.value(everything))
        scores = query @ keys.transpose(2, 3) / math.sqrt(query.shape[-1]) + hidden
        context = (torch.softmax(scores, dim=-1) @ values).transpose(1, 2).flatten(2)
        states = self.first_norm(new + self.output(context))
        return self.second_norm(states + self.down(nn.functional.gelu(self.up(states))))

    def split(self, states: Tensor) -> Tensor:
        """[B, n, H] -> [B, N, n, D]"""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Decoder(nn.Module):
    """Random weights of a shape, and the steps of the original's beam search."""

    def __init__(self, work: UniLMWork):
        super().__init__()
        size = work.size
        self.words, self.positions = (nn.Embedding(n, size.hidden) for n in (VOCABULARY, POSITIONS))
        self.segments, self.norm = nn.Embedding(6, size.hidden), nn.LayerNorm(size.hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(size.hidden, size.heads) for _ in range(size.layers))
        self.transform, self.head_norm = nn.Linear(size.hidden, size.hidden), nn.LayerNorm(size.hidden, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def read(self, ids: Tensor, start: int, segment: int, past: list[Tensor], hidden: Tensor) -> list[Tensor]:
        """The hidden states of new tokens before each layer and after the last."""
        places = torch.arange(start, start + ids.shape[1])
        states = [self.norm(self.words(ids) + self.positions(places) + self.segments.weight[segment])]
        for layer, history in zip(self.layers, past, strict=True):
            states.append(layer(states[-1], history, hidden))
        return states

    def scores(self, states: Tensor) -> Tensor:
        """[..., H] -> log-probabilities [..., V]."""
        states = self.head_norm(nn.functional.gelu(self.transform(states)))
        return torch.log_softmax(states @ self.words.weight.T + self.bias, dim=-1)

    @torch.no_grad()
    def texts(self, sources: Tensor, tokens: int, beams: int) -> Tensor:
        """The best text of each source, [B, tokens]; none ends before."""
        B, S = sources.shape
        nothing = [torch.zeros(B, 0, self.norm.weight.numel())] * len(self.layers)
        past = self.read(sources, 0, 4, nothing, torch.zeros(1, 1, S, S))[:-1]
        texts, totals = torch.zeros(B, 1, 0, dtype=torch.long), torch.zeros(B, 1)
        last = torch.zeros(B, 0, dtype=torch.long)
        for number in range(tokens):
            rows = texts.shape[1]
            new = torch.cat([last, torch.full((B * rows, 1), MASK)], dim=1)  # the token before, and a [MASK]
            n, R = past[0].shape[1], new.shape[1]
            hidden = torch.zeros(1, 1, R, n + R)
            hidden[..., :-1, -1] = -10000.0  # nobody but itself sees the [MASK]
            states = self.read(new, n, 5, past, hidden)
            past = [torch.cat([history, part[:, :-1]], dim=1) for history, part in zip(past, states, strict=False)]
            scores = self.scores(states[-1][:, -1]).unflatten(0, (B, rows))
            scores[..., SEP] = -10000.0
            best, token = scores.topk(beams, dim=-1)
            totals, places = (totals[..., None] + best).flatten(1).topk(beams, dim=1)
            row = places // beams
            before = texts.gather(1, row[..., None].expand(-1, -1, number))  # [B, K, number]
            texts = torch.cat([before, token.flatten(1).gather(1, places)[..., None]], dim=2)
            chosen = (torch.arange(B)[:, None] * rows + row).flatten()
            past = [history[chosen] for history in past]
            last = texts[:, :, -1].reshape(B * beams, 1)
        return texts[:, 0]


def decode(work: UniLMWork) -> list[float]:
    """Seconds of a run, behind one with few tokens."""
    settle(work)
    model, sources = Decoder(work).eval(), torch.from_numpy(work.sources())
    model.texts(sources, 2, work.beams)
    return [timed(lambda: model.texts(sources, work.tokens, work.beams))]


def train(work: UniLMWork) -> list[float]:
    """Seconds of each step that counts."""
    from transformers import BertConfig, BertForMaskedLM

    settle(work)
    size = work.size
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.hidden,
            max_position_embeddings=POSITIONS,
            type_vocab_size=6,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01)
    shape = (work.batch, work.width)
    ids, labels = torch.full(shape, PAD), torch.full(shape, -100)
    segments, seen = torch.zeros(shape, dtype=torch.long), torch.zeros(*shape, work.width)
    for row, (source, target, places) in enumerate(work.pairs()):
        S, L = len(source), len(source) + len(target)
        ids[row, :L] = torch.tensor([*source, *target])
        labels[row, places] = ids[row, places]
        ids[row, places] = MASK
        segments[row, :S], segments[row, S:L] = 4, 5
        seen[row, :L, :S] = 1.0
        seen[row, S:L, S:L] = torch.ones(L - S, L - S).tril()
        seen[row, L:, 0] = 1.0  # padding sees something, or its softmax is of nothing
    mask = (seen[:, None] - 1.0) * 1e4

    def step() -> None:
        model(input_ids=ids, token_type_ids=segments, attention_mask=mask, labels=labels).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    return [timed(step) for _ in range(work.steps)]


def settle(work: UniLMWork) -> None:
    """Threads and seed."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)


if __name__ == "__main__":
    run(lambda work: train(work) if work.trains else decode(work), ["torch", "transformers"])
