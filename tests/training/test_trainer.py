"""Whole training runs of a tiny model: options that change what is learnt, saving, resuming, evaluation."""

import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from glm.checkpoint.loading import load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.errors import InputError, UsageError
from glm.models.glm import FAMILY as GLM
from glm.options.finetune import parse_finetune_arguments
from glm.training.setup import build_trainer
from glm.training.trainer import build_sampler
from tools.run_tools import logged, read_lines, write_records


@pytest.fixture(scope="module")
def plain(workspace):
    """The run that others are compared with: 12 steps in 3 epochs, with dropout."""
    return workspace.finetune("plain", max_steps=12, save_strategy="steps", save_steps=1)


@pytest.fixture(scope="module")
def varied(workspace) -> dict:
    """The option for 20 records of all lengths: passages of one to four sentences, questions of 2 to 5 words more."""
    path = workspace.folder / "varied.json"
    rows = read_lines(workspace.folder / "train.json")
    for number, row in enumerate(rows):
        row["context"] *= 1 + number % 3
        row["question"] += "有多少人口？" * (number % 4 % 3)
    write_records(path, rows)
    return {"train_file": path, "src_length": 65, "tgt_length": 35}


def trainer_of(workspace, **options):
    settings = {**workspace.options, "output_dir": workspace.folder / "unused", **options}
    argv = [text for name, value in settings.items() if value is not None for text in (f"--{name}", str(value))]
    return build_trainer(parse_finetune_arguments(argv))[0]


def one_batch(trainer, size: int = 4) -> dict:
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(size)])
    return {name: paddle.to_tensor(table) for name, table in batch.items()}


# -- learning


def test_loss_falls_to_near_zero_on_ten_records(workspace):
    lines = (workspace.folder / "train.json").read_text(encoding="utf-8").splitlines()
    few = workspace.folder / "ten.json"
    few.write_text("\n".join(lines[:10]), encoding="utf-8")
    run = workspace.finetune(
        "overfit",
        train_file=few,
        max_steps=250,
        learning_rate=1e-2,
        label_smoothing=0.0,
        output_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        embedding_dropout_prob=0.0,
        logging_steps=10,
        per_device_train_batch_size=10,
    )
    losses = logged(run, "loss")
    assert losses[0] > 2.0
    assert losses[-1] < 0.05


def test_same_seed_same_run_and_another_seed_another(workspace, plain):
    losses = logged(plain, "loss")
    assert logged(workspace.finetune("again", max_steps=4), "loss") != losses[:4]  # another schedule length
    assert logged(workspace.finetune("twin", max_steps=12), "loss") == losses
    assert logged(workspace.finetune("other", max_steps=12, seed=7), "loss")[0] != losses[0]


# -- resuming


