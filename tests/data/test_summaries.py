"""Summaries across languages: from pairs, triples and lines to what is asked."""

import pytest

from glm.data.examples import ExampleEncoder
from glm.data.records import BadRecord, RecordFile, read_records
from glm.data.task_table import in_language
from glm.data.templates import TEMPLATES
from glm.models.glm import FAMILY
from tools.letter_tokenizer import Letters
from tools.run_tools import write_records

TRIPLE = {"id": "a", "source": "文", "summary_en": "text", "summary_zh": "字"}


def file_of(tmp_path, rows, *, name="ncls_multitask", learns=True, language=None, need_target=True):
    path = tmp_path / "data.json"
    write_records(path, rows)
    template = in_language(TEMPLATES[name], language or "")
    return RecordFile(path, template, several_targets=not learns, need_target=need_target)


def asked(file):
    return [(record.id, record.source, record.extras["prompt"], record.target) for record in file]


def test_a_triple_in_training_is_translated_too(tmp_path):
    assert asked(file_of(tmp_path, [TRIPLE])) == [
        ("a.en", "文", " TL;DR:", "text"),
        ("a.zh", "文", " 中文摘要:", "字"),
        ("a.translation", "text", " 中文翻译:", "字"),
    ]


def test_a_triple_in_a_test_has_a_summary_in_each_language(tmp_path):
    """The original reads both in training and only one in tests (LCSTS)."""
    assert [target for _, _, _, target in asked(file_of(tmp_path, [TRIPLE], learns=False))] == ["text", "字"]


@pytest.mark.parametrize(("language", "ids"), [("en", ["a.en"]), ("zh", ["a.zh", "a.translation"]), ("fr", 3)])
def test_a_data_set_named_by_a_language_has_summaries_in_it(tmp_path, language, ids):
    found = [identity for identity, *_ in asked(file_of(tmp_path, [TRIPLE], language=language))]
    assert found == ids or len(found) == ids


def test_other_prompts(tmp_path):
    prompts = {
        name: [row[2] for row in asked(file_of(tmp_path, [TRIPLE], name=name))] for name in ("ncls", "mt5_summary")
    }
    assert prompts["ncls"] == [" tl;dr:", " 中文摘要："]
    assert prompts["mt5_summary"] == [" Please summarize in English:", " 中文摘要："]


def test_pairs(tmp_path):
    rows = [
        {"source": "文", "target": "text"},
        {"source": "text", "target": "字"},
        {"source": "text", "target": "text 字", "tgt_lang": "en"},
        {"source": "text", "target": "字", "tgt_lang": "zh", "task": "trans"},
    ]
    prompts = [prompt for _, _, prompt, _ in asked(file_of(tmp_path, rows))]
    assert prompts == [" TL;DR:", " 中文摘要:", " TL;DR:", " 中文翻译:"]


def test_prediction_needs_the_language(tmp_path):
    rows = [{"source": "文", "tgt_lang": "zh"}, {"source": "文"}, {"source": "文", "tgt_lang": "fr"}]
    good, *bad = file_of(tmp_path, rows, need_target=False, learns=False)
    assert good.extras["prompt"] == " 中文摘要:" and good.target is None
    assert [isinstance(record, BadRecord) for record in bad] == [True, True]
    assert "line 2, field tgt_lang: nothing says the language of its summary; write en or zh" in bad[0].error
    assert "line 3, field tgt_lang: 'fr' has no prompt" in bad[1].error


@pytest.mark.parametrize(
    ("name", "lines", "targets"),
    [("ncls_multitask", "文\ntext\n字\n文二\ntext 2\n字二\n", ["text", "字", "字", "text 2", "字二", "字二"]),
     ("ncls", "text\n字\n\ntext 2\n字二\n", ["字", "字二"])],
)  # fmt: skip
def test_lines(tmp_path, name, lines, targets):
    path = tmp_path / "train.txt"
    path.write_text(lines, encoding="utf-8")
    assert [record.target for record in read_records(path, TEMPLATES[name])] == targets


def test_lines_that_are_missing(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("文\ntext\n字\n文二\ntext 2\n", encoding="utf-8")
    *_, last = RecordFile(path, TEMPLATES["ncls_multitask"])
    assert "line 5: line 2 of 3 of a record (source, summary_en, summary_zh) is the file's last" in last.error


def test_a_source_that_is_too_long_keeps_its_head_and_what_is_asked(tmp_path):
    """mT5's script lets the tokenizer cut what stands behind the text."""
    record, *_ = file_of(tmp_path, [{"source": "一二三四五六七八九十", "target": "字"}], name="ncls")
    encoder = ExampleEncoder(FAMILY, Letters(), TEMPLATES["ncls"], src_length=14, tgt_length=9)
    ids = encoder.source_ids(record)
    assert Letters().decode_ids(ids) == "一二三四五六 中文摘要：" and len(ids) == 14
    assert ids[-1] == 8  # [sMASK]; nothing closes it
    padded = ExampleEncoder(FAMILY, Letters(), TEMPLATES["ncls"], src_length=40, tgt_length=9, visible_pads=True)
    assert len(padded.source_ids(record)) == 40 and padded.source_ids(record)[-1] == Letters().pad_token_id
    assert padded.described != encoder.described
