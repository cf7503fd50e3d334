"""GLM in PyTorch on checkpoint files as they lie, written from the description of the model and of the files.

For a Python that has torch, and knows nothing of the product or of Paddle:
`torch_glm.py write FOLDER FORMAT RANKS` draws random weights and saves them with torch; `torch_glm.py logits FOLDER
INPUTS OUTPUTS` runs the files of a folder. Several Megatron ranks are never merged: each computes its part, as in a
tensor-parallel run, and the parts are added.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

CONFIG = {
    "num_layers": 2,
    "vocab_size": 40,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "max_sequence_length": 20,
    "block_position_encoding": True,
}
FORMATS = ("safetensors", "bin", "legacy-bin", "sharded-bin", "megatron")


def random_rank(ranks: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The weights that each rank has of its own, and those that all have (drawn anew for each rank: see `write`)."""
    H, V, P = CONFIG["hidden_size"], CONFIG["vocab_size"], CONFIG["max_sequence_length"] + 1
    shapes = {
        "word_embeddings.weight": (V // ranks, H),
        "transformer.position_embeddings.weight": (P, H),
        "transformer.block_position_embeddings.weight": (P, H),
    }
    for layer in range(CONFIG["num_layers"]):
        at = f"transformer.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": (H,),
            at + "input_layernorm.bias": (H,),
            at + "attention.query_key_value.weight": (3 * H // ranks, H),
            at + "attention.query_key_value.bias": (3 * H // ranks,),
            at + "attention.dense.weight": (H, H // ranks),
            at + "attention.dense.bias": (H,),
            at + "post_attention_layernorm.weight": (H,),
            at + "post_attention_layernorm.bias": (H,),
            at + "mlp.dense_h_to_4h.weight": (4 * H // ranks, H),
            at + "mlp.dense_h_to_4h.bias": (4 * H // ranks,),
            at + "mlp.dense_4h_to_h.weight": (H, 4 * H // ranks),
            at + "mlp.dense_4h_to_h.bias": (H,),
        }
    shapes |= {"transformer.final_layernorm.weight": (H,), "transformer.final_layernorm.bias": (H,)}
    return {
        name: 0.2 * torch.randn(shape, generator=generator) + float(name.endswith("layernorm.weight"))
        for name, shape in shapes.items()
    }


def is_parted(name: str) -> bool:
    """Whether the ranks hold parts of a weight; of all others every rank holds the same copy."""
    ends = ("word_embeddings.weight", "query_key_value.weight", "query_key_value.bias", "attention.dense.weight")
    return name.endswith((*ends, "h_to_4h.weight", "h_to_4h.bias", "4h_to_h.weight"))


def write(folder: Path, form: str, ranks: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_rank(ranks, generator) for _ in range(ranks)]
    parts = [{name: (part if is_parted(name) else drawn[0])[name] for name in part} for part in drawn]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if form == "megatron":
        (folder / "500").mkdir()
        (folder / "latest_checkpointed_iteration.txt").write_text("500")
        for rank, part in enumerate(parts):
            part = {name: tensor.clone() for name, tensor in part.items()}
            state = {"module": part, "iteration": 500, "torch_rng_state": torch.get_rng_state()}
            torch.save(state, folder / "500" / f"mp_rank_{rank:02}_model_states.pt")
        return
    (weights,) = parts
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif form == "sharded-bin":
        names = list(weights)
        where = {name: f"pytorch_model-0000{1 + (index > 9)}-of-00002.bin" for index, name in enumerate(names)}
        for file in set(where.values()):
            torch.save({name: weights[name].clone() for name in names if where[name] == file}, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    else:
        torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")


def read(folder: Path) -> list[dict[str, torch.Tensor]]:
    """The weights of each rank, names without the prefix `glm.`."""
    if (folder / "model.safetensors").exists():
        from safetensors.torch import load_file

        found = [load_file(folder / "model.safetensors")]
    elif list(folder.glob("pytorch_model*.bin")):
        found = [{}]
        for file in folder.glob("pytorch_model*.bin"):
            found[0] |= torch.load(file, weights_only=True)
    else:
        iteration = (folder / "latest_checkpointed_iteration.txt").read_text().strip()
        files = sorted((folder / iteration).glob("mp_rank_*_model_states.pt"))
        found = [torch.load(file, weights_only=True)["module"] for file in files]
    return [{name.removeprefix("glm."): value.double() for name, value in part.items()} for part in found]


def logits(parts: list[dict[str, torch.Tensor]], heads: int, ids, positions, mask) -> torch.Tensor:
    """Logits [L, V] of ids [L], positions [2, L] and mask [L, L] (True = may attend).

    The words of a rank, its heads and its share of 4H follow those of the rank before it.
    """
    first = parts[0]
    words = torch.cat([part["word_embeddings.weight"] for part in parts])  # [V, H]
    states = words[ids] + first["transformer.position_embeddings.weight"][positions[0]]
    states = states + first["transformer.block_position_embeddings.weight"][positions[1]]
    layers = 1 + max(int(name.split(".")[2]) for name in first if name.startswith("transformer.layers."))
    for layer in range(layers):
        own = [
            {name.removeprefix(f"transformer.layers.{layer}."): value for name, value in part.items()}
            for part in parts
        ]
        entered = norm(states, own[0], "input_layernorm")
        attended = sum(attention(entered, part, heads // len(parts), mask) for part in own)
        states = states + attended + own[0]["attention.dense.bias"]
        entered = norm(states, own[0], "post_attention_layernorm")
        states = states + sum(feed_forward(entered, part) for part in own) + own[0]["mlp.dense_4h_to_h.bias"]
    return norm(states, first, "transformer.final_layernorm") @ words.T


def norm(states: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    shifted = states - states.mean(-1, keepdim=True)
    variance = (shifted**2).mean(-1, keepdim=True)
    return shifted / torch.sqrt(variance + 1e-5) * weights[name + ".weight"] + weights[name + ".bias"]


def attention(states: torch.Tensor, weights: dict[str, torch.Tensor], heads: int, mask: torch.Tensor) -> torch.Tensor:
    """What a rank's heads add to [L, H]; its fused projection is [its Q | its K | its V]."""
    fused = states @ weights["attention.query_key_value.weight"].T + weights["attention.query_key_value.bias"]
    contexts = []
    for query, key, value in zip(*(block.chunk(heads, -1) for block in fused.chunk(3, -1)), strict=True):
        scores = query @ key.T / math.sqrt(query.shape[-1])
        contexts.append(torch.softmax(scores.masked_fill(~mask, -math.inf), -1) @ value)
    return torch.cat(contexts, -1) @ weights["attention.dense.weight"].T


def feed_forward(states: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a rank's share of the MLP adds to [L, H]."""
    x = states @ weights["mlp.dense_h_to_4h.weight"].T + weights["mlp.dense_h_to_4h.bias"]
    gelu = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return gelu @ weights["mlp.dense_4h_to_h.weight"].T


def main(action: str, folder: str, *arguments: str) -> None:
    if action == "write":
        write(Path(folder), arguments[0], int(arguments[1]))
        return
    inputs = np.load(arguments[0])
    config = json.loads((Path(folder) / "config.json").read_text())
    ids, positions, mask = (torch.from_numpy(inputs[name]) for name in ("ids", "positions", "mask"))
    np.save(arguments[1], logits(read(Path(folder)), config["num_attention_heads"], ids, positions, mask).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