@pytest.mark.parametrize("step", [3, 5, 7, 10, 11])
def test_a_resumed_run_is_the_same_run(workspace, plain, step):
    """Within an epoch (5 steps each) and at its boundary, with dropout: losses, rates and weights bit for bit."""
    run = workspace.finetune(
        f"resumed-{step}", max_steps=12, resume_from_checkpoint=plain / f"checkpoint-{step}", save_strategy="no"
    )
    for figure in ("loss", "learning_rate"):
        assert logged(run, figure) == logged(plain, figure)[step:]
    ours, theirs = load_file(run / "model.safetensors"), load_file(plain / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_resume_with_accumulation(workspace):
    options = {"max_steps": 5, "gradient_accumulation_steps": 2}
    whole = workspace.finetune("accumulated", **options, save_strategy="steps", save_steps=1)
    # 5 batches an epoch become 6: three steps of two batches
    run = workspace.finetune("accumulated-resumed", **options, resume_from_checkpoint=whole / "checkpoint-3")
    assert logged(run, "loss") == logged(whole, "loss")[3:]


@pytest.mark.parametrize(
    "options",
    [
        {"group_by_length": True},
        {"max_tokens": 200, "per_device_train_batch_size": None},
        {"max_tokens": 100, "per_device_train_batch_size": None, "update_freq": 2},
        {"packing": True, "dataloader_num_workers": 2},
    ],
    ids=str,
)
def test_resume_with_every_kind_of_batch(workspace, varied, options):
    """Within an epoch and at its end; workers change nothing."""
    name = "-".join(options) + str(options.get("max_tokens"))
    options = {**options, **varied, "num_train_epochs": 3}
    whole = workspace.finetune(f"{name}-whole", **options, save_strategy="steps", save_steps=1)
    steps = len(logged(whole, "loss"))
    options.pop("dataloader_num_workers", None)
    for step in (1, steps // 3, steps - 1):
        run = workspace.finetune(f"{name}-{step}", **options, resume_from_checkpoint=whole / f"checkpoint-{step}")
        assert logged(run, "loss") == logged(whole, "loss")[step:]
    ours, theirs = load_file(run / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_resume_true_takes_the_newest_checkpoint(workspace):
    folder = workspace.folder / "newest"
    workspace.finetune("newest", max_steps=4, save_strategy="steps", save_steps=2)
    before = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    workspace.finetune("newest", max_steps=4, resume_from_checkpoint="true")
    assert len(logged(folder, "loss")) == 4  # checkpoint-4 is the end of the run: no step is left
    after = load_file(folder / "model.safetensors")
    assert all((after[name] == before[name]).all() for name in before)


# -- options of the optimisation


def test_label_smoothing_reaches_the_loss(workspace):
    from reference.forward import loss

    trainer = trainer_of(workspace, label_smoothing=0.3)
    trainer.model.eval()
    batch = one_batch(trainer)
    labels = batch["labels"].numpy()
    logits = trainer.model(**{name: table for name, table in batch.items() if name != "labels"}).numpy()
    assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(loss(logits, labels, 0.3), abs=1e-5)
    assert float(trainer.compute_loss(trainer.model, batch)) != pytest.approx(loss(logits, labels, 0.0), abs=1e-3)


@pytest.mark.parametrize(("shape", "half_way"), [("linear", 0.6), ("cosine", 0.6)])
def test_learning_rate_ends_at_lr_decay_ratio(workspace, shape, half_way):
    run = workspace.finetune(
        f"rate-{shape}", max_steps=12, warmup_steps=2, lr_decay_ratio=0.2, lr_scheduler_type=shape
    )
    rates = np.array(logged(run, "learning_rate")) / 5e-3  # after each step, the rate of the next
    assert rates[0] == pytest.approx(0.5, abs=1e-3)
    assert rates[1] == pytest.approx(1.0, abs=1e-3)
    assert rates[6] == pytest.approx(half_way, abs=1e-3)
    assert rates[11] == pytest.approx(0.2, abs=1e-3)


def test_weight_decay_spares_biases_and_layernorms(workspace):
    trainer = trainer_of(workspace, weight_decay=0.5, learning_rate=0.1, lr_scheduler_type="constant")
    trainer.create_optimizer_and_scheduler(10)
    before = {name: parameter.numpy().copy() for name, parameter in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        (parameter * 0.0).sum().backward()
    trainer.optimizer.step()
    for name, parameter in trainer.model.named_parameters():
        spared = name.endswith("bias") or "layernorm" in name
        factor = 1.0 if spared else 1.0 - 0.1 * 0.5
        np.testing.assert_allclose(parameter.numpy(), before[name] * factor, rtol=1e-6, err_msg=name)


def test_gradients_are_clipped(workspace):
    """Under a tiny max_grad_norm AdamW's epsilon dominates, so the weights hardly move."""

    def moved(**options):
        trainer = trainer_of(workspace, learning_rate=1e-2, lr_scheduler_type="constant", **options)
        trainer.create_optimizer_and_scheduler(10)
        before = trainer.model.glm.word_embeddings.weight.numpy().copy()
        trainer.training_step(trainer.model, one_batch(trainer))
        trainer.optimizer.step()
        return np.abs(trainer.model.glm.word_embeddings.weight.numpy() - before).max()

    assert moved(max_grad_norm=1e-12) < 1e-4
    assert moved(max_grad_norm=1.0) > 5e-3


NO_DROPOUT = {"attention_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, "output_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def undisturbed(workspace, varied):
    """Without dropout: 5 steps of 4 records."""
    return workspace.finetune("undisturbed", max_steps=5, **varied, **NO_DROPOUT)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1},
        {"update_freq": 2, "per_device_train_batch_size": 2},
        {"packing": True},
        {"packing": True, "update_freq": 2, "per_device_train_batch_size": 2},
        {"pad_to_multiple_of": 64},
    ],
    ids=str,
)
def test_a_step_does_not_depend_on_how_its_records_are_laid_out(workspace, varied, undisturbed, options):
    """Accumulated, packed, padded: losses and weights of the run whose steps are single batches of 4 records.

    Questions differ in length, so that a mean of the batches' means would be another loss.
    """
    assert len(set(trainer_of(workspace, **varied).train_examples.target_lengths)) > 2
    run = workspace.finetune("laid-out", max_steps=5, overwrite_output_dir=True, **varied, **NO_DROPOUT, **options)
    np.testing.assert_allclose(logged(run, "loss"), logged(undisturbed, "loss"), rtol=2e-6)
    ours, theirs = load_file(run / "model.safetensors"), load_file(undisturbed / "model.safetensors")
    for name in theirs:
        if not name.endswith(
            "query_key_value.bias"
        ):  # that of the keys has no gradient but rounding, which AdamW blows up
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-5, err_msg=name)


def test_ranks_share_the_mean_of_a_step(workspace, varied):
    """Two processes average their gradients: each takes its part of the loss twice, and the mean is the whole."""
    whole = trainer_of(workspace, **varied, **NO_DROPOUT)
    losses = []
    for rank in range(2):
        trainer = trainer_of(workspace, per_device_train_batch_size=2, **varied, **NO_DROPOUT)
        trainer.args = _of_rank(trainer.args, rank)
        trainer.sampler = build_sampler(trainer.args, trainer.train_examples)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in next(iter(trainer.sampler))])
        losses.append(float(trainer.training_step(trainer.model, {k: paddle.to_tensor(v) for k, v in batch.items()})))
        weights = {name: weight.numpy() for name, weight in trainer.model.named_parameters()}
    for name, weight in whole.model.named_parameters():
        np.testing.assert_array_equal(weight.numpy(), weights[name])
    batch = whole.data_collator([whole.train_dataset[index] for index in next(iter(whole.sampler))])
    expected = whole.training_step(whole.model, {k: paddle.to_tensor(v) for k, v in batch.items()})
    assert sum(losses) / 2 == pytest.approx(float(expected), rel=1e-6)


