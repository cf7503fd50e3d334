"""Checkpoints of other programs, in and out; tables that grow and are cut."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glm.checkpoint.convert import export_checkpoint, import_checkpoint
from glm.checkpoint.inspection import inspect_checkpoint, report
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.torch_files import write_torch
from glm.checkpoint.whole import open_model
from glm.errors import InputError, UsageError
from glm.models.unilm import FAMILY
from glm.models.unilm.geometry import SEQ2SEQ, in_task
from glm.models.unilm.weights import HEAD_DENSE, POSITIONS, SEGMENTS, cut_to_task, grown
from tools.unilm_tools import geometry_of, load_folder, random_model, tensors, write_vocabulary

WORDS = 25  # tokens of the tools' vocabulary


@pytest.fixture
def model():
    return random_model(pooler=True, sentence_order=True)


@dataclass(frozen=True)
class Files:
    """A model under the original's names, and what config.json says."""

    tensors: dict[str, np.ndarray]
    config: dict

    def write(self, folder: Path, name: str = "model.safetensors") -> Path:
        folder.mkdir()
        write_vocabulary(folder / "vocab.txt")
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        if name.endswith(".bin"):
            write_torch(folder / name, {key: as_lazy(table) for key, table in self.tensors.items()})
        else:
            save_file(self.tensors, folder / name, metadata={"format": "pt"})
        return folder


def as_lazy(table: np.ndarray) -> LazyTensor:
    return LazyTensor(table.shape, str(table.dtype), lambda: table)


@pytest.fixture
def original(model) -> Files:
    """As UniLM's own files: [out, in], parts apart, no sizes but those of a BERT, types 2 in the file."""
    found = {}
    for name, weight in model.named_parameters():
        table = weight.numpy()
        if name.endswith(FAMILY.weights.linears):
            table = np.ascontiguousarray(table.T)
        names = FAMILY.weights.made_of(name, "huggingface")
        found |= {
            foreign: np.ascontiguousarray(part)
            for foreign, part in zip(names, np.split(table, len(names), axis=0), strict=True)
        }
    config = {"hidden_act": "gelu", "num_attention_heads": 3, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    return Files(found, config)


def forward(model) -> np.ndarray:
    """Logits of a row of each task."""
    ids = [2, *range(5, 14), 3, *range(8, 15), 3]
    rows = [[in_task(task, ids, 11)] for task in range(4)]

    class Pad:
        special_ids, vocab_size, mask_token_id = {}, WORDS, 4

    batch = geometry_of(Pad()).collate(rows, 24, 0)
    return model(**tensors({name: batch[name] for name in batch if name not in ("labels", "order")})).numpy()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.3.bin"])
def test_files_of_the_original(original, model, tmp_path, name):
    """A folder that says neither family nor sizes; the pickle is read, not run."""
    read, _ = load_folder(original.write(tmp_path / "given", name))
    assert (forward(read) == forward(model)).all()


def test_the_last_epoch_is_taken_and_named(original, model, tmp_path):
    folder = original.write(tmp_path / "given", "model.10.bin")
    shutil.copyfile(folder / "model.10.bin", folder / "model.9.bin")
    lines = report(inspect_checkpoint(folder))
    assert lines[0].split() == ["family", "unilm"] and lines[2].split() == ["files", "model.10.bin"]
    assert lines[-1] == "no problems"


def test_recognised_by_its_weights_alone(original, tmp_path):
    """Neither a vocabulary nor a `model_type` in the folder."""
    from glm.checkpoint.loading import find_family

    folder = original.write(tmp_path / "given")
    (folder / "vocab.txt").unlink()
    assert find_family(str(folder)) is FAMILY


@pytest.mark.parametrize("format", ["huggingface", "huggingface-bin", "paddlenlp", "glm"])
def test_export_and_import_again_keep_every_bit(original, tmp_path, format):
    first = tmp_path / "imported"
    import_checkpoint(original.write(tmp_path / "given"), first)
    export_checkpoint(first, tmp_path / "exported", to=format)
    import_checkpoint(tmp_path / "exported", tmp_path / "again")
    before, after = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (first, tmp_path / "again")]
    configs[0].setdefault("layer_norm_eps", 1e-12)
    assert configs[0] == configs[1]
    assert (tmp_path / "exported" / "vocab.txt").is_file()


def test_exported_to_hugging_face_it_has_the_originals_names(original, tmp_path):
    import_checkpoint(original.write(tmp_path / "given"), tmp_path / "imported")
    export_checkpoint(tmp_path / "imported", tmp_path / "exported", to="huggingface")
    found = load_file(tmp_path / "exported" / "model.safetensors")
    assert found.keys() == original.tensors.keys()
    assert all((found[name] == original.tensors[name]).all() for name in found)
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (config["model_type"], config["type_vocab_size"], config["layer_norm_eps"]) == ("bert", 6, 1e-12)


