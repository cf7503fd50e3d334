"""Check 18: the scores of VLM's five tasks, as the originals' scripts give them."""

import json

import numpy as np
import pytest

from glm.commands import score
from glm.evaluation import coco
from glm.evaluation.coco import coco_scores, what_is_missing
from glm.evaluation.statistics import Pair
from glm.evaluation.vlm_protocols import coqa, e2e_bleu, google_rouge, multi_bleu, nist, vlm_rouge
from tools.reference_files import reference_files

pytestmark = pytest.mark.conformance


def pairs_of(rows: list[dict], *, first: bool = False) -> list[Pair]:
    references = [row.get("references", [row.get("reference")]) for row in rows]
    return [
        Pair(row["prediction"], tuple(texts[:1] if first else texts))
        for row, texts in zip(rows, references, strict=True)
    ]


@pytest.mark.parametrize("path", reference_files("vlm/metric_scores.json"))
def test_scores(path):
    scores = json.loads(path.read_text(encoding="utf-8"))
    texts = json.loads(path.with_name("metric_pairs.json").read_text(encoding="utf-8"))
    e2e, summaries = texts["e2e"], texts[next(name for name in texts if name != "e2e")]
    assert multi_bleu(pairs_of(summaries)) == pytest.approx(scores["sacrebleu_none_none_summary"], abs=1e-6)
    assert round(multi_bleu(pairs_of(summaries)), 2) == scores["multi_bleu_perl_summary"]
    assert round(multi_bleu(pairs_of(e2e, first=True)), 2) == scores["multi_bleu_perl_e2e_first_reference"]
    assert multi_bleu(pairs_of(e2e)) == pytest.approx(scores["sacrebleu_none_none_e2e_all_references"], abs=1e-6)
    for ours, theirs in ((vlm_rouge, "vglm_rouge_summary"), (google_rouge, "google_rouge_score_nostem_summary")):
        expected = [scores[theirs][name] for name in ("rouge1", "rouge2", "rougeL")]
        np.testing.assert_allclose(list(ours(pairs_of(summaries)).values()), expected, atol=1e-6)
    assert e2e_bleu(pairs_of(e2e)) == pytest.approx(100 * scores["e2e_metrics"]["BLEU"], abs=1e-6)
    assert nist(pairs_of(e2e)) == pytest.approx(scores["e2e_metrics"]["NIST"], abs=1e-6)


@pytest.mark.parametrize("path", reference_files("vlm/coqa_scores.json"))
def test_answers(path):
    facts = json.loads(path.read_text(encoding="utf-8"))
    for row in facts["rows"]:
        np.testing.assert_allclose(coqa(row["prediction"], row["gold"]), (row["em"], row["f1"]), rtol=0, atol=1e-12)
    em, f1 = np.mean([coqa(row["prediction"], row["gold"]) for row in facts["rows"]], axis=0)
    assert round(100 * f1, 1) == facts["overall_f1_x100_rounded"]
    assert round(100 * em, 1) == facts["overall_em_x100_rounded"]


@pytest.mark.skipif(what_is_missing() is not None, reason="pycocoevalcap and Java are not both installed")
@pytest.mark.parametrize("path", reference_files("vlm/metric_scores.json"))
def test_scores_of_the_package(path):
    scores = json.loads(path.read_text(encoding="utf-8"))["e2e_metrics"]
    texts = json.loads(path.with_name("metric_pairs.json").read_text(encoding="utf-8"))
    expected = {"meteor": 100 * scores["METEOR"], "rouge-l": 100 * scores["ROUGE_L"], "cider": scores["CIDEr"]}
    assert coco_scores(pairs_of(texts["e2e"])) == pytest.approx(expected, abs=1e-6)


def test_what_is_missing_is_said(monkeypatch, tmp_path, capsys):
    """Once, with what to install; the other protocols are there."""
    monkeypatch.setattr(coco, "find_spec", lambda name: None)
    monkeypatch.setattr(coco.shutil, "which", lambda name: None)
    rows = [{"prediction": "a cat sat there .", "references": ["a cat sat there .", "the cat ."]}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert score.main([str(tmp_path / "r.jsonl"), "--protocols", "all", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert "need pycocoevalcap (python -m pip install pycocoevalcap, 104 MB) and Java" in said.err
    found = json.loads(said.out)["protocols"]
    assert found["e2e"]["bleu-4"] and coco.PROTOCOL not in found
