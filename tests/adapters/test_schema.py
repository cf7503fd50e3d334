"""What an adapter's folder may say, and which layers its patterns mean."""

import json
import re

import pytest

from glm.adapters.files import read_adapter_config
from glm.adapters.schema import matching
from glm.errors import InputError

ENDS = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
NAMES = [f"glm.transformer.layers.{layer}.{end}" for layer in range(3) for end in ENDS]
LORA = {"base_model_name_or_path": "base", "target_modules": [r".*\.(dense)"], "r": 4, "lora_alpha": 8}
PREFIX = {"base_model_name_or_path": "base", "num_prefix_tokens": 4, "num_attention_heads": 2, "hidden_size": 32}


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(query_key_value)",
        r".*\.(query_key_value|dense|dense_h_to_4h|dense_4h_to_h)",
        r".*\.dense",
        ".*query_key_value.*",
        ".*dense.*",
        ".*dense_4h_to_h.*",
        ".*layers.1.*",
        NAMES[5],
    ],
)
def test_the_usual_expressions_mean_what_they_do_in_paddlenlp(pattern):
    expected = [name for name in NAMES if re.fullmatch(pattern, name)]
    assert expected and matching(NAMES, [pattern]) == matching(NAMES, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("dense", 3),
        ("attention.dense", 3),
        ("*.dense*", 9),
        ("*layers.1.*", 4),
        ("layers.?.mlp.*", 6),
        ("x", 0),
        ("*", 12),
    ],
)
def test_names_and_wildcards(pattern, count):
    assert len(matching(NAMES, [pattern])) == count


@pytest.mark.parametrize(
    "pattern",
    ["(.*)*x", r"(\w+)+$", ".*(a|a)*b.*", r".*\.(dense|(a+)+)", "[a-z]+", "dense$", "*a*a*a*a*a*a", "a\x1b[2J"],
)
def test_no_other_expression_is_run(pattern):
    with pytest.raises(InputError, match="target_modules .*: names of linear layers are expected") as error:
        matching([*NAMES, "a" * 5000], [pattern])
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "given", "change", "message"),
    [
        ("lora", LORA, {"r": "4"}, r'r "4": has to be a valid integer'),
        ("lora", LORA, {"r": 1 << 40}, "r 1099511627776: has to be less than or equal to 4096"),
        ("lora", LORA, {"lora_dropout": 1.0}, "lora_dropout 1.0: has to be less than 1"),
        ("lora", LORA, {"lora_alpha": [8]}, r"lora_alpha \[8\]: has to be a valid"),
        ("lora", LORA, {"target_modules": [1]}, "target_modules"),
        ("lora", LORA, {"target_modules": ["dense"] * 65}, "target_modules"),
        ("lora", LORA, {"target_modules": ["a" * 201]}, "target_modules"),
        ("lora", LORA, {"trainable_modules": [".*"]}, "trainable_modules"),
        ("lora", LORA, {"pissa": True}, "pissa true: has to be False"),
        ("lora", LORA, {"base_model_name_or_path": ["a", "--output_file=b"]}, "base_model_name_or_path"),
        ("lora", LORA, {"output_file": "b"}, "unknown entry output_file"),
        ("prefix", PREFIX, {"num_prefix_tokens": -1}, "num_prefix_tokens -1: has to be greater than or equal to 1"),
        ("prefix", PREFIX, {"hidden_size": 1 << 40}, "hidden_size 1099511627776: has to be less than"),
        ("prefix", PREFIX, {"prefix_projection": "yes"}, 'prefix_projection "yes": has to be a valid boolean'),
        ("prefix", PREFIX, {"device": "gpu"}, "unknown entry device"),
    ],
)
def test_settings_are_named_typed_and_in_range(tmp_path, name, given, change, message):
    path = tmp_path / f"{name}_config.json"
    path.write_text(json.dumps(given))
    assert read_adapter_config(tmp_path).base_model_name_or_path == "base"
    path.write_text(json.dumps(given | change))
    with pytest.raises(InputError, match=f"{name}_config.json: {message}"):
        read_adapter_config(tmp_path)
