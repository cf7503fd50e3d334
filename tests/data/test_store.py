"""The store: the examples it gives are those the encoder lays out, and nothing that has changed meets an old one."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glm.data.check import check_file
from glm.data.examples import ExampleEncoder
from glm.data.records import RecordFile, read_records
from glm.data.store import (
    ExampleStore,
    content_digest,
    new_store,
    remove_store,
    store_name,
    verify_store,
    write_examples,
    write_report,
)
from glm.data.templates import find_template, own_template
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM


@pytest.fixture
def path(tmp_path, sentences):
    rows = [{"context": text * 2, "answer": text[:2], "question": text[:6]} for text in sentences]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines[4] = "bad"
    (tmp_path / "train.json").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "train.json"


def encoder_of(tokenizer, template=None, **lengths) -> ExampleEncoder:
    template = template or find_template("dureader_qg")
    return ExampleEncoder(GLM, tokenizer, template, **{"src_length": 40, "tgt_length": 30, **lengths})


def write(path, folder, encoder) -> ExampleStore:
    check, batches = check_file(RecordFile(path, encoder.template), encoder, most_refused=1)
    with new_store(folder) as aside:
        write_examples(aside, (item for batch in batches for item in batch), encoder)
        write_report(aside, check.report(), check)
    return ExampleStore(folder, encoder)


def assert_same(example, expected):
    for name in ("source_ids", "target_ids", "target_position_ids", "labels"):
        assert getattr(example, name).tolist() == getattr(expected, name).tolist()


def test_examples_are_those_of_the_encoder(path, tmp_path, tokenizer):
    encoder = encoder_of(tokenizer)
    store = write(path, tmp_path / "cache" / "store", encoder)
    good = path.with_name("good.json")
    good.write_text("\n".join(line for line in path.read_text("utf-8").split("\n") if line != "bad"), encoding="utf-8")
    expected = [encoder.example(record) for record in read_records(good)]
    assert len(store) == len(expected) == 59
    for index, example in enumerate(expected):
        assert_same(store[index], example)
        assert store.lengths[index] == len(example.source_ids) + len(example.target_ids)
        assert store.target_lengths[index] == len(example.labels)
    assert_same(store[-1], expected[-1])
    assert_same(list(store)[7], expected[7])
    for index in (59, -60):
        with pytest.raises(IndexError):
            store[index]
    assert (store.report.read, store.report.used, len(store.row_hashes)) == (60, 59, 59)
    assert store.origins == [f"{path}, line {number}" for number in range(1, 61) if number != 5]
    assert store.report.bad_rows[0]["error"].startswith(f"{path}, line 5: not JSON")


def test_ids_beyond_two_bytes(path, tmp_path, tokenizer):
    encoder = encoder_of(tokenizer)
    encoder.tokenizer = _Far(tokenizer)
    store = write(path, tmp_path / "store", encoder)
    record = next(iter(RecordFile(path)))
    assert_same(store[0], encoder.example(record))
    assert store[0].source_ids.max() > 1 << 16


ROOT = Path(__file__).resolve().parents[2]
WRITES = """
import sys
from pathlib import Path
from glm.data.store import new_store
with new_store(Path(sys.argv[1])) as aside:
    print(aside, flush=True)
    sys.stdin.read()
"""


class _Far:
    """A tokenizer whose ids are 70,000 higher."""

    def __init__(self, tokenizer):
        self.digest, self.unknown_token_id = tokenizer.digest, tokenizer.unknown_token_id + 70_000
        self.vocab_size = tokenizer.vocab_size + 70_000
        self.encode, self.unknown_parts = tokenizer.encode_text, tokenizer.unknown_parts

    def encode_text(self, text):
        if isinstance(text, str):
            return [number + 70_000 for number in self.encode(text)]
        return [self.encode_text(one) for one in text]


# -- whole or not at all


def test_nothing_stays_of_what_failed(path, tmp_path, tokenizer):
    folder = tmp_path / "cache" / "store"
    with pytest.raises(KeyboardInterrupt), new_store(folder) as aside:
        write_examples(aside, [], encoder_of(tokenizer))
        raise KeyboardInterrupt
    assert list(folder.parent.iterdir()) == []


@pytest.mark.fault
@pytest.mark.parametrize("name", ["0123456789abcdef" * 2, "corpus-" + "0123456789abcdef" * 2])
def test_what_a_killed_process_left_is_swept_away(tmp_path, name):
    """But nothing that is being written, and nothing that is another's."""
    kept = [name, "notes.12345678", f"{name}.notes"]
    for other in [*kept, f"{name}.abcd_012", f"{name}.dead.abcd_012"]:
        (tmp_path / other).mkdir()
    (tmp_path / f"{name}.abcd_013").symlink_to(tmp_path / "notes.12345678")
    (tmp_path / "notes.12345678" / "file").touch()
    started = [sys.executable, "-c", WRITES, str(tmp_path / name.replace("0", "f"))]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as writing:
        alive = Path(writing.stdout.readline().strip()).name
        with new_store(tmp_path / name.replace("1", "f")) as aside:
            found = sorted(path.name for path in tmp_path.iterdir())
            assert found == sorted([*kept, alive, aside.name, f"{name}.abcd_013"])
        writing.kill()
        writing.communicate()
    with new_store(tmp_path / name.replace("2", "f")):
        assert not (tmp_path / alive).exists()
    assert (tmp_path / "notes.12345678" / "file").exists()


