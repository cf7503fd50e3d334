"""Pretraining runs: the same samples whatever happens, losses by objective and corpus, errors before training."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from glm.errors import UsageError
from glm.options.pretrain import parse_pretrain_arguments
from glm.training.checkpoints import newest_whole
from tools import rank_jobs
from tools.fault_tools import figures, outcome
from tools.rank_tools import run_ranks
from tools.run_tools import arguments, logged

STEPS = 12
KINDS = ("token", "sentence", "document")  # GLM's objectives
NO_DROPOUT = {f"{name}_dropout_prob": 0.0 for name in ("attention", "embedding", "output")}
PLACES = ["青石镇", "白鹿湖", "松江", "云台山", "金沙岛", "梅花村", "长乐城", "北原县", "石桥市", "红叶谷"]


@pytest.fixture(scope="module")
def folder(server) -> Path:
    """Two corpora and held-out texts, beside the server's model."""
    folder = server.workspace.folder
    a = [f"{place}位于河的北岸，人口大约{n}万。春天来了，山上的花都开了。" for place in PLACES for n in (2, 3)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in a))
    (folder / "b.txt").write_text("\n".join(f"答案：{place}，上下文：他住在{place}。" for place in PLACES))
    (folder / "dev.txt").write_text("\n".join(f"{place}在哪里？有多少人口？" for place in PLACES))
    return folder


def options_of(folder: Path, **options) -> list[str]:
    """The command line of a run of 12 steps, 3 and a part of an epoch, which goes on from no checkpoint."""
    settings = {
        "model_name_or_path": folder / "model.json",
        "tokenizer_name_or_path": next(Path(folder).parent.glob("**/tiny.model"), None),
        "train_data": f"a={folder / 'a.jsonl'}",
        "data_cache_dir": folder / "corpora",
        "seq_length": 40,
        "short_seq_prob": 0.1,
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 3,
        "device": "cpu",
        "report_to": "none",
        "disable_tqdm": "true",
        "seed": 7,
        **options,
    }
    argv = list(arguments({key: value for key, value in settings.items() if value is not None}))
    argv = [str(word) for word in argv]
    place = argv.index("--train_data")
    return [*argv[: place + 2], f"b={folder / 'b.txt'}", *argv[place + 2 :]]


def run(server, name: str, fault: str = "nothing", *values, **options) -> int:
    options = {"tokenizer_name_or_path": server.workspace.tokenizer_file, "weights": "2,1", **options}
    argv = options_of(server.workspace.folder, output_dir=server.workspace.folder / name, **options)
    return server.call(["pretrain", *argv], fault, *values)


@pytest.fixture(scope="module")
def whole(server, folder) -> dict:
    """The outcome of a run that nothing befalls."""
    assert run(server, "pretrained") == 0, server.said()
    return outcome(folder / "pretrained", last=STEPS)


@pytest.mark.parametrize("step", [4, 8])
def test_killed_and_started_again(server, folder, whole, step):
    """SIGKILL in the middle of an epoch; the same command goes on, and every bit is as if nothing had happened."""
    assert run(server, f"killed-{step}", "kill_at_step", step) == -9
    assert run(server, f"killed-{step}") == 0, server.said()
    assert "goes on from" in server.said()
    assert outcome(folder / f"killed-{step}", last=STEPS) == whole


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_draws_the_same(server, folder, whole, workers):
    assert run(server, f"workers-{workers}", dataloader_num_workers=workers) == 0, server.said()
    assert outcome(folder / f"workers-{workers}", last=STEPS) == whole


