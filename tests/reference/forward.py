"""GLM's forward pass and training loss in NumPy float64, one example, head and position at a time.

Written from the GLM fact sheet (sections 1 and 3: architecture, loss), not from the product. B batch, L sequence
length, H hidden, N heads, D = H / N head size, V vocabulary, P rows of a position table.
"""

import math

import numpy as np

MASKED_SCORE = 65504.0  # the largest float16, which THUDM/GLM subtracts where the mask is 0
NO_LABEL = -100


def forward(
    weights: dict[str, np.ndarray],
    input_ids: np.ndarray,
    position_ids: np.ndarray,
    attention_mask: np.ndarray,
    *,
    num_layers: int,
    num_attention_heads: int,
    layernorm_epsilon: float = 1e-5,
    attention_scale: float = 1.0,
    block_position_encoding: bool = True,
    prefix: np.ndarray | None = None,
) -> np.ndarray:
    """Logits of every position, without dropout.

    h0 = word[id] + position[row 0] + block[row 1]; then `num_layers` pre-LN layers; a last layer norm; logits are
    the dot products with the word embedding (tied, no bias). A query whose mask row is all 0 attends to every key
    alike, as the formula with -65504 gives.

    Args:
        weights: PaddleNLP's names to arrays. Word embedding [V, H], position tables [P, H], linear weights
            [in, out], biases [out]. `query_key_value` gives [all Q | all K | all V].
        input_ids: [B, L].
        position_ids: [B, 2, L]; row 0 place in Part A, row 1 block position (never read without
            `block_position_encoding`, and may then be absent: [B, 1, L]).
        attention_mask: [B, 1, L, L], 1 = query (third axis) may attend to key (fourth axis).
        num_layers: how many layers `weights` holds.
        num_attention_heads: N.
        layernorm_epsilon: added to the variance.
        attention_scale: s; above 1 the scores are divided by s, and multiplied by s again after the row maximum is
            taken off.
        block_position_encoding: whether the model has the second position table.
        prefix: [num_layers, 2, M, H], keys and values of M further places that every query sees in a layer.

    Returns:
        Logits, [B, L, V], float64.

    Raises:
        ValueError: if H is not a multiple of the heads, `attention_scale` is below 1, or an id is negative (NumPy
            would count it from the end).
        KeyError: if a weight is missing.
        IndexError: if an id is beyond its table.
    """
    weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    input_ids, position_ids = np.asarray(input_ids), np.asarray(position_ids)
    attention_mask = np.asarray(attention_mask, dtype=np.float64)
    word = weights["glm.word_embeddings.weight"]
    if word.shape[1] % num_attention_heads:
        raise ValueError(f"hidden size {word.shape[1]} is not a multiple of num_attention_heads={num_attention_heads}")
    if attention_scale < 1:
        raise ValueError(f"attention_scale={attention_scale} is below 1")
    if input_ids.min() < 0 or position_ids.min() < 0:
        raise ValueError("input_ids and position_ids must not be negative")

    logits = []
    for example in range(len(input_ids)):
        hidden = []
        for place, token in enumerate(input_ids[example]):
            vector = (
                word[token] + weights["glm.transformer.position_embeddings.weight"][position_ids[example, 0, place]]
            )
            if block_position_encoding:
                block = position_ids[example, 1, place]
                vector = vector + weights["glm.transformer.block_position_embeddings.weight"][block]
            hidden.append(vector)
        x = np.stack(hidden)  # [L, H]

        for layer in range(num_layers):
            part = f"glm.transformer.layers.{layer}"
            normed = layer_norm(x, weights, f"{part}.input_layernorm", layernorm_epsilon)
            x = x + attention(
                normed,
                weights,
                f"{part}.attention",
                attention_mask[example, 0],
                num_attention_heads,
                attention_scale,
                None if prefix is None else prefix[layer],
            )
            normed = layer_norm(x, weights, f"{part}.post_attention_layernorm", layernorm_epsilon)
            inner = gelu(linear(normed, weights, f"{part}.mlp.dense_h_to_4h"))  # [L, 4H]
            x = x + linear(inner, weights, f"{part}.mlp.dense_4h_to_h")

        x = layer_norm(x, weights, "glm.transformer.final_layernorm", layernorm_epsilon)
        logits.append(x @ word.T)  # [L, V]
    return np.stack(logits)  # [B, L, V]


