"""mT5 by the commands of the toolkit: trained, saved, resumed, predicted; and what it refuses."""

import json

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file

from glm.__main__ import main
from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.whole import open_model
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.mt5 import FAMILY
from tools.run_tools import logged, make_workspace, read_lines

SIZES = {"model_type": "mt5", "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1}
SIZES |= {"num_heads": 2, "dropout_rate": 0.0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentences):
    folder = tmp_path_factory.mktemp("mt5")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(folder / "spiece"), vocab_size=330, character_coverage=1.0,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    space = make_workspace(folder, folder / "spiece.model")
    (folder / "model.json").write_text(json.dumps(SIZES), encoding="utf-8")
    return space


TASK = {"template": "答案：{answer}，上下文：{context}[gMASK]"}


@pytest.fixture(scope="module")
def trained(workspace):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "do_eval": True, **TASK}
    return workspace.finetune("run", dev_file=workspace.folder / "dev.json", **options)


def test_learns_and_generates(workspace, trained, tmp_path):
    losses = logged(trained, "loss")
    assert losses[-1] < losses[0]
    assert registry.of_model(str(trained)) is FAMILY
    dev = workspace.folder / "dev.json"
    workspace.predict(model_name_or_path=trained, test_file=dev, output_file=tmp_path / "o.jsonl")
    rows, then = read_lines(tmp_path / "o.jsonl"), read_lines(next((trained / "eval").glob("*.jsonl")))
    assert [row["predictions"][0]["text"] for row in rows] == [row["predictions"][0]["text"] for row in then]


def test_compared_with_the_multilingual_glm(workspace, trained, sentencepiece_file, tmp_path, capsys):
    """The baseline and mGLM on the same data, one table of both; ROUGE on ids is no figure of two tokenizers."""
    sizes = {"model_type": "mglm", "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    (workspace.folder / "mglm.json").write_text(json.dumps(sizes | {"max_sequence_length": 129}), encoding="utf-8")
    mglm = workspace.finetune(
        "mglm",
        model_name_or_path=workspace.folder / "mglm.json",
        tokenizer_name_or_path=sentencepiece_file,
        max_steps=6,
        **TASK,
    )
    files = {}
    for name, run in (("mt5", trained), ("mglm", mglm)):
        files[name] = tmp_path / f"{name}.jsonl"
        workspace.predict(model_name_or_path=run, test_file=workspace.folder / "dev.json", output_file=files[name])
    capsys.readouterr()
    main(["compare", str(files["mt5"]), str(files["mglm"]), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    own = {}
    for name, path in files.items():
        main(["score", str(path), "--format", "json"])
        own[name] = json.loads(capsys.readouterr().out)
    assert {"bleu-4 (char, corpus)", "rouge-l (char)"} <= found["differences"].keys()
    assert not any("(ids)" in figure for figure in found["differences"])
    for figure, difference in found["differences"].items():
        assert (difference["A"], difference["B"]) == pytest.approx((own["mt5"][figure], own["mglm"][figure]))


def test_saved_under_each_name_once_and_reloaded(trained, tmp_path):
    saved = load_file(trained / "model.safetensors")
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert {name: table.shape for name, table in saved.items()} == FAMILY.weights.shapes(config)
    model = open_model(trained)
    assert model.source.format == "glm"
    export_checkpoint(trained, tmp_path / "hub", to="huggingface")
    assert open_model(tmp_path / "hub").source.format == "huggingface"
    for name, tensor in open_model(tmp_path / "hub").weights.items():
        np.testing.assert_array_equal(tensor.load(), saved[name])


def test_resumed_to_the_bit(workspace, trained):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, **TASK}
    again = workspace.finetune("again", resume_from_checkpoint=trained / "checkpoint-3", **options)
    ours, theirs = load_file(again / "model.safetensors"), load_file(trained / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_scores": True}, "token_scores True: mT5 has a search of its own"),
        ({"prefix": "答"}, "prefix 答: mT5 has a search of its own"),
        ({"processor_order": "before_softmax"}, "processor_order before_softmax: mT5 has a search of its own"),
        ({"select_topk": "False"}, "select_topk False: mT5 has a search of its own"),
    ],
)
def test_what_its_search_cannot_do(workspace, trained, options, message):
    with pytest.raises(UsageError, match=message):
        workspace.predict(model_name_or_path=trained, test_file=workspace.folder / "dev.json", **options)


def test_a_constant_opening_is_refused(workspace):
    with pytest.raises(InputError, match="target_prefix .*: mT5's search writes whole texts"):
        workspace.finetune("opening", max_steps=1, do_eval=True, dev_file=workspace.folder / "dev.json")


def test_another_tokenizer_is_refused(sentencepiece_file):
    with pytest.raises(InputError, match="its first pieces are not <pad> and </s>"):
        FAMILY.open_tokenizer(sentencepiece_file)
