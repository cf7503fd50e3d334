"""The parser: files and flags together, every kind of option, and errors that name the option."""

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import List, Optional  # noqa: UP035

import pytest

from glm.errors import UsageError
from glm.generation.config import option
from glm.options.finetune import parse_finetune_arguments
from glm.options.parser import INPUTS, OUTPUTS, OptionParser
from glm.options.predict import parse_predict_arguments
from options.test_walk import FINETUNE, PREDICT, options_of
from tools.option_tools import TRAIN, usage_error

error_of = partial(usage_error, parse_finetune_arguments)


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
    assert error_of(path) == f"{path}: unknown option {wrong}; did you mean {right}?"
    message = f"command line: unknown option {wrong}; did you mean {right}?"
    assert error_of(*TRAIN, f"--{wrong}", "1") == message
    assert error_of(*TRAIN, f"--{wrong}=1") == message


def test_misspelt_option_like_no_other(write):
    path = write({"zzzz": 1})
    assert error_of(path).splitlines()[0] == f"{path}: unknown option zzzz"


def test_no_abbreviations():
    assert error_of(*TRAIN, "--src_len", "64").startswith("command line: unknown option src_len; did you mean src_")


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
    error = error_of(path)
    assert message in error
    if message.startswith(":"):
        assert error.startswith(path)


def test_missing_file(tmp_path):
    path = str(tmp_path / "nowhere.json")
    assert error_of(path).startswith(f"{path}: cannot be read as JSON ([Errno 2] No such file")


def test_file_in_another_encoding(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes('{"output_dir": "输出"}'.encode("gb18030"))
    assert error_of(str(path)).startswith(f"{path}: cannot be read as JSON (not UTF-8")


def test_file_too_nested(write):
    assert "cannot be read as JSON" in error_of(write("[" * 100_000))


@pytest.mark.parametrize("first", ["run.toml", "data/train", "train"])
def test_first_argument_is_a_file_or_an_option(first):
    message = error_of(first, *TRAIN)
    advice = "a configuration file ending in .json, .yaml or .yml, or an option, is expected first"
    assert message == f"{first}: {advice}"


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
    assert message in error_of(*TRAIN, *argv)


# -- every kind of field


class Pace(Enum):
    SLOW = "slow"
    FAST = "fast"


@dataclass
class Everything:
    needed: str
    count: int = option(3, "A number.")
    rate: float | None = option(None, "A number, or nothing.")
    name: Optional[str] = option(None, "PaddleNLP writes it so.")  # noqa: UP045
    on: bool = option(True, "A switch that is on.")
    off: Optional[bool] = option(False, "One that is off.")  # noqa: UP045
    unset: bool | None = option(None, "One of which nobody said anything.")
    pace: Pace = option("slow", "A choice.")
    words: Optional[List[str]] = option(None, "Some words.")  # noqa: UP006, UP045
    spans: list[list[int]] | None = option(None, "Some spans.")
    made: list[int] = field(default_factory=lambda: [1, 2])
    inner: int = field(init=False, default=0)


DEFAULTS = {"needed": "n", "count": 3, "rate": None, "name": None, "on": True, "off": False, "unset": None}
DEFAULTS |= {"pace": "slow", "words": None, "spans": None, "made": [1, 2]}


def read(*argv: str):
    parser = OptionParser((Everything,), "Reads everything.")
    reading = parser.read(["--needed", "n", *argv])
    if reading.errors:
        raise UsageError(*reading.errors)
    values, given = reading.values, reading.given
    assert given.pop("needed") == "n" and given == {name: getattr(values, name) for name in given}
    (everything,) = parser.build(reading)
    assert vars(everything) == vars(values)
    return {name: value for name, value in vars(values).items() if value != DEFAULTS[name]}, set(given)


@pytest.mark.parametrize(
    ("argv", "changed", "given"),
    [
        ("", {}, ""),
        ("--count 3", {}, "count"),
        ("--count=-4 --rate 1e-3 --name=", {"count": -4, "rate": 0.001, "name": ""}, "count rate name"),
        ("--on False --off", {"on": False, "off": True}, "on off"),
        ("--no_on --unset t", {"on": False, "unset": True}, "on unset"),
        ("--on=N --off=YES --unset=0", {"on": False, "off": True, "unset": False}, "on off unset"),
        ("--pace fast", {"pace": "fast"}, "pace"),
        ("--words a b --made 7", {"words": ["a", "b"], "made": [7]}, "words made"),
        ("--spans 1 2 --spans 3 4", {"spans": [[1, 2], [3, 4]]}, "spans"),
        ("--count 1 --count 2", {"count": 2}, "count"),
    ],
)
def test_every_kind_of_field(argv, changed, given):
    assert read(*argv.split()) == (changed, set(given.split()))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--count x", "argument --count: invalid int value: 'x'"),
        ("--rate x", "argument --rate: invalid float value: 'x'"),
        ("--unset", "argument --unset: expected one argument"),
        (
            "--on 2",
            "argument --on: Truthy value expected: got 2 but expected one of yes/no, true/false, t/f, y/n, 1/0 "
            "(case insensitive).",
        ),
        ("--pace medium", "argument --pace: invalid choice: 'medium' (choose from 'slow', 'fast')"),
        ("--words", "argument --words: expected at least one argument"),
        ("--no_off", "command line: unknown option no_off"),
        ("--inner 1", "command line: unknown option inner"),
        ("a", "command line: a belongs to no option"),
    ],
)
def test_wrong_value_of_every_kind(argv, message):
    assert usage_error(lambda argv: read(*argv), *argv.split()) == message


