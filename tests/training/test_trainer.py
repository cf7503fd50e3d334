"""Whole training runs of a tiny model: options that change what is learnt, saving, resuming, evaluation."""

import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from glm.arguments import parse_finetune_arguments
from glm.checkpoint.loading import load_config, load_model, load_tokenizer
from glm.training.setup import build_trainer
from run_tools import Workspace, logged, make_workspace, read_lines


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("training"), sentencepiece_file)


@pytest.fixture(scope="module")
def plain(workspace):
    """The run that others are compared with: 12 steps in 3 epochs, with dropout."""
    return workspace.finetune("plain", max_steps=12, save_strategy="steps", save_steps=1)


def trainer_of(workspace, **options):
    settings = {**workspace.options, "output_dir": workspace.folder / "unused", **options}
    argv = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
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


def test_accumulation_over_halves_gives_the_gradient_of_the_whole(workspace):
    """Records of equal target length, so that the mean of means is the mean."""

    def gradient(accumulation, batches):
        trainer = trainer_of(workspace, gradient_accumulation_steps=accumulation, output_dropout_prob=0.0)
        trainer.args.gradient_accumulation_steps = accumulation
        trainer.model.train()
        for layer in trainer.model.sublayers():
            if isinstance(layer, paddle.nn.Dropout):
                layer.p = 0.0
        for batch in batches(trainer):
            trainer.training_step(trainer.model, batch)
        return trainer.model.glm.transformer.layers[0].mlp.dense_h_to_4h.weight.grad.numpy()

    def examples(trainer):
        picked = [trainer.train_dataset[index] for index in range(20)]
        length = len(picked[0].target_ids)
        return [example for example in picked if len(example.target_ids) == length][:2]

    def tensors(trainer, chosen):
        return {name: paddle.to_tensor(table) for name, table in trainer.data_collator(chosen).items()}

    whole = gradient(1, lambda trainer: [tensors(trainer, examples(trainer))])
    halves = gradient(2, lambda trainer: [tensors(trainer, [example]) for example in examples(trainer)])
    np.testing.assert_allclose(halves, whole, atol=1e-6)
    assert np.abs(whole).max() > 1e-4


@pytest.mark.parametrize("name", ["attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"])
def test_dropout_rates(workspace, name):
    off = {"attention_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, "output_dropout_prob": 0.0}

    def losses(**options):
        trainer = trainer_of(workspace, **options)
        trainer.model.train()
        batch = one_batch(trainer)
        return [float(trainer.compute_loss(trainer.model, batch)) for _ in range(2)]

    first, second = losses(**off)
    assert first == second
    first, second = losses(**{**off, name: 0.5})
    assert first != second


def test_recompute_gives_the_same_run(workspace, plain):
    run = workspace.finetune("recomputed", max_steps=12, recompute=True)
    np.testing.assert_allclose(logged(run, "loss"), logged(plain, "loss"), rtol=1e-5)
    assert trainer_of(workspace, recompute=True).model.glm.transformer.enable_recompute is True
    assert trainer_of(workspace).model.glm.transformer.enable_recompute is False


def test_no_block_position_reaches_the_batch(workspace):
    assert one_batch(trainer_of(workspace))["position_ids"].numpy()[:, 1].max() > 5
    assert one_batch(trainer_of(workspace, no_block_position=True))["position_ids"].numpy()[:, 1].max() == 1


def test_epochs_set_the_number_of_steps(workspace):
    run = workspace.finetune("epochs", num_train_epochs=2)
    assert logged(run, "global_step")[-1] == 10


# -- checkpoints


def test_a_checkpoint_is_a_model_folder(plain, workspace):
    """Weights, tokenizer and settings are in each; what was saved last is the final model."""
    for folder in (plain, plain / "checkpoint-12"):
        tokenizer = load_tokenizer(str(folder))
        model = load_model(str(folder), load_config(str(folder), tokenizer))
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
    steps = [f"step-{step}.{kind}" for step in (2, 4, 6) for kind in ("jsonl", "metrics.json")]
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
    steps = [f"step-{step}.{kind}" for step in (2, 4) for kind in ("jsonl", "metrics.json")]
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
    assert trainer._dev_loss() == pytest.approx(total / tokens, abs=1e-6)


def test_evaluation_does_not_disturb_training(workspace, plain):
    run = workspace.finetune(
        "disturbed", max_steps=12, do_eval=True, dev_file=workspace.folder / "dev.json", eval_steps=3
    )
    assert logged(run, "loss") == logged(plain, "loss")
