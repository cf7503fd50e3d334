"""The bundled data: whole, big enough, readable by the bundled tokenizer, and nothing of dev in train."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from glm.data.records import read_records
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from glm.models.glm.tokenization import COMMAND_TOKENS

DATA = Path(__file__).resolve().parents[2] / "data"
UNKNOWN_PIECE = 0


@pytest.fixture(scope="module")
def train():
    return read_records(DATA / "train.json")


@pytest.fixture(scope="module")
def dev():
    return read_records(DATA / "dev.json")


@pytest.fixture(scope="module")
def bundled_tokenizer():
    (model_file,) = (DATA / "tokenizer").glob("*.model")
    return GLMTokenizer(str(model_file))


def test_size(train, dev):
    assert len(train) + len(dev) >= 1500
    assert len(dev) >= 100


def test_ids_are_unique(train, dev):
    counts = Counter(record.id for record in train + dev)
    assert [identity for identity, count in counts.items() if count > 1] == []


def test_answers_stand_in_their_contexts_once(train, dev):
    assert [record.origin for record in train + dev if record.source.count(record.answer) != 1] == []


def test_no_record_twice(train, dev):
    counts = Counter((record.source, record.answer) for record in train + dev)
    assert [pair for pair, count in counts.items() if count > 1] == []


def test_nothing_of_dev_is_in_train(train, dev):
    contexts = {record.source for record in train}
    questions = {record.target for record in train}
    assert [record.origin for record in dev if record.source in contexts] == []
    assert [record.origin for record in dev if record.target in questions] == []


def test_no_subject_of_dev_is_named_in_train(train, dev):
    """What a question takes from its passage, and goes on in more than one way in dev, is a name: none is in train."""
    seen = "\n".join(record.source + record.target for record in train)
    texts = {text for record in dev for text in (record.source, record.target)}

    def is_name(part: str) -> bool:
        goes_on = {text[end.end() : end.end() + 1] for text in texts for end in re.finditer(re.escape(part), text)}
        return len(goes_on) > 1 and part[-1] not in "的在是于由以被属"

    leaks = []
    for record in dev:
        question = record.target
        parts = {question[start:end] for start in range(len(question)) for end in range(start + 2, len(question))}
        if not any(part in record.source and part not in seen and is_name(part) for part in parts):
            leaks.append((record.origin, question))
    assert leaks == []


def test_no_unknown_pieces(train, dev, bundled_tokenizer):
    texts = [text for record in train + dev for text in (record.source, record.answer, record.target)]
    unknown = [text for text, ids in zip(texts, bundled_tokenizer.encode_text(texts), strict=True) if 0 in ids]
    assert unknown == []


def test_questions_come_back_from_their_ids(train, dev, bundled_tokenizer):
    """Scores of the demo depend on it: what the tokenizer cannot write, no model can."""
    half_width = str.maketrans("，：？；！（）", ",:?;!()")
    questions = [record.target for record in train + dev]
    texts = [bundled_tokenizer.decode_ids(ids) for ids in bundled_tokenizer.encode_text(questions)]
    pairs = [
        (q, t) for q, t in zip(questions, texts, strict=True) if q.translate(half_width) != t.translate(half_width)
    ]
    assert pairs == []


def test_no_command_token_is_a_piece(bundled_tokenizer):
    pieces = {bundled_tokenizer.sp_model.id_to_piece(number) for number in range(len(bundled_tokenizer.sp_model))}
    assert pieces.isdisjoint(COMMAND_TOKENS)
    assert bundled_tokenizer.convert_ids_to_tokens(UNKNOWN_PIECE) == "<unk>"


# -- cloze


def test_cloze_records_are_what_their_program_makes(tmp_path):
    subprocess.run([sys.executable, str(DATA / "make_cloze.py"), str(tmp_path)], check=True)
    for split in ("train", "dev"):
        assert (tmp_path / f"{split}.json").read_bytes() == (DATA / "cloze" / f"{split}.json").read_bytes()


@pytest.mark.parametrize("split", ["train", "dev"])
def test_cloze_records_are_those_of_the_questions(split, train, dev):
    records = {record.id: record for record in (train if split == "train" else dev)}
    rows = [json.loads(line) for line in (DATA / "cloze" / f"{split}.json").read_text("utf-8").splitlines()]
    assert len(rows) == len(records)
    for row in rows:
        record = records[row["id"]]
        assert (row["context"], row["answer"]) == (record.source, record.answer) and "question" not in row
        assert (row["label"] == "人物") == ("谁" in record.target) or row["label"] == "时间"
    labels = Counter(row["label"] for row in rows)
    assert set(labels) == {"时间", "人物", "地点", "数量", "事物"} and max(labels.values()) < 0.6 * len(rows)
