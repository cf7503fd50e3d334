"""What a run of GLM's tasks refuses, each before a model is loaded, with file, line and field (the list of their fact
sheet, section 7)."""

import pytest

from glm.errors import InputError
from tools.run_tools import make_workspace, write_records

NLI = {"sentence1": "下雨了。", "sentence2": "天晴。", "label": "neutral"}
WSC = {"text": "Mark told Pete lies, which he put in.", "label": True}
CLUEWSC = {"text": "我的手机响它响", "label": "true"}
NOUN = {"span1_text": "Mark", "span1_index": 0, "span2_text": "he"}
CHOICE = {"inputs": "人口大约[MASK]", "choices": ["2万", "3万"], "label": 0}
QA = {"id": "q", "context": "青石镇位于河的北岸。", "question": "在哪里？", "answers": ["北岸"]}
TEMPLATE = "{sentence1}？[MASK]，{sentence2}"
LABELS = "水=entailment,铁=neutral"


@pytest.fixture
def workspace(tmp_path, sentencepiece_file, monkeypatch):
    monkeypatch.setattr("glm.training.setup.load_model", None)  # whoever comes so far fails otherwise
    return make_workspace(tmp_path, sentencepiece_file)


def refused(workspace, told, *, good, bad, **options):
    """A run refuses the second row, of the training data and of the dev data."""
    write_records(workspace.folder / "good.json", [good])
    write_records(workspace.folder / "rows.json", [good, bad])
    good_file, file = (workspace.folder / name for name in ("good.json", "rows.json"))
    options = {"num_beams": None, "tgt_length": 8, "src_length": 40, "do_eval": True} | options
    for files in ({"train_file": file, "dev_file": good_file}, {"train_file": good_file, "dev_file": file}):
        with pytest.raises(InputError, match=told):
            workspace.finetune("run", **options, **files)
        assert not (workspace.folder / "run" / "model.safetensors").exists()


OWN_LABELS = {"labels": "水=entailment,铁=neutral,人=contradiction"}


@pytest.mark.parametrize(
    ("task", "good", "bad", "told"),
    [
        ("ocnli", NLI, {**NLI, "label": "maybe"}, "field label: 'maybe' is none of entailment"),
        ("multichoice", CHOICE, {**CHOICE, "label": 2}, "field label: 2: the record has 2 choices, 0 to 1"),
        ("multichoice", CHOICE, {**CHOICE, "inputs": "[MASK]是[MASK]"}, r"field inputs: more than one \[MASK\]"),
        (
            "chid",
            {"content": "春天#idiom1#。", "candidates": ["花开", "水流"], "answer": 0},
            {"content": "春天来了。", "candidates": ["花开", "水流"], "answer": 0},
            "field content: no #idiom# in it",
        ),
        (
            "multichoice",
            CHOICE,
            {**CHOICE, "choices": ["3万", "３万"]},
            r"field choices\[1\]: ３万: is the same to the model as choices\[0\]",
        ),
        (
            "multichoice",
            CHOICE,
            {**CHOICE, "choices": ["3万", "图书馆里有十二万册图书"]},
            r"field choices\[1\]: .*tokens, and tgt_length 8 has no room",
        ),
        ("cmrc2018", QA, {**QA, "id": "r", "question": "在哪里？" * 20}, "field question: .*no room for the passage"),
        ("multichoice", CHOICE, {**CHOICE, "choices": ["3万", "[gMASK]"]}, r"field choices\[1\]: holds the command"),
        ("ocnli", NLI, {**NLI, "sentence1": "a[sMASK]"}, r"field sentence1|field first: holds the command token"),
        (
            "wsc",
            {**WSC, "target": {**NOUN, "span2_index": 5}},
            {**WSC, "target": {**NOUN, "span2_index": 4}},
            "field span2_index: word 4 of the text is 'which', not the pronoun 'he'",
        ),
        (
            "cluewsc",
            {**CLUEWSC, "target": {"span1_text": "手机", "span1_index": 2, "span2_text": "它", "span2_index": 5}},
            {**CLUEWSC, "target": {"span1_text": "手机", "span1_index": 2, "span2_text": "它", "span2_index": 4}},
            "field span2_index: the text there is '响', not '它'",
        ),
        ("lambada", {"text": "花 开"}, {"text": "花开"}, "field text: one word"),
    ],
    ids=[
        "label",
        "number-of-a-choice",
        "two-blanks",
        "no-blank",
        "equal-choices",
        "long-choice",
        "no-room",
        "command-as-choice",
        "command-in-text",
        "index-in-words",
        "index-in-characters",
        "one-word",
    ],
)
def test_rows(workspace, task, good, bad, told):
    words = {"ocnli": OWN_LABELS, "cluewsc": {"labels": "水=true,铁=false"}}.get(task, {})
    beams = {"num_beams": 2} if task == "cmrc2018" else {}
    loss = {"loss_func": "generative"} if task in ("wsc", "lambada") else {}
    told = f"rows.json, line 2, (question .*, )?{told}"
    refused(workspace, told, good=good, bad=bad, task_name=task, **words, **beams, **loss)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"template": "{sentence1}。{sentence2}"}, "no blank in it"),
        ({"template": "{sentence1}[MASK]{sentence2}[MASK]"}, "more than one blank"),
        ({"labels": "[gMASK]=entailment,铁=neutral"}, r"the word \[gMASK\] of the label \w+ is a command token"),
        ({"labels": "３万=entailment,3万=neutral"}, "3万 .*is the same to the model as ３万"),
        ({"labels": "图书馆里=entailment,铁=neutral", "multi_token": False}, "single piece; 图书馆里 is "),
        ({"labels": "图书馆里有十二万册图书=entailment,铁=neutral"}, "longer than tgt_length 8"),
    ],
    ids=["no-blank", "two-blanks", "command", "equal-words", "several-pieces", "long-word"],
)
def test_words_and_templates(workspace, options, told):
    refused(workspace, told, good=NLI, bad=NLI, **{"template": TEMPLATE, "labels": LABELS, **options})
