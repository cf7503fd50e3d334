"""`python -m glm quantize`: what a folder in int8 holds, that its texts are those of int8 elsewhere, and what is
wrong with one."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

import finetune_generation
import glm
from glm.__main__ import main
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.cpu.panels import integer_kernel
from glm.errors import InputError
from glm.models import registry
from glm.training import pretrain
from tools.kinds_of_runs import MODELS, ROOT, TOKENIZERS

needs_int8 = pytest.mark.skipif(integer_kernel() is None, reason="this processor has no products of int8")
SIZES = {"glm": {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "max_sequence_length": 128}, **MODELS}
RECORDS = [
    {"context": "扬州位于江苏省中部，著名景点是瘦西湖。", "answer": "江苏省"},
    {"context": "李白是唐代的诗人。", "answer": "李白"},
]
LENGTHS = {"src_length": 60, "tgt_length": 26, "device": "cpu"}


def made(name: str, folder: Path) -> Path:
    """A folder of a small model whose random weights are large enough that its texts differ."""
    family = registry.find(name)
    tokenizer = family.open_tokenizer(TOKENIZERS.get(name, ROOT / "data" / "tokenizer" / "spm.model"))
    settings = folder / "sizes.json"
    settings.write_text(json.dumps({"model_type": name, **SIZES[name]}), encoding="utf-8")
    model = load_model(family, str(settings), load_config(family, str(settings), tokenizer))
    numbers = np.random.default_rng(3)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.set_value(paddle.to_tensor(numbers.normal(0, 0.2, weight.shape).astype("float32")))
    model.save_pretrained(folder / name)
    family.save_tokenizer(tokenizer, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A GLM."""
    return made("glm", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def quantized(folder) -> Path:
    """The same in int8."""
    main(["quantize", str(folder), "--output_dir", f"{folder}-int8"])
    return Path(f"{folder}-int8")


@pytest.fixture
def damaged(quantized, tmp_path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(quantized, tmp_path / "damaged")
    return tmp_path / "damaged"


def loaded(folder: Path):
    family = find_family(str(folder))
    config = load_config(family, str(folder), load_tokenizer(family, str(folder)))
    return load_model(family, str(folder), config, quiet=True)


def test_numbers(folder, quantized):
    """Each is the nearest multiple of a 127th of the largest of its output."""
    saved, exact = load_file(quantized / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {name.removesuffix(".scales") for name in saved} == exact.keys()
    in_int8 = {name for name, tensor in saved.items() if tensor.dtype == np.int8}
    products = [name for name in exact if re.search(r"layers\.\d\.(attention|mlp)\..*weight", name)]
    assert in_int8 == {*products, "glm.word_embeddings.weight"} and len(products) == 8
    for name, weight in exact.items():
        if name not in in_int8:
            np.testing.assert_array_equal(saved[name], weight)
            continue
        axis = 1 if name == "glm.word_embeddings.weight" else 0  # of the inputs
        scales = np.abs(weight).max(axis=axis, keepdims=True) / np.float32(127)
        np.testing.assert_array_equal(saved[f"{name}.scales"], scales)
        np.testing.assert_array_equal(saved[name], np.rint(weight / scales))


def test_a_third_of_the_size(folder, quantized):
    sizes = [Path(place, "model.safetensors").stat().st_size for place in (quantized, folder)]
    assert sizes[0] < sizes[1] / 3


def test_read_as_what_it_means(folder, quantized):
    """Whoever wants numbers gets integers times scales, in the model's own order."""
    before, after = loaded(folder), loaded(quantized)
    for (name, exact), (_, found) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        largest = exact.abs().max().item()
        np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=0, atol=largest / 250, err_msg=name)


@needs_int8
@pytest.mark.parametrize("name", SIZES)
def test_texts(name, tmp_path):
    """Quantized before or when it is loaded, a model of any family writes the same, to the last digit of a score."""
    model = made(name, tmp_path)
    main(["quantize", str(model), "--output_dir", str(tmp_path / "int8")])
    before = glm.load(model, decode_dtype="int8", **LENGTHS).generate(RECORDS, num_beams=3)
    after = glm.load(tmp_path / "int8", **LENGTHS).generate(RECORDS, num_beams=3)
    assert [prediction.as_row() for prediction in before] == [prediction.as_row() for prediction in after]
    assert before[0].error is None
    in_float32 = glm.load(model, **LENGTHS).generate(RECORDS, num_beams=3)
    assert [row.texts[0].score for row in in_float32] != [row.texts[0].score for row in after]


@needs_int8
def test_no_weight_of_a_product_is_ever_float32(quantized, monkeypatch):
    """Weights go from the file into panels one by one, so that loading needs little memory."""
    read = []
    monkeypatch.setattr(
        "glm.checkpoint.tensors.LazyTensor.float32", lambda self: read.append(self.shape) or self.load()
    )
    network = glm.load(quantized, **LENGTHS).network
    rows = network.config.vocab_size
    assert (rows, 64) in read and not any(len(shape) == 2 and shape[1] > 64 for shape in read)
    assert all(parameter._is_initialized() for parameter in network.parameters())


def test_a_damaged_scale(damaged):
    file = damaged / "model.safetensors"
    tensors = load_file(file)
    name = "glm.transformer.layers.1.mlp.dense_h_to_4h.weight"
    for wrong, message in [(np.nan, "is negative, infinite or NaN"), (-1.0, "is negative, infinite or NaN")]:
        tensors[f"{name}.scales"][0, 5] = wrong
        save_file(tensors, file)
        with pytest.raises(InputError, match=re.escape(f"{damaged}: {name}: a scale {message}")):
            loaded(damaged)
    save_file({**tensors, f"{name}.scales": np.ones((1, 7), np.float32)}, file)
    with pytest.raises(InputError, match=re.escape(f"{name}: scales of float32 [1, 7] beside [64, 256]")):
        loaded(damaged)
    del tensors[f"{name}.scales"]
    save_file(tensors, file)
    with pytest.raises(InputError, match=re.escape(f"{damaged}: {name} has no scales; make the folder anew")):
        loaded(damaged)


@pytest.mark.parametrize("stated", [{"dtype": "int8", "version": 2}, {"dtype": "int4", "version": 1}, [], "int8"])
def test_another_version(damaged, stated):
    config = json.loads((damaged / "config.json").read_text(encoding="utf-8"))
    (damaged / "config.json").write_text(json.dumps({**config, "quantization": stated}), encoding="utf-8")
    with pytest.raises(InputError, match=r"config.json: quantization is .*, and this version reads .*make the folder"):
        loaded(damaged)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_weight_that_is_no_number(folder, tmp_path, wrong):
    shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    name = "glm.transformer.layers.0.attention.dense.weight"
    tensors[name][3, 2] = wrong
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(InputError, match=rf"{name}: row 2 has an infinite number or NaN"):
        main(["quantize", str(tmp_path / "model"), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_it_is_not_for(quantized, folder, tmp_path):
    with pytest.raises(InputError, match="is quantized to int8, which is for prediction; quantizing needs the folder"):
        main(["quantize", str(quantized), "--output_dir", str(tmp_path / "again")])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="full"):
        main(["quantize", str(folder), "--output_dir", str(tmp_path / "full")])
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_training_refuses_it(quantized, tmp_path, capsys):
    options = [f"--model_name_or_path={quantized}", f"--output_dir={tmp_path / 'run'}", "--device=cpu"]
    data = ROOT / "data"
    lengths = ["--src_length=96", "--tgt_length=32", "--do_train"]
    files = [f"--train_file={data / 'train.json'}"]
    with pytest.raises(InputError, match="is quantized to int8, which is for prediction; training needs"):
        finetune_generation.main([*options, *lengths, *files])
    texts = tmp_path / "texts.txt"
    texts.write_text("一句话。\n" * 50, encoding="utf-8")
    with pytest.raises(InputError, match="is quantized to int8, which is for prediction; training needs"):
        pretrain.main([*options, f"--train_data={texts}", "--max_steps=1", "--seq_length=32"])


def test_inspect_names_it(quantized, capsys):
    main(["checkpoint", "inspect", str(quantized)])
    shown = capsys.readouterr().out
    assert "format         quantized" in shown and "no problems" in shown
