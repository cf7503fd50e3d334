"""Check 16: what a run of the multilingual GLM refuses, each before a model is loaded, with file, line and field."""

import json

import pytest

from glm.errors import InputError, UsageError
from tools.run_tools import make_workspace, write_records

QA = {"id": "q", "context": "Paris is in France.", "question": "Where is Paris?", "answers": ["France"]}
NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}
SIZES = {"model_type": "mglm", "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
SIZES |= {"max_sequence_length": 129, "vocab_size": 384}
PLAIN = "{premise} {hypothesis} [MASK]"


@pytest.fixture
def workspace(tmp_path, sentencepiece_file, monkeypatch):
    monkeypatch.setattr("glm.training.setup.load_model", None)  # whoever comes so far fails otherwise
    space = make_workspace(tmp_path, sentencepiece_file)
    (tmp_path / "model.json").write_text(json.dumps(SIZES), encoding="utf-8")
    return space


def refused(workspace, rows, told, *, kind=InputError, **options):
    path = workspace.folder / "rows.json"
    write_records(path, rows)
    with pytest.raises(kind, match=told):
        workspace.finetune("run", **{"train_file": path, "num_beams": None, "tgt_length": 8, **options})
    assert not (workspace.folder / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        (
            [NLI, {**NLI, "label": "maybe"}],
            {"template": PLAIN, "labels": "a=entailment,b=neutral"},
            r"rows.json, line 2, field label: 'maybe' is none of entailment, neutral",
        ),
        (
            [QA, {**QA, "question": "Who?"}],
            {"task_name": "squad_v1"},
            r"rows.json, line 2, field id: q is the id of another question in en \(.*rows.json, line 1\)",
        ),
        (
            [QA, {**QA, "id": "r", "lang": "fr"}],
            {"task_name": "mlqa"},
            "rows.json, line 2, field lang: fr: the figures of mlqa have rules for en, es",
        ),
        (
            [{**QA, "question": "where " * 40}],
            {"task_name": "squad_v1"},
            "rows.json, line 1, field question: .* leave no room for the passage",
        ),
        (
            [{**NLI, "premise": "a [MASK] b"}],
            {"template": PLAIN, "labels": "a=entailment,b=neutral"},
            r"rows.json, line 1, field premise: holds the command token \[MASK\]",
        ),
        (
            [{"source": "text", "target": "文", "tgt_lang": "fr"}],
            {"task_name": "ncls"},
            "rows.json, line 1, field tgt_lang: 'fr' has no prompt; write en or zh",
        ),
    ],
    ids=["label", "ids", "language", "no-room", "command", "summary-language"],
)
def test_rows(workspace, rows, options, told):
    refused(workspace, rows, told, **options)


@pytest.mark.parametrize(
    ("options", "told", "kind"),
    [
        ({"template": "{premise} {hypothesis}", "labels": "a=entailment,b=neutral"}, "no blank in it", InputError),
        (
            {"template": "{premise} [MASK] {hypothesis} [MASK]", "labels": "a=entailment,b=neutral"},
            "more than one blank",
            InputError,
        ),
        (
            {"template": PLAIN, "labels": "图书馆里=entailment,b=neutral", "multi_token": False},
            "a label's word has to be a single piece; 图书馆里 is ",
            InputError,
        ),
        (
            {"template": PLAIN, "labels": "[MASK]=entailment,b=neutral"},
            r"command token \(\[MASK\]\)",
            InputError,
        ),
        (
            {"train_file": ["a=1.json", "b=2.json"], "weights": "1,-2"},
            "weights 1,-2: write a number above 0",
            UsageError,
        ),
        ({"train_file": ["a=1.json", "b=2.json"], "sampling_temperature": -0.1}, "use 0 to 1", UsageError),
    ],
    ids=["no-blank", "two-blanks", "several-pieces", "command", "weights", "temperature"],
)
def test_options(workspace, options, told, kind):
    refused(workspace, [NLI], told, kind=kind, **options)


def test_a_folder_without_weights_starts_from_nothing(workspace):
    """The original starts from random weights, with a warning."""
    folder = workspace.folder / "empty"
    folder.mkdir()
    refused(workspace, [NLI], "empty", template=PLAIN, labels="a=entailment,b=neutral", model_name_or_path=folder)