BERT_LOGITS = """
import sys
import numpy, torch, transformers
peer = transformers.BertForPreTraining.from_pretrained(sys.argv[1]).eval()
ids = torch.tensor([[2, *range(5, 14), 3, *range(8, 15), 3]])
segments = torch.tensor([[0] * 11 + [1] * 8])
with torch.no_grad():
    numpy.save(sys.argv[2], peer(ids, token_type_ids=segments).prediction_logits.numpy())
"""


def test_transformers_bert_reads_what_is_exported(original, model, tmp_path, torch_python):
    """Its logits of a row in both directions are ours."""
    export_checkpoint(original.write(tmp_path / "given"), tmp_path / "exported", to="huggingface")
    torch_python(BERT_LOGITS, tmp_path / "exported", tmp_path / "logits.npy")
    np.testing.assert_allclose(forward(model)[0, :19], np.load(tmp_path / "logits.npy")[0], rtol=0, atol=2e-5)


def test_paddlenlps_bert_reads_what_is_exported(original, model, tmp_path):
    import paddle
    from paddlenlp.transformers import BertForPretraining

    export_checkpoint(original.write(tmp_path / "given"), tmp_path / "exported", to="paddlenlp")
    peer = BertForPretraining.from_pretrained(str(tmp_path / "exported"))
    peer.eval()
    ids = paddle.to_tensor([[2, *range(5, 14), 3, *range(8, 15), 3]])
    segments = paddle.to_tensor(np.repeat([[0, 1]], [11, 8], axis=1))
    theirs = peer(ids, token_type_ids=segments)[0].numpy()
    np.testing.assert_allclose(forward(model)[0, :19], theirs.reshape(19, -1), rtol=0, atol=2e-5)


def test_old_names_of_layer_norms(original, model, tmp_path):
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): table
        for name, table in original.tensors.items()
    }
    assert any("gamma" in name for name in renamed)
    read, _ = load_folder(Files(renamed, original.config).write(tmp_path / "given"))
    assert (forward(read) == forward(model)).all()


def test_the_decoder_may_be_there_or_not_but_not_differ(original, model, tmp_path):
    words = original.tensors["bert.embeddings.word_embeddings.weight"]
    copy = {**original.tensors, "cls.predictions.decoder.weight": words.copy()}
    copy["crit_mask_lm_smoothed.one_hot"] = np.zeros((1, 5), np.float32)
    read, _ = load_folder(Files(copy, original.config).write(tmp_path / "given"))
    assert (forward(read) == forward(model)).all()
    copy["cls.predictions.decoder.weight"] = words + 1e-3
    folder = Files(copy, original.config).write(tmp_path / "other")
    with pytest.raises(InputError, match=r"other: cls\.predictions\.decoder\.weight: differs from"):
        open_model(folder)


def test_two_segment_types_grow_to_six(original, model, tmp_path):
    """A BERT's first type is that of all but second parts; logits of both directions stay what they were."""
    name = "bert.embeddings.token_type_embeddings.weight"
    two = original.tensors[name][:2]
    given = Files({**original.tensors, name: two}, original.config).write(tmp_path / "given")
    read, _ = load_folder(given)
    found = read.unilm.encoder.segment_embeddings.weight.numpy()
    assert (found == two[[0, 1, 0, 0, 0, 1]]).all()
    np.testing.assert_allclose(forward(read)[0], forward(model)[0], rtol=0, atol=1e-6)


def weights_of(model) -> dict[str, LazyTensor]:
    return {name: as_lazy(weight.numpy()) for name, weight in model.named_parameters()}


def filled(weights: dict[str, LazyTensor], **options):
    model = random_model(seed=9, **options)
    for name, parameter in model.named_parameters():
        parameter.set_value(weights[name].load())
    return model


def test_four_tables_and_a_fourfold_head_of_one(model):
    weights = grown(weights_of(model), tasks=True)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    sizes = FAMILY.weights.sizes_of(shapes)
    assert sizes["new_pos_ids"] and sizes["relax_projection"] == 4
    assert FAMILY.weights.shapes(sizes | {"num_attention_heads": 3}) == shapes
    wide = {"new_pos_ids": True, "relax_projection": 4, "layer_norm_eps": 1e-12}
    wide = filled(weights, pooler=True, sentence_order=True, **wide)
    np.testing.assert_allclose(forward(wide), forward(model), rtol=0, atol=1e-5)
    assert (cut_to_task(weights, SEQ2SEQ)[POSITIONS].load() == weights_of(model)[POSITIONS].load()).all()


