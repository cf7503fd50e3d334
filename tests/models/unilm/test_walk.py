"""The seed's walk on its own data files: fine-tuning, going on to the bit, decoding, its file of paraphrases."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from glm.errors import InputError, UsageError
from glm.models.unilm import FAMILY
from tools.run_tools import Workspace, arguments, logged, read_lines
from tools.unilm_tools import load_folder, write_vocabulary

SOURCES, TARGETS = "的一是不了人我在有他", "这中大来上国和说们为"
PAIRS = [(a + b, TARGETS[SOURCES.index(a)] * 2 + b) for a in SOURCES[:5] for b in SOURCES[5:]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """25 pairs with U+0001 between them; 5 sources alone, as the seed has them; a model of one block."""
    folder = tmp_path_factory.mktemp("unilm")
    write_vocabulary(folder / "vocab.txt", SOURCES + TARGETS)
    lines = [f"{source}\x01{target}" for source, target in PAIRS]
    (folder / "finetune_data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sources = [source * 3 for source, _ in PAIRS[::5]]
    (folder / "test_data.csv").write_text("\n".join(sources) + "\n", encoding="utf-8")
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    settings = {"model_type": "unilm", "max_position_embeddings": 40, "initializer_range": 0.1, **sizes}
    (folder / "model.json").write_text(json.dumps(settings), encoding="utf-8")
    return Workspace(folder, folder / "vocab.txt")


OPTIONS = {
    "task_name": "paraphrase",
    "src_length": None,
    "max_seq_length": 24,
    "tgt_length": 8,
    "label_smoothing": 0.0,
    "no_repeat_ngram_size": 0,
    "per_device_train_batch_size": 8,
}


def finetune(workspace: Workspace, name: str, **options):
    train = workspace.folder / "finetune_data.csv"
    return workspace.finetune(name, **{"train_file": train, **OPTIONS, **options})


@pytest.fixture(scope="module")
def trained(workspace):
    return finetune(
        workspace,
        "trained",
        max_steps=60,
        objective="pseudo_masked",
        save_steps=100,
        do_eval=True,
        dev_file=workspace.folder / "finetune_data.csv",
    )


def test_it_learns_and_the_dev_loss_is_that_of_decoding(workspace, trained):
    """The figure of the run is minus the summed score of the targets by their tokens."""
    model, tokenizer = load_folder(trained)
    from tools.unilm_tools import geometry_of

    geometry, total, tokens = geometry_of(tokenizer), 0.0, 0
    for source, target in PAIRS:
        ids = [*tokenizer.encode_text(target), tokenizer.sep_token_id]
        logits, cache = model.prefill([geometry.prompt(geometry.lay_out(tokenizer.encode_text(source), []))])
        for step, token in enumerate(ids):
            row = logits.reshape(-1).astype("float64")
            total += row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
            logits = model.step(np.array([[token]]), np.array([step]), cache)
        tokens += len(ids)
    (loss,) = logged(trained, "eval_loss")
    assert loss == pytest.approx(-total / tokens, abs=1e-4) and loss < 1.5
    assert "eval_copied 2-grams (char)" in read_lines(trained / "metrics.jsonl")[-1]


def test_masked_runs_go_on_to_the_bit(workspace):
    """A run of 6 steps over two epochs, and one that goes on from its third: the same masks, the same weights."""
    whole = finetune(workspace, "whole", max_steps=6, save_strategy="steps", save_steps=3)
    rest = finetune(
        workspace,
        "rest",
        max_steps=6,
        save_strategy="steps",
        save_steps=3,
        resume_from_checkpoint=whole / "checkpoint-3",
    )
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, rest))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    other = finetune(workspace, "other", max_steps=6, mask_prob=0.6)
    again = load_file(other / "model.safetensors")
    assert any((before[name] != again[name]).any() for name in before)


def test_a_run_does_not_go_on_with_another_objective(workspace):
    first = finetune(workspace, "first", max_steps=4, save_strategy="steps", save_steps=2)
    with pytest.raises(InputError, match="objective: None then, pseudo_masked now"):
        finetune(
            workspace, "second", max_steps=4, objective="pseudo_masked", resume_from_checkpoint=first / "checkpoint-2"
        )


def test_decoding_the_seeds_file(workspace, trained, capsys):
    """Its own rule and lengths come with the model; its file on request, the rows with scores beside it."""
    output = workspace.folder / "test.json"
    workspace.predict(
        model_name_or_path=trained,
        test_file=workspace.folder / "test_data.csv",
        num_beams=3,
        num_return_sequences=3,
        output_file=output,
        output_format="unilm",
    )
    lines = output.read_text(encoding="utf-8").splitlines()
    rows = read_lines(workspace.folder / "test.json.jsonl")
    assert [line.split("\x01")[0] for line in lines] == [source * 3 for source, _ in PAIRS[::5]]
    assert [line.split("\x01")[1].split("||") for line in lines] == [
        [prediction["text"] for prediction in row["predictions"]] for row in rows
    ]
    with pytest.raises(InputError, match=r"test\.json: exists"):
        workspace.predict(
            model_name_or_path=trained,
            test_file=workspace.folder / "test_data.csv",
            output_file=output,
            output_format="unilm",
        )


def test_three_commands_and_no_file_copied_between_them(workspace):
    """`train_local.py`, `run_seq2seq.py` and `decode_seq2seq.py` here, each a process of its own."""
    folder, root = workspace.folder, Path(__file__).resolve().parents[3]
    document = "的一是不了。人我在有他，这中大来上！国和说们为？"
    (folder / "pretrain_sample.txt").write_text((document * 3 + "\n") * 8, encoding="utf-8")
    model = {"model_name_or_path": "model.json", "tokenizer_name_or_path": "vocab.txt"}
    short = {"max_steps": 2, "device": "cpu", "report_to": "none", "save_strategy": "no"}
    sample = {"train_data": "pretrain_sample.txt", "seq_length": 24, "output_dir": "pretrained"}
    pairs = {"train_file": "finetune_data.csv", "task_name": "paraphrase", "max_seq_length": 24, "tgt_length": 8}
    tuned = {"model_name_or_path": "pretrained", **pairs, "output_dir": "tuned", "do_train": True}
    decoded = {"model_name_or_path": "tuned", "test_file": "test_data.csv", "num_beams": 3, "device": "cpu"}
    commands = [
        (["-m", "glm", "pretrain"], {**model, **sample, **short}),
        ([root / "finetune_generation.py"], {**tuned, **short}),
        ([root / "predict.py"], {**decoded, "output_format": "unilm", "output_file": "walk.json"}),
    ]
    for program, options in commands:
        done = subprocess.run(
            [sys.executable, *map(str, program), *arguments(options)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert (folder / "pretrained" / "config.json").is_file()
    sources = (folder / "test_data.csv").read_text(encoding="utf-8").splitlines()
    lines = (folder / "walk.json").read_text(encoding="utf-8").splitlines()
    assert [line.split("\x01")[0] for line in lines] == sources


def test_samples_of_a_source_differ(workspace, trained):
    output = workspace.folder / "samples.jsonl"
    workspace.predict(
        model_name_or_path=trained,
        test_file=workspace.folder / "test_data.csv",
        select_topk=False,
        top_p=0.95,
        temperature=3.0,
        num_beams=3,
        num_return_sequences=3,
        output_file=output,
    )
    for row in read_lines(output):
        texts = [prediction["text"] for prediction in row["predictions"]]
        assert len(texts) == len(set(texts)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_format": "unilm"}, "output_format unilm: has no effect without output_file"),
        ({"fill": "的[MASK]"}, "fill 的.*: UniLM cannot do this"),
        ({"no_block_position": True}, "no_block_position True: UniLM cannot do this"),
        ({"src_length": 30}, "src_length 30: has no effect beside max_seq_length 24"),
        ({"max_seq_length": 60}, "max_seq_length 60: the model has 40 positions"),
        ({"tgt_length": 22}, "tgt_length 22: leaves no room for a source in max_seq_length 24"),
        ({"early_stopping": "true", "num_beams": 3}, "early_stopping true: has no effect with finished_rule unilm"),
        ({"no_repeat_ngram_size": 2, "no_repeat_ignore": "的的"}, "no_repeat_ignore 的的"),
    ],
)
def test_what_has_no_effect_is_refused(workspace, trained, options, message):
    test_file = {} if "fill" in options else {"test_file": workspace.folder / "test_data.csv"}
    with pytest.raises((InputError, UsageError), match=message):
        workspace.predict(model_name_or_path=trained, **test_file, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_degree": 2}, "tensor_parallel_degree"),
        ({"prefix_tuning": True}, "prefix_tuning"),
        ({"mask_prob": 1.5}, "mask_prob 1.5"),
        ({"max_pred": 0}, "max_pred 0"),
    ],
)
def test_what_training_cannot_do_is_refused(workspace, options, message):
    with pytest.raises((InputError, UsageError), match=message):
        finetune(workspace, "refused", max_steps=1, **options)
    assert not (workspace.folder / "refused").exists()


def test_a_family_without_objectives_refuses_them():
    from glm.models.glm import FAMILY as GLM

    for name, value in (("objective", "masked"), ("mask_prob", 0.2), ("max_seq_length", 50)):
        with pytest.raises(UsageError, match=f"{name} {value}: GLM cannot do this"):
            GLM.check_options({name: value})
        FAMILY.check_options({name: value})