def _of_rank(args, rank: int):
    class Args:
        dataset_world_size, dataset_rank = 2, rank

        def __getattr__(self, name):
            return getattr(args, name)

    return Args()


@pytest.mark.parametrize("name", ["attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"])
def test_dropout_rates(workspace, name):
    def losses(**options):
        trainer = trainer_of(workspace, **options)
        trainer.model.train()
        batch = one_batch(trainer)
        return [float(trainer.compute_loss(trainer.model, batch)) for _ in range(2)]

    first, second = losses(**NO_DROPOUT)
    assert first == second
    first, second = losses(**{**NO_DROPOUT, name: 0.5})
    assert first != second


def test_recompute_gives_the_same_run(workspace, plain):
    run = workspace.finetune("recomputed", max_steps=12, recompute=True)
    np.testing.assert_allclose(logged(run, "loss"), logged(plain, "loss"), rtol=1e-5)
    assert trainer_of(workspace, recompute=True).model.glm.transformer.enable_recompute is True
    assert trainer_of(workspace).model.glm.transformer.enable_recompute is False


def test_recompute_layers(workspace):
    assert trainer_of(workspace, recompute=True).model.glm.transformer.recompute_layers == 2
    assert trainer_of(workspace, recompute=True, recompute_layers=1).model.glm.transformer.recompute_layers == 1
    with pytest.raises(UsageError, match="recompute_layers 3: the model has 2"):
        trainer_of(workspace, recompute=True, recompute_layers=3)
    with pytest.raises(UsageError, match="recompute_layers 1: has no effect without --recompute"):
        trainer_of(workspace, recompute_layers=1)


def test_no_block_position_reaches_the_batch(workspace):
    assert one_batch(trainer_of(workspace))["position_ids"].numpy()[:, 1].max() > 5
    assert one_batch(trainer_of(workspace, no_block_position=True))["position_ids"].numpy()[:, 1].max() == 1


