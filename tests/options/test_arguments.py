"""Arguments: the commands as users write them, files and flags together, and errors that name the option."""

import json
import types
from pathlib import Path

import paddle
import pytest
from paddle.distributed import fleet

from glm.errors import UsageError
from glm.options.finetune import parse_finetune_arguments, parse_predict_arguments
from glm.options.run_config import RUN_CONFIG_NAME, read_config

# PaddleNLP's GLM example, as its users wrote it
EXAMPLE = (
    "--model_name_or_path THUDM/glm-large-chinese --num_train_epochs 4 --learning_rate 3e-5 --warmup_ratio 0.06 "
    "--weight_decay 0.1 --label_smoothing 0.1 --save_steps 10000 --logging_steps 1 --eval_steps 4 "
    "--output_dir ./checkpoints/glm-large-chinese --src_length 608 --tgt_length 160 --min_tgt_length 55 "
    "--length_penalty 0.7 --no_repeat_ngram_size 3 --num_beams 5 --select_topk True --per_device_eval_batch_size 2 "
    "--per_device_train_batch_size 2 --max_grad_norm 1.0 --lr_scheduler_type linear --fp16 --recompute --do_train "
    "--do_eval"
).split()
CPU = ["--device", "cpu"]
TRAIN = ["--output_dir", "out", "--do_train", *CPU]


