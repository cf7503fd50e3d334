"""Logits of checkpoints: those of a forward that reads the same files by itself, PyTorch's (opt-in) or PaddleNLP's."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.transformers.glm.configuration import GLMConfig as TheirConfig
from paddlenlp.transformers.glm.modeling import GLMForConditionalGeneration as TheirGLM

from glm.checkpoint.convert import RANKED, WRITERS, export_checkpoint, import_checkpoint
from glm.checkpoint.loading import load_model
from glm.checkpoint.whole import open_model
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from reference.geometry import build_example

TORCH_GLM = Path(__file__).resolve().parents[1] / "reference" / "torch_glm.py"
SIZES = {"num_layers": 2, "vocab_size": 40, "hidden_size": 24, "num_attention_heads": 4, "max_sequence_length": 20}
SOP, EOP, MASK = 36, 37, 39
SOURCE, TARGET = [32, 5, 6, MASK, 7, 30], [11, 12, 13, 14]


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    """ids [L], positions [2, L] and mask [L, L] of a source and the beginning of its target."""
    example = build_example(
        SOURCE, [TARGET], mask_ids={MASK}, sop=SOP, eop=EOP, pad=30, src_length=len(SOURCE), tgt_length=1 + len(TARGET)
    )
    return {
        "ids": np.array(example["input_ids"]),
        "positions": np.array(example["position_ids"]),
        "mask": np.array(example["attention_mask"], dtype=bool),
    }


def our_logits(folder: Path) -> np.ndarray:
    """The logits [1 + len(TARGET), V] of Part B from a folder of any format: after each prefix of the target."""
    geometry = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
    model = load_model(GLM, str(folder), GLMConfig(**open_model(folder).config))
    model.eval()
    return model.prefill([geometry.prompt(SOURCE, opening=TARGET[:given]) for given in range(1 + len(TARGET))])[0]


def their_logits(model: TheirGLM, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The same from PaddleNLP's class."""
    model.eval()
    mask = inputs["mask"][None, None].astype("int64")
    tensors = (paddle.to_tensor(array) for array in (inputs["ids"][None], inputs["positions"][None], mask))
    with paddle.no_grad():
        return model(*tensors)[0].numpy()[0, len(SOURCE) :]


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape == (5, 40) and theirs.std() > 0.1
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.fixture
def theirs() -> TheirGLM:
    """PaddleNLP's model with random weights, biases and norms too."""
    model = TheirGLM(TheirConfig(**SIZES, output_predict=True))
    generator = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("layernorm.weight") else 0.0
        parameter.set_value(generator.normal(centre, 0.2, parameter.shape).astype("float32"))
    return model


@pytest.mark.parametrize("safe", [True, False])
def test_what_paddlenlp_saves(tmp_path, theirs, inputs, safe):
    theirs.save_pretrained(str(tmp_path / "theirs"), safe_serialization=safe)
    assert open_model(tmp_path / "theirs").source.format == ("glm" if safe else "paddlenlp")
    assert_close(our_logits(tmp_path / "theirs"), their_logits(theirs, inputs))


@pytest.mark.parametrize("form", ["glm", "paddlenlp"])
def test_paddlenlp_loads_what_is_written(tmp_path, theirs, inputs, form):
    theirs.save_pretrained(str(tmp_path / "start"), safe_serialization=True)
    export_checkpoint(tmp_path / "start", tmp_path / "ours", to=form)
    loaded = TheirGLM.from_pretrained(str(tmp_path / "ours"))
    assert (their_logits(loaded, inputs) == their_logits(theirs, inputs)).all()


@pytest.mark.parametrize(
    ("form", "degree"), [(form, 2 if form in RANKED else 1) for form in WRITERS if form not in GLM.weights.foreign_to]
)
def test_every_format_loads_directly_and_is_named(tmp_path, theirs, inputs, capsys, form, degree):
    theirs.save_pretrained(str(tmp_path / "start"), safe_serialization=True)
    export_checkpoint(tmp_path / "start", tmp_path / "x", to=form, degree=degree)
    assert_close(our_logits(tmp_path / "x"), their_logits(theirs, inputs))
    ranks = ", 2 ranks" if degree == 2 else ""
    assert f"model {tmp_path / 'x'}: format {form}{ranks}, 16," in capsys.readouterr().err


# -- PyTorch


def torch_logits(torch_python, folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    np.savez(folder.parent / "inputs.npz", **inputs)
    code = f"import runpy; runpy.run_path({str(TORCH_GLM)!r}, run_name='__main__')"
    torch_python(code, "logits", folder, folder.parent / "inputs.npz", folder.parent / "logits.npy")
    return np.load(folder.parent / "logits.npy")[len(SOURCE) :]


@pytest.mark.parametrize(
    ("form", "ranks"),
    [("safetensors", 1), ("bin", 1), ("legacy-bin", 1), ("sharded-bin", 1), ("megatron", 1), ("megatron", 4)],
)
def test_what_torch_saves(torch_python, tmp_path, inputs, form, ranks):
    code = f"import runpy; runpy.run_path({str(TORCH_GLM)!r}, run_name='__main__')"
    torch_python(code, "write", tmp_path / "theirs", form, ranks)
    expected = torch_logits(torch_python, tmp_path / "theirs", inputs)
    assert_close(our_logits(tmp_path / "theirs"), expected)
    import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    assert_close(our_logits(tmp_path / "ours"), expected)


@pytest.mark.parametrize(
    ("form", "degree"), [("huggingface", 1), ("huggingface-bin", 1), ("megatron", 1), ("megatron", 2)]
)
def test_torch_computes_the_same_from_what_is_written(torch_python, tmp_path, theirs, inputs, form, degree):
    theirs.save_pretrained(str(tmp_path / "start"), safe_serialization=True)
    export_checkpoint(tmp_path / "start", tmp_path / "x", to=form, degree=degree)
    assert_close(their_logits(theirs, inputs), torch_logits(torch_python, tmp_path / "x", inputs))