def test_max_tokens_sets_the_batches(workspace, varied):
    options = {**varied, "max_tokens": 200, "per_device_train_batch_size": None}
    run = workspace.finetune("budget", **options, num_train_epochs=2)
    trainer = trainer_of(workspace, **options)
    batches = list(trainer.sampler)
    assert len(set(map(len, batches))) > 1 and len(batches) == len(logged(run, "loss")) / 2
    for chosen in batches:
        rows = trainer.data_collator([trainer.train_dataset[index] for index in chosen])["input_ids"]
        assert rows.size <= 200


def test_a_record_beyond_max_tokens_is_named(workspace):
    with pytest.raises(
        InputError, match=r"train\.json, line 1: \d+ tokens \(\d+ padded\) do not fit into max_tokens 16"
    ):
        trainer_of(workspace, max_tokens=16, per_device_train_batch_size=None)


@pytest.mark.parametrize("recompute", [False, True])
def test_frozen_weights_stay_and_all_others_learn(workspace, recompute):
    start = trainer_of(workspace).model.state_dict()
    for number, parts in enumerate((["embeddings"], ["embeddings", "layers.0"])):
        run = workspace.finetune(
            f"frozen-{recompute}-{number}", max_steps=3, freeze="|".join(parts), recompute=recompute or None
        )
        for name, weight in load_file(run / "model.safetensors").items():
            stays = any(f"{part}." in name for part in parts)
            assert (weight == start[name].numpy()).all() == stays, name


def test_layers_learn_at_rates_of_their_own(workspace):
    """AdamW's first step moves every weight with a gradient by the learning rate."""
    trainer = trainer_of(workspace, layerwise_lr_decay=0.5, learning_rate=1e-3, lr_scheduler_type="constant")
    trainer.create_optimizer_and_scheduler(10)
    before = {name: weight.numpy().copy() for name, weight in trainer.model.named_parameters()}
    trainer.training_step(trainer.model, one_batch(trainer))
    trainer.optimizer.step()
    rates = {"final_layernorm": 1.0, "layers.1": 1.0, "layers.0": 0.5, "embeddings": 0.25}
    for name, weight in trainer.model.named_parameters():
        (rate,) = [rate for part, rate in rates.items() if part in name]
        assert np.abs(weight.numpy() - before[name]).max() == pytest.approx(rate * 1e-3, rel=2e-3), name


