"""Check 2: the originals' records, read and laid out for training and prediction, against all golden layouts."""

import json
import re
from dataclasses import replace

import pytest

from glm.data.check import check_file
from glm.data.examples import ExampleEncoder
from glm.data.formats import Row
from glm.data.forms import Form, with_parts
from glm.data.records import BadRecord, RecordFile
from glm.data.templates import TEMPLATES
from glm.errors import InputError
from glm.models import registry
from glm.models.vlm.tokenization import TASKS, open_tokenizer
from tools.reference_files import reference_files
from tools.run_tools import write_records
from tools.vlm_tools import write_tokenizer

# Most tokens of source text and target, and of a document: those of the published program, and small ones.
LIMITS = {
    "published": {"summarization": (400, 130), "mt": (100, 100), "document": 400},
    "small": {"summarization": (40, 24), "mt": (30, 30), "document": 40},
}
HISTORY = {"qa": 1, "dialogue": 2}


def encoder_for(tokenizer, task: str, limits: str) -> ExampleEncoder:
    source, target = LIMITS[limits].get(task, (900, 120))
    template = TEMPLATES[task]
    if template.form is not None:
        form = replace(template.form, max_history=HISTORY.get(task, 2), document_length=LIMITS[limits]["document"])
        template = replace(template, form=form)
    family = registry.find("vlm")
    how = {"src_length": source + 3, "tgt_length": target + 1, "allow_cut_targets": True}
    return ExampleEncoder(family, tokenizer, template, task=list(TASKS).index(task), **how)


@pytest.mark.conformance
@pytest.mark.parametrize("path", reference_files("vlm/layouts.jsonl"))
def test_layouts(path, tmp_path):
    tokenizer = open_tokenizer(path.parent / "tokenizer")
    golden = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = json.loads((path.parent / "records.json").read_text(encoding="utf-8"))
    compared = 0
    for task, rows in records.items():
        write_records(tmp_path / f"{task}.json", rows)
        for limits in sorted({line["limits"] for line in golden}):
            encoder = encoder_for(tokenizer, task, limits)
            lines = [line for line in golden if (line["task"], line["limits"]) == (task, limits)]
            training = list(RecordFile(tmp_path / f"{task}.json", encoder.template))
            prediction = list(RecordFile(tmp_path / f"{task}.json", encoder.template, several_targets=True))
            places = [(n, m) for n, row in enumerate(rows) for m in range(len(row.get("utterances", [0])))]
            assert len(places) == len(training)
            for line in lines:
                place = places.index((line["record"], line["utterance"]))
                example = encoder.example(training[place])
                end = line["input_ids"][-1]
                assert [*example.input_ids, end] == line["input_ids"]
                assert list(example.segment_ids) == line["token_type_ids"][:-1]
                assert [-1 if label == -100 else label for label in example.labels] == line["lm_labels"][1:]
                prompt = encoder.prompt(encoder.source_ids(prediction[place]))
                assert list(prompt.input_ids) == line["prompt_input_ids"]
                assert list(prompt.segment_ids) == line["prompt_token_type_ids"]
                compared += 1
    assert compared == len(golden)


@pytest.mark.parametrize(
    "task, row, message",
    [
        (
            "nlg",
            {"src": {"colour": "red"}, "tgt": "x"},
            "line 1, field src: colour is no slot; slots are name, eatType",
        ),
        ("nlg", {"src": {}, "tgt": "x"}, "field src: no slot in it"),
        ("nlg", {"src": "name[a", "tgt": "x"}, r"field src: name\[value\]"),
        ("dialogue", {"personality": ["a"], "utterances": []}, "field utterances: a list of utterances"),
        ("dialogue", {"personality": ["a"], "utterances": [{"history": "b"}]}, "field history: a list of texts"),
        ("qa", {"document": ["a"], "utterances": [{"history": ["b"], "candidates": []}]}, "field candidates: empty"),
        ("qa", {"document": [], "utterances": [{"history": ["b"], "candidates": ["c"]}]}, "field document: empty"),
    ],
)
def test_what_is_refused(tmp_path, task, row, message):
    """With file, line and field; another row beside it is used."""
    good = {
        "nlg": {"src": {"name": "a"}, "tgt": "x"},
        "dialogue": {"personality": ["a"], "utterances": [{"history": ["b"], "candidates": ["c"]}]},
        "qa": {"document": ["a"], "utterances": [{"history": ["b"], "candidates": ["c"]}]},
    }
    write_records(tmp_path / "r.json", [row, good[task]])
    bad, fine = RecordFile(tmp_path / "r.json", TEMPLATES[task])
    assert isinstance(bad, BadRecord) and fine.parts
    assert str(tmp_path) in bad.error
    assert re.search(message, bad.error), bad.error


def test_records_of_a_token(tmp_path):
    """Of translations and summaries they teach nothing: training refuses them by name, evaluation keeps them."""
    folder = write_tokenizer(tmp_path / "tokenizer", ["how are you", "fine"])
    encoder = encoder_for(open_tokenizer(folder), "mt", "published")
    write_records(tmp_path / "r.json", [{"src": "how are", "tgt": "are"}, {"src": "you", "tgt": "fine , thanks"}] * 2)
    for is_training, used in ((True, 0), (False, 4)):
        check, batches = check_file(
            RecordFile(tmp_path / "r.json", encoder.template), encoder, is_training=is_training
        )
        assert len([item for batch in batches for item in batch]) == 4
        assert check.used == used
    check, batches = check_file(RecordFile(tmp_path / "r.json", encoder.template), encoder, is_training=True)
    refused = [item.error for batch in batches for item in batch]
    wanted = "1 of at least 2 tokens that training wants; leave it out"
    assert refused[0].endswith(f"line 1, field target: {wanted}")
    assert refused[1].endswith(f"line 2, field source: {wanted}")


def test_a_file_of_several_lists(tmp_path):
    (tmp_path / "r.json").write_text('{"train": [{"src": "a", "tgt": "b"}], "test": [{"src": "a", "tgt": "b"}]}')
    message = "r.json: a JSON object with one list of rows is expected; lists in it: train, test; write each into"
    with pytest.raises(InputError, match=message):
        RecordFile(tmp_path / "r.json", TEMPLATES["mt"])


def test_turns_count_back_from_the_reply():
    """Also where their number is even; the last 2 h + 1 are read."""
    values = {"personality": ["p", "q"], "utterances": [{"history": [*"abcd"], "candidates": ["no", "e"]}] * 2}
    rows = list(with_parts([Row(1, "f, line 1", values)], Form("dialogue", max_history=1), training=True))
    turns = [("speaker1", "b"), ("speaker2", "c"), ("speaker1", "d")]
    assert rows[0].values["parts"] == [("persona", "p"), ("persona", "q"), *turns] and rows[0].values["target"] == "e"
    assert rows[1].values["parts"][:2] == [("persona", "q"), ("persona", "p")]
