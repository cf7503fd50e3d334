"""A model's folder says how texts are read and written, by a closed list of settings, and nothing else."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from glm.errors import UsageError
from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments
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
    assert list(TrainedWith.model_fields) == [name for name in options if name not in OF_THE_MACHINE]


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
