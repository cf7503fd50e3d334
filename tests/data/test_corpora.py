"""Documents of corpora in all formats, and the store of their ids: whole or not at all, found by content."""

import gzip
import json
import os
import resource
from array import array

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from glm.data import corpora, corpus_encoding, corpus_store
from glm.data.corpora import BLANK_LINE, CorpusFiles, Document
from glm.data.corpus_check import CorpusCheck, first_repeats
from glm.data.corpus_store import CorpusSamples, MappedCorpus, corpus_digest, held_out, open_corpus
from glm.data.records import BadRecord
from glm.errors import InputError
from glm.models.glm import FAMILY
from glm.models.glm.objectives import BlankPretraining
from glm.models.unilm import FAMILY as UNILM
from glm.models.unilm.tokenization import WordPieceTokenizer
from tools.unilm_tools import write_vocabulary

TEXTS = ["春天来了，山上的花都开了。", "这座古老的石桥建于明朝。", "水在零度结冰，在一百度沸腾。"]


def texts_of(corpus: CorpusFiles) -> list[str]:
    found = list(corpus)
    assert all(isinstance(item, Document) for item in found), found
    return [item.text for item in found]


def write_lines(path, texts=TEXTS):
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture
def pretraining(tokenizer) -> BlankPretraining:
    return BlankPretraining(tokenizer, seq_length=40)


def opened(tmp_path, corpus, tokenizer, pretraining, **options) -> MappedCorpus:
    found, notes = open_corpus(
        "c", corpus, tokenizer, pretraining, tmp_path / "cache", content=corpus_digest(corpus), **options
    )
    opened.notes = notes
    return found


def test_formats(tmp_path):
    jsonl = write_lines(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8-sig")
    with gzip.open(tmp_path / "c.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(TEXTS))
    (tmp_path / "d.csv").write_text("id,text\n" + "".join(f"{n},{t}\n" for n, t in enumerate(TEXTS)), encoding="utf-8")
    for name in ("b.txt", "c.txt.gz", "d.csv"):
        assert texts_of(CorpusFiles(str(tmp_path / name))) == TEXTS
    assert texts_of(CorpusFiles(jsonl)) == TEXTS
    assert texts_of(CorpusFiles(f"{jsonl},{tmp_path / 'b.txt'}")) == TEXTS * 2
    assert texts_of(CorpusFiles(str(tmp_path))) == TEXTS * 4  # a folder of files
    assert [item.origin for item in CorpusFiles(jsonl)][1] == f"{jsonl}, line 2"


def test_columnar_formats(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "saved"))
    assert texts_of(CorpusFiles(str(tmp_path / "a.parquet"))) == TEXTS
    assert texts_of(CorpusFiles(str(tmp_path / "saved"))) == TEXTS


def test_blank_lines_between_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("一\n二\n\n\n三\n  \n四\n", encoding="utf-8")
    found = list(CorpusFiles(str(path), ends_at=BLANK_LINE))
    assert [item.text for item in found] == ["一\n二", "三", "四"]
    assert [item.origin for item in found] == [f"{path}, line {n}" for n in (1, 5, 7)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"text": "a"}\n{"text": " "}\n', r"x.jsonl, line 2, field text: empty"),
        (b'{"text": 3}\n', r"x.jsonl, line 1, field text: int where text"),
        (
            b'{"body": "a"}\n',
            r"x.jsonl, line 1, field text: no such field \(fields: body\); name it",
        ),
        (b'{"text": "a [gMASK] b"}\n', r"x.jsonl, line 1, field text: holds the command token \[gMASK\]"),
        (b'{"text": "a"}\nno json\n', r"x.jsonl, line 2: not JSON"),
        (b'{"text": "a\\ud800"}\n', r"x.jsonl, line 1, field text: half a surrogate"),
    ],
)
def test_bad_rows_name_file_line_and_field(tmp_path, content, told, tokenizer, pretraining):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    corpus = CorpusFiles(str(path), reserved=FAMILY.reserved)
    assert any(isinstance(item, BadRecord) for item in corpus)
    with pytest.raises(InputError, match=told):
        opened(tmp_path, corpus, tokenizer, pretraining)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half done


