"""Options of prediction: what the checkpoint brings, what a flag replaces, and errors that name the option."""

import json
from functools import partial

import pytest

from glm.errors import UsageError
from glm.options.predict import parse_predict_arguments
from glm.options.run_config import RUN_CONFIG_NAME
from tools.option_tools import CPU, usage_error

error_of = partial(usage_error, parse_predict_arguments)

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
    argv = ["--model_name_or_path", folder, *CPU]
    options = parse_predict_arguments(argv)
    data, generation = options.data, options.generation
    assert options.argv == argv and options.model.model_name_or_path == folder
    assert (data.task_name, data.src_length, data.no_block_position) == ("other_task", 77, True)
    assert options.prediction.test_file is None  # standard input
    assert (generation.tgt_length, generation.min_tgt_length) == (33, 2)
    assert (generation.num_beams, generation.length_penalty) == (4, 1.1)
    assert options.prediction.device == "cpu"
    followed = ("task_name", "src_length", "no_block_position", "tgt_length", "min_tgt_length", "num_beams")
    assert options.inherited == {name: TRAINED[name] for name in (*followed, "length_penalty")}


def test_flags_win_over_the_checkpoint(checkpoint, tmp_path):
    folder = checkpoint(**TRAINED)
    flags = ["--num_beams", "6", "--src_length", "88", "--no_block_position", "False"]
    options = parse_predict_arguments(["--model_name_or_path", folder, *CPU, *flags])
    data, generation, inherited = options.data, options.generation, options.inherited
    assert (data.src_length, data.no_block_position) == (88, False)
    assert (generation.num_beams, generation.tgt_length) == (6, 33)
    assert set(inherited) == {"task_name", "tgt_length", "min_tgt_length", "length_penalty"}
    path = tmp_path / "predict.json"
    path.write_text(json.dumps({"model_name_or_path": folder, "num_beams": 6, "tgt_length": 20, "device": "cpu"}))
    options = parse_predict_arguments([str(path), "--tgt_length", "21"])
    data, generation, inherited = options.data, options.generation, options.inherited
    assert (data.src_length, generation.num_beams, generation.tgt_length) == (77, 6, 21)
    assert "num_beams" not in inherited and "tgt_length" not in inherited


def test_a_flag_equal_to_the_default_is_given_too(checkpoint):
    folder = checkpoint(**TRAINED)
    options = parse_predict_arguments(
        ["--model_name_or_path", folder, *CPU, "--num_beams", "5", "--src_length", "608"]
    )
    assert (options.generation.num_beams, options.data.src_length) == (5, 608)


def test_model_without_settings(tmp_path):
    options = parse_predict_arguments(["--model_name_or_path", str(tmp_path), *CPU])
    data, generation, inherited = options.data, options.generation, options.inherited
    assert (data.src_length, generation.tgt_length, inherited) == (608, 160, {})
    inherited = parse_predict_arguments(["--model_name_or_path", "THUDM/glm-large-chinese", *CPU]).inherited
    assert inherited == {}


def test_settings_that_cannot_be_read(tmp_path):
    (tmp_path / RUN_CONFIG_NAME).write_text("{", encoding="utf-8")
    message = error_of("--model_name_or_path", str(tmp_path), *CPU)
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
        (["--decode_dtype", "int4"], "argument --decode_dtype: invalid choice: 'int4'"),
        (
            ["--decode_dtype", "float16"],
            "decode_dtype float16: a CPU has no such products; use float32, bfloat16 or int8",
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
    error = error_of("--model_name_or_path", str(tmp_path), *CPU, *argv)
    assert error.startswith(message)


def predict_arguments(folder, *argv: str):
    return parse_predict_arguments(["--model_name_or_path", str(folder), *argv]).prediction


def test_float16_on_a_gpu(gpus, tmp_path):
    gpus(True)
    assert predict_arguments(tmp_path, "--decode_dtype", "float16").decode_dtype == "float16"
    with pytest.raises(UsageError, match="decode_dtype float16"):
        predict_arguments(tmp_path, *CPU, "--decode_dtype", "float16")
    with pytest.raises(UsageError, match="decode_dtype int8: for a CPU"):
        predict_arguments(tmp_path, "--decode_dtype", "int8")
    assert predict_arguments(tmp_path, *CPU, "--decode_dtype", "int8").decode_dtype == "int8"


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
    options = parse_predict_arguments(arguments)
    data, generation, inherited = options.data, options.generation, options.inherited
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
    generation = parse_predict_arguments(["--model_name_or_path", checkpoint(**trained), *CPU, *flags]).generation
    assert str(getattr(generation, flags[0][2:])) == flags[1]


def test_device_of_predict_falls_back_with_one_warning(warnings, tmp_path):
    arguments = parse_predict_arguments(["--model_name_or_path", str(tmp_path)]).prediction
    assert arguments.device == "cpu"
    assert warnings == ["device gpu: no GPU can be used here, so this runs on the CPU (--device cpu)"]


def test_another_number_of_beams_drops_what_was_meant_for_the_checkpoints(checkpoint):
    trained = {"num_beams": 4, "num_return_sequences": 4, "early_stopping": "true"}
    argv = ["--model_name_or_path", checkpoint(**trained), *CPU]
    options = parse_predict_arguments([*argv, "--num_beams", "1"])
    generation, inherited = options.generation, options.inherited
    assert (generation.num_return_sequences, generation.early_stopping, inherited) == (1, "false", {})
    generation = parse_predict_arguments(argv).generation
    assert (generation.num_return_sequences, generation.early_stopping) == (4, "true")


def test_another_way_of_choosing_drops_the_checkpoints_drawing_options(gpus, tmp_path):
    trained = {"select_topk": False, "temperature": 0.9, "num_beams": 4}
    (tmp_path / RUN_CONFIG_NAME).write_text(json.dumps(trained))
    argv = ["--model_name_or_path", str(tmp_path), "--select_topk", "True"]
    options = parse_predict_arguments(argv)
    generation, inherited = options.generation, options.inherited
    assert (generation.temperature, generation.num_beams) == (1.0, 4)
    assert inherited == {"num_beams": 4}
