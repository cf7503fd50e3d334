"""An exported folder in transformers, in a Python of its own that has torch (`GLM_TORCH_PYTHON`): the same numbers."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest

from glm.checkpoint.convert import export_checkpoint, import_checkpoint
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.geometry import BlankInfilling, GLMGeometry
from glm.models.protocol import IGNORE_INDEX, GeometryOptions

SCRIPT = Path(__file__).with_name("torch_huggingface.py")
EXPORTED = {"configuration_glm.py", "modeling_glm.py", "tokenization_glm.py", "generation_config.json"}


@pytest.fixture(scope="module")
def saved(tiny_model, tokenizer, tmp_path_factory):
    """A model and its folder."""
    folder = tmp_path_factory.mktemp("saved")
    model = tiny_model(seed=5, vocab_size=352, max_sequence_length=64)
    model.save_pretrained(str(folder / "model"), safe_serialization=True)
    tokenizer.save_pretrained(str(folder / "model"))
    export_checkpoint(folder / "model", folder / "exported", to="huggingface")
    return model, folder


@pytest.mark.parametrize("to", ["huggingface", "huggingface-bin"])
def test_an_export_brings_its_code_and_comes_back(saved, tmp_path, to):
    model, folder = saved
    export_checkpoint(folder / "model", tmp_path / "out", to=to)
    assert EXPORTED <= {path.name for path in (tmp_path / "out").iterdir()}
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["auto_map"]["AutoModelForSeq2SeqLM"] == "modeling_glm.GLMForConditionalGeneration"
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text("utf-8"))
    assert config["auto_map"] == {"AutoTokenizer": ["tokenization_glm.GLMTokenizer", None]}
    import_checkpoint(tmp_path / "out", tmp_path / "back")
    from safetensors.numpy import load_file

    back = load_file(tmp_path / "back" / "model.safetensors")
    assert {name: array.tolist() for name, array in back.items()} == {
        name: weight.numpy().tolist() for name, weight in model.named_parameters()
    }


def test_without_a_tokenizer_there_is_no_code(saved, tmp_path, capsys):
    _, folder = saved
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((folder / "model" / name).read_bytes())
    export_checkpoint(tmp_path / "bare", tmp_path / "out", to="huggingface")
    assert not EXPORTED & {path.name for path in (tmp_path / "out").iterdir()}
    assert "so transformers cannot run the export" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("GLM_TORCH_PYTHON"), reason="set GLM_TORCH_PYTHON to a Python with torch")
def test_transformers_computes_the_same(saved, tokenizer, tmp_path):
    model, folder = saved
    ids_of = {"sop_token_id": tokenizer.sop_token_id, "eop_token_id": tokenizer.eop_token_id}
    geometry = BlankInfilling(mask_token_ids=tokenizer.mask_token_ids, **ids_of)
    random = np.random.default_rng(0)
    examples = []
    for length, blanks, place in ((9, 1, 4), (14, 2, 0), (5, 1, 5)):
        source = random.integers(10, 340, length).tolist()
        masks = list(tokenizer.mask_token_ids)[:blanks]
        source[place:place] = masks[:1]
        source += masks[1:]
        examples.append(geometry.example(source, [random.integers(10, 340, 4).tolist()] * blanks, tgt_length=9))
    width = max(map(len, examples))
    ids = np.full((len(examples), width), tokenizer.pad_token_id)
    there, labels = np.zeros_like(ids), np.full_like(ids, IGNORE_INDEX)
    for row, example in enumerate(examples):
        start = width - len(example) if row == 1 else 0  # padding on either side
        end = start + len(example)
        ids[row, start:end] = [*example.source_ids, *example.target_ids]
        there[row, start:end] = 1
        labels[row, end - len(example.labels) : end] = example.labels
    sources = [[*random.integers(10, 340, length).tolist(), tokenizer.mask_token_ids[2]] for length in (6, 9)]
    prompts = [geometry.prompt(source) for source in sources]
    longest = max(map(len, prompts))
    padded = np.full((2, longest), tokenizer.pad_token_id)
    for row, prompt in enumerate(prompts):
        padded[row, longest - len(prompt) :] = prompt.input_ids
    arrays = {"ids": ids, "there": there, "labels": labels, "prompts": padded}
    begins = longest - np.array([[len(prompt)] for prompt in prompts])
    arrays["prompts_there"] = (np.arange(longest)[None] >= begins).astype(np.int64)
    np.savez(tmp_path / "in.npz", **arrays)
    written = ["松江有多少人口？[MASK]", " 青石镇 位于[sMASK]，[MASK]。", "谁写了这本书？", "答：[gMASK]"]
    (tmp_path / "texts.json").write_text(json.dumps(written), encoding="utf-8")
    python = os.environ["GLM_TORCH_PYTHON"]
    command = [python, str(SCRIPT), str(folder / "exported"), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(tmp_path / "out.npz")
    for row, example in enumerate(examples):
        own = ours(model, tokenizer, example)
        theirs = found["logits"][row][there[row].astype(bool)][-len(own) :]
        assert np.abs(theirs - own).max() < 1e-5 * max(1.0, np.abs(own).max())
    config = GenerationConfig(tgt_length=8, num_beams=1, no_repeat_ngram_size=0)
    for place, texts in generate(model, prompts, config, end_token_id=tokenizer.eop_token_id):
        row = found["greedy"][place, longest:].tolist()
        ended = row.index(tokenizer.eop_token_id) if tokenizer.eop_token_id in row else len(row)
        assert row[:ended] == list(texts[0].tokens)
    tokenized = json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))
    assert tokenized["ids"] == [prompt_ids(tokenizer, text) for text in written]
    assert [text.replace(" ", "") for text in tokenized["texts"]] == [
        tokenizer.decode_ids(ids).replace(" ", "") for ids in tokenized["ids"]
    ]


def prompt_ids(tokenizer, text: str) -> list[int]:
    """What the toolkit makes of a text with blanks."""
    geometry = GLMGeometry(tokenizer, GeometryOptions(blank="[gMASK]"))
    parts = [part for part in re.split(r"(\[[sg]?MASK\])", text) if part]
    parts = parts if any(part in tokenizer.special_ids for part in parts) else [*parts, "[gMASK]"]
    parts = [part if part in tokenizer.special_ids else tokenizer.encode_text(part) for part in parts]
    return [*geometry.lay_out_blanks(parts), tokenizer.sop_token_id]


def ours(model, tokenizer, example) -> np.ndarray:
    """Logits of the labelled positions of an example alone, [labels, V], in float32."""
    geometry = GLMGeometry(tokenizer, GeometryOptions(blank="[gMASK]"))
    batch = geometry.collate([[example]], len(example), tokenizer.pad_token_id)
    with paddle.no_grad():
        return model.labelled_logits(**{name: paddle.to_tensor(array) for name, array in batch.items()}).numpy()
