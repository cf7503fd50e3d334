"""GanLM in plain torch, by itself: three losses on padded batches, and decoding without a cache.

The arithmetic of the original's, with torch's own attention: post-LN layers, T5's bias in the encoder, positions from
row 2 on, words times sqrt(H).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from ganlm_work import (
    EOS,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    MASK,
    PAD,
    SIZES,
    VOCABULARY,
    WEIGHT_DECAY,
    WEIGHT_DISCRIMINATOR,
    WEIGHT_INCONSISTENCY,
    GanLMWork,
    run,
)
from torch import Tensor, nn


class Attention(nn.Module):
    """Queries of one sequence, keys and values of another or the same."""

    def __init__(self, size: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(memory), self.v(memory))
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout)
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Of the encoder, or with `crosses` of a decoder."""

    def __init__(self, size: int, mlp: int, heads: int, dropout: float, *, crosses: bool):
        super().__init__()
        self.own, self.norm1 = Attention(size, heads, dropout), nn.LayerNorm(size)
        self.cross = Attention(size, heads, dropout) if crosses else None
        self.norm2 = nn.LayerNorm(size) if crosses else None
        self.up, self.down, self.norm3 = nn.Linear(size, mlp), nn.Linear(mlp, size), nn.LayerNorm(size)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor | None, *, causal: bool) -> Tensor:
        x = self.norm1(x + self.drop(self.own(x, x, mask, causal=causal)))
        if self.cross is not None:
            x = self.norm2(x + self.drop(self.cross(x, memory)))
        return self.norm3(x + self.drop(self.down(F.gelu(self.up(x)))))


class Stack(nn.Module):
    """Embedding, and layers."""

    def __init__(self, words: nn.Embedding, layers: int, sizes: tuple, dropout: float, *, crosses: bool):
        super().__init__()
        size, mlp, heads = sizes
        self.words, self.scale = words, math.sqrt(size)
        self.positions, self.norm = nn.Embedding(1026, size), nn.LayerNorm(size)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(size, mlp, heads, dropout, crosses=crosses) for _ in range(layers))

    def forward(
        self, ids: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        rows = torch.arange(2, ids.shape[1] + 2)
        x = self.drop(self.norm(self.words(ids) * self.scale + self.positions(rows)))
        for layer in self.layers:
            x = layer(x, memory, mask, causal=causal)
        return x


class GanLM(nn.Module):
    """Encoder, generator, discriminator."""

    def __init__(self, work: GanLMWork, dropout: float):
        super().__init__()
        *sizes, encoder, generator, discriminator = SIZES[work.shape]
        size, heads = sizes[0], sizes[2]
        self.words = nn.Embedding(VOCABULARY, size)
        nn.init.normal_(self.words.weight, std=0.02)
        self.relative = nn.Embedding(32, heads)
        self.encoder = Stack(self.words, encoder, sizes, dropout, crosses=False)
        self.generator = Stack(self.words, generator, sizes, dropout, crosses=True)
        self.discriminator = Stack(self.words, discriminator, sizes, 0.0, crosses=True)
        self.judge = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size), nn.Linear(size, 2))

    def encode(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        distances = places[None] - places[:, None]
        far = distances.abs()
        wide = 8 + (torch.log(far.clamp(min=1) / 8) / math.log(16) * 8).floor().long()
        buckets = torch.where(far < 8, far, wide.clamp(max=15)) + 16 * (distances > 0)
        return self.encoder(ids, mask=self.relative(buckets).permute(2, 0, 1)[None])

    def logits(self, ids: Tensor, memory: Tensor) -> Tensor:
        return F.linear(self.generator(ids, memory, causal=True), self.words.weight)


def training(work: GanLMWork):
    """A step with three losses, or with the generator's alone."""
    model = GanLM(work, work.dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    sources, labels = (torch.from_numpy(part) for part in (work.sources(), work.targets()))
    inputs = torch.cat([torch.full((work.batch, 1), EOS), labels[:, :-1]], dim=1)

    def writing_loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=LABEL_SMOOTHING)

    def once() -> float:
        memory = model.encode(sources)
        logits = model.logits(inputs, memory)
        loss = writing_loss(logits)
        if work.three:
            with torch.no_grad():
                shares = logits.detach().clone()
                shares[..., PAD] = -torch.inf
                x = torch.distributions.Categorical(logits=shares).sample()
                shares.scatter_(-1, labels[..., None], -torch.inf)
                r = torch.distributions.Categorical(logits=shares).sample()
            verdicts = model.judge(model.discriminator(x, memory))
            original = x == labels
            loss = loss + WEIGHT_DISCRIMINATOR * F.cross_entropy(verdicts.flatten(0, 1), original.flatten().long())
            says = verdicts.detach().argmax(-1) == 1
            judged = (labels < MASK) & (x < MASK)
            judged[:, -1] = False
            spoiled = torch.where(judged & ~original & says, x, torch.where(judged & original & ~says, r, labels))
            again = torch.cat([inputs[:, :1], torch.where(says != original, spoiled, labels)[:, :-1]], dim=1)
            loss = loss + WEIGHT_INCONSISTENCY * writing_loss(model.logits(again, memory))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return once


def decoding(work: GanLMWork):
    """Beam search that computes the prefix anew at each step."""
    model = GanLM(work, 0.0).eval()
    sources, K = torch.from_numpy(work.sources()), work.beams

    @torch.inference_mode()
    def once(tokens: int) -> list[int]:
        memory = model.encode(sources).repeat_interleave(K, dim=0)
        ids = torch.full((work.batch * K, 1), EOS)
        sums = torch.full((work.batch, K), -torch.inf)
        sums[:, 0] = 0.0
        for _ in range(tokens):
            scores = F.log_softmax(model.logits(ids, memory)[:, -1], dim=-1)
            scores[:, [EOS, PAD]] = -torch.inf
            forbid_trigrams(ids, scores)
            totals = (sums.flatten()[:, None] + scores).view(work.batch, -1)
            sums, picks = totals.topk(K)
            rows = (picks // VOCABULARY + torch.arange(work.batch)[:, None] * K).flatten()
            ids = torch.cat([ids[rows], (picks % VOCABULARY).flatten()[:, None]], dim=1)
        return [ids.shape[1] - 1] * work.batch

    return once


def forbid_trigrams(ids: Tensor, scores: Tensor) -> None:
    """No three generated tokens come twice."""
    for row, tokens in enumerate(ids[:, 1:].tolist()):
        ending = tokens[-2:]
        banned = [c for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False) if [a, b] == ending]
        scores[row, banned] = -torch.inf


def build(work: GanLMWork):
    """What the work asks for."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    return decoding(work) if work.decodes else training(work)


if __name__ == "__main__":
    run(build, ["torch"])
