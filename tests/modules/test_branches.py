"""Candidates behind one prompt, against one full forward each."""

import numpy as np
import paddle
import pytest

from glm.generation.candidates import log_probs_by_steps
from glm.models.glm.geometry import BlankInfilling
from glm.modules import branches
from glm.modules.branches import Branches
from glm.modules.decoding import prepare_decoding

CLS, MASK, EOS, SOP, EOP = 31, 32, 33, 34, 35
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
SOURCES = [[CLS, 1, 2, 3, MASK, EOS], [CLS, MASK, 4, 5, 6, 7, EOS], [CLS, 8, 9, MASK]]
CANDIDATES = [[[11], [12, 13, EOP], [14, EOP]], [[15, 16]], [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [7, EOP], [8]]]


def by_full_forward(model, source, opening, ids):
    """Log-probability of each token of a candidate, from the logits of its row alone."""
    example = GEOMETRY.example(source, [[*opening, *ids]], tgt_length=50)
    inputs = np.concatenate([source, example.target_ids])
    positions = np.concatenate([GEOMETRY.source_positions(len(source)), example.target_position_ids], axis=1)
    tensors = [np.asarray(part, np.int64)[None] for part in (inputs, positions, [[len(source), len(inputs)]])]
    tensors[2][0, 0, 1] -= len(source)
    with paddle.no_grad():
        logits = model(*map(paddle.to_tensor, tensors))[0].numpy().astype(np.float64)
    logits = logits[len(source) + len(opening) :][: len(ids)]
    normalizers = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return logits[np.arange(len(ids)), ids] - normalizers, logits.argmax(-1)


@pytest.mark.parametrize("arranged", [False, True])
@pytest.mark.parametrize("options", [{}, {"hidden_size": 128, "num_attention_heads": 2}])
def test_scores_are_those_of_one_full_forward_each(tiny_model, arranged, options):
    model = tiny_model(seed=50, **options)
    openings = [[], [17, 18], [19]]
    want = [
        [by_full_forward(model, source, opening, ids) for ids in found]
        for source, opening, found in zip(SOURCES, openings, CANDIDATES, strict=True)
    ]
    if arranged:
        prepare_decoding(model, "float32", "cpu")
    prompts = [GEOMETRY.prompt(source, opening=opening) for source, opening in zip(SOURCES, openings, strict=True)]
    found = model.log_probs(prompts, CANDIDATES)
    for scores, steps in zip(found, log_probs_by_steps(model, prompts, CANDIDATES), strict=True):
        for score, step in zip(scores, steps, strict=True):
            np.testing.assert_allclose(score.log_probs, step.log_probs, rtol=0, atol=2e-4)
            assert score.best.tolist() == step.best.tolist()
    for scores, expected in zip(found, want, strict=True):
        for score, (log_probs, best) in zip(scores, expected, strict=True):
            np.testing.assert_allclose(score.log_probs, log_probs, rtol=0, atol=2e-4)
            assert score.best.tolist() == best.tolist()


def test_a_score_depends_on_no_batch_mate_and_on_no_other_candidate(tiny_model):
    model = tiny_model(seed=51)
    prompts = [GEOMETRY.prompt(source) for source in SOURCES]
    together = model.log_probs(prompts, CANDIDATES)
    for prompt, candidates, scores in zip(prompts, CANDIDATES, together, strict=True):
        for ids, score in zip(candidates, scores, strict=True):
            ((alone,),) = model.log_probs([prompt], [[ids]])
            np.testing.assert_allclose(score.log_probs, alone.log_probs, rtol=0, atol=1e-5)
        (turned,) = model.log_probs([prompt], [candidates[::-1]])
        for score, other in zip(scores, turned[::-1], strict=True):
            np.testing.assert_allclose(score.log_probs, other.log_probs, rtol=0, atol=1e-5)


def test_many_candidates_are_read_in_parts(tiny_model, monkeypatch):
    model = tiny_model(seed=53)
    prompts = [GEOMETRY.prompt(source) for source in SOURCES]
    want = model.log_probs(prompts, CANDIDATES)
    monkeypatch.setattr(branches, "MOST_ROWS", 3)
    assert len(branches.parts_of(CANDIDATES)) == 3
    for scores, others in zip(model.log_probs(prompts, CANDIDATES), want, strict=True):
        for score, other in zip(scores, others, strict=True):
            np.testing.assert_allclose(score.log_probs, other.log_probs, rtol=0, atol=1e-5)


def test_labelled_logits_are_those_of_all_positions(tiny_model):
    model = tiny_model(seed=52)
    example = GEOMETRY.example(SOURCES[0], [[11, 12]], tgt_length=9)
    ids = np.concatenate([SOURCES[0], example.target_ids])[None]
    positions = np.concatenate([GEOMETRY.source_positions(6), example.target_position_ids], axis=1)[None]
    labels = np.array([[-100] * 7 + [12, -100]])
    batch = {"input_ids": ids, "position_ids": positions, "segments": np.array([[[6, 3]]])}
    tensors = {name: paddle.to_tensor(np.asarray(array, np.int64)) for name, array in batch.items()}
    with paddle.no_grad():
        found = model.labelled_logits(**tensors, labels=paddle.to_tensor(labels)).numpy()
        np.testing.assert_allclose(found, model(**tensors)[0, 7:8].numpy(), rtol=0, atol=1e-5)


def test_a_candidate_without_token_is_refused():
    with pytest.raises(ValueError, match="no token"):
        Branches.of([[[1], []]])
