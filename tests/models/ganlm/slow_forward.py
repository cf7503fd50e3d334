"""GanLM's forward in NumPy, one example at a time, written from the fact sheet and not from the product."""

import math

import numpy as np

PAD = 1


class SlowModel:
    """Answers for one example with the weights of a model.

    Args:
        weights: arrays by the toolkit's names.
        config: the model's.
    """

    def __init__(self, weights: dict[str, np.ndarray], config):
        self.w, self.config = weights, config

    def encode(self, source: list[int]) -> np.ndarray:
        """[S] -> [S, H]"""
        x = self.embed("encoder", source)
        bias = 0.0
        if self.config.relative_buckets:
            table = self.w["encoder.relative_bias.weight"]
            S = len(source)
            buckets = [[self.bucket(key - query) for key in range(S)] for query in range(S)]
            bias = table[np.array(buckets)].transpose(2, 0, 1)  # [N, S, S]
        for layer in range(self.config.encoder_layers):
            name = f"encoder.layers.{layer}."
            x = self.norm(name + "self_attn_layer_norm", x + self.own(name, x, bias))
            x = self.norm(name + "final_layer_norm", x + self.mlp(name, x))
        return x

    def decode(self, stack: str, ids: list[int], memory: np.ndarray, *, causal: bool, layers: int) -> np.ndarray:
        """[T] -> [T, H]"""
        x, T = self.embed(stack, ids), len(ids)
        hidden = np.where(np.tril(np.ones((T, T))) > 0, 0.0, -np.inf) if causal else 0.0
        for layer in range(layers):
            name = f"{stack}.layers.{layer}."
            x = self.norm(name + "self_attn_layer_norm", x + self.own(name, x, hidden))
            cross = name + "cross_attn."
            keys, values = np.split(self.linear(cross + "kv_proj", memory), 2, axis=1)
            context = self.attend(self.linear(cross + "q_proj", x), keys, values, 0.0)
            x = self.norm(name + "cross_attn_layer_norm", x + self.linear(cross + "out_proj", context))
            x = self.norm(name + "final_layer_norm", x + self.mlp(name, x))
        return x

    def logits(self, source: list[int], ids: list[int]) -> np.ndarray:
        """Of the generator: [T, V]."""
        states = self.decode("generator", ids, self.encode(source), causal=True, layers=self.config.generator_layers)
        return states @ self.w["word_embeddings.weight"].T

    def judge(self, source: list[int], ids: list[int]) -> np.ndarray:
        """Of the discriminator: [T, 2]."""
        stack = "generator" if self.config.share_generator_discriminator else "discriminator"
        states = self.decode(stack, ids, self.encode(source), causal=False, layers=self.config.discriminator_layers)
        x = self.gelu(self.linear("discriminator_head.dense", states))
        return self.linear("discriminator_head.out_proj", self.norm("discriminator_head.layer_norm", x))

    def embed(self, stack: str, ids: list[int]) -> np.ndarray:
        words = self.w["word_embeddings.weight"][ids] * math.sqrt(self.config.hidden_size)
        rows = [PAD + number for number in range(1, len(ids) + 1)]
        return self.norm(f"{stack}.embedding_norm", words + self.w[f"{stack}.position_embeddings.weight"][rows])

    def own(self, name: str, x: np.ndarray, bias) -> np.ndarray:
        query, keys, values = np.split(self.linear(name + "self_attn.qkv_proj", x), 3, axis=1)
        return self.linear(name + "self_attn.out_proj", self.attend(query, keys, values, bias))

    def attend(self, query, keys, values, bias) -> np.ndarray:
        N, contexts = self.config.num_attention_heads, []
        for head, (q, k, v) in enumerate(
            zip(*(np.split(part, N, axis=1) for part in (query, keys, values)), strict=True)
        ):
            own = bias[head] if getattr(bias, "ndim", 0) == 3 else bias
            scores = q @ k.T / math.sqrt(q.shape[1]) + own
            shares = np.exp(scores - scores.max(1, keepdims=True))
            contexts.append(shares / shares.sum(1, keepdims=True) @ v)
        return np.concatenate(contexts, axis=1)

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.linear(name + "mlp.fc2", self.gelu(self.linear(name + "mlp.fc1", x)))

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    @staticmethod
    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def bucket(self, distance: int) -> int:
        half = self.config.relative_buckets // 2
        exact, far = half // 2, abs(distance)
        near = far if far < exact else exact + int(math.log(far / exact) / math.log(128 / exact) * (half - exact))
        return min(near, half - 1) + (half if distance > 0 else 0)