def test_what_is_needed():
    parser = OptionParser((Everything,), "Reads everything.")
    assert parser.read([]).errors == ["the following arguments are required: --needed"]


def test_help_tells_defaults_and_does_not_fail(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "Reads everything." in text
    assert "--count COUNT A number. (default: 3)" in text
    assert "--on [ON] A switch that is on. (default: True) --no_on A switch that is on. (default: False)" in text


# -- what people type


def test_forms_without_dashes():
    assert read("count=7", "name=a=b", "--words", "x", "y", "on=no") == (
        {"count": 7, "name": "a=b", "words": ["x", "y"], "on": False},
        {"count", "name", "words", "on"},
    )
    arguments = parse_finetune_arguments(
        [*TRAIN, "learning-rate=1e-3", "--num-beams", "2", "template={source}[gMASK]"]
    )
    assert (arguments.training.learning_rate, arguments.generation.num_beams) == (1e-3, 2)
    assert arguments.data.template == "{source}[gMASK]"
    assert (
        error_of(*TRAIN, "lerning_rate=1") == "command line: unknown option lerning_rate; did you mean learning_rate?"
    )


@pytest.mark.parametrize("word", ["none", "None", "NULL"])
def test_what_the_file_has_set_can_be_taken_back(write, word):
    path = write({"output_dir": "a", "do_train": True, "device": "cpu", "max_tokens": 500, "freeze": "layers.0"})
    arguments = parse_finetune_arguments([path, "--max_tokens", word, f"freeze={word}"])
    assert (arguments.training.max_tokens, arguments.training.freeze) == (None, None)
    assert {"max_tokens", "freeze"} & set(arguments.given) == set()
    assert parse_finetune_arguments([path, "--freeze", ""]).training.freeze is None
    arguments = parse_finetune_arguments([path, "--max_tokens", word, "--max_tokens", "9"])
    assert arguments.training.max_tokens == 9 and "max_tokens" in arguments.given
    assert parse_finetune_arguments([path, "--report_to", "none"]).given["report_to"] == ["none"]


@pytest.mark.parametrize(
    ("settings", "typed", "name"),
    [
        ({"do_eval": True, "train_file": "t", "dev_file": "d"}, ["--do_eval", "False"], "dev_file"),
        ({"do_eval": True, "train_file": "t", "dev_file": "d", "eval_steps": 3}, ["do_eval=no"], "eval_steps"),
        ({"per_device_train_batch_size": 16}, ["--max_tokens", "1024"], "per_device_train_batch_size"),
        ({"max_tokens": 1024}, ["--per_device_train_batch_size", "2"], "max_tokens"),
        ({"max_steps": 9}, ["--num_train_epochs", "2"], "max_steps"),
        ({"template": "{source}[gMASK]"}, ["--task_name", "pair"], "template"),
        ({"fp16": True}, ["--bf16"], "fp16"),
        ({"recompute": True, "recompute_layers": 1}, ["--recompute", "false"], "recompute_layers"),
    ],
)
def test_the_file_gives_way_to_the_command_line(write, capsys, settings, typed, name):
    path = write({"output_dir": "a", "do_train": True, "device": "cpu"} | settings)
    arguments = parse_finetune_arguments([path, *typed])
    assert name not in arguments.given
    assert f"{path}: {name} {settings[name]} gives way to --" in capsys.readouterr().err


def test_what_was_typed_gives_way_to_nothing(write):
    assert "leave one out" in error_of(*TRAIN, "--max_tokens", "9", "--per_device_train_batch_size", "2")
    settings = {"output_dir": "a", "do_train": True, "device": "cpu", "max_tokens": 9}
    assert "leave one out" in error_of(write(settings | {"per_device_train_batch_size": 2}))
    assert parse_finetune_arguments([write(settings), "--seed", "1"]).training.max_tokens == 9


def test_all_that_is_wrong_is_told_at_once(write):
    path = write({"output_dir": "a", "do_train": True, "validation_file": "x", "num_beams": "two", "src_length": 1})
    errors = error_of(path, "--seed", "-1", "--save_steps", "0", "--lr", "3", "--top_k", "-1").splitlines()
    starts = [
        f"{path}: unknown option validation_file",
        f"{path}: argument --num_beams: invalid int",
        "command line: ",
    ]
    starts += ["src_length 1: ", "top_k -1: ", "save_steps 0: ", "seed -1: "]
    assert len(errors) == len(starts)
    assert all(error.startswith(start) for error, start in zip(errors, starts, strict=True)), errors


# -- YAML


def test_yaml_means_what_the_command_line_does(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "# a recipe\n_about: notes\noutput_dir: 输出\ndo_train: yes\ndevice: cpu\nlearning_rate: 1e-3\n"
        "save_strategy: no\nearly_stopping: true\nreport_to: [none]\ntemplate: '{source}[gMASK]'\nseed: 010\n",
        encoding="utf-8-sig",
    )
    arguments = parse_finetune_arguments([str(path), "--num_beams", "3"])
    training = arguments.training
    assert (training.output_dir, training.do_train, training.learning_rate) == ("输出", True, 1e-3)
    assert (training.save_strategy.value, training.seed) == ("no", 10)
    assert (arguments.generation.early_stopping, arguments.generation.num_beams) == ("true", 3)
    assert arguments.data.template == "{source}[gMASK]"
    path.rename(path.with_suffix(".yml"))
    assert parse_finetune_arguments([str(path.with_suffix(".yml"))]).training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output_dir: a\nnum_beams:\n", "num_beams is null; leave it out to have its default"),
        ("seed: 1\nseed: 2\n", "cannot be read as YAML (seed is set twice)"),
        ("- a\n", "names and values are expected"),
        ("a: [", "cannot be read as YAML (while parsing"),
    ],
)
def test_bad_yaml(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    assert message in error_of("run.yaml", *TRAIN)


def test_yaml_makes_no_objects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("output_dir: !!python/object/apply:os.system ['touch x']\n")
    assert "one value, not a list, is expected" in error_of("run.yaml", *TRAIN)
    assert not (tmp_path / "x").exists()


def test_a_key_that_a_file_has_twice(write):
    assert "cannot be read as JSON (seed is in it twice)" in error_of(write('{"seed": 1, "seed": 2}'))


# -- paths


def test_files_are_found_beside_the_configuration_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "recipes" / "data").mkdir(parents=True)
    for name in ("data/t.json", "d.json"):
        (tmp_path / "recipes" / name).write_text("")
    (tmp_path / "d.json").write_text("")
    settings = {
        "train_file": "data/t.json",
        "dev_file": "d.json",
        "test_file": "nowhere.json",
        "output_dir": "data/out",
    }
    settings |= {"do_train": True, "do_eval": True, "do_predict": True, "device": "cpu"}
    (tmp_path / "recipes" / "run.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    arguments = parse_finetune_arguments(["recipes/run.json"])
    files = arguments.files
    assert (files.train_file, files.dev_file, files.test_file) == ("recipes/data/t.json", "d.json", "nowhere.json")
    assert arguments.training.output_dir == "data/out"  # what is written lies where the program runs


def test_the_home_folder(write, monkeypatch):
    monkeypatch.setattr("glm.runtime.environment.HOME", "/home/me")
    monkeypatch.setenv("HOME", "/home/me")
    path = write({"model_name_or_path": "~/model", "output_dir": "~/out", "do_train": True, "device": "cpu"})
    arguments = parse_finetune_arguments([path, "--train_file=~/a~/t.json", "data_cache_dir=~"])
    assert arguments.model.model_name_or_path == "/home/me/model" and arguments.training.output_dir == "/home/me/out"
    assert arguments.files.train_file == "/home/me/a~/t.json" and arguments.files.data_cache_dir == "/home/me"


# -- help


def test_help_is_grouped_ours_first_and_without_what_has_no_effect(capsys):
    with pytest.raises(SystemExit):
        parse_finetune_arguments(["--help"])
    text = capsys.readouterr().out
    titles = ["Which model and tokenizer", "How a record is laid out", "How text is generated", "PaddleNLP's Trainer:"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places) and text.index("--label_smoothing") < text.index("PaddleNLP's Trainer:")
    for name in ("unified_checkpoint", "pipeline_parallel_degree", "no_cuda", "past_index", "local_rank"):
        assert f"--{name}" not in text
    assert text.index("--per_device_train_batch_size") > text.index("PaddleNLP's Trainer:")


# -- what a file sets


def read_file(write, settings: dict, *argv: str, **inherited):
    parser = OptionParser((Everything,), "Reads everything.")
    reading = parser.read([write({"needed": "n", **settings}), *argv], inherited=inherited)
    values, given = reading.values, reading.given
    assert given.pop("needed") == "n"
    parser.build(reading)
    assert not reading.errors
    return {name: value for name, value in vars(values).items() if value != DEFAULTS[name]}, set(given)


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 1, "rate": 1, "on": False, "off": True, "pace": "fast"},
        {"words": ["a", "b"], "made": [3], "spans": [1, 2]},
        {"name": {"x": [1, "中"]}, "unset": "no"},
        {"words": ["--name=x", "--count", "5"], "name": "--no_on"},
    ],
)
def test_settings_of_a_file_are_values(write, settings):
    """A list is a list, whatever its items look like; an object is its JSON."""
    expected = dict(settings)
    if "name" in settings and isinstance(settings["name"], dict):
        expected |= {"name": json.dumps(settings["name"]), "unset": False}
    if "spans" in settings:
        expected["spans"] = [[1, 2]]
    assert read_file(write, settings) == (expected, set(settings))