@pytest.fixture(autouse=True)
def gpus(monkeypatch):
    """A switch: tests run as on a machine without a GPU until `gpus(True)`."""

    def there_are(answer: bool) -> None:
        monkeypatch.setattr("glm.runtime.device.has_gpu", lambda: answer)

    there_are(False)
    return there_are


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What is logged as a warning."""
    found: list[str] = []
    monkeypatch.setattr("paddlenlp.utils.log.logger.warning", found.append)
    return found


@pytest.fixture
def write(tmp_path):
    """A factory: `write({...})` or `write("text")`, the path of a configuration file."""

    def write(settings: dict | str) -> str:
        path = tmp_path / "run.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
        return str(path)

    return write


def usage_error(*argv: str, parse=parse_finetune_arguments) -> str:
    with pytest.raises(UsageError) as caught:
        parse(list(argv))
    return str(caught.value)


# -- the two commands of the example


def test_first_command(warnings):
    arguments = parse_finetune_arguments(EXAMPLE)
    training, generation, data = arguments.training, arguments.generation, arguments.data
    assert arguments.model.model_name_or_path == "THUDM/glm-large-chinese"
    assert (data.task_name, data.src_length, arguments.files.train_file) == ("dureader_qg", 608, None)
    assert (generation.tgt_length, generation.min_tgt_length, generation.num_beams) == (160, 55, 5)
    assert (generation.length_penalty, generation.no_repeat_ngram_size, generation.select_topk) == (0.7, 3, True)
    assert (training.num_train_epochs, training.learning_rate, training.warmup_ratio) == (4, 3e-5, 0.06)
    assert (training.weight_decay, training.label_smoothing, training.max_grad_norm) == (0.1, 0.1, 1.0)
    assert (training.save_steps, training.logging_steps, training.eval_steps) == (10000, 1, 4)
    assert (training.save_strategy.value, training.evaluation_strategy.value) == ("steps", "steps")
    assert (training.per_device_train_batch_size, training.per_device_eval_batch_size) == (2, 2)
    assert (training.lr_scheduler_type, training.lr_decay_ratio) == ("linear", 0.1)
    assert (training.recompute, training.do_train, training.do_eval, training.do_predict) == (True, True, True, False)
    assert training.output_dir == "./checkpoints/glm-large-chinese"
    assert (training.device, training.fp16) == ("cpu", False)
    assert [text for text in warnings if text.startswith("fp16")] == [
        "fp16: a CPU computes in float32, so this run does"
    ]
    assert [text for text in warnings if text.startswith("device")] == [
        "device gpu: no GPU can be used here, so this runs on the CPU (--device cpu)"
    ]


def test_second_command_in_one_process():
    message = usage_error(*EXAMPLE, "--tensor_parallel_degree", "8")
    assert message == "tensor_parallel_degree 8: needs 8 processes; start with python -m paddle.distributed.launch"


def test_second_command_among_eight_processes(monkeypatch):
    """The launcher's eight processes are made believe; starting them is the tensor-parallel tests' matter."""
    group = types.SimpleNamespace()
    for name in ("model", "pipe", "sharding", "data", "sep"):
        for prefix in ("get_%s_parallel_rank", "get_%s_parallel_world_size"):
            setattr(group, prefix % name, lambda: 1)
    group.get_stage_id = lambda: 0
    monkeypatch.setenv("PADDLE_RANK_IN_NODE", "0")
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda *args: 8)
    helper = paddle.distributed.parallel.parallel_helper
    monkeypatch.setattr(helper, "_is_parallel_ctx_initialized", lambda: True)
    monkeypatch.setattr(fleet.fleet, "_hcg", group, raising=False)
    arguments = parse_finetune_arguments([*EXAMPLE, "--tensor_parallel_degree", "8"])
    assert arguments.training.tensor_parallel_degree == 8
    assert (arguments.generation.min_tgt_length, arguments.training.recompute) == (55, True)


def test_store_true_forms():
    for argv, expected in (
        (["--recompute"], True),
        (["--recompute", "True"], True),
        (["--recompute=true"], True),
        (["--recompute", "False"], False),
        ([], False),
    ):
        assert parse_finetune_arguments([*TRAIN, *argv]).training.recompute is expected
    for argv, expected in (
        (["--select_topk"], True),
        (["--select_topk", "False"], False),
        (["--no_select_topk"], False),
        ([], True),
    ):
        assert parse_finetune_arguments([*TRAIN, *argv]).generation.select_topk is expected


# -- a file, and flags after it


def test_file_then_flags(write):
    path = write({"output_dir": "a", "do_train": True, "device": "cpu", "num_beams": 3, "learning_rate": 0.002})
    arguments = parse_finetune_arguments([path])
    assert (arguments.generation.num_beams, arguments.training.learning_rate) == (3, 0.002)
    arguments = parse_finetune_arguments([path, "--num_beams", "7", "--output_dir=b", "--src_length", "99"])
    assert (arguments.generation.num_beams, arguments.training.learning_rate) == (7, 0.002)
    assert (arguments.training.output_dir, arguments.data.src_length) == ("b", 99)
    assert arguments.given == {
        "device": "cpu",
        "do_train": True,
        "learning_rate": 0.002,
        "num_beams": 7,
        "output_dir": "b",
        "src_length": 99,
    }


def test_flags_may_unset_what_the_file_sets(write):
    path = write({"output_dir": "a", "do_train": True, "do_eval": True, "device": "cpu", "select_topk": True})
    arguments = parse_finetune_arguments([path, "--do_eval", "False", "--select_topk", "False"])
    assert (arguments.training.do_eval, arguments.generation.select_topk) == (False, False)


def test_notes_of_a_file(write):
    path = write({"_about": "notes", "_run": None, "output_dir": "a", "do_train": True, "device": "cpu"})
    assert parse_finetune_arguments([path]).given == {"device": "cpu", "do_train": True, "output_dir": "a"}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("num_beam", "num_beams"),
        ("leraning_rate", "learning_rate"),
        ("src_lenght", "src_length"),
        ("lable_smoothing", "label_smoothing"),
        ("no_block_positions", "no_block_position"),
    ],
)
def test_misspelt_option(write, wrong, right):
    path = write({"output_dir": "a", "do_train": True, wrong: 1})
    assert usage_error(path) == f"{path}: unknown option {wrong}; did you mean {right}?"
    message = f"command line: unknown option {wrong}; did you mean {right}?"
    assert usage_error(*TRAIN, f"--{wrong}", "1") == message
    assert usage_error(*TRAIN, f"--{wrong}=1") == message


def test_misspelt_option_like_no_other(write):
    path = write({"zzzz": 1})
    assert usage_error(path) == f"{path}: unknown option zzzz"


def test_no_abbreviations():
    assert usage_error(*TRAIN, "--src_len", "64").startswith("command line: unknown option src_len; did you mean src_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"num_beams": null}', ": num_beams is null; leave it out to have its default"),
        ("[1]", ": a JSON object is expected"),
        ("{'num_beams': 3}", ": cannot be read as JSON (Expecting property name"),
        ("", ": cannot be read as JSON (Expecting value"),
        ('{"num_beams": "three", "output_dir": "a"}', "argument --num_beams: invalid int value: 'three'"),
        ('{"num_beams": 2.5, "output_dir": "a"}', "argument --num_beams: invalid int value: '2.5'"),
        ('{"do_train": "maybe", "output_dir": "a"}', "argument --do_train: Truthy value expected: got maybe"),
    ],
)
def test_bad_file(write, text, message):
    path = write(text)
    error = usage_error(path)
    assert message in error
    if message.startswith(":"):
        assert error.startswith(path)


def test_missing_file(tmp_path):
    path = str(tmp_path / "nowhere.json")
    assert usage_error(path).startswith(f"{path}: cannot be read as JSON ([Errno 2] No such file")


def test_file_in_another_encoding(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes('{"output_dir": "输出"}'.encode("gb18030"))
    assert usage_error(str(path)).startswith(f"{path}: cannot be read as JSON ('utf-8' codec")


def test_file_too_nested(write):
    assert "cannot be read as JSON" in usage_error(write("[" * 100_000))


def test_read_config_keeps_order_and_values(write):
    path = Path(write('{"b": [1, 2], "_a": 0, "a": {"x": 1}, "c": "中"}'))
    assert list(read_config(path).items()) == [("b", [1, 2]), ("a", {"x": 1}), ("c", "中")]


@pytest.mark.parametrize("first", ["run.yaml", "data/train", "train"])
def test_first_argument_is_a_file_or_an_option(first):
    message = usage_error(first, *TRAIN)
    assert message == f"{first}: a configuration file ending in .json, or an option, is expected first"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_beams", "3", "4"], "command line: 4 belongs to no option"),
        (["-x"], "command line: -x belongs to no option"),
        (["--num_beams"], "argument --num_beams: expected one argument"),
        (["--num_beams", "many"], "argument --num_beams: invalid int value: 'many'"),
        (["--lr_scheduler_type", "lineal"], "argument --lr_scheduler_type: invalid choice: 'lineal'"),
        (["--early_stopping", "maybe"], "argument --early_stopping: invalid choice: 'maybe'"),
        (["--load_best_model_at_end", "--save_strategy", "epoch"], "load_best_model_at_end"),
    ],
)
def test_malformed(argv, message):
    assert message in usage_error(*TRAIN, *argv)


def test_output_dir_is_needed():
    assert "--output_dir" in usage_error("--do_train", *CPU)


# -- values out of range, and options without effect


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--label_smoothing", "1"], "label_smoothing 1.0: use 0 or more, and less than 1"),
        (["--label_smoothing", "-0.1"], "label_smoothing -0.1: use 0 or more, and less than 1"),
        (["--label_smoothing", "nan"], "label_smoothing nan: use 0 or more, and less than 1"),
        (["--lr_decay_ratio", "1.01"], "lr_decay_ratio 1.01: use 0 to 1"),
        (["--lr_decay_ratio", "-0.5"], "lr_decay_ratio -0.5: use 0 to 1"),
        (["--src_length", "7"], "src_length 7: use 8 or more"),
        (["--attention_dropout_prob", "1"], "attention_dropout_prob 1.0: use 0 or more, and less than 1"),
        (["--embedding_dropout_prob", "-1"], "embedding_dropout_prob -1.0: use 0 or more, and less than 1"),
        (["--output_dropout_prob", "2"], "output_dropout_prob 2.0: use 0 or more, and less than 1"),
        (["--layerwise_lr_decay", "0"], "layerwise_lr_decay 0.0: use a number above 0, at most 1"),
        (["--layerwise_lr_decay", "1.1"], "layerwise_lr_decay 1.1: use a number above 0, at most 1"),
        (["--max_tokens", "0"], "max_tokens 0: use 1 or more"),
        (["--pad_to_multiple_of", "0"], "pad_to_multiple_of 0: use 1 or more"),
        (["--update_freq", "0"], "gradient_accumulation_steps 0: use 1 or more"),
        (
            ["--max_tokens", "4096", "--per_device_train_batch_size", "8"],
            "max_tokens 4096: has no effect beside per_device_train_batch_size 8; leave one out",
        ),
        (
            ["--update_freq", "4", "--gradient_accumulation_steps", "2"],
            "update_freq 4: is gradient_accumulation_steps by another name, and that is 2; leave one out",
        ),
        (["--power", "2"], "power 2.0: has no effect with lr_scheduler_type linear"),
        (["--lr_end", "1e-6"], "lr_end 1e-06: has no effect in this program; leave it out"),
        (["--num_cycles", "2"], "num_cycles 2.0: has no effect in this program; leave it out"),
        (
            ["--lr_scheduler_type", "inverse_sqrt"],
            "lr_scheduler_type inverse_sqrt: falls from the end of a warmup; add warmup_steps or warmup_ratio",
        ),
        (["--unified_checkpoint"], "unified_checkpoint True: has no effect in this program"),
        (["--ignore_load_lr_and_optim"], "ignore_load_lr_and_optim True: has no effect in this program"),
        (["--fp16_opt_level", "O2"], "fp16_opt_level O2: has no effect without --fp16 or --bf16"),
        (["--scale_loss", "1024"], "scale_loss 1024.0: has no effect without --fp16 or --bf16"),
        (["--pipeline_parallel_degree", "2"], "pipeline_parallel_degree 2: not supported for GLM"),
        (["--sequence_parallel"], "sequence_parallel True: not supported for GLM"),
        (["--sharding_parallel_degree", "4"], "sharding_parallel_degree 4: needs 4 processes"),
        (["--sharding", "stage3"], "sharding stage3: stage3 is not supported for GLM; use stage1 or stage2"),
        (["--sharding", "stage2 offload"], "sharding stage2 offload: offload is not supported for GLM"),
        (
            ["--sharding", "stage2", "--release_grads", "true"],
            "release_grads True: has no effect with sharding stage2",
        ),
        (
            ["--sharding", "stage1", "--sharding_parallel_config", "split_param"],
            "sharding_parallel_config split_param: split_param is not supported for GLM; leave it out",
        ),
        (["--dev_file", "dev.json"], "dev_file dev.json: has no effect without --do_eval"),
        (["--test_file", "test.json"], "test_file test.json: has no effect without --do_predict"),
        (["--do_predict"], "do_predict True: give the records with --test_file"),
    ],
)
def test_out_of_range_or_without_effect(argv, message):
    assert usage_error(*TRAIN, *argv).startswith(message)


def test_gradients_are_freed():
    assert parse_finetune_arguments(TRAIN).training.release_grads is True
    assert parse_finetune_arguments([*TRAIN, "--release_grads", "false"]).training.release_grads is False


@pytest.mark.parametrize("value", ["0", "0.0", "0.999"])
def test_label_smoothing_in_range(value):
    assert parse_finetune_arguments([*TRAIN, "--label_smoothing", value]).training.label_smoothing == float(value)


def test_train_file_without_training():
    argv = ["--output_dir", "out", "--do_eval", *CPU]
    assert usage_error(*argv, "--train_file", "t.json") == "train_file t.json: has no effect without --do_train"
    assert parse_finetune_arguments([*argv, "--dev_file", "d.json"]).files.dev_file == "d.json"


def test_nothing_to_do():
    message = "nothing to do: add --do_train, --do_eval or --do_predict"
    assert usage_error("--output_dir", "out", *CPU) == message


def test_update_freq_is_gradient_accumulation_steps():
    assert parse_finetune_arguments([*TRAIN, "--update_freq", "4"]).training.gradient_accumulation_steps == 4
    argv = ["--update_freq", "4", "--gradient_accumulation_steps", "4"]
    assert parse_finetune_arguments([*TRAIN, *argv]).training.gradient_accumulation_steps == 4


@pytest.mark.parametrize("shape", ["linear", "cosine", "inverse_sqrt", "polynomial"])
def test_lr_decay_ratio_of_schedules_that_decay(shape):
    argv = [*TRAIN, "--lr_scheduler_type", shape, "--warmup_steps", "10"]
    assert parse_finetune_arguments(argv).training.lr_decay_ratio == 0.1
    for value in (0.0, 0.3, 1.0):
        assert parse_finetune_arguments([*argv, "--lr_decay_ratio", str(value)]).training.lr_decay_ratio == value


@pytest.mark.parametrize("shape", ["constant", "constant_with_warmup"])
def test_lr_decay_ratio_of_other_schedules(shape):
    argv = [*TRAIN, "--lr_scheduler_type", shape]
    assert parse_finetune_arguments(argv).training.lr_decay_ratio == 1.0
    assert usage_error(*argv, "--lr_decay_ratio", "0.1") == (
        f"lr_decay_ratio 0.1: has no effect with lr_scheduler_type {shape}; "
        "leave it out or use linear or cosine or inverse_sqrt or polynomial"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_return_sequences", "6"], "num_return_sequences 6: use 1 to 5, or raise num_beams"),
        (["--num_beams", "0"], "num_beams 0: use 1 or more"),
        (["--min_tgt_length", "160"], "min_tgt_length 160: use 0 to 159 (tgt_length)"),
        (["--top_k", "5"], "top_k 5: it has no effect with select_topk True: use False"),
    ],
)
def test_decoding_options_out_of_range(argv, message):
    assert usage_error(*TRAIN, *argv) == message


def test_decoding_options_reach_the_decoder():
    argv = (
        "--select_topk False --num_beams 4 --num_return_sequences 3 --top_k 20 --top_p 0.9 --temperature 0.7 "
        "--repetition_penalty 1.3 --no_repeat_ngram_size 2 --length_penalty 1.5 --min_tgt_length 4 --tgt_length 30 "
        "--early_stopping never --generation_seed 5"
    ).split()
    generation = parse_finetune_arguments([*TRAIN, *argv]).generation
    assert vars(generation) == {
        "tgt_length": 30,
        "min_tgt_length": 4,
        "num_beams": 4,
        "length_penalty": 1.5,
        "early_stopping": "never",
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
        "select_topk": False,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.9,
        "num_return_sequences": 3,
        "generation_seed": 5,
    }


@pytest.mark.parametrize(
    ("argv", "strategy", "steps"),
    [
        ([], "no", None),  # evaluates once, at the end
        (["--evaluation_strategy", "no"], "no", None),
        (["--eval_steps", "4"], "steps", 4),
        (["--evaluation_strategy", "steps", "--eval_steps", "7"], "steps", 7),
        (["--evaluation_strategy", "steps", "--logging_steps", "9"], "steps", 9),
        (["--evaluation_strategy", "epoch"], "epoch", None),
    ],
)
def test_when_a_run_evaluates(argv, strategy, steps):
    training = parse_finetune_arguments([*TRAIN, "--do_eval", *argv]).training
    assert training.do_eval is True
    assert (training.evaluation_strategy.value, training.eval_steps) == (strategy, steps)
    assert parse_finetune_arguments(TRAIN).training.do_eval is False


def test_dropout_is_what_was_given():
    argv = ["--attention_dropout_prob", "0", "--output_dropout_prob", "0.2"]
    assert parse_finetune_arguments([*TRAIN, *argv]).dropout.given == {
        "attention_dropout_prob": 0.0,
        "output_dropout_prob": 0.2,
    }
    assert parse_finetune_arguments(TRAIN).dropout.given == {}


# -- device and precision


@pytest.mark.parametrize("device", ["gpu", "gpu:0", "gpu:3"])
def test_device_falls_back(warnings, device):
    argv = ["--output_dir", "out", "--do_train", "--device", device]
    assert parse_finetune_arguments(argv).training.device == "cpu"
    assert warnings == [f"device {device}: no GPU can be used here, so this runs on the CPU (--device cpu)"]


def test_nothing_is_warned_of_on_a_cpu(warnings):
    assert parse_finetune_arguments(TRAIN).training.device == "cpu"
    assert warnings == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_falls_back(warnings, precision):
    training = parse_finetune_arguments([*TRAIN, f"--{precision}"]).training
    assert getattr(training, precision) is False
    assert warnings == [f"{precision}: a CPU computes in float32, so this run does"]


def test_device_and_precision_with_a_gpu(gpus, warnings):
    gpus(True)
    training = parse_finetune_arguments(["--output_dir", "out", "--do_train", "--fp16"]).training
    assert (training.device, training.fp16) == ("gpu", True)
    assert warnings == []


def test_half_precision_on_the_cpu_of_a_machine_with_a_gpu(gpus):
    gpus(True)
    assert parse_finetune_arguments([*TRAIN, "--fp16"]).training.fp16 is False


# -- what a run leaves for later ones


def test_run_config_is_a_file_that_means_the_same(write):
    argv = [
        *TRAIN,
        *"--num_beams 3 --learning_rate 0.002 --src_length 99 --no_block_position --label_smoothing 0".split(),
        *"--attention_dropout_prob 0.0 --lr_scheduler_type cosine --warmup_ratio 0.06 --seed 7".split(),
        *"--tokenizer_name_or_path tok --train_file t.json --evaluation_strategy no --recompute".split(),
        *"--select_topk False --top_k 4 --early_stopping true".split(),
    ]
    first = parse_finetune_arguments(argv)
    again = parse_finetune_arguments([write(first.run_config())])
    for group in ("model", "data", "generation", "files", "dropout"):
        assert getattr(again, group) == getattr(first, group)
    ignored = {"logging_dir"}  # has the time in it
    differing = {
        name: (value, vars(again.training)[name])
        for name, value in vars(first.training).items()
        if name not in ignored and vars(again.training)[name] != value
    }
    assert differing == {}
    assert again.run_config() == first.run_config()


def test_run_config_holds_defaults_of_prediction():
    settings = parse_finetune_arguments(TRAIN).run_config()
    assert (settings["src_length"], settings["tgt_length"], settings["num_beams"]) == (608, 160, 5)
    assert settings["task_name"] == "dureader_qg" and settings["do_train"] is True
    assert None not in settings.values()


# -- predict.py


@pytest.fixture
def checkpoint(tmp_path):
    """A factory: `checkpoint(option=value, ...)`, the name of a folder with such a run's settings."""

    def make(**settings) -> str:
        (tmp_path / RUN_CONFIG_NAME).write_text(json.dumps(settings), encoding="utf-8")
        return str(tmp_path)

    return make


