"""Conversions: every format into every other, bit for bit; what does not fit is refused before anything is written."""

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glm.checkpoint.convert import RANKED, WRITERS, export_checkpoint, import_checkpoint, reshard_checkpoint
from glm.checkpoint.formats import open_checkpoint
from glm.checkpoint.paddle_files import write_paddle
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.whole import open_model
from glm.errors import InputError, UsageError
from glm.models.glm import FAMILY as GLM
from tools.checkpoint_tools import (
    TINY,
    Tensor,
    as_torch,
    megatron_rank,
    snapshot,
    tiny_weights,
    write_config,
    write_glm,
    write_megatron,
    write_safetensors,
    write_torch,
)

FORMATS = tuple(form for form in WRITERS if form not in GLM.weights.foreign_to)
LAYOUTS = [(form, degree) for form in FORMATS for degree in ((1, 2, 3, 4) if form in RANKED else (1,))]


def assert_same(folder: Path, weights: dict[str, np.ndarray], dtype: str = "float16") -> None:
    model = open_model(folder)
    assert set(model.weights) == set(weights)
    for name, tensor in model.weights.items():
        assert tensor.dtype == dtype and tensor.load().tobytes() == np.ascontiguousarray(weights[name]).tobytes(), name


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory) -> dict[tuple[str, int], Path]:
    """One model in every layout; not to be written to."""
    root = tmp_path_factory.mktemp("everywhere")
    start = write_glm(root / "start", tiny_weights(dtype="bfloat16"), dtype="bfloat16")
    folders = {}
    for form, degree in LAYOUTS:
        folders[form, degree] = root / f"{form}-{degree}"
        export_checkpoint(start, folders[form, degree], to=form, degree=degree)
    return folders


@pytest.mark.parametrize(("form", "degree"), LAYOUTS)
def test_every_layout_is_recognised_and_holds_the_same_bits(everywhere, form, degree):
    source = open_checkpoint(everywhere[form, degree])
    assert (source.format, len(source.ranks)) == (form, degree)
    assert_same(everywhere[form, degree], tiny_weights(dtype="bfloat16"), "bfloat16")


@pytest.mark.parametrize("start", LAYOUTS, ids=str)
def test_every_layout_into_every_other(everywhere, tmp_path, start):
    """The files are the same whichever way they came about."""
    for form, degree in LAYOUTS:
        target = tmp_path / f"{form}-{degree}"
        export_checkpoint(everywhere[start], target, to=form, degree=degree)
        assert snapshot(target) == snapshot(everywhere[form, degree]), (start, form, degree)


@pytest.mark.parametrize("form", RANKED)
def test_resharding(everywhere, tmp_path, form):
    for first, second in itertools.permutations([1, 2, 3, 4], 2):
        target = tmp_path / f"{first}-{second}"
        reshard_checkpoint(everywhere[form, first], target, degree=second)
        assert snapshot(target) == snapshot(everywhere[form, second])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_import_keeps_the_dtype(tmp_path, dtype):
    weights = tiny_weights(dtype=dtype)
    write_glm(tmp_path / "start", weights, dtype=dtype)
    for form in FORMATS:
        export_checkpoint(tmp_path / "start", tmp_path / form, to=form)
        import_checkpoint(tmp_path / form, tmp_path / f"from {form}")
        assert_same(tmp_path / f"from {form}", weights, dtype)


def test_a_model_of_base_size_into_every_format_and_back(long_tests, tmp_path):
    """12 layers of 768, 50048 words: every pair of formats, those with ranks in two."""
    sizes = {"num_layers": 12, "vocab_size": 50048, "hidden_size": 768, "max_sequence_length": 1024}
    start = write_glm(tmp_path / "start", tiny_weights(**sizes), **sizes)
    for first in FORMATS:
        export_checkpoint(start, tmp_path / first, to=first, degree=2 if first in RANKED else 1)
    for first in FORMATS:
        for second in FORMATS:
            target = tmp_path / f"{first}-{second}"
            export_checkpoint(tmp_path / first, target, to=second, degree=2 if second in RANKED else 1)
            assert digests(target) == digests(tmp_path / second), (first, second)
            shutil.rmtree(target)
        import_checkpoint(tmp_path / first, tmp_path / "back")
        assert digests(tmp_path / "back")["model.safetensors"] == digests(start)["model.safetensors"], first
        shutil.rmtree(tmp_path / "back")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


