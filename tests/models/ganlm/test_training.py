"""Runs of the two scripts with a GanLM: training with three losses, going on, starts, positions, prediction."""

import json
import shutil

import numpy as np
import pytest

from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.safetensors_files import read_safetensors
from glm.commands import check, show
from glm.errors import InputError, UsageError
from glm.report.files import TRAINING_PAGE
from tools.run_tools import Workspace, logged, make_workspace, read_lines

TERMS = ("generator_loss", "discriminator_loss", "inconsistency_loss", "replace_rate", "replace_accuracy")
MODEL = {
    "model_type": "ganlm",
    "hidden_size": 32,
    "mlp_size": 48,
    "num_attention_heads": 4,
    "encoder_layers": 2,
    "generator_layers": 3,
    "discriminator_layers": 2,
    "max_source_positions": 60,
    "max_target_positions": 30,
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, ganlm_folder) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("ganlm run"), ganlm_folder)
    (made.folder / "model.json").write_text(json.dumps(MODEL), encoding="utf-8")
    return made


STILL = {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 1}  # the first update has the rate 0
EVERY = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}


@pytest.fixture(scope="module")
def whole(workspace):
    """A run of six steps of two batches each, with all that is random in it."""
    return workspace.finetune("whole", **EVERY, gradient_accumulation_steps=2, do_eval=True, dev_file=dev(workspace))


def dev(workspace):
    return workspace.folder / "dev.json"


def arrays(folder) -> dict[str, np.ndarray]:
    return {name: tensor.load() for name, tensor in read_safetensors(folder / "model.safetensors").items()}


def test_the_terms_of_the_loss_are_logged_and_drawn(whole):
    rows = [row for row in read_lines(whole / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 6
    for row in rows:
        assert all(name in row for name in TERMS), row
        total = row["generator_loss"] + 5 * row["discriminator_loss"] + row["inconsistency_loss"]
        assert row["loss"] == pytest.approx(total, rel=1e-4)
    page = (whole / TRAINING_PAGE).read_text(encoding="utf-8")
    assert "The discriminator" in page and "Losses" in page


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(workspace, whole):
    resumed = workspace.finetune(
        "resumed", **EVERY, gradient_accumulation_steps=2, resume_from_checkpoint=whole / "checkpoint-3"
    )
    for name in ("loss", *TERMS):
        assert logged(resumed, name) == logged(whole, name)[3:]
    then, now = arrays(whole), arrays(resumed)
    assert all(np.array_equal(then[name], now[name]) for name in then)


def test_weights_ramp_and_zero_leaves_a_loss_out(workspace):
    ramped = workspace.finetune(
        "ramped", max_steps=4, discriminator_weight=4.0, discriminator_warmup_steps=2, inconsistency_weight=0
    )
    rows = [row for row in read_lines(ramped / "metrics.jsonl") if "loss" in row]
    assert not any("inconsistency_loss" in row for row in rows)
    assert "discriminator_loss" not in rows[0]  # its weight was 0
    for row, weight in zip(rows[1:], (2.0, 4.0, 4.0), strict=True):
        assert row["loss"] == pytest.approx(row["generator_loss"] + weight * row["discriminator_loss"], rel=1e-4)
    alone = workspace.finetune("alone", max_steps=2, discriminator_weight=0, inconsistency_weight=0)
    for row in read_lines(alone / "metrics.jsonl"):
        assert not {"discriminator_loss", "replace_rate"} & set(row)


def test_the_first_update_of_inverse_sqrt_changes_nothing_and_max_tokens_goes_by_the_longer_part(workspace):
    run = workspace.finetune(
        "seed command",
        max_steps=2,
        max_tokens=200,
        per_device_train_batch_size=None,
        pad_to_multiple_of=1,
        update_freq=1,
        lr_scheduler_type="inverse_sqrt",
        warmup_steps=2,
        lr_decay_ratio=0,
        adam_beta2=0.98,
        max_grad_norm=0,
        weight_decay=0.05,
        save_strategy="steps",
        save_steps=1,
    )
    start = workspace.finetune("one step at rate 0", max_steps=1, **STILL)
    first, wanted = arrays(run / "checkpoint-1"), arrays(start)
    assert all(np.array_equal(first[name], wanted[name]) for name in wanted)
    assert logged(run, "learning_rate")[0] == pytest.approx(0.0025)


def test_prediction_follows_what_the_checkpoint_was_trained_with(workspace, whole, tmp_path):
    out = tmp_path / "out.jsonl"
    code = workspace.predict(model_name_or_path=whole, test_file=dev(workspace), output_file=out, show=0)
    assert code == 0 and len(read_lines(out)) == 4
    fairseq = tmp_path / "fairseq.jsonl"
    workspace.predict(
        model_name_or_path=whole, test_file=dev(workspace), output_file=fairseq, show=0, search_rules="fairseq"
    )
    files = (out, fairseq)
    scores = [[text["score"] for row in read_lines(path) for text in row["predictions"]] for path in files]
    assert scores[0] != scores[1]  # by fairseq's rules eop counts in the length
    assert all(text["text"] for row in read_lines(fairseq) for text in row["predictions"])


def test_starts_from_a_file_of_fairseq(workspace, whole, tmp_path, ganlm_folder):
    export_checkpoint(whole, tmp_path / "theirs", to="fairseq")
    file = tmp_path / "theirs" / "checkpoint.pt"
    still = {"max_steps": 1, "tokenizer_name_or_path": None, **STILL}
    before = arrays(whole)
    for start, wanted in {
        "both": before,
        "generator": {name: table for name, table in before.items() if not name.startswith("discriminator")},
    }.items():
        after = arrays(workspace.finetune(f"start {start}", model_name_or_path=file, start=start, **still))
        assert set(after) == set(wanted)
        assert all(np.array_equal(after[name], wanted[name]) for name in wanted)
    after = arrays(workspace.finetune("start discriminator", model_name_or_path=file, start="discriminator", **still))
    for name, table in after.items():
        origin = name.replace("generator", "discriminator") if name.startswith("generator") else name
        assert np.array_equal(table, before[origin]), name


def test_positions_are_cut_and_extended_on_request_alone(workspace, whole):
    still = {"max_steps": 1, "tokenizer_name_or_path": None, "model_name_or_path": whole, **STILL}
    with pytest.raises(InputError, match="src_length 80: the model has 60 positions"):
        workspace.finetune("too long", **{**still, "src_length": 80})
    more = workspace.finetune("more", **{**still, "src_length": 80}, max_source_positions=80, max_target_positions=30)
    cut = workspace.finetune("cut", **{**still, "src_length": 40}, max_source_positions=40)
    name = "encoder.position_embeddings.weight"
    before, after, short = (arrays(folder)[name] for folder in (whole, more, cut))
    assert after.shape == (82, 32) and np.array_equal(after[:62], before) and not after[62:].any()
    assert short.shape == (42, 32) and np.array_equal(short, before[:42])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": "discriminator"}, "the model has no discriminator"),
        ({"start": "both"}, "the model has no discriminator"),
        ({"discriminator_weight": 5}, "the model has no discriminator"),
    ],
)
def test_a_start_without_its_part_is_refused(workspace, whole, options, message):
    folder = workspace.folder / "start generator only"
    if not folder.exists():
        workspace.finetune(
            "start generator only",
            model_name_or_path=whole,
            start="generator",
            max_steps=1,
            tokenizer_name_or_path=None,
        )
    with pytest.raises(InputError, match=message):
        workspace.finetune("refused", model_name_or_path=folder, max_steps=1, tokenizer_name_or_path=None, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"discriminator_weight": -1}, "discriminator_weight -1.0: use 0 or more"),
        ({"inconsistency_weight": "nan"}, "inconsistency_weight nan"),
        ({"discriminator_sampling_temperature": 0}, "discriminator_sampling_temperature 0.0: use a number above 0$"),
        ({"start": "generator", "discriminator_weight": 5}, "needs both decoders"),
        ({"prefix_tuning": True}, "GanLM cannot do this|prefix_tuning"),
        ({"packing": True}, "packing True: GanLM cannot do this"),
        ({"no_block_position": True}, "GanLM cannot do this"),
        ({"layerwise_lr_decay": 0.9}, "GanLM cannot do this"),
    ],
)
def test_options_that_make_no_sense_are_refused(workspace, options, message):
    with pytest.raises(UsageError, match=message):
        workspace.finetune("refused", max_steps=1, **options)


