"""Each option out of range, or without effect in the chosen mode, is an error that names it and its value."""

import dataclasses

import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig

OUT_OF_RANGE = [
    ("tgt_length", 0, {}),
    ("tgt_length", -3, {}),
    ("min_tgt_length", -1, {}),
    ("min_tgt_length", 20, {"tgt_length": 20}),
    ("min_tgt_length", 21, {"tgt_length": 20}),
    ("num_beams", 0, {}),
    ("early_stopping", "always", {}),
    ("no_repeat_ngram_size", -1, {}),
    ("repetition_penalty", 0.0, {}),
    ("repetition_penalty", -1.5, {}),
    ("temperature", 0.0, {"select_topk": False}),
    ("temperature", -0.5, {"select_topk": False}),
    ("top_k", -1, {"select_topk": False}),
    ("top_p", -0.1, {"select_topk": False}),
    ("top_p", 1.1, {"select_topk": False}),
    ("num_return_sequences", 0, {}),
    ("num_return_sequences", 4, {"num_beams": 3}),
]
WITHOUT_EFFECT = [
    ("temperature", 0.7, {"select_topk": True}),
    ("top_k", 5, {"select_topk": True}),
    ("top_p", 0.9, {"select_topk": True}),
    ("generation_seed", 7, {"select_topk": True}),
    ("early_stopping", "true", {"num_beams": 1}),
    ("early_stopping", "never", {"num_beams": 1}),
]
AT_THE_EDGE = [
    {"tgt_length": 1},
    {"tgt_length": 20, "min_tgt_length": 19},
    {"num_beams": 1},
    {"early_stopping": "true"},
    {"early_stopping": "never"},
    {"no_repeat_ngram_size": 0},
    {"repetition_penalty": 0.5},
    {"length_penalty": -1.0},
    {"num_beams": 3, "num_return_sequences": 3},
    {"select_topk": False, "temperature": 0.1, "top_k": 1, "top_p": 1.0, "generation_seed": 0},
    {"select_topk": False, "num_beams": 1, "top_p": 0.0},
]


@pytest.mark.parametrize("name, value, others", OUT_OF_RANGE + WITHOUT_EFFECT)
def test_error_names_the_option_and_its_value(name, value, others):
    with pytest.raises(InputError) as error:
        GenerationConfig(**{name: value, **others})
    assert str(error.value).startswith(f"{name} {value}: ")


@pytest.mark.parametrize("name, value, others", WITHOUT_EFFECT)
def test_error_says_which_other_option_to_change(name, value, others):
    (other,) = others
    with pytest.raises(InputError, match=f"no effect with {other} {others[other]}"):
        GenerationConfig(**{name: value, **others})


@pytest.mark.parametrize("options", AT_THE_EDGE, ids=str)
def test_values_at_the_edge_are_kept(options):
    config = GenerationConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


def test_defaults_are_those_of_the_glm_example():
    config = GenerationConfig()
    example = {
        "tgt_length": 160,
        "length_penalty": 0.7,
        "num_beams": 5,
        "select_topk": True,
        "top_p": 0.0,
        "top_k": 0,
        "no_repeat_ngram_size": 3,
        "min_tgt_length": 0,  # not the example's 55
    }
    assert {name: getattr(config, name) for name in example} == example


def test_every_option_has_a_help_text():
    for option in dataclasses.fields(GenerationConfig):
        assert len(option.metadata["help"]) > 20, option.name


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE", True, 1, "yes"])
def test_early_stopping_in_every_spelling(spelling):
    assert GenerationConfig(early_stopping=spelling).early_stopping == "true"
    assert (
        GenerationConfig(early_stopping={"TRUE": "FALSE", True: False}.get(spelling, "no")).early_stopping == "false"
    )


@pytest.mark.parametrize("spelling", ["false", "False", False, 0, "no"])
def test_no_early_stopping_in_every_spelling(spelling):
    assert GenerationConfig(early_stopping=spelling).early_stopping == "false"


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        GenerationConfig(num_beams=0, top_p=3.0, temperature=float("nan"), length_penalty=float("inf"))
    assert [message.split()[0] for message in caught.value.messages] == [
        "num_beams",
        "length_penalty",
        "temperature",
        "top_p",
    ]
