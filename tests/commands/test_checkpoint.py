"""`python -m glm checkpoint`: what it prints, writes and returns."""

import subprocess
import sys
from pathlib import Path

import pytest

from glm.checkpoint.whole import open_model
from glm.commands.checkpoint import main
from glm.errors import InputError, UsageError
from tools.checkpoint_tools import snapshot, tiny_weights, write_config, write_glm, write_megatron

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def megatron(tmp_path) -> Path:
    """Four ranks, with a configuration and a tokenizer."""
    folder = write_megatron(tmp_path / "megatron", tiny_weights(), degree=4)
    write_config(folder)
    (folder / "cog-pretrain.model").write_text("tokenizer")
    return folder


def test_import(megatron, tmp_path, capsys):
    assert main(["import", str(megatron), str(tmp_path / "glm")]) is None
    assert sorted(snapshot(tmp_path / "glm")) == ["cog-pretrain.model", "config.json", "model.safetensors"]
    shown = capsys.readouterr()
    summary = "format megatron, 4 ranks, 16,128 parameters in float16, no published size"
    assert shown.out == f"{megatron} ({summary}) -> {tmp_path / 'glm'}\n"
    assert shown.err == ""


def test_export_and_reshard(megatron, tmp_path, capsys):
    main(["export", str(megatron), str(tmp_path / "parts"), "--to", "paddlenlp", "--tensor_parallel_degree", "2"])
    main(["reshard", str(tmp_path / "parts"), str(tmp_path / "whole"), "--tensor_parallel_degree", "1"])
    assert open_model(tmp_path / "parts").summary.startswith("format paddlenlp, 2 ranks, ")
    assert open_model(tmp_path / "whole").summary.startswith("format paddlenlp, 16,128 ")
    assert (tmp_path / "whole" / "cog-pretrain.model").read_text() == "tokenizer"


def test_a_missing_tokenizer_is_said(tmp_path, capsys):
    main(["import", str(write_glm(tmp_path / "m", tiny_weights())), str(tmp_path / "x")])
    message = f"{tmp_path / 'x'}: no tokenizer came along; put cog-pretrain.model there\n"
    assert capsys.readouterr().err == message


def test_inspect(megatron, capsys):
    assert main(["inspect", str(megatron)]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = ", ".join(f"1000/mp_rank_0{rank}_model_states.pt" for rank in range(4))
    size = sum(path.stat().st_size for path in (megatron / "1000").iterdir())
    assert lines[:7] == [
        "family         glm",
        "format         megatron",
        f"files          {files}",
        "ranks          4",
        "preset         -",
        "linear weights [out, in] (PyTorch)",
        "tensors        116: 116 float16",
    ]
    assert lines[7].startswith("size           ") and lines[7].endswith(f" bytes of tensors, {size:,} bytes of files")
    assert lines[9] == "rank 0" and lines[10].split() == ["word_embeddings.weight", "float16", "[12,", "24]"]
    assert lines[-1] == "no problems"


def test_inspect_tells_the_problem_and_all_else(megatron, capsys):
    write_config(megatron, vocab_size=64)
    assert main(["inspect", str(megatron)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "format         megatron" and lines[10].startswith("word_embeddings.weight")
    assert lines[-2:] == [
        f"problem: {megatron}: the configuration is contradictory",
        "  vocab_size: 48 in the weights, 64 in config.json",
    ]


def test_a_preset_that_does_not_fit(megatron, tmp_path):
    with pytest.raises(InputError, match="num_layers: 2 in the weights, .*24 in the preset THUDM/glm-large-chinese"):
        main(["import", str(megatron), str(tmp_path / "x"), "--preset", "glm-large-chinese"])
    assert not (tmp_path / "x").exists()


def test_ranks_that_a_format_has_not(megatron, tmp_path):
    with pytest.raises(UsageError, match="tensor_parallel_degree 2: the format huggingface is one whole model"):
        main(["export", str(megatron), str(tmp_path / "x"), "--to", "huggingface", "--tensor_parallel_degree", "2"])


@pytest.mark.parametrize("arguments", ["", "export a b", "export a b --to onnx", "import a"])
def test_wrong_usage(arguments):
    with pytest.raises(UsageError, match="--help lists the options"):
        main(arguments.split())


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "glm", "checkpoint", "import", str(tmp_path / "gone"), str(tmp_path / "x")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {tmp_path / 'gone'}: no such folder\n")