def test_two_processes_draw_what_one_does(server, folder, whole):
    """Half the batch in each of two processes; then on from a checkpoint in the middle of an epoch."""

    def job(name, **options):
        own = {"tokenizer_name_or_path": server.workspace.tokenizer_file, "weights": "2,1", **NO_DROPOUT, **options}
        return "pretrain", options_of(
            folder, output_dir=folder / f"{name}-of-{{rank}}", per_device_train_batch_size=2, **own
        )

    assert run(server, "one", **NO_DROPOUT) == 0, server.said()
    run_ranks(rank_jobs.run_scripts, 2, job("two"))
    two = folder / "two-of-0"
    assert logged(two, "loss") == pytest.approx(logged(folder / "one", "loss"), rel=2e-4)
    for rank in range(2):
        again = folder / f"again-of-{rank}"
        again.mkdir()
        shutil.copytree(two / "checkpoint-6", again / "checkpoint-6")
    run_ranks(rank_jobs.run_scripts, 2, job("again", resume_from_checkpoint=two / "checkpoint-6"))
    ours, theirs = load_file(folder / "again-of-0" / "model.safetensors"), load_file(two / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.fault
def test_two_processes_killed_and_started_again(server, folder):
    """SIGKILL of both in the middle of an epoch; the same command goes on, and every bit is as if it had not been."""

    def job(name: str) -> tuple[str, list[str]]:
        own = {"tokenizer_name_or_path": server.workspace.tokenizer_file, "weights": "2,1"}
        return "pretrain", options_of(folder, output_dir=folder / name, per_device_train_batch_size=2, **own)

    run_ranks(rank_jobs.run_scripts, 2, job("both"))
    with pytest.raises(RuntimeError, match="rank 0: its process is gone\nrank 1: its process is gone"):
        run_ranks(rank_jobs.run_killed, 2, 8, job("both-killed"))
    found = newest_whole(folder / "both-killed")
    epochs = {row["step"]: row["progress_or_epoch"] for row in figures(folder / "both") if "loss" in row}
    assert found.step == 6 and epochs[6] % 1, "killed at the boundary of an epoch"
    run_ranks(rank_jobs.run_scripts, 2, job("both-killed"))
    assert outcome(folder / "both-killed", last=STEPS) == outcome(folder / "both", last=STEPS)


def test_losses_of_held_out_texts(server, folder):
    """Of each objective and corpus, logged apart, with their means; a model's folder that fine-tuning takes."""
    dev = {"dev_data": f"x={folder / 'dev.txt'}", "eval_steps": 6, "evaluation_strategy": "steps"}
    assert run(server, "measured", **dev) == 0, server.said()
    rows = [row for row in figures(folder / "measured") if "eval_loss" in row]
    assert [row["step"] for row in rows] == [6, 12]
    for row in rows:
        losses = [row[f"eval_loss ({kind})"] for kind in KINDS]
        assert row["eval_loss"] == pytest.approx(np.mean(losses))
    assert rows[1]["eval_loss"] < rows[0]["eval_loss"]
    report = json.loads((folder / "measured" / "data_report.json").read_text())
    assert set(report) == {"train/a", "train/b", "dev/x"}
    assert server.run("tuned", model_name_or_path=folder / "measured", max_steps=2) == 0, server.said()


def test_losses_of_each_corpus(server, folder):
    """In the log, in the results and on the model's card, by the same numbers."""
    (folder / "other.txt").write_text("\n".join(f"答案：{place}，上下文：她在{place}。" for place in PLACES))
    dev = {"dev_data": [f"x={folder / 'dev.txt'}", f"y={folder / 'other.txt'}"], "eval_steps": 6}
    assert run(server, "by-corpus", evaluation_strategy="steps", **dev) == 0, server.said()
    rows = [row for row in figures(folder / "by-corpus") if "eval_loss" in row]
    results = json.loads((folder / "by-corpus" / "eval_results.json").read_text())
    card = (folder / "by-corpus" / "README.md").read_text()
    for name in ("x/loss", "y/loss", *(f"{of}/loss ({kind})" for of in "xy" for kind in KINDS)):
        value = rows[-1][f"eval_{name}"]
        assert value == results[f"eval_{name}"] and value < rows[0][f"eval_{name}"]
        assert re.search(rf"^\| {re.escape(name)} \| {value:.2f} \|", card, re.M), (name, card)
    for kind in KINDS:
        pair = [rows[-1][f"eval_{of}/loss ({kind})"] for of in "xy"]
        assert pair[0] != pair[1] and rows[-1][f"eval_loss ({kind})"] == pytest.approx(np.mean(pair))
    report = json.loads((folder / "by-corpus" / "data_report.json").read_text())
    assert set(report) == {"train/a", "train/b", "dev/x", "dev/y"}


def test_tasks_are_mixed_in(server, folder, whole):
    records = [{"source": f"{place}在哪里？", "target": f"{place}在河的北岸。"} for place in PLACES]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    mixed = {"multi_task_ratio": 0.5, "multi_task_data": f"paraphrase={folder / 'pairs.jsonl'}"}
    assert run(server, "mixed", **mixed) == 0, server.said()
    assert run(server, "mixed-again", "kill_at_step", 5, **mixed) == -9
    assert run(server, "mixed-again", **mixed) == 0
    assert outcome(folder / "mixed", last=STEPS) == outcome(folder / "mixed-again", last=STEPS)
    assert logged(folder / "mixed", "loss") != logged(folder / "pretrained", "loss")
    assert run(server, "none", multi_task_data=f"cmrc={folder / 'pairs.jsonl'}") == 1


def test_a_corpus_that_changed_since_the_checkpoint(server, folder, whole):
    before = (folder / "b.txt").read_text()
    assert run(server, "changed", "kill_at_step", 5) == -9
    (folder / "b.txt").write_text(before.replace("答案", "回答"))
    assert run(server, "changed") == 1
    (error,) = server.errors()
    assert "the run is another one now (b (SHA-256): " in error and " then, " in error and " now" in error
    (folder / "b.txt").write_text(before)
    assert run(server, "changed") == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seq_length": 101}, "seq_length 101: the model has 100 positions"),
        ({"bert_prob": 0.9, "gap_sentence_prob": 0.2}, "bert_prob 0.9 + gap_sentence_prob 0.2: are above 1"),
        ({"bert_ratio": 1.5}, "bert_ratio 1.5"),
        ({"mask_prob": 0.2}, "mask_prob 0.2: GLM cannot do this"),
        ({"max_tokens": 30, "per_device_train_batch_size": None, "weights": None}, "a sample may have 52 tokens"),
        (
            {"metric_for_best_model": "bleu", "dev_data": "none.txt"},
            "metric_for_best_model bleu: unknown; use loss, loss (token)",
        ),
    ],
)
def test_errors_before_training(server, folder, options, told):
    assert run(server, "refused", **options) != 0
    assert told in "\n".join(server.errors()), server.said()
    assert not (folder / "refused").exists() or list((folder / "refused").glob("checkpoint*")) == []