def test_other_encodings_are_named(tmp_path, tokenizer, pretraining):
    path = tmp_path / "x.txt"
    path.write_bytes((TEXTS[0] + "\n").encode() + (TEXTS[1] + "\n").encode("gb18030"))
    with pytest.raises(InputError, match=r"x.txt, line 2: not UTF-8 \(byte 1\) \(it may be GB18030\)"):
        opened(tmp_path, CorpusFiles(str(path)), tokenizer, pretraining)


def test_no_document(tmp_path, tokenizer, pretraining):
    (tmp_path / "x.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"x.txt: no document in it"):
        opened(tmp_path, CorpusFiles(str(tmp_path / "x.txt")), tokenizer, pretraining)
    with pytest.raises(InputError, match=r"none.txt: no such file"):
        CorpusFiles(str(tmp_path / "none.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no file in this folder"):
        CorpusFiles(str(tmp_path / "empty"))


def test_refused_rows_may_be_left_out(tmp_path, tokenizer, pretraining):
    path = write_lines(tmp_path / "x.jsonl", [TEXTS[0], "", TEXTS[1]])
    corpus = opened(tmp_path, CorpusFiles(path), tokenizer, pretraining, most_refused=1)
    assert len(corpus) == 2 and corpus.report.refused == 1


def test_the_store_has_the_ids_and_is_found_again(tmp_path, tokenizer, pretraining, monkeypatch):
    corpus = CorpusFiles(write_lines(tmp_path / "x.jsonl"))
    found = opened(tmp_path, corpus, tokenizer, pretraining)
    assert [found.unit(n)[0].tolist() for n in range(3)] == tokenizer.encode_text(TEXTS)
    assert found.unit(0)[0].dtype == np.uint16
    lengths = found.lengths().tolist()
    assert lengths == [len(ids) for ids in tokenizer.encode_text(TEXTS)] and found.tokens == sum(lengths)
    assert [found.at(token) for token in (0, lengths[0] - 1, lengths[0], found.tokens - 1)] == [0, 0, 1, 2]
    monkeypatch.setattr(CorpusCheck, "encoded", None)  # nothing is encoded twice
    (tmp_path / "x.jsonl").rename(tmp_path / "y.jsonl")
    assert opened(tmp_path, CorpusFiles(str(tmp_path / "y.jsonl")), tokenizer, pretraining).tokens == found.tokens


@pytest.fixture
def in_processes(monkeypatch):
    """Small corpora are encoded by two processes too, in several batches."""
    monkeypatch.setattr(corpus_encoding, "SMALL", 0)
    monkeypatch.setattr(corpus_encoding, "cpu_threads", lambda: 2)
    monkeypatch.setattr(corpora, "DOCUMENTS", 7)


@pytest.mark.parametrize("family", ["glm", "unilm"])
def test_processes_encode_what_one_does(tmp_path, tokenizer, pretraining, in_processes, monkeypatch, family):
    """Byte for byte, of documents that are one part and of those that have several."""
    if family == "unilm":
        tokenizer = WordPieceTokenizer(write_vocabulary(tmp_path / "vocab.txt", sorted(set("".join(TEXTS)))))
        pretraining = UNILM.pretraining.build(tokenizer, seq_length=16)
    texts = [f"{number}。{''.join(TEXTS[: 1 + number % 3])}" for number in range(60)]
    corpus = CorpusFiles(write_lines(tmp_path / "x.jsonl", texts))
    with monkeypatch.context() as patch:
        patch.setattr(corpus_encoding, "ThreadPoolExecutor", None)
        found = opened(tmp_path, corpus, tokenizer, pretraining)
    monkeypatch.setattr(corpus_encoding, "cpu_threads", lambda: 1)
    monkeypatch.setattr(corpus_encoding, "ProcessPoolExecutor", None)
    again = opened(tmp_path / "again", corpus, tokenizer, pretraining)
    for name in (corpus_store.IDS, corpus_store.PARTS, corpus_store.UNITS, corpus_store.REPORT):
        assert (found.folder / name).read_bytes() == (again.folder / name).read_bytes(), name
    assert len(found) >= 20 and found.report.read == 60
    encoded = [[tokenizer.encode_text(part) for part in pretraining.parts(text)] for text in texts]
    units = [list(unit) for parts in encoded for unit in pretraining.units(parts)]
    assert [[part.tolist() for part in found.unit(n)] for n in range(len(found))] == units


def test_a_process_that_encodes_and_ends(tmp_path, tokenizer, pretraining, in_processes, monkeypatch):
    monkeypatch.setattr(corpus_encoding, "encode_documents", lambda *args, **how: os._exit(9))
    with pytest.raises(InputError, match="a process that encodes texts has ended"):
        opened(tmp_path, CorpusFiles(write_lines(tmp_path / "x.jsonl", TEXTS * 9)), tokenizer, pretraining)
    assert list((tmp_path / "cache").iterdir()) == []


def test_repeats_are_those_of_a_search():
    values = np.random.default_rng(3).integers(-20, 20, size=60).tolist()
    pairs = [(values.index(value), place) for place, value in enumerate(values) if value in values[:place]]
    assert first_repeats(array("q", values), 5) == (len(pairs), pairs[:5])
    assert first_repeats(array("q"), 5) == (0, [])


def test_a_damaged_store_is_encoded_anew(tmp_path, tokenizer, pretraining):
    corpus = CorpusFiles(write_lines(tmp_path / "x.jsonl"))
    found = opened(tmp_path, corpus, tokenizer, pretraining)
    (found.folder / corpus_store.IDS).write_bytes(b"\0" * 2 * found.tokens)
    again = opened(tmp_path, corpus, tokenizer, pretraining)
    assert "is not what was written" in opened.notes[0]
    assert again.unit(0)[0].tolist() == tokenizer.encode_text(TEXTS[0])


def test_a_full_disk_leaves_no_store(tmp_path, tokenizer, pretraining):
    """Files may have no more than some bytes: writing fails in the middle, as where a disk is full."""
    corpus = CorpusFiles(
        write_lines(tmp_path / "x.jsonl", [f"{number}{text}" for number in range(50) for text in TEXTS])
    )
    digest, before = corpus_digest(corpus), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match="cannot be written .File too large.; nothing is kept"):
            open_corpus("c", corpus, tokenizer, pretraining, tmp_path / "cache", content=digest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(opened(tmp_path, corpus, tokenizer, pretraining)) == 150


def test_samples_are_a_function_of_number_and_generator(tmp_path, tokenizer, pretraining):
    corpus = opened(tmp_path, CorpusFiles(write_lines(tmp_path / "x.jsonl", TEXTS * 9)), tokenizer, pretraining)
    samples = CorpusSamples("c", corpus, pretraining)
    assert len(samples) == -(-(corpus.tokens + 2 * len(corpus)) // 40)

    def rows(index):
        sample = samples.draw(index, np.random.default_rng([1, index]))
        return [
            [getattr(example, name).tolist() for name in ("source_ids", "target_ids", "target_position_ids", "labels")]
            for example in sample.examples
        ]

    forward = [rows(index) for index in range(len(samples))]
    assert [rows(index) for index in reversed(range(len(samples)))] == forward[::-1]
    dev = held_out({"c": samples}, FAMILY.pretraining.names, most=3, seed=5)
    assert list(dev["c"]) == ["token", "sentence", "document"]
    assert all(sample.objective == name for name, found in dev["c"].items() for sample in found)
    with pytest.raises(IndexError):
        samples.origins[len(samples)]


def test_check_finds_what_repeats(tmp_path, tokenizer, pretraining):
    footer = "版权所有，未经许可不得转载本站内容。"
    texts = [*(f"{text}{footer}" for text in TEXTS), *["火车从东站出发，经过五个小时到达。"] * 2, "水"]
    check = CorpusCheck("c", tokenizer, pretraining, most_repeats=2)
    path = write_lines(tmp_path / "x.jsonl", texts)
    assert sum(len(batch.tokens) for batch in check.encoded(CorpusFiles(path))) == 6
    report = check.report()
    found = {group.kind: group for group in report.problems}
    assert found["duplicate row"].first == [f"{path}, line 5: is {path}, line 4 once more"]
    assert found["short document"].count == 1
    assert found["repeated passage"].first == ["c: 3 documents hold 版权所有，未经许可不得转载本站内容"]
    assert report.refused == 0
