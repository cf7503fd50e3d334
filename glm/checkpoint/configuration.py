"""The configuration of a checkpoint: what its config.json says, its weights show and a preset has; they must agree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm.checkpoint.formats import CONFIG_NAME
from glm.errors import InputError
from glm.models.presets import HUB_ORGANISATION, preset_file, published_presets
from glm.runtime.settings_file import read_object

SIZES = ("num_layers", "vocab_size", "hidden_size", "max_sequence_length", "block_position_encoding")
AGREED = (*SIZES, "num_attention_heads", "layernorm_epsilon")  # on these the sources of a configuration must agree
# What of a config.json means something to GLM, and its type; the rest is its framework's.
FIELDS = {
    "num_layers": int,
    "vocab_size": int,
    "hidden_size": int,
    "max_sequence_length": int,
    "block_position_encoding": bool,
    "num_attention_heads": int,
    "layernorm_epsilon": float,
    "embedding_dropout_prob": float,
    "attention_dropout_prob": float,
    "output_dropout_prob": float,
    "attention_scale": float,
    "initializer_range": float,
    "use_scaled_init_for_output_weights": bool,
    "bad_words_id": list,
}
EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", list: "a list of token ids"}
VOCABULARY_MULTIPLE = 128  # THUDM/GLM pads the vocabulary to a multiple of this times the number of ranks
MOST_RANKS = 16


def declared_config(content: Mapping[str, Any], origin: str | Path = CONFIG_NAME) -> dict[str, Any]:
    """What a config.json says of a GLM.

    Args:
        content: the JSON object.
        origin: the file, for messages.

    Raises:
        InputError: a field has a value of another type.
    """
    content = {"num_layers": content.get("num_hidden_layers"), **content}
    found = {name: content[name] for name in FIELDS if content.get(name) is not None}
    if type(found.get("bad_words_id")) is int:
        found["bad_words_id"] = [found["bad_words_id"]]
    for name, value in found.items():
        if not _is_a(FIELDS[name], value):
            raise InputError(f"{origin}: {name} {value!r:.100}: {EXPECTED[FIELDS[name]]} is expected")
    return found


def _is_a(kind: type, value: Any) -> bool:
    if kind is list:
        return type(value) is list and all(type(token) is int for token in value)
    return type(value) is kind or (kind is float and type(value) is int)


def read_preset(name: str) -> tuple[str, dict[str, Any]]:
    """A preset by published name, name in `configs/model`, or path: what to call it, and its settings.

    Raises:
        InputError: there is no such preset, or it is no configuration.
    """
    published = published_presets()
    for known in (name, HUB_ORGANISATION + name.removesuffix(".json")):
        if known in published:
            return known, published[known]
    path = preset_file(name if name.endswith(".json") else f"{name}.json")
    return str(path), declared_config(read_object(path), path)


def guess_preset(sizes: Mapping[str, Any]) -> str | None:
    """The published model that has these sizes, or the only one that has them but for rows that pad the vocabulary."""
    rows, rest = sizes["vocab_size"], [size for size in SIZES if size != "vocab_size"]
    vocabularies = {
        name: preset["vocab_size"]
        for name, preset in published_presets().items()
        if all(preset[size] == sizes[size] for size in rest)
    }
    exact = [name for name, words in vocabularies.items() if words == rows]
    padded = [name for name, words in vocabularies.items() if rows in _padded_sizes(words)]
    return next(iter(exact or padded), None) if len(exact or padded) == 1 else None


def _padded_sizes(words: int) -> set[int]:
    """The rows that a vocabulary has when it is padded for some number of ranks."""
    multiples = [VOCABULARY_MULTIPLE * ranks for ranks in range(1, MOST_RANKS + 1)]
    return {-(-words // multiple) * multiple for multiple in multiples}


def checked_config(
    sizes: Mapping[str, Any], declared: Mapping[str, Any], preset: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration that all sources agree on.

    Args:
        sizes: what the weights show.
        declared: what config.json says.
        preset: the name of the preset that the weights must fit; None if none was asked for.
        settings: its settings, or those of the published model that the weights are taken for.

    Raises:
        InputError: two sources differ, the number of heads is unknown or does not divide the hidden size, or a banned
            token is not in the vocabulary.
    """
    sources = {"the weights": sizes, CONFIG_NAME: declared}
    if preset:
        sources[f"the preset {preset}"] = settings
    _check_agreement(sources)
    config = {**settings, **declared, **sizes}
    _check_heads(config)
    for token in config.get("bad_words_id", []):
        if not 0 <= token < config["vocab_size"]:
            raise InputError(f"bad_words_id {token}: is not in the vocabulary of {config['vocab_size']}")
    return config


def _check_agreement(sources: dict[str, Mapping[str, Any]]) -> None:
    """Raises InputError where two sources of the configuration say different things.

    A vocabulary may be larger than the preset's: rows that pad it to a multiple of the number of ranks stay.
    """
    differences = []
    for field in AGREED:
        said = {origin: values[field] for origin, values in sources.items() if field in values}
        if field == "vocab_size":
            rows = said["the weights"]
            said = {
                origin: value
                for origin, value in said.items()
                if not (origin.startswith("the preset") and value <= rows)
            }
        if len(set(said.values())) > 1:
            differences.append(f"  {field}: " + ", ".join(f"{value} in {origin}" for origin, value in said.items()))
    if differences:
        raise InputError("\n".join(["the configuration is contradictory", *differences]))


def _check_heads(config: Mapping[str, Any]) -> None:
    heads = config.get("num_attention_heads")
    if heads is None:
        raise InputError(
            "the number of attention heads is not to be seen in the weights, no config.json says it, and no published "
            "model has these sizes; name one that fits with --preset"
        )
    if heads < 1 or config["hidden_size"] % heads:
        raise InputError(f"num_attention_heads {heads}: does not divide hidden_size {config['hidden_size']}")