# -- files that others wrote


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("tracker", ["latest", "latest_checkpointed_iteration.txt"])
def test_megatron_ranks_are_merged(tmp_path, degree, tracker):
    weights = tiny_weights()
    source = write_megatron(tmp_path / "megatron", weights, degree=degree, tracker=tracker)
    write_config(source)
    import_checkpoint(source, tmp_path / "glm")
    assert_same(tmp_path / "glm", weights)


def test_a_megatron_folder_with_a_preset_instead_of_a_configuration(tmp_path):
    source = write_megatron(tmp_path / "megatron", tiny_weights(), degree=2)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    import_checkpoint(source, tmp_path / "glm", preset=str(tmp_path / "tiny.json"))
    assert_same(tmp_path / "glm", tiny_weights())
    import_checkpoint(source / "1000", tmp_path / "inner", preset=str(tmp_path / "tiny.json"))
    assert snapshot(tmp_path / "inner") == snapshot(tmp_path / "glm")


def test_ranks_of_two_different_models(tmp_path):
    source = write_megatron(tmp_path / "megatron", tiny_weights(), degree=2)
    other = write_megatron(tmp_path / "other", tiny_weights(seed=1), degree=2)
    write_config(source)
    shutil.copy(other / "1000" / "mp_rank_01_model_states.pt", source / "1000")
    with pytest.raises(InputError, match=f"{source}: glm.* has other numbers on rank 1 than on rank 0"):
        import_checkpoint(source, tmp_path / "glm")
    assert not (tmp_path / "glm").exists() and not list(tmp_path.glob(".*"))


def test_ranks_with_other_weights_shapes_or_dtypes(tmp_path):
    weights = as_torch(tiny_weights())
    broken = {
        "holds other weights than rank 0: glm.word_embeddings.weight": lambda part: part.pop("word_embeddings.weight"),
        r"word_embeddings.weight: \[20, 24\] float16 on rank 1, \[24, 24\]": lambda part: part.update(
            {"word_embeddings.weight": part["word_embeddings.weight"][:20]}
        ),
    }
    for number, (reason, spoil) in enumerate(broken.items()):
        source = write_megatron(tmp_path / f"m{number}", tiny_weights(), degree=2)
        write_config(source)
        part = megatron_rank(weights, 1, 2)
        spoil(part)
        write_torch(source / "1000" / "mp_rank_01_model_states.pt", {"module": part})
        with pytest.raises(InputError, match=reason):
            open_model(source)


def test_a_rank_that_is_missing(tmp_path):
    source = write_megatron(tmp_path / "megatron", tiny_weights(), degree=3)
    (source / "1000" / "mp_rank_01_model_states.pt").unlink()
    with pytest.raises(InputError, match="of ranks 0 to 2 the files of 1 are missing"):
        open_checkpoint(source)


@pytest.mark.parametrize("prefix", ["", "glm."])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_hugging_face_bin(tmp_path, prefix, legacy, wrapped):
    weights = as_torch(tiny_weights(), prefix=prefix)
    source = tmp_path / "hf"
    source.mkdir()
    write_torch(source / "pytorch_model.bin", {"module": weights} if wrapped else weights, legacy=legacy)
    write_config(source, architectures=["GLMModel"], auto_map={"AutoModel": "modeling_glm.GLMModel"})
    assert open_checkpoint(source).format == "huggingface-bin"
    import_checkpoint(source, tmp_path / "glm")
    assert_same(tmp_path / "glm", tiny_weights())


@pytest.mark.parametrize("kind", ["bin", "safetensors", "pdparams"])
def test_several_files_with_an_index(tmp_path, kind):
    source = sharded(tmp_path / "source", kind)
    import_checkpoint(source, tmp_path / "glm")
    assert_same(tmp_path / "glm", tiny_weights())


