"""What the originals' own code gave: logits, losses, gradients, layouts, ids and decoded texts."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from glm.models.unilm.geometry import BIDIRECTIONAL
from tools.reference_files import reference_files
from tools.unilm_tools import (
    geometry_of,
    golden_cases,
    golden_model,
    golden_rows,
    hidden_states,
    in_text_order,
    row_places,
    tensors,
)

pytestmark = pytest.mark.conformance
MODELS = [item for item in reference_files("unilm/*.json")]


def _is_model(path: Path | None) -> bool:
    return path is None or "gradient_norms" in json.loads(path.read_text(encoding="utf-8"))


models = pytest.mark.parametrize("case", [item for item in MODELS if _is_model(item.values[0])])


class Golden:
    """A golden model with its cases in one batch."""

    def __init__(self, case: Path, folder: Path):
        self.facts = json.loads(case.read_text(encoding="utf-8"))
        self.cases = golden_cases(case)
        self.model, self.tokenizer = golden_model(case, folder)
        self.rows = golden_rows(self.cases)
        self.geometry = geometry_of(self.tokenizer)

    def batch(self, width: int | None = None, rows=None) -> dict[str, np.ndarray]:
        rows = self.rows if rows is None else rows
        width = width or self.cases["input_ids"].shape[1]
        return self.geometry.collate([[row] for row in rows], width, self.tokenizer.pad_token_id)

    def loss(self, rows=None, smoothing: float = 0.0) -> paddle.Tensor:
        return self.model(**tensors(self.batch(rows=rows)), label_smoothing=smoothing)

    def logits(self, width: int | None = None) -> np.ndarray:
        batch = tensors(self.batch(width))
        return self.model(**{name: batch[name] for name in batch if name not in ("labels", "order")}).numpy()


@pytest.fixture
def golden(case, tmp_path) -> Golden:
    return Golden(case, tmp_path / "original")


@models
def test_1_logits_and_hidden_states(golden):
    """Of all four tasks, at the chosen positions within 2e-5 of float64, everywhere within the golden copies' float32."""
    cases, logits = golden.cases, golden.logits()
    ends = hidden_states(golden.model, golden.batch())
    start = 0
    for number, row in enumerate(golden.rows):
        used = cases["masked_weights"][number] != 0
        places = row_places(row, cases["masked_pos"][number][used])
        np.testing.assert_allclose(
            logits[number, places], cases["logits_masked"][number][used], rtol=0, atol=2e-5, err_msg=f"record {number}"
        )
        np.testing.assert_allclose(
            in_text_order(row, logits[number]), cases["logits_row"][number][: len(row)], rtol=0, atol=4e-5
        )
        for name, states in (("hidden_first", ends[0]), ("hidden_last", ends[-1])):
            found = in_text_order(row, states[start : start + len(row)])
            np.testing.assert_allclose(found, cases[name][number][: len(row)], rtol=0, atol=2e-5)
        start += len(row)


@models
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_2_losses(golden, smoothing):
    """Of the batch, and of each record where the file has it; of sentence order."""
    cases, model = golden.cases, golden.model
    head, model.sentence_order = model.sentence_order, None
    expected = golden.facts["mlm_loss"][str(smoothing)]
    assert float(golden.loss(smoothing=smoothing)) == pytest.approx(expected, abs=1e-5)
    for number, each in enumerate(cases.get(f"mlm_loss_each.ls{smoothing}", ())):
        assert float(golden.loss([golden.rows[number]], smoothing)) == pytest.approx(float(each), abs=1e-5)
    model.sentence_order = head
    total = float(golden.loss(smoothing=smoothing))
    assert total - expected == pytest.approx(golden.facts["sop_loss"], abs=2e-5)
    assert float(model.terms["order_loss"]) == pytest.approx(golden.facts["sop_loss"], abs=1e-5)


@models
def test_3_gradients(golden):
    """The norm of each, and of all, of the file's objective: with sentence order where it lists that head."""
    norms = golden.facts["gradient_norms"]
    if not any("seq_relationship" in name for name in norms):
        golden.model.sentence_order = None
    golden.loss().backward()
    names = golden.model.config
    found = _foreign_gradients(golden.model)
    assert found.keys() == norms.keys(), names
    for name, norm in norms.items():
        assert np.linalg.norm(found[name]) == pytest.approx(norm, rel=1e-4, abs=1e-6), name
    total = np.sqrt(sum(np.linalg.norm(gradient) ** 2 for gradient in found.values()))
    assert total == pytest.approx(golden.facts["gradient_norm_total"], rel=1e-4)


def _foreign_gradients(model) -> dict[str, np.ndarray]:
    """By the original's names; queries, keys and values apart."""
    from glm.models.unilm import FAMILY

    found = {}
    for name, weight in model.named_parameters():
        if weight.grad is None:
            continue
        names = FAMILY.weights.made_of(name, "huggingface")
        found |= dict(zip(names, np.split(weight.grad.numpy(), len(names), axis=-1), strict=True))
    return found


@models
def test_4_a_batch_without_bidirectional_records(golden):
    rows = [row for row in golden.rows if row.task != BIDIRECTIONAL]
    total = float(golden.loss(rows))
    assert float(golden.model.terms["order_loss"]) == 0.0
    assert total == float(golden.model.terms["mlm_loss"])


@models
def test_6_more_padding_moves_no_logits(golden):
    width = golden.cases["input_ids"].shape[1]
    narrow, wide = golden.logits(), golden.logits(width + 16)
    for number, row in enumerate(golden.rows):
        np.testing.assert_allclose(wide[number, : len(row)], narrow[number, : len(row)], rtol=0, atol=1e-6)