TRAINED = {
    "_note": None,
    "model_name_or_path": "configs/model/tiny.json",
    "task_name": "other_task",
    "src_length": 77,
    "no_block_position": True,
    "tgt_length": 33,
    "min_tgt_length": 2,
    "num_beams": 4,
    "length_penalty": 1.1,
    "train_file": "train.json",
    "learning_rate": 0.1,
    "output_dir": "runs/a",
    "device": "gpu",
}


def test_prediction_follows_the_checkpoint(checkpoint):
    folder = checkpoint(**TRAINED)
    model, data, generation, arguments, inherited = parse_predict_arguments(["--model_name_or_path", folder, *CPU])
    assert model.model_name_or_path == folder
    assert (data.task_name, data.src_length, data.no_block_position) == ("other_task", 77, True)
    assert arguments.test_file is None  # standard input
    assert (generation.tgt_length, generation.min_tgt_length) == (33, 2)
    assert (generation.num_beams, generation.length_penalty) == (4, 1.1)
    assert arguments.device == "cpu"
    followed = ("task_name", "src_length", "no_block_position", "tgt_length", "min_tgt_length", "num_beams")
    assert inherited == {name: TRAINED[name] for name in (*followed, "length_penalty")}


def test_flags_win_over_the_checkpoint(checkpoint, tmp_path):
    folder = checkpoint(**TRAINED)
    flags = ["--num_beams", "6", "--src_length", "88", "--no_block_position", "False"]
    _, data, generation, _, inherited = parse_predict_arguments(["--model_name_or_path", folder, *CPU, *flags])
    assert (data.src_length, data.no_block_position) == (88, False)
    assert (generation.num_beams, generation.tgt_length) == (6, 33)
    assert set(inherited) == {"task_name", "tgt_length", "min_tgt_length", "length_penalty"}
    path = tmp_path / "predict.json"
    path.write_text(json.dumps({"model_name_or_path": folder, "num_beams": 6, "tgt_length": 20, "device": "cpu"}))
    _, data, generation, _, inherited = parse_predict_arguments([str(path), "--tgt_length", "21"])
    assert (data.src_length, generation.num_beams, generation.tgt_length) == (77, 6, 21)
    assert "num_beams" not in inherited and "tgt_length" not in inherited