def sharded(folder: Path, kind: str) -> Path:
    """A folder in which the weights are in two files and an index says where."""
    folder.mkdir()
    write_config(folder)
    weights = tiny_weights() if kind == "pdparams" else as_torch(tiny_weights())
    stem = {"bin": "pytorch_model", "safetensors": "model", "pdparams": "model_state"}[kind]
    names = list(weights)
    where = {}
    for number, half in enumerate((names[:11], names[11:]), start=1):
        file = f"{stem}-{number:05}-of-00002.{kind}"
        part = {name: weights[name] for name in half}
        where |= dict.fromkeys(part, file)
        if kind == "bin":
            write_torch(folder / file, part)
        elif kind == "safetensors":
            write_safetensors(folder / file, part, dtype="float16", framework="pt")
        else:
            lazy = {n: LazyTensor(a.shape, "float16", lambda a=a: a) for n, a in part.items()}
            write_paddle(folder / file, lazy)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.mark.fault
@pytest.mark.parametrize(
    "name",
    [
        "../secret.bin",
        "/etc/passwd",
        "a/b.bin",
        "..",
        "",
        ".",
        "a\\b.bin",
        "x\0.bin",
        "./x.bin",
        "a" * 5000,
        "问" * 100,
    ],
)
def test_an_index_that_leaves_its_folder(tmp_path, name):
    source = sharded(tmp_path / "source", "bin")
    write_torch(tmp_path / "secret.bin", as_torch(tiny_weights()))
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="names a file outside its folder|which is not there"):
        open_checkpoint(source)


@pytest.mark.parametrize("index", [{"weight_map": {}}, {"weight_map": []}, [], {}, {"weight_map": {"a": "gone.bin"}}])
def test_an_index_of_nothing(tmp_path, index):
    source = sharded(tmp_path / "source", "bin")
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="pytorch_model.bin.index.json"):
        open_checkpoint(source)


def test_a_weight_in_two_files(tmp_path):
    source = sharded(tmp_path / "source", "bin")
    shutil.copy(source / "pytorch_model-00001-of-00002.bin", source / "again.bin")
    index = json.loads((source / "pytorch_model.bin.index.json").read_text())
    index["weight_map"]["more"] = "again.bin"
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is in another file, too"):
        open_checkpoint(source)


@pytest.mark.fault
@pytest.mark.parametrize("iteration", ["../elsewhere", "/tmp", "", "a/b", "..", "9" * 10**6, "问" * 100])
def test_a_tracker_that_leaves_its_folder(tmp_path, iteration):
    source = write_megatron(tmp_path / "megatron", tiny_weights(), degree=1)
    shutil.copytree(source / "1000", tmp_path / "elsewhere")
    (source / "latest").write_text(iteration)
    with pytest.raises(InputError, match="is not the name of a folder|no such folder"):
        open_checkpoint(source)


def test_a_missing_last_rank(tmp_path):
    source = write_glm(tmp_path / "m", tiny_weights())
    export_checkpoint(source, tmp_path / "ranks", to="megatron", degree=4)
    (tmp_path / "ranks" / "0" / "mp_rank_03_model_states.pt").unlink()
    with pytest.raises(InputError, match="ranks/0: the files are of 4 ranks, but there are 3 of them$"):
        open_checkpoint(tmp_path / "ranks")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model_state.pdparams"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 670\n", "a pointer of Git LFS; fetch"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page; download"),
    ],
)
def test_what_a_failed_download_leaves(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{tmp_path / name}: not a readable \w+ file \({reason}"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("safetensors", "the file ends within its header|not fully covered"),
        ("bin", "archive is missing or damaged: cut"),
    ],
)
def test_a_truncated_download(tmp_path, kind, reason):
    (file,) = sharded(tmp_path / "source", kind).glob(f"*1-of-00002.{kind}")
    content = file.read_bytes()
    for length in (100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=f"{file}: not a readable .*({reason})"):
            open_checkpoint(tmp_path / "source")


