"""Check 12: summaries against the original's: losses with the pads of sources seen and hidden, and beam search whose
rules act before the softmax."""

import json

import numpy as np
import paddle
import pytest

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.mglm import FAMILY
from glm.models.protocol import GeometryOptions
from tools.reference_files import reference_file

pytestmark = pytest.mark.conformance
# What decoding hands out is float32, whatever it computes in; sums of log-probabilities add up its rounding.
ROUNDED = 2e-5


@pytest.fixture(scope="module")
def golden():
    return json.loads(reference_file("mglm/summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def geometry(golden_tokenizer):
    return FAMILY.geometry(golden_tokenizer, GeometryOptions("[sMASK]"))


def padded(example, tokenizer):
    """The ids of a source with its pads, which the original lets be seen."""
    return example["ids"] + [tokenizer.pad_token_id] * example["pads"]


def loss_of(model, geometry, source_ids, target_ids, *, tgt_length, smoothing):
    example = geometry.example(source_ids, target_ids, tgt_length=tgt_length)
    batch = geometry.collate([[example]], len(example), geometry.tokenizer.pad_token_id)
    tensors = {name: paddle.to_tensor(table) for name, table in batch.items()}
    return float(model(**tensors, label_smoothing=smoothing))


def test_losses(golden, tiny_mglm, geometry):
    for task in golden.values():
        for example in task["examples"]:
            labels = np.array(example["targets"])[np.array(example["loss_mask"]) > 0].tolist()
            span = [token for token in labels if token != geometry.tokenizer.end_token_id]
            visible = padded(example, geometry.tokenizer)
            for kind, ids in (("pads_visible", visible), ("pads_hidden", example["ids"])):
                for name, smoothing in ((kind, 0.0), (f"{kind}_smoothing", 0.1)):
                    found = loss_of(
                        model := tiny_mglm, geometry, ids, span, tgt_length=len(labels), smoothing=smoothing
                    )
                    assert found == pytest.approx(example["loss"][name], rel=1e-9), (name, model)


def test_beams(golden, tiny_mglm, geometry):
    tokenizer = geometry.tokenizer
    for task in golden.values():
        prompts = [geometry.prompt(padded(example, tokenizer)) for example in task["examples"]]
        for case in task["decoding"]:
            options = {"no_repeat_ngram_size": 0, **case["options"]}
            config = GenerationConfig(
                **options, tgt_length=case["tgt_seq_length"], processor_order="before_softmax", early_stopping="false"
            )
            found = dict(generate(tiny_mglm, prompts, config, end_token_id=tokenizer.end_token_id, batch_size=2))
            for number, expected in enumerate(case["outputs"]):
                (best,) = found[number]
                assert list(best.tokens) == expected["ids"], (case["options"], number)
                assert best.score == pytest.approx(expected["score"], abs=ROUNDED * len(best.tokens))
                assert tokenizer.decode_ids(best.tokens).strip() == expected["text"].strip()