def test_a_flag_equal_to_the_default_is_given_too(checkpoint):
    folder = checkpoint(**TRAINED)
    _, data, generation, _, _ = parse_predict_arguments(
        ["--model_name_or_path", folder, *CPU, "--num_beams", "5", "--src_length", "608"]
    )
    assert (generation.num_beams, data.src_length) == (5, 608)


def test_model_without_settings(tmp_path):
    _, data, generation, _, inherited = parse_predict_arguments(["--model_name_or_path", str(tmp_path), *CPU])
    assert (data.src_length, generation.tgt_length, inherited) == (608, 160, {})
    _, _, _, _, inherited = parse_predict_arguments(["--model_name_or_path", "THUDM/glm-large-chinese", *CPU])
    assert inherited == {}


def test_settings_that_cannot_be_read(tmp_path):
    (tmp_path / RUN_CONFIG_NAME).write_text("{", encoding="utf-8")
    message = usage_error("--model_name_or_path", str(tmp_path), *CPU, parse=parse_predict_arguments)
    assert message.startswith(f"{tmp_path / RUN_CONFIG_NAME}: cannot be read as JSON")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train_file", "t.json"], "command line: unknown option train_file"),
        (["--dev_file", "d.json"], "command line: unknown option dev_file"),
        (["--per_device_eval_batch_size", "0"], "per_device_eval_batch_size 0: use 1 or more"),
        (["--show", "-1"], "show -1: use 0 or more"),
        (["--learning_rate", "1"], "command line: unknown option learning_rate"),
        (["--ouput_file", "o"], "command line: unknown option ouput_file; did you mean output_file?"),
        (["--device", "tpu"], "device tpu: use cpu, gpu or gpu:N"),
        (["--src_length", "7"], "src_length 7: use 8 or more"),
        (["--decode_dtype", "int8"], "argument --decode_dtype: invalid choice: 'int8'"),
        (
            ["--decode_dtype", "float16"],
            "decode_dtype float16: a CPU has no such products; use float32 or bfloat16",
        ),
        (["--test_file", "a", "--fill", "b"], "fill b: has no effect beside test_file; choose one"),
        (["--fill_file", "a", "--test_file", "b"], "fill_file a: has no effect beside test_file; choose one"),
        (["--fill_file", "a", "--fill", "b"], "fill_file a: has no effect beside fill; choose one"),
        (
            ["--fill", "a", "--metrics_file", "m"],
            "metrics_file m: filled blanks have no references to be scored against",
        ),
        (
            ["--fill_file", "a", "--metrics_file", "m"],
            "metrics_file m: filled blanks have no references to be scored against",
        ),
        (["--resume", "--test_file", "a"], "resume True: there is nothing to continue without output_file"),
        (
            ["--resume", "--output_file", "o"],
            "resume True: there is nothing to continue without test_file or fill_file",
        ),
        (
            ["--resume", "--output_file", "o", "--fill", "a"],
            "resume True: there is nothing to continue without test_file or fill_file",
        ),
        (
            ["--resume", "--output_file", "o", "--test_file", "a", "--overwrite_output"],
            "resume True: has no effect beside overwrite_output True; choose one",
        ),
        (["--fill", "a", "--task_name", "t"], "task_name t: has no effect where blanks are filled; leave it out"),
        (["--fill_file", "a", "--show", "5"], "show 5: has no effect where blanks are filled; leave it out"),
    ],
)
def test_wrong_usage_of_predict(tmp_path, argv, message):
    error = usage_error("--model_name_or_path", str(tmp_path), *CPU, *argv, parse=parse_predict_arguments)
    assert error.startswith(message)