def test_a_flag_wins_over_a_file_and_that_over_what_is_inherited(write):
    settings = {"count": 4, "rate": 0.5}
    found = read_file(write, settings, "--count=6", "--off", count=1, rate=0.1, name="x", words=["a"])
    assert found == ({"count": 6, "rate": 0.5, "off": True, "name": "x", "words": ["a"]}, {"count", "rate", "off"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": [3]}, "count [3]: one value, not a list, is expected"),
        ({"name": ["x", "--count=9"]}, 'name ["x", "--count=9"]: one value, not a list, is expected'),
        ({"on": [True, "--off"]}, 'on [true, "--off"]: one value, not a list, is expected'),
        ({"words": []}, "words []: a list with an item at least is expected"),
        ({"words": [["a"]]}, 'words [["a"]]: a list with an item at least is expected'),
        ({"made": ["--count=9"]}, "argument --made: invalid int value: '--count=9'"),
        ({"no_on": True}, "no_on: set on to false"),
        ({"pace": "medium"}, "argument --pace: invalid choice: 'medium' (choose from 'slow', 'fast')"),
    ],
)
def test_wrong_values_of_a_file(write, settings, message):
    path = write({"needed": "n", **settings})
    assert OptionParser((Everything,), "").read([path]).errors == [f"{path}: {message}"]


