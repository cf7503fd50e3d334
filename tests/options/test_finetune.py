"""Options of fine-tuning: the commands as users write them, and values that are out of range or without effect."""

import types
from functools import partial

import paddle
import pytest
from paddle.distributed import fleet

from glm.errors import UsageError
from glm.options.finetune import parse_finetune_arguments
from tools.option_tools import CPU, TRAIN, usage_error

error_of = partial(usage_error, parse_finetune_arguments)

# PaddleNLP's GLM example, as its users wrote it
EXAMPLE = (
    "--model_name_or_path THUDM/glm-large-chinese --num_train_epochs 4 --learning_rate 3e-5 --warmup_ratio 0.06 "
    "--weight_decay 0.1 --label_smoothing 0.1 --save_steps 10000 --logging_steps 1 --eval_steps 4 "
    "--output_dir ./checkpoints/glm-large-chinese --src_length 608 --tgt_length 160 --min_tgt_length 55 "
    "--length_penalty 0.7 --no_repeat_ngram_size 3 --num_beams 5 --select_topk True --per_device_eval_batch_size 2 "
    "--per_device_train_batch_size 2 --max_grad_norm 1.0 --lr_scheduler_type linear --fp16 --recompute --do_train "
    "--do_eval"
).split()


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
    message = error_of(*EXAMPLE, "--tensor_parallel_degree", "8")
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


def test_output_dir_is_needed():
    assert "--output_dir" in error_of("--do_train", *CPU)


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
        (["--update_freq", "0"], "update_freq 0: use 1 or more"),
        (["--dry_run", "--do_train", "False"], "dry_run True: has no effect without --do_train"),
        (["--early_stopping_patience", "2"], "early_stopping_patience 2: needs evaluations while it trains"),
        (["--max_steps", "-5"], "max_steps -5: use 1 or more, or leave it out"),
        (["--save_steps", "0"], "save_steps 0: use 1 or more"),
        (["--sharding", "zero3"], "sharding zero3: use stage1 or stage2"),
        (["--local_rank", "0"], "local_rank 0: python -m paddle.distributed.launch says which process it is"),
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
        (["--optim", "adamw_mini"], "optim adamw_mini: use adamw, adamw_custom or adamw_16bit_moment"),
        (["--fp16_opt_level", "O2"], "fp16_opt_level O2: has no effect without --fp16 or --bf16"),
        (["--scale_loss", "1024"], "scale_loss 1024.0: has no effect without --fp16 or --bf16"),
        (["--pipeline_parallel_degree", "2"], "pipeline_parallel_degree 2: not supported"),
        (["--sequence_parallel"], "sequence_parallel True: not supported"),
        (["--sharding_parallel_degree", "4"], "sharding_parallel_degree 4: needs 4 processes"),
        (["--sharding", "stage3"], "sharding stage3: stage3 is not supported; use stage1 or stage2"),
        (["--sharding", "stage2 offload"], "sharding stage2 offload: offload is not supported"),
        (
            ["--sharding", "stage2", "--release_grads", "true"],
            "release_grads True: has no effect with sharding stage2",
        ),
        (
            ["--sharding", "stage1", "--sharding_parallel_config", "split_param"],
            "sharding_parallel_config split_param: split_param is not supported; leave it out",
        ),
        (["--dev_file", "dev.json"], "dev_file dev.json: has no effect without --do_eval"),
        (["--test_file", "test.json"], "test_file test.json: has no effect without --do_predict"),
        (["--do_predict"], "do_predict True: give the records with --test_file"),
    ],
)
def test_out_of_range_or_without_effect(argv, message):
    assert error_of(*TRAIN, *argv).startswith(message)


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


def test_gradients_are_freed():
    assert parse_finetune_arguments(TRAIN).training.release_grads is True
    assert parse_finetune_arguments([*TRAIN, "--release_grads", "false"]).training.release_grads is False


@pytest.mark.parametrize("value", ["0", "0.0", "0.999"])
def test_label_smoothing_in_range(value):
    assert parse_finetune_arguments([*TRAIN, "--label_smoothing", value]).training.label_smoothing == float(value)


def test_train_file_without_training():
    argv = ["--output_dir", "out", "--do_eval", *CPU]
    assert error_of(*argv, "--train_file", "t.json") == "train_file t.json: has no effect without --do_train"
    assert parse_finetune_arguments([*argv, "--dev_file", "d.json"]).files.dev_file == "d.json"


def test_nothing_to_do():
    message = "nothing to do: add --do_train, --do_eval or --do_predict"
    assert error_of("--output_dir", "out", *CPU) == message


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
    assert error_of(*argv, "--lr_decay_ratio", "0.1") == (
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
    assert error_of(*TRAIN, *argv) == message


def test_decoding_options_reach_the_decoder():
    argv = (
        "--select_topk False --num_beams 4 --num_return_sequences 3 --top_k 20 --top_p 0.9 --temperature 0.7 "
        "--repetition_penalty 1.3 --no_repeat_ngram_size 2 --length_penalty 1.5 --min_tgt_length 4 --tgt_length 30 "
        "--early_stopping never --generation_seed 5 --finished_rule glm --search_rules glm --no_repeat_ignore 的|，"
    ).split()
    generation = parse_finetune_arguments([*TRAIN, *argv]).generation
    assert vars(generation) == {
        "tgt_length": 30,
        "min_tgt_length": 4,
        "num_beams": 4,
        "length_penalty": 1.5,
        "processor_order": "after_softmax",
        "early_stopping": "never",
        "finished_rule": "glm",
        "search_rules": "glm",
        "no_repeat_ignore": "的|，",
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


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ("--fp16", "fp16: a CPU computes in float32, so this run does"),
        ("--bf16", "bf16: this CPU has no products in bfloat16 (AVX512_BF16, AMX), so this run is in float32"),
    ],
)
def test_half_precision_falls_back(warnings, monkeypatch, options, warned):
    monkeypatch.setattr("glm.options.finetune.multiplies_bfloat16", lambda: False)
    training = parse_finetune_arguments([*TRAIN, *options.split()]).training
    assert (training.fp16, training.bf16, training.trains_in_bfloat16) == (False, False, False)
    assert warnings == [warned]


def test_bfloat16_on_a_cpu_that_has_it(warnings, monkeypatch):
    """Paddle's automatic mixed precision, and what sets it, are a GPU's."""
    monkeypatch.setattr("glm.options.finetune.multiplies_bfloat16", lambda: True)
    training = parse_finetune_arguments([*TRAIN, "--bf16"]).training
    assert (training.bf16, training.trains_in_bfloat16, warnings) == (False, True, [])
    training = parse_finetune_arguments([*TRAIN, "--bf16", "--fp16_opt_level", "O2"]).training
    assert training.trains_in_bfloat16
    assert warnings == ["fp16_opt_level O2: is for a GPU, so this run goes without"]


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