def predict_arguments(folder, *argv: str):
    return parse_predict_arguments(["--model_name_or_path", str(folder), *argv])[3]


def test_float16_on_a_gpu(gpus, tmp_path):
    gpus(True)
    assert predict_arguments(tmp_path, "--decode_dtype", "float16").decode_dtype == "float16"
    with pytest.raises(UsageError, match="decode_dtype float16"):
        predict_arguments(tmp_path, *CPU, "--decode_dtype", "float16")


@pytest.mark.parametrize(
    ("argv", "fills", "input_file"),
    [
        ([], False, None),
        (["--test_file", "a"], False, "a"),
        (["--fill", "a"], True, None),
        (["--fill", ""], True, None),
        (["--fill_file", "a"], True, "a"),
    ],
)
def test_what_predict_reads(tmp_path, argv, fills, input_file):
    arguments = predict_arguments(tmp_path, *CPU, *argv)
    assert (arguments.fills, arguments.input_file) == (fills, input_file)


def test_resume_needs_two_files(tmp_path):
    for name in ("test_file", "fill_file"):
        assert predict_arguments(tmp_path, *CPU, "--resume", "--output_file", "o", f"--{name}", "a").resume is True


def test_settings_of_the_checkpoint_do_not_disturb_filling(checkpoint):
    """Its task is inherited, which is not an error where nobody asked for it."""
    arguments = ["--model_name_or_path", checkpoint(**TRAINED), *CPU, "--fill", "a"]
    _, data, generation, _, inherited = parse_predict_arguments(arguments)
    assert data.src_length == 77 and generation.tgt_length == 33 and "task_name" in inherited


