"""Check 20: adapters on a GLM, by an independent program; the base alone is what it was."""

import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.bottleneck import add_adapters
from tools.reference_files import reference_files

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("path", reference_files("vlm/glm_adapters.json"))
def test_logits(path):
    facts, weights = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
    golden = load_file(path.with_name("glm_adapters_io.safetensors"))
    model = GLMForConditionalGeneration(GLMConfig(**facts["config"]))
    (stack,) = model.stacks
    base = {name: weight for name, weight in model.named_parameters()}
    for name, weight in base.items():
        weight.set_value(weights[name])
    model.eval()
    batches = [batch_of(one, list(facts["adapters"])) for one in facts["examples"]]
    without = [model(**{name: batch[name] for name in batch if name != "tasks"}).numpy() for batch in batches]
    for name, width in facts["adapters"].items():
        add_adapters(stack, name, width)
    stack.adapter_names = tuple(facts["adapters"])
    at_start = [model(**batch).numpy() for batch in batches]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(at_start, without, strict=True))  # Up is 0
    for name, weight in model.named_parameters():
        weight.set_value(weights[name])
    found = [model(**batch).numpy() for batch in batches]
    for number, (one, logits) in enumerate(zip(facts["examples"], found, strict=True)):
        expected = golden[f"logits.{number}"]
        of_target = logits[0, len(one["part_a"]) :]
        np.testing.assert_allclose(of_target, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    place = [one["task"] for one in facts["examples"]].index(None)
    assert np.array_equal(found[place], without[place])
    width = max(batch["input_ids"].shape[1] for batch in batches)
    together = {}
    for name in batches[0]:
        most = width if batches[0][name].shape[-1] == batches[0]["input_ids"].shape[1] else None
        rows = [batch[name].numpy() for batch in batches]
        rows = [np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, most - row.shape[-1])]) if most else row for row in rows]
        together[name] = paddle.to_tensor(np.concatenate(rows))
    logits = model(**together).numpy()
    for row, alone in zip(logits, found, strict=True):
        np.testing.assert_allclose(row[: alone.shape[1]], alone[0], atol=1e-5)


def batch_of(one: dict, names: list[str]) -> dict[str, paddle.Tensor]:
    """An example as the model reads it; its positions are those of the toolkit's own geometry."""
    infilling = BlankInfilling((one["part_a"][one["blank"]],), one["part_b"][0], one["labels"][-1])
    example = infilling.example(one["part_a"], [one["part_b"][1:]], tgt_length=99)
    positions = np.concatenate([infilling.source_positions(len(one["part_a"])), example.target_position_ids], axis=1)
    assert positions.tolist() == one["position_ids"]
    task = -1 if one["task"] is None else names.index(one["task"])
    parts = {
        "input_ids": [[*one["part_a"], *one["part_b"]]],
        "position_ids": [one["position_ids"]],
        "segments": [[[len(one["part_a"]), len(one["part_b"])]]],
        "tasks": [[task]],
    }
    return {name: paddle.to_tensor(np.array(value)) for name, value in parts.items()}