def attention(
    x: np.ndarray,
    weights: dict[str, np.ndarray],
    name: str,
    mask: np.ndarray,
    num_heads: int,
    scale: float,
    prefix: np.ndarray | None = None,
) -> np.ndarray:
    """Self-attention of one example: x [L, H], mask [L, L] (query, key) -> [L, H]; prefix [2, M, H], see `forward`."""
    length, hidden_size = x.shape
    head_size = hidden_size // num_heads
    fused = linear(x, weights, f"{name}.query_key_value")  # [L, 3H]
    all_q = fused[:, :hidden_size]
    all_k = fused[:, hidden_size : 2 * hidden_size]
    all_v = fused[:, 2 * hidden_size :]
    if prefix is not None:
        all_k, all_v = np.concatenate([prefix[0], all_k]), np.concatenate([prefix[1], all_v])
        mask = np.concatenate([np.ones((length, prefix.shape[1])), mask], axis=1)

    context = np.zeros((length, hidden_size))
    for head in range(num_heads):
        columns = slice(head * head_size, (head + 1) * head_size)
        q, k, v = all_q[:, columns], all_k[:, columns], all_v[:, columns]  # [L, D]
        for i in range(length):
            scores = np.zeros(len(k))
            for j in range(len(k)):
                if scale > 1:
                    scores[j] = np.dot(q[i] / math.sqrt(scale), k[j] / math.sqrt(head_size * scale))
                else:
                    scores[j] = np.dot(q[i], k[j] / math.sqrt(head_size))
            scores = scores * mask[i]
            if scale > 1:
                scores = (scores - scores.max()) * scale  # this query's own maximum
            scores = scores - MASKED_SCORE * (1.0 - mask[i])
            probabilities = softmax(scores)
            for j in range(len(k)):
                context[i, columns] += probabilities[j] * v[j]
    return linear(context, weights, f"{name}.dense")


def linear(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """x [L, in] -> [L, out]."""
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def layer_norm(x: np.ndarray, weights: dict[str, np.ndarray], name: str, epsilon: float) -> np.ndarray:
    """Each row of x [L, H] to mean 0 and variance 1 (divided by H), then times weight plus bias."""
    rows = []
    for row in x:
        mean = row.sum() / len(row)
        variance = ((row - mean) ** 2).sum() / len(row)
        rows.append((row - mean) / math.sqrt(variance + epsilon) * weights[f"{name}.weight"] + weights[f"{name}.bias"])
    return np.stack(rows)  # [L, H]


def gelu(x: np.ndarray) -> np.ndarray:
    """GELU in the tanh approximation, any shape."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of one row, any length."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def loss(logits: np.ndarray, labels: np.ndarray, label_smoothing: float = 0.0) -> float:
    """Training loss (fact sheet, sections 3 and 10): one mean over all labelled positions of the whole batch.

    A position costs (1 - e) * -log p[label] + e * (mean over the V tokens of -log p). Labels already are the next
    tokens; nothing is shifted here.

    Args:
        logits: [B, L, V].
        labels: [B, L], -100 where there is no loss.
        label_smoothing: e.

    Returns:
        The mean over positions whose label is not -100, each weighing the same whatever its example.

    Raises:
        ValueError: if no position has a label, or a label is not in the vocabulary.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    costs = []
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label == NO_LABEL:
            continue
        if not 0 <= label < len(row):
            raise ValueError(f"label {label} is not in a vocabulary of {len(row)}")
        log_p = row - row.max() - math.log(np.exp(row - row.max()).sum())
        costs.append((1.0 - label_smoothing) * -log_p[label] + label_smoothing * -log_p.mean())
    if not costs:
        raise ValueError("every label is -100: the loss is a mean over nothing")
    return float(sum(costs) / len(costs))