def test_bad_texts_name_file_and_line(server, folder):
    (folder / "bad.jsonl").write_text('{"text": "好的"}\n{"text": "一 [gMASK] 二"}\n')
    assert run(server, "bad", train_data=f"a={folder / 'bad.jsonl'}") != 0
    assert f"{folder / 'bad.jsonl'}, line 2, field text: holds the command token [gMASK]" in server.said()


def test_a_dry_run_shows_what_a_run_would_be_and_leaves_nothing(server, folder):
    """Three samples, and what is learnt of them stands in the corpora."""
    assert run(server, "dry", dry_run=True, seed=9) == 0, server.said()
    assert not (folder / "dry").exists()
    shown = server.said()
    assert [f"sample {n}: " in shown for n in (1, 2, 3, 4)] == [True, True, True, False]
    corpora = (folder / "a.jsonl").read_text("unicode_escape") + (folder / "b.txt").read_text()
    learnt = [line.partition(": ")[2] for line in shown.splitlines() if line.startswith("  learns (")]
    assert len(learnt) >= 3
    assert all(piece in corpora for line in learnt for piece in re.findall("[\u4e00-\u9fff]+", line))
    for told in (
        "documents of train/a, tokens: min",
        "documents of train/b, tokens: min",
        "samples (the first ",
        "of these learnt (the first ",
        f"steps: {STEPS} = ",
        "memory: ",
        "time: ",
        "dry_run True: nothing was trained",
    ):
        assert told in shown, told


