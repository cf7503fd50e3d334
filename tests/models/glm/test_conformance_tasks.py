"""GLM's tasks beside generation against numbers of the original's own code (section 8 of their fact sheet: checks 6 to
12 and 14), in float64. Every expected number is read from the files."""

import json
import math
from collections.abc import Iterator

import numpy as np
import paddle
import pytest

from glm.models.glm import FAMILY
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import GLMGeometry
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.tokenization import GLMPieces
from glm.models.protocol import GeometryOptions
from tools.reference_files import reference_files, reference_json, reference_tensors

pytestmark = pytest.mark.conformance
CLOSE = 1e-9  # in float64
TO_OURS = {
    "word_embeddings.weight": "glm.word_embeddings.weight",
    "block_position_embeddings.weight": "glm.transformer.block_position_embeddings.weight",
}


@pytest.fixture(scope="module")
def pieces() -> GLMPieces:
    """The tokenizer of the golden numbers."""
    return GLMPieces(str(reference_files("mglm", "*.model")[0]))


@pytest.fixture(scope="module")
def geometry(pieces) -> GLMGeometry:
    return FAMILY.geometry(pieces, GeometryOptions("[MASK]"))


@pytest.fixture(scope="module")
def model() -> Iterator[GLMForConditionalGeneration]:
    """The model of the golden numbers, in float64."""
    arrays, metadata = reference_tensors(reference_files("mglm", "tiny-mglm.safetensors")[0])
    sizes = json.loads(metadata["config"])
    config = GLMConfig(
        num_layers=sizes["layers"],
        hidden_size=sizes["hidden"],
        num_attention_heads=sizes["heads"],
        vocab_size=sizes["vocab"],
        max_sequence_length=sizes["maxpos"] - 1,
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
    )
    model = GLMForConditionalGeneration(config)
    ours = {}
    for name, array in arrays.items():
        known = next((own for ending, own in TO_OURS.items() if name.endswith(ending)), f"glm.{name}")
        is_linear = array.ndim == 2 and "embeddings" not in name
        ours[known] = array.T if is_linear else array
    assert ours.keys() == model.state_dict().keys()
    for name, weight in model.named_parameters():
        weight.set_value(np.ascontiguousarray(ours[name]))
    model.to(dtype="float64")
    before = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    model.eval()
    yield model
    paddle.set_default_dtype(before)


def scored_places(row: dict) -> slice:
    """Where the targets of a row are scored."""
    if "loss_mask" in row:
        places = np.flatnonzero(row["loss_mask"])
        return slice(int(places[0]), int(places[-1]) + 1)
    return slice(row.get("first scored", row["sep"]), len(row["targets"]))


def scored_part(row: dict) -> list[int]:
    """The targets of a row that are scored."""
    return row["targets"][scored_places(row)]


def choice_items(pieces: GLMPieces) -> list[dict]:
    """The items of multiple choice; only the choice's own pieces are scored."""
    items = reference_json("glm-tasks", "multiple-choice.json")
    for item in items:
        for row, choice in zip(item["choices"], item["item"]["choices_pretokenized"], strict=True):
            row["first scored"] = len(row["targets"]) - len(pieces.encode_text(choice))
    return items


def prompt_of(geometry: GLMGeometry, row: dict):
    """The prompt of a row: Part A, and what of Part B stands before the scored part."""
    return geometry.prompt(row["ids"][: row["sep"]], opening=row["ids"][row["sep"] + 1 : scored_places(row).start + 1])


def sums(model, geometry, row_lists):
    """The summed log-probabilities of rows that share their prompt, [items][rows]."""
    prompts = [prompt_of(geometry, rows[0]) for rows in row_lists]
    found = model.log_probs(prompts, [[scored_part(row) for row in rows] for rows in row_lists])
    return [[float(scores.log_probs.sum()) for scores in row] for row in found]


def test_scores_of_one_piece_are_the_logits_at_sop(model, geometry):  # check 9
    for item in reference_json("glm-tasks", "cloze.json")["single"]:
        prompt = geometry.prompt(item["ids"][: item["sep"]])
        assert prompt.input_ids.tolist() == item["ids"] and prompt.position_ids.tolist() == item["positions"]
        logits = model.prefill([prompt])[0][0]
        ids = list(item["label_ids"].values())
        np.testing.assert_allclose(logits[ids], list(item["scores"].values()), rtol=1e-5, atol=1e-5)
        (found,) = model.log_probs([prompt], [[[number] for number in ids]])
        log_probs = [float(scores.log_probs[0]) for scores in found]
        np.testing.assert_allclose(log_probs, list(item["log_probabilities"].values()), rtol=0, atol=CLOSE)


def test_scores_of_several_pieces(model, geometry, pieces):  # checks 9 and 11
    items = reference_json("glm-tasks", "cloze.json")["multi"] + choice_items(pieces)
    found = sums(model, geometry, [item["choices"] for item in items])  # all in one batch
    for item, scores in zip(items, found, strict=True):
        np.testing.assert_allclose(scores, item["scores"], rtol=0, atol=1e-8)
        lengths = [len(scored_part(row)) for row in item["choices"]]
        np.testing.assert_allclose(np.array(scores) / lengths, item["scores_length_penalty_1"], rtol=0, atol=CLOSE)
        assert int(np.argmax(scores)) == item["prediction"]


def test_a_permutation_of_the_choices_permutes_the_scores(model, geometry, pieces):  # check 11
    for item in choice_items(pieces):
        order = np.random.default_rng(0).permutation(len(item["choices"]))
        (scores,) = sums(model, geometry, [[item["choices"][place] for place in order]])
        np.testing.assert_allclose(scores, np.array(item["scores"])[order], rtol=0, atol=1e-8)


def test_last_words(model, geometry):  # check 8
    for case in reference_json("glm-tasks", "lambada.json"):
        rows = case["records"]
        found = model.log_probs([prompt_of(geometry, row) for row in rows], [[scored_part(row)] for row in rows])
        for row, (scores,) in zip(rows, found, strict=True):
            assert scores.best.tolist() == row["argmax"]
            assert (scores.best.tolist() == row["answer"]) == row["correct"]
            assert scores.log_probs.sum() == pytest.approx(row["sum_log_p"], abs=1e-8)
        right = [row["correct"] for row in rows]
        assert 100 * sum(right) / len(right) == pytest.approx(case["accuracy"])


def test_windows_of_a_language_model(model, geometry):  # check 6
    for case in reference_json("glm-tasks", "language-model.json"):
        windows = case["windows"]
        found = sums(model, geometry, [[row] for row in windows])
        losses = [-scores[0] for scores in found]
        np.testing.assert_allclose(losses, [row["loss"] for row in windows], rtol=0, atol=1e-6)
        scored = sum(len(scored_part(row)) for row in windows)
        assert scored == case["scored_tokens"]
        assert math.exp(sum(losses) / scored) == pytest.approx(case["ppl_over_scored"], rel=1e-9)