@pytest.mark.parametrize(
    ("trained", "flags"),
    [
        ({"num_beams": 8}, ["--num_return_sequences", "8"]),
        ({"tgt_length": 200}, ["--min_tgt_length", "170"]),
        ({"select_topk": False}, ["--top_k", "5"]),
    ],
)
def test_flags_are_checked_beside_the_checkpoints(checkpoint, trained, flags):
    _, _, generation, _, _ = parse_predict_arguments(["--model_name_or_path", checkpoint(**trained), *CPU, *flags])
    assert str(getattr(generation, flags[0][2:])) == flags[1]


def test_device_of_predict_falls_back_with_one_warning(warnings, tmp_path):
    _, _, _, arguments, _ = parse_predict_arguments(["--model_name_or_path", str(tmp_path)])
    assert arguments.device == "cpu"
    assert warnings == ["device gpu: no GPU can be used here, so this runs on the CPU (--device cpu)"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "npu"),
        ("per_device_train_batch_size", "0"),
        ("gradient_accumulation_steps", "0"),
        ("learning_rate", "-1.0"),
        ("num_train_epochs", "nan"),
    ],
)
def test_numbers_out_of_range(gpus, name, value):
    with pytest.raises(UsageError, match=f"{name} {value}: use"):
        parse_finetune_arguments([*TRAIN, f"--{name}={value}"])