NEEDED = ["--model_name_or_path", "m.json", "--output_dir", "o"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "train_data: is missing"),
        (["--train_data", "a", "--weights", "1,2"], "weights 1,2: has no effect with one corpus"),
        (["--train_data", "a=x", "b=y", "--weights", "1"], "one for each of the 2 corpora"),
        (["--train_data", "a", "--multi_task_ratio", "0.5"], "multi_task_ratio 0.5: has no effect without"),
        (
            ["--train_data", "a", "--multi_task_ratio", "1.5", "--multi_task_data", "t=x"],
            "multi_task_ratio 1.5: use 0",
        ),
        (["--train_data", "a", "--multi_task_data", "x"], "say which task it is of"),
        (["--train_data", "a", "--gpt_infill_prob", "1", "--infill_prob", "0"], "by its old name; leave one out"),
        (["--train_data", "a", "--do_eval"], "do_eval True: give the texts held out with --dev_data"),
        (["--train_data", "a", "--max_dev_samples", "3"], "max_dev_samples 3: has no effect without dev_data"),
        (["--train_data", "a", "--per_device_eval_batch_size", "3"], "per_device_eval_batch_size 3: has no effect"),
        (["--train_data", "a", "--packing"], "packing True: means nothing in pretraining"),
        (["--train_data", "a", "--do_train", "false"], "do_train False: this verb trains"),
        (["--train_file", "a"], "unknown option train_file"),
    ],
)
def test_wrong_options(argv, told):
    with pytest.raises(UsageError) as caught:
        parse_pretrain_arguments([*NEEDED, *argv])
    assert told in "\n".join(caught.value.messages)


def test_the_old_name_of_continuations(capsys):
    from glm.models.glm import FAMILY

    found = parse_pretrain_arguments([*NEEDED, "--train_data", "a", "--gpt_infill_prob", "0.75", "--device", "cpu"])
    assert found.objective.of_family(FAMILY) == {"infill_prob": 0.25}
    assert "is the share of continuations" in capsys.readouterr().err
    assert found.training.label_smoothing == 0.0


@pytest.mark.conformance
def test_losses_of_all_objectives_fall(server, folder, whole, real_data):  # check 15
    """A tiny model goes on with 200 sentences of FLORES: on others its loss of each objective is lower than before."""
    (path,) = sorted((real_data / "data" / "flores200").glob("dev.zho*"))[:1]
    lines = path.read_text(encoding="utf-8").splitlines()
    (folder / "flores.txt").write_text("\n".join(lines[:200]), encoding="utf-8")
    (folder / "flores-dev.txt").write_text("\n".join(lines[200:240]), encoding="utf-8")

    def losses(name: str, **options) -> dict[str, float]:
        own = {"tokenizer_name_or_path": server.workspace.tokenizer_file, "output_dir": folder / name}
        texts = {"train_data": f"a={folder / 'flores.txt'}", "dev_data": folder / "flores-dev.txt"}
        argv = options_of(folder, model_name_or_path=folder / "pretrained", save_steps=100, **own, **texts, **options)
        argv.remove(f"b={folder / 'b.txt'}")
        assert server.call(["pretrain", *argv]) == 0, server.said()
        assert all(f"eval_loss ({kind}): " in server.said() for kind in KINDS)
        return [row for row in figures(folder / name) if "eval_loss" in row][-1]

    before = losses("flores-before", max_steps=1, learning_rate=1e-6)
    after = losses("flores-after", max_steps=60)
    for kind in KINDS:
        assert after[f"eval_loss ({kind})"] < before[f"eval_loss ({kind})"] - 0.05, (before, after)