def test_tensors_that_share_bytes(tmp_path):
    array = np.zeros(100, "<f2")
    tree = {
        "a": Tensor(array, "float16", shape=(60,), key="0"),
        "b": Tensor(array, "float16", offset=50, shape=(50,), key="0"),
    }
    write_torch(tmp_path / "pytorch_model.bin", tree)
    with pytest.raises(InputError, match="the bytes of a and b overlap"):
        open_checkpoint(tmp_path)


def test_safetensors_are_preferred_to_pickles(tmp_path):
    source = write_glm(tmp_path / "m", tiny_weights())
    (source / "model_state.pdparams").write_bytes(b"not read")
    (source / "pytorch_model.bin").write_bytes(b"not read")
    assert open_checkpoint(source).format == "glm"


def test_folders_that_are_no_checkpoint(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "lora_config.json").write_text("{}")
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "prefix_config.json").write_text("{}")
    reasons = {
        "file": "is a file",
        "gone": "no such folder",
        "empty": "the folder has no weights",
        "adapter": "a LoRA adapter without its model; merge them with python -m glm merge",
        "prefix": r"a prefix without its model; give the folder of its model \(base_model_name_or_path there\)",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=f"{tmp_path / name}: {reason}"):
            open_checkpoint(tmp_path / name)


# -- what comes out


def test_tokenizer_and_settings_come_along(tmp_path):
    source = write_glm(tmp_path / "m", tiny_weights(), output_dropout_prob=0.25, bad_words_id=[40])
    for name in ("cog-pretrain.model", "finetune_config.json"):
        (source / name).write_text(name)
    (source / "optimizer.pdopt").write_text("stays")
    export_checkpoint(source, tmp_path / "x", to="megatron", degree=2)
    import_checkpoint(tmp_path / "x", tmp_path / "y")
    assert sorted(snapshot(tmp_path / "y")) == [
        "cog-pretrain.model",
        "config.json",
        "finetune_config.json",
        "model.safetensors",
    ]
    assert open_model(tmp_path / "y").config == open_model(source).config
    assert_same(tmp_path / "y", tiny_weights())  # gMASK's row, too: it was its own before


@pytest.mark.parametrize(("form", "degree"), [("huggingface", 2), ("huggingface-bin", 2), ("megatron", 0)])
def test_ranks_that_a_format_cannot_have(tmp_path, form, degree):
    source = write_glm(tmp_path / "m", tiny_weights())
    with pytest.raises(UsageError, match=f"tensor_parallel_degree {degree}: "):
        export_checkpoint(source, tmp_path / "x", to=form, degree=degree)
    export_checkpoint(source, tmp_path / "hf", to="huggingface")
    with pytest.raises(UsageError, match="the format huggingface is one whole model"):
        reshard_checkpoint(tmp_path / "hf", tmp_path / "x", degree=2)
    assert not (tmp_path / "x").exists()


def test_ranks_that_do_not_divide(tmp_path):
    source = write_glm(tmp_path / "m", tiny_weights())
    with pytest.raises(
        InputError,
        match="degree 5: does not divide num_attention_heads 12 and vocab_size 48; possible are 1, 2, 3, 4, 6, 12$",
    ):
        export_checkpoint(source, tmp_path / "x", to="megatron", degree=5)
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over(tmp_path):
    source = write_glm(tmp_path / "m", tiny_weights())
    before = snapshot(source)
    (tmp_path / "file").write_text("mine")
    for target in (source, tmp_path / "file", tmp_path):
        with pytest.raises(InputError, match="exists; choose a new folder"):
            import_checkpoint(source, target)
    assert snapshot(source) == before and (tmp_path / "file").read_text() == "mine"


def test_a_disk_without_room(tmp_path, monkeypatch):
    source = write_glm(tmp_path / "m", tiny_weights())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(InputError, match=r"0.0 GB are needed, 0.0 GB are free"):
        import_checkpoint(source, tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