def test_two_precisions(gpus):
    with pytest.raises(UsageError, match="fp16 True: has no effect beside bf16 True"):
        parse_finetune_arguments([*TRAIN, "--fp16", "--bf16"])


def test_another_number_of_beams_drops_what_was_meant_for_the_checkpoints(checkpoint):
    trained = {"num_beams": 4, "num_return_sequences": 4, "early_stopping": "true"}
    argv = ["--model_name_or_path", checkpoint(**trained), *CPU]
    _, _, generation, _, inherited = parse_predict_arguments([*argv, "--num_beams", "1"])
    assert (generation.num_return_sequences, generation.early_stopping, inherited) == (1, "false", {})
    generation = parse_predict_arguments(argv)[2]
    assert (generation.num_return_sequences, generation.early_stopping) == (4, "true")


def test_another_way_of_choosing_drops_the_checkpoints_drawing_options(gpus, tmp_path):
    trained = {"select_topk": False, "temperature": 0.9, "num_beams": 4}
    (tmp_path / "finetune_config.json").write_text(json.dumps(trained))
    argv = ["--model_name_or_path", str(tmp_path), "--select_topk", "True"]
    _, _, generation, _, inherited = parse_predict_arguments(argv)
    assert (generation.temperature, generation.num_beams) == (1.0, 4)
    assert inherited == {"num_beams": 4}