def test_the_home_folder_in_every_path(monkeypatch, tmp_path):
    """Shells leave `~` as it is behind `--name=`, in lists with commas and in files."""
    monkeypatch.setattr("glm.runtime.environment.HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    predict = ["--model_name_or_path", "m", "--test_file", "t.json", "--device", "cpu"]
    found = parse_predict_arguments([*predict, "--adapters=a=~/a,~/b,c", "--output_file", "o"]).prediction
    assert found.adapters == "a=/home/me/a,/home/me/b,c"
    data = parse_predict_arguments([*predict, "--template=~/parts.json", "--labels", "a=b"]).data
    assert data.template == "/home/me/parts.json"
    with pytest.raises(UsageError, match="api_key_file /home/me/key: no such file"):
        parse_predict_arguments([*predict[:2], "--serve", "--device", "cpu", "--api_key_file=~/key"])
    data = parse_predict_arguments([*predict, "--template", "~/{source}[gMASK]"]).data
    assert data.template == "~/{source}[gMASK]"  # a text


def test_every_option_that_is_a_path_is_known_as_one():

    with pytest.MonkeyPatch.context() as patch:
        names = options_of(parse_finetune_arguments, FINETUNE, patch) + options_of(
            parse_predict_arguments, PREDICT, patch
        )
    paths = {name for name in names if re.search("^(?!overwrite).*_(file|dir|path)$", name)} | {"report", "adapters"}
    assert paths | {"resume_from_checkpoint"} <= {*INPUTS, *OUTPUTS}


def test_a_missing_option_is_said_once():
    with pytest.raises(UsageError) as caught:
        parse_finetune_arguments(["--config", "configs/demo.json"])
    assert len(caught.value.messages) == 2 and "give the file first, without a name" in caught.value.messages[0]
    assert caught.value.messages[1] == "the following arguments are required: --output_dir"


CONFIG = {"model_name_or_path": "m", "output_dir": "out", "do_train": True, "train_file": "t.json", "device": "cpu"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["run.json", "run.yaml"])
def test_a_file_in_any_encoding_that_an_editor_saves(tmp_path, encoding, name):
    text = json.dumps(CONFIG | {"run_name": "试验"}, ensure_ascii=False)
    text = text if name.endswith("json") else "\n".join(f"{key}: {value}" for key, value in CONFIG.items()) + "\n"
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    (tmp_path / name).write_bytes((mark + text).encode(encoding))
    assert parse_finetune_arguments([str(tmp_path / name)]).training.output_dir == "out"


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ('{"run_name": "试验"}'.encode("gb18030"), "not UTF-8 (byte 14); save it as UTF-8"),
        (b'// mine\n{"seed": 1}', "JSON has no comments: a name that starts with _ is a note"),
        (b'{"seed": 1,\n}', "take the comma before } or ] away"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_one_error(tmp_path, content, advice):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        parse_finetune_arguments([str(tmp_path / "run.json")])
    (message,) = caught.value.messages
    assert "cannot be read as JSON" in message and advice in message


def test_evaluations_that_nobody_asked_for():
    with pytest.raises(UsageError, match="eval_steps 5: has no effect without --do_eval"):
        parse_finetune_arguments([*TRAIN, "--eval_steps", "5"])