@pytest.mark.parametrize(
    ("shape", "rates"),
    [
        ("inverse_sqrt", [0.5, 1.0, (2 / 3) ** 0.5, 0.5**0.5, 0.4**0.5]),
        ("polynomial", [0.5, 1.0, 0.2 + 0.8 * 4 / 9, 0.2 + 0.8 / 9, 0.2]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_other_schedules(workspace, shape, rates):
    options = {"constant": {}, "polynomial": {"lr_decay_ratio": 0.2, "power": 2.0}}.get(shape, {"lr_decay_ratio": 0.2})
    run = workspace.finetune(f"rate-{shape}", max_steps=5, warmup_steps=2, lr_scheduler_type=shape, **options)
    assert np.array(logged(run, "learning_rate")) / 5e-3 == pytest.approx(rates, abs=1e-3)


def test_a_share_of_warmup_is_a_step_at_least(workspace):
    options = {"warmup_ratio": 0.1, "lr_scheduler_type": "inverse_sqrt", "lr_decay_ratio": 0.2}
    run = workspace.finetune("share", max_steps=3, **options)
    assert np.array(logged(run, "learning_rate")) / 5e-3 == pytest.approx([1.0, 0.5**0.5, 3**-0.5], abs=1e-3)


def test_epochs_set_the_number_of_steps(workspace):
    run = workspace.finetune("epochs", num_train_epochs=2)
    assert logged(run, "global_step")[-1] == 10


# -- checkpoints


def test_a_checkpoint_is_a_model_folder(plain, workspace):
    """Weights, tokenizer and settings are in each; what was saved last is the final model."""
    settings = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    assert settings["architectures"] == ["GLMForConditionalGeneration"]  # PaddleNLP finds the class by it
    for folder in (plain, plain / "checkpoint-12"):
        tokenizer = load_tokenizer(GLM, str(folder))
        model = load_model(GLM, str(folder), load_config(GLM, str(folder), tokenizer))
        saved = load_file(plain / "model.safetensors")
        assert all((value.numpy() == saved[name]).all() for name, value in model.state_dict().items())
        assert json.loads((folder / "finetune_config.json").read_text(encoding="utf-8"))["src_length"] == 60
    assert not list(plain.glob("**/*.pdparams.index.json")) and not (plain / "model_state.pdparams").exists()


def test_best_model_is_loaded_at_the_end(workspace):
    options = {
        "max_steps": 6,
        "do_eval": True,
        "dev_file": workspace.folder / "dev.json",
        "evaluation_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": "true",  # upside down, so that the best is not the last
    }
    run = workspace.finetune("best", **options)
    losses = logged(run, "eval_loss")[:3]
    best = 2 * (1 + int(np.argmax(losses)))
    final, kept = load_file(run / "model.safetensors"), load_file(run / f"checkpoint-{best}" / "model.safetensors")
    assert all((final[name] == kept[name]).all() for name in kept)
    assert best != 6
    # The final evaluation is of the best model, and so is its file; the last step's stays.
    finals = json.loads((run / "eval_results.json").read_text(encoding="utf-8"))
    assert finals["eval_loss"] == pytest.approx(max(losses))
    steps = [f"step-{step}.{kind}" for step in (2, 4, 6) for kind in ("jsonl", "metrics.json", "report")]
    assert sorted(path.name for path in (run / "eval").iterdir()) == steps
    assert read_lines(run / "eval" / "step-6.jsonl") != read_lines(run / "eval" / f"step-{best}.jsonl")

    # Resuming the finished run loads the best model again.
    (run / "model.safetensors").unlink()
    options["resume_from_checkpoint"] = "true"
    workspace.finetune("best", **options)
    again = load_file(run / "model.safetensors")
    assert all((again[name] == kept[name]).all() for name in kept)


def test_save_total_limit(workspace):
    run = workspace.finetune("few", max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=2)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


# -- evaluation


def test_evaluation_generates_with_the_given_options(workspace):
    run = workspace.finetune(
        "evaluated",
        max_steps=4,
        do_eval=True,
        dev_file=workspace.folder / "dev.json",
        eval_steps=2,
        num_beams=3,
        num_return_sequences=2,
        min_tgt_length=3,
    )
    rows = read_lines(run / "eval" / "step-4.jsonl")
    assert len(rows) == 4
    for row in rows:
        assert len(row["predictions"]) == 2
        assert row["predictions"][0]["score"] >= row["predictions"][1]["score"]
    steps = [f"step-{step}.{kind}" for step in (2, 4) for kind in ("jsonl", "metrics.json", "report")]
    assert sorted(path.name for path in (run / "eval").iterdir()) == steps
    results = json.loads((run / "eval_results.json").read_text(encoding="utf-8"))
    assert {"eval_loss", "eval_bleu-4 (char, corpus)", "eval_samples_per_second"} <= set(results)
    scores = json.loads((run / "eval" / "step-4.metrics.json").read_text(encoding="utf-8"))
    assert {name: results[f"eval_{name}"] for name in scores["signatures"]} == {
        name: scores[name] for name in scores["signatures"]
    }
    assert sum(found["records"] for found in scores["by source length (characters)"].values()) == 4


def test_dev_loss_is_the_mean_over_tokens(workspace):
    trainer = trainer_of(workspace, do_eval=True, dev_file=workspace.folder / "dev.json", per_device_eval_batch_size=3)
    trainer.model.eval()
    total, tokens = 0.0, 0
    for record in trainer.dev_records:  # one at a time
        batch = trainer.data_collator([trainer.encoder.example(record)])
        count = int((batch["labels"] != -100).sum())
        loss = trainer.model(**{name: paddle.to_tensor(table) for name, table in batch.items()})
        total, tokens = total + count * float(loss), tokens + count
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / tokens, abs=1e-6)


def test_evaluation_does_not_disturb_training(workspace, plain):
    run = workspace.finetune(
        "disturbed", max_steps=12, do_eval=True, dev_file=workspace.folder / "dev.json", eval_steps=3
    )
    assert logged(run, "loss") == logged(plain, "loss")