def test_a_target_that_is_too_long_is_refused_with_its_line(workspace, tmp_path):
    lines = read_lines(workspace.folder / "train.json")
    lines[3]["question"] = "有多少人口" * 30
    path = tmp_path / "long.json"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"long.json, line 4.*tgt_length"):
        workspace.finetune("refused", max_steps=1, train_file=path)


def test_a_dictionary_of_another_model_is_refused(workspace, whole, tmp_path, ganlm_folder):
    for name in ("spm.model", "dict.txt"):
        shutil.copyfile(ganlm_folder / name, tmp_path / name)
    with (tmp_path / "dict.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"more{number} 1\n" for number in range(20))
    with pytest.raises(InputError, match="words, but the tokenizer has"):
        workspace.finetune("refused", model_name_or_path=whole, tokenizer_name_or_path=tmp_path, max_steps=1)
    lines = (ganlm_folder / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "dict.txt").write_text("".join(lines[5:]), encoding="utf-8")
    with pytest.raises(InputError, match="dict.txt: lacks 5 pieces of spm.model"):
        workspace.finetune("refused", model_name_or_path=whole, tokenizer_name_or_path=tmp_path, max_steps=1)


def test_lora_trains_an_adapter_that_prediction_takes(workspace, whole, tmp_path):
    folder = workspace.finetune(
        "lora",
        model_name_or_path=whole,
        tokenizer_name_or_path=None,
        max_steps=2,
        lora=True,
        lora_targets="qkv_proj|kv_proj|fc1",
    )
    assert not (folder / "model.safetensors").exists() and list(folder.glob("*lora*"))
    out = tmp_path / "out.jsonl"
    assert workspace.predict(model_name_or_path=folder, test_file=dev(workspace), output_file=out, show=0) == 0
    assert len(read_lines(out)) == 4


def test_show_and_check_know_the_family(workspace, whole, capsys):
    options = [str(dev(workspace)), "--tokenizer_name_or_path", str(whole)]
    assert show.main([*options, "--line", "2"]) in (0, None)
    text = capsys.readouterr().out
    assert "</s>" in text and "position" in text
    assert check.main(options) in (0, None)
