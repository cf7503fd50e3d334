"""The model card, read back by the library of the hub it is meant for."""

import pytest
from huggingface_hub import ModelCard

from glm.report.model_card import MARKER, is_users_own, write_model_card
from glm.report.provenance import Provenance

SETTINGS = {"model_name_or_path": "THUDM/glm-large-chinese", "task_name": "dureader_qg", "dev_file": "data/dev.json"}
FIGURES = {"loss": 1.5, "bleu-4 (char, corpus)": 12.346, "rouge-l (char)": 40.0, "exact match": 1.0}


def write(folder, settings=SETTINGS, figures=FIGURES) -> bool:
    provenance = Provenance("python finetune_generation.py --x 'a b'", settings, "cpu")
    signatures = {"exact match": "nrefs:1|norm:nfkc"}
    return write_model_card(
        folder, provenance, figures=figures, signatures=signatures, data={"train": "t.json: 9 rows"}
    )


def test_front_matter(tmp_path):
    folder = tmp_path / "qg"
    assert write(folder)
    data = ModelCard.load(folder / "README.md").data
    assert (data.language, data.library_name, data.pipeline_tag) == ("zh", "paddlenlp", "text-generation")
    assert data.base_model == "THUDM/glm-large-chinese" and data.model_name == "qg"
    assert [(result.metric_name, result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("bleu-4 (char, corpus)", "bleu", 12.35),
        ("rouge-l (char)", "rouge", 40.0),
        ("exact match", "exact_match", 1.0),
    ]
    assert {result.dataset_name for result in data.eval_results} == {"data/dev.json"}


def test_text(tmp_path):
    write(tmp_path / "qg")
    text = (tmp_path / "qg" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned from `THUDM/glm-large-chinese`" in text and "--x 'a b'" in text and "t.json: 9 rows" in text
    assert "| exact match | 1.00 | `nrefs:1\\|norm:nfkc` |\n" in text and "| loss | 1.50 |  |\n" in text


@pytest.mark.parametrize("start", ["configs/model/tiny.json", "here/model"])
def test_a_model_of_ones_own_is_no_base_model(tmp_path, monkeypatch, start):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    write(tmp_path / "qg", SETTINGS | {"model_name_or_path": start})
    card = ModelCard.load(tmp_path / "qg" / "README.md")
    assert card.data.base_model is None and start in card.text
    assert ("random weights" in card.text) == start.endswith(".json")


def test_without_evaluation(tmp_path):
    write(tmp_path / "qg", figures={})
    card = ModelCard.load(tmp_path / "qg" / "README.md")
    assert card.data.eval_results is None and "did not evaluate" in card.text


def test_a_card_of_the_users_is_kept(tmp_path):
    path = tmp_path / "README.md"
    assert write(tmp_path) and not is_users_own(path)
    assert write(tmp_path)  # our own is replaced
    path.write_text(path.read_text(encoding="utf-8").replace(MARKER, "") + "mine", encoding="utf-8")
    assert is_users_own(path) and not write(tmp_path)
    assert path.read_text(encoding="utf-8").endswith("mine")
