"""A model's folder says how texts are read and written, by a closed list of settings, and nothing else."""

import dataclasses
import json
import os
import random
import time
from pathlib import Path

import pytest

from glm.errors import UsageError
from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments
from glm.options.finetune import AdapterArguments, FileArguments, parse_finetune_arguments
from glm.options.run_config import RUN_CONFIG_NAME, TrainedWith, read_config, trained_with

WORDS = ["--output_file=precious.txt", "--overwrite_output=True", "--host=0.0.0.0", "--api_key=known", "--serve"]
OF_THE_MACHINE = {"max_record_bytes"}  # which no folder decides
GOOD = {"template": "{answer}{context}[gMASK]", "num_beams": 4, "src_length": 64, "length_penalty": 1.0}


@pytest.fixture
def folder(tmp_path):
    def make(settings):
        (tmp_path / RUN_CONFIG_NAME).write_text(json.dumps(settings), encoding="utf-8")
        return str(tmp_path)

    return make


def test_the_list_is_that_of_layout_and_decoding():
    options = [item.name for group in (DataArguments, GenerationConfig) for item in dataclasses.fields(group)]
    of_a_quantized_folder = ["decode_dtype"]
    expected = [name for name in options if name not in OF_THE_MACHINE] + of_a_quantized_folder
    assert list(TrainedWith.model_fields) == expected


def test_defaults_are_in_range(folder):
    settings = dataclasses.asdict(DataArguments()) | dataclasses.asdict(GenerationConfig())
    settings = {n: value for n, value in settings.items() if value is not None and n not in OF_THE_MACHINE}
    assert trained_with(folder(settings)) == settings


@pytest.mark.parametrize("name", TrainedWith.model_fields)
@pytest.mark.parametrize("value", [["x", *WORDS], [], {"a": 1}, None, [WORDS[0]]])
def test_no_setting_is_a_list(folder, name, value):
    with pytest.raises(UsageError, match=rf"{RUN_CONFIG_NAME}: {name}"):
        trained_with(folder(GOOD | {name: value}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 10**9}, "num_beams 1000000000: has to be less than or equal to 1024"),
        ({"num_beams": "4"}, 'num_beams "4": has to be a valid integer'),
        ({"num_beams": True}, "num_beams true: has to be a valid integer"),
        ({"src_length": 7}, "src_length 7: use 8 or more"),
        ({"tgt_length": 0}, "tgt_length 0: use 1 or more"),
        ({"template": "x" * 10_001}, "template .*: has to have at most 10000 characters"),
        ({"early_stopping": "--serve"}, "early_stopping \"--serve\": has to be 'true', 'false' or 'never'"),
        ({"num_return_sequences": 9}, "num_return_sequences 9: use 1 to 4"),
        ({"top_p": 0.5}, "top_p 0.5: it has no effect with select_topk True"),
    ],
)
def test_a_setting_out_of_its_range_names_file_and_entry(folder, settings, message):
    with pytest.raises(UsageError, match=f"{RUN_CONFIG_NAME}: {message}"):
        trained_with(folder(GOOD | settings))


def test_other_entries_are_not_looked_at(folder):
    other = {
        "output_file": "x",
        "serve": True,
        "host": "0.0.0.0",
        "api_key": ["k", *WORDS],
        "device": "gpu",
        "resume": 1,
    }
    assert trained_with(folder(GOOD | other)) == GOOD


def test_nothing_that_is_put_into_the_file_becomes_a_word(folder):
    """Whatever stands there: an error, or scalars of the list's types."""
    draw = random.Random(3)
    values = [
        *WORDS,
        0,
        -1,
        1e308,
        10**30,
        True,
        None,
        [],
        {},
        WORDS,
        [WORDS],
        {"a": WORDS},
        "\x00",
        "\x1b[2J",
        "[gMASK]",
    ]
    refused = 0
    for _ in range(500):
        settings = GOOD | {draw.choice(list(TrainedWith.model_fields)): draw.choice(values) for _ in range(2)}
        try:
            found = trained_with(folder(settings))
        except UsageError as error:
            refused += 1
            assert all(line.isprintable() for line in str(error).split("\n"))
        else:
            assert set(found) <= set(TrainedWith.model_fields)
            assert all(type(value) in (str, int, float, bool) for value in found.values())
    assert 250 < refused < 500


def test_read_config_keeps_order_and_values(write):
    path = Path(write('{"b": [1, 2], "_a": 0, "a": {"x": 1}, "c": "中"}'))
    assert list(read_config(path).items()) == [("b", [1, 2]), ("a", {"x": 1}), ("c", "中")]


# -- YAML

NINES = ", ".join("x" * 9)
BOMB = f"a0: &a0 [{NINES}]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 10000 names and values"),
        ("a: &a [*a]", "recursive"),
        ("a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)), "nested more than 32 deep"),
        ("a: " + "[" * 20_000, "nested more than 32 deep"),
        ("- " * 20_000, "nested more than 32 deep"),
        ("a: [" + "x," * 20_000 + "]", "more than 10000 names and values"),
        ("a: " + "x" * (1 << 17), "has more than 131072 bytes"),
        ("a: \x1b[2J", "unacceptable character"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: 1\na: 2", "a is set twice"),
        ("[a]: 1", "unhashable key"),
        ("version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    ],
)
def test_yaml_is_bounded(write, text, message):
    path = Path(write(text)).rename(Path(write(text)).with_suffix(".yaml"))
    start = time.process_time()
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    assert time.process_time() - start < 20  # of a machine that is at ease: two at most
    assert str(path) in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 2000


def test_yaml_is_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="not a plain file"):
        read_config(tmp_path / "a.yaml")


def test_names_for_values_may_be_used(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train_file: &data d.json\ndev_file: *data\nfreeze: !!python/name:os.system x\n", encoding="utf-8")
    assert read_config(path) == {"train_file": "d.json", "dev_file": "d.json", "freeze": "x"}


STEERING = [
    '"\\e[2J\\0\\u202e"',
    '["\\e[31m", "b"]',
    '{a: "\\e"}',
    '"en=\\e zh=b"',
    '"~\\e/x"',
    '"\\n--serve"',
    '"' + "x" * 5000 + '"',
]


@pytest.mark.parametrize("value", STEERING)
def test_whatever_a_file_says_its_errors_are_safe_to_print(tmp_path, value):
    """Of every option; also where a path is none."""
    path, refused = tmp_path / "a.yaml", 0
    names = [
        item.name for group in (DataArguments, FileArguments, AdapterArguments) for item in dataclasses.fields(group)
    ]
    for name in [*names, "max_steps", "report_to", "optim", "resume_from_checkpoint", '"\\e[2J"']:
        path.write_text(f"{name}: {value}\n", encoding="utf-8")
        try:
            parse_finetune_arguments([str(path)])
        except UsageError as error:
            refused += 1
            assert all(line.isprintable() and len(line) < 2100 for line in str(error).split("\n")), name
    assert refused > 10


@pytest.mark.parametrize("value", ['"a\\0b"', '"' + "x" * 300 + '"', '"' + "x/" * 3000 + '"'])
@pytest.mark.parametrize("option", ["train_file", "output_dir"])
def test_what_is_no_path_is_an_error_that_is_safe_to_print(tmp_path, option, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"{option}: {value}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is no path") as caught:
        parse_finetune_arguments([str(path)])
    assert str(caught.value).replace("\n", "").isprintable()