def test_another_process_was_quicker(path, tmp_path, tokenizer):
    encoder = encoder_of(tokenizer)
    folder = tmp_path / "cache" / "store"
    with new_store(folder) as aside:
        write_examples(aside, [], encoder)
        write(path, folder, encoder)
    assert len(ExampleStore(folder, encoder)) == 59 and [item.name for item in folder.parent.iterdir()] == ["store"]


# -- the name


def test_whatever_changes_changes_the_name(path, tokenizer, tmp_path):
    def name(encoder, *, columns=None, content=None):
        file = RecordFile(path, encoder.template)
        check, _ = check_file(file, encoder)
        check.columns = columns or check.columns
        return store_name(content or content_digest(path), check)

    class Other(type(tokenizer)):
        """A tokenizer that differs in its model only."""

        def __init__(self):
            self.__dict__ |= {name: value for name, value in vars(tokenizer).items() if name != "digest"}
            self.sp_model = _Model(tokenizer.sp_model)

    class _Model:
        def __init__(self, model):
            self.serialized_model_proto = lambda: model.serialized_model_proto() + b"\0"

    same, other = encoder_of(tokenizer), encoder_of(tokenizer)
    other.tokenizer = Other()
    plain = find_template("dureader_qg")
    names = [
        name(same),
        name(other),
        name(same, columns="source = other"),
        name(same, content="other"),
        name(encoder_of(tokenizer, src_length=41)),
        name(encoder_of(tokenizer, tgt_length=31)),
        name(encoder_of(tokenizer, min_tgt_length=1)),
        name(encoder_of(tokenizer, allow_cut_targets=True)),
        name(encoder_of(tokenizer, own_template("答案:{answer}，上下文：{context}[gMASK]", plain.target_prefix))),
        name(encoder_of(tokenizer, replace(plain, target_prefix="问题："))),
    ]
    assert len(set(names)) == len(names)
    assert name(encoder_of(tokenizer)) == names[0]
    assert name(encoder_of(tokenizer, block_position=False)) == names[0]  # positions are not stored


def test_positions_are_the_readers(path, tmp_path, tokenizer):
    write(path, tmp_path / "store", encoder_of(tokenizer))
    example = ExampleStore(tmp_path / "store", encoder_of(tokenizer, block_position=False))[0]
    assert set(example.target_position_ids[1].tolist()) == {1}


def test_digest_of_content(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1")
    digests = {content_digest(tmp_path / "a"), content_digest(tmp_path / "b")}
    (tmp_path / "b" / "x").write_bytes(b"2")
    digests.add(content_digest(tmp_path / "b"))
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    digests.add(content_digest(tmp_path / "b"))
    assert len(digests) == 4
    assert content_digest(tmp_path / "b") in digests


def test_lengths_of_cut_targets(path, tmp_path, tokenizer):
    encoder = encoder_of(tokenizer, tgt_length=18, allow_cut_targets=True)
    store = write(path, tmp_path / "store", encoder)
    assert store.report.cut_targets > 0
    assert store.target_lengths.tolist() == [len(example.labels) for example in store]
    assert max(store.target_lengths) == 18


# -- a store that is not what was written


def damages(folder):
    """(what is done, to which file): bits, sizes and names."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        yield f"{path.name} is gone", path.unlink
        yield f"{path.name} is empty", lambda path=path: path.write_bytes(b"")
        yield f"{path.name} is longer", lambda path=path, data=data: path.write_bytes(data + b"\0")
        for place in range(0, len(data), max(1, len(data) // 20)):
            changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            yield f"byte {place} of {path.name}", lambda path=path, changed=changed: path.write_bytes(changed)


def test_whatever_is_damaged_is_found(path, tmp_path, tokenizer):
    encoder = encoder_of(tokenizer)
    folder = tmp_path / "store"
    write(path, folder, encoder)
    verify_store(folder)
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    missed = []
    for what, damage in list(damages(folder)):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        damage()
        try:
            verify_store(folder)
            missed.append(what)
        except InputError as error:
            assert str(folder) in str(error), what
    assert missed == []


def test_a_seal_that_leads_elsewhere(path, tmp_path, tokenizer):
    write(path, tmp_path / "store", encoder_of(tokenizer))
    seal = tmp_path / "store" / "seal.json"
    files = json.loads(seal.read_text())["files"]
    for wrong in (files | {"../x": files["ids.bin"]}, {"ids.bin": files["ids.bin"]}, {}):
        seal.write_text(json.dumps({"files": wrong}))
        with pytest.raises(InputError, match="seal.json: is not what was written"):
            verify_store(tmp_path / "store")


def test_removed_by_two_at_once(path, tmp_path, tokenizer):
    write(path, tmp_path / "cache" / "store", encoder_of(tokenizer))
    for _ in range(2):
        remove_store(tmp_path / "cache" / "store")
    assert list((tmp_path / "cache").iterdir()) == []