def test_more_positions_repeat_from_the_start(model):
    table = weights_of(model)[POSITIONS].load()
    more = grown(weights_of(model), positions=150)[POSITIONS]
    assert more.shape == (150, 24) and (more.load() == np.concatenate([table, table, table[:30]])).all()


def test_a_fourfold_model_cut_to_a_task():
    """Its position table is the task's; the head is another model's, and as wide as any."""
    model = random_model(new_pos_ids=True, relax_projection=4)
    weights = cut_to_task(weights_of(model), SEQ2SEQ)
    assert weights[POSITIONS].shape == (60, 24) and weights[f"{HEAD_DENSE}.weight"].shape == (24, 24)
    assert (weights[POSITIONS].load() == model.unilm.encoder.position_embeddings.weight.numpy()[:, 72:]).all()
    filled(weights)


@pytest.mark.parametrize("name", [POSITIONS, f"{HEAD_DENSE}.weight"])
def test_a_width_that_is_neither_one_nor_four_is_refused(model, name):
    shapes = {key: tensor.shape for key, tensor in weights_of(model).items()}
    shapes[name] = (shapes[name][0], 48)
    with pytest.raises(InputError, match="is 48 wide, and neither hidden_size 24 nor 4 times as much"):
        FAMILY.weights.sizes_of(shapes)


def test_another_activation_is_refused(original, tmp_path):
    folder = Files(original.tensors, {**original.config, "hidden_act": "relu"}).write(tmp_path / "given")
    with pytest.raises(InputError, match="hidden_act 'relu': a UniLM's is gelu"):
        open_model(folder)


def test_epsilon_of_the_pretraining_script(tmp_path):
    """No file says it: 1e-5 with four tables, 1e-12 without; what a file says goes before."""
    assert random_model().config.layer_norm_eps == 1e-12
    assert random_model(new_pos_ids=True, relax_projection=4).config.layer_norm_eps == 1e-5
    assert random_model(new_pos_ids=True, layer_norm_eps=1e-12).config.layer_norm_eps == 1e-12


def test_a_vocabulary_of_another_size_is_refused(original, tmp_path):
    folder = original.write(tmp_path / "given")
    write_vocabulary(folder / "vocab.txt", "的一是不了")
    with pytest.raises(InputError, match=r"25 words, but the tokenizer has 10, and no more than 0 rows can be filler"):
        load_folder(folder)


def test_no_program_reads_it_in_megatrons_format(original, tmp_path):
    with pytest.raises(UsageError, match="format megatron"):
        export_checkpoint(original.write(tmp_path / "given"), tmp_path / "out", to="megatron")
    assert not (tmp_path / "out").exists()


def test_import_grows_and_cuts(original, tmp_path, capsys):
    """Growing says nothing; cutting the head warns, for its numbers change."""
    given = original.write(tmp_path / "given")
    import_checkpoint(given, tmp_path / "four", positions=80, tasks=4)
    config = open_model(tmp_path / "four").config
    assert (config["max_position_embeddings"], config["new_pos_ids"], config["relax_projection"]) == (80, True, 4)
    assert "LayerNorm" not in capsys.readouterr().err
    import_checkpoint(tmp_path / "four", tmp_path / "one", tasks=1)
    assert "its LayerNorm ran over the parts of all four tasks" in capsys.readouterr().err
    config = open_model(tmp_path / "one").config
    assert (config["max_position_embeddings"], config["new_pos_ids"], config["relax_projection"]) == (80, False, 0)
    with pytest.raises(InputError, match="positions 10: the model has 60"):
        import_checkpoint(given, tmp_path / "fewer", positions=10)
    with pytest.raises(InputError, match="tasks 2: use 1 or 4"):
        import_checkpoint(given, tmp_path / "two", tasks=2)
    assert not (tmp_path / "fewer").exists() and not (tmp_path / "two").exists()


def test_every_weight_has_a_part():
    shapes = FAMILY.weights.shapes(vars(random_model(pooler=True, sentence_order=True).config))
    assert FAMILY.weights.part_of(SEGMENTS) == "embeddings"
    assert {FAMILY.weights.part_of(name) for name in shapes} == {0, 1, *FAMILY.weights.parts}


@pytest.mark.parametrize("format", ["huggingface", "huggingface-bin", "paddlenlp", "glm"])
def test_square_weights_are_told_by_their_names(tmp_path, format):
    """An MLP as wide as the model: no bias tells which way round a file has its weights."""
    model = random_model(intermediate_size=24, pooler=True)
    model.save_pretrained(str(tmp_path / "model"))
    write_vocabulary(tmp_path / "model" / "vocab.txt")
    export_checkpoint(tmp_path / "model", tmp_path / "exported", to=format)
    read, _ = load_folder(tmp_path / "exported")
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(model.parameters(), read.parameters(), strict=True))
