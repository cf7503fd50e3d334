"""Measures the memory of training steps and of generation in a process of its own: a script of
tests/models/test_memory.py.

It prints JSON: `allocated`, the most bytes that Paddle had at once; `resident`, by how much the resident set grew.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle

from glm.adapters.files import add_adapter, prefix_config
from glm.cpu import arrays
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.runtime.device import prepare
from glm.training.capacity import MemoryReturn
from glm.training.precision import train_in_bfloat16

STEPS = 5  # from the fourth step on the resident set no longer grows


def resident(name: str) -> int:
    """Returns bytes of the resident set: `VmRSS` now, or `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def train(
    model: GLMForConditionalGeneration,
    examples: int,
    S: int,
    T: int,
    recompute: bool,
    keeps: bool,
    prefix: int = 0,
    bfloat16: bool = False,
) -> None:
    """Takes steps of AdamW with clipping on random tokens, as the Trainer does; `keeps` gradients for the next one.

    With `prefix` virtual tokens only they are trained.
    """
    if bfloat16:
        train_in_bfloat16(model)
    if prefix:
        add_adapter(model, prefix_config("x", model, tokens=prefix, projection=False))
    model.train()
    model.glm.transformer.enable_recompute = recompute
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters(), grad_clip=clip)
    random, L = np.random.default_rng(0), S + T
    places = np.arange(L)
    ids, labels = random.integers(model.config.vocab_size, size=(2, examples, L))
    labels[:, :S] = -100
    batch = {
        "input_ids": ids,
        "position_ids": np.stack([np.minimum(places, S), np.maximum(places - S + 1, 0)])[None].repeat(examples, 0),
        "segments": np.array([[[S, T]]] * examples),
        "labels": labels,
    }
    memory, device = MemoryReturn(), SimpleNamespace(device="cpu")
    for _ in range(STEPS):
        model(**{name: paddle.to_tensor(part) for name, part in batch.items()}, label_smoothing=0.1).backward()
        memory.on_optimizer_begin(device, None, None)
        optimizer.step()
        memory.on_optimizer_end(device, None, None)
        optimizer.clear_grad(set_to_zero=keeps)


def decode(model: GLMForConditionalGeneration, examples: int, S: int, T: int, num_beams: int) -> None:
    """Generates texts of full length from random sources."""
    model.eval()
    numbers = np.random.default_rng(1)
    for weight in model.parameters():
        weight.set_value(numbers.standard_normal(weight.shape, np.float32))
    blank, sop, eop = 0, 1, 2
    geometry = BlankInfilling((blank, blank, blank), sop, eop)
    sources = np.random.default_rng(0).integers(3, model.config.vocab_size, size=(examples, S))
    sources[:, -2] = blank
    config = GenerationConfig(tgt_length=T, min_tgt_length=T - 1, num_beams=num_beams)
    prompts = [geometry.prompt(source.tolist()) for source in sources]
    assert len(list(generate(model, prompts, config, end_token_id=eop, batch_size=examples))) == examples


if __name__ == "__main__":
    work, settings, arguments = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    prepare("cpu")
    if arguments.pop("by_paddle", False):  # whose count has no tensors in NumPy's memory (`glm.cpu.arrays.empty`)
        arrays.MIN_OWN_PAGES = sys.maxsize
    run = {"train": train, "decode": decode}[work]
    small = GLMConfig(num_layers=1, hidden_size=128, num_attention_heads=2, vocab_size=128, max_sequence_length=64)
    run(
        GLMForConditionalGeneration(small), **arguments | {"examples": 1, "S": 16, "T": 16}
    )  # loads what is loaded late
    before = resident("VmRSS")
    # What predicts has its weights read, not drawn, which takes memory too.
    with GLMForConditionalGeneration.without_drawing() if work == "decode" else nullcontext():
        model = GLMForConditionalGeneration(GLMConfig(**settings))
    run(model, **arguments)
    allocated = paddle.base.core.host_memory_stat_peak_value("Allocated", 0)
    print(json.dumps({"allocated": allocated, "resident": resident("VmHWM") - before}))
