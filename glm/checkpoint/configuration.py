"""Derives a model's configuration from its config.json, its weights and a preset, which have to agree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glm.checkpoint.formats import CONFIG_NAME
from glm.errors import InputError
from glm.models import registry
from glm.models.presets import preset_file, published_presets
from glm.models.protocol import Family
from glm.runtime.settings_file import read_object

EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of token ids",
    str: "a text",
}
# Endings of field names -> the smallest and the largest value of a model. The first ending that fits counts.
RANGES = (
    ("num_layers", 1, 1000),
    ("num_hidden_layers", 1, 1000),
    ("layers", 0, 1000),
    ("heads", 1, 4096),
    ("hidden_size", 1, 1 << 17),
    ("vocab_size", 1, 1 << 24),
    ("prob", 0.0, 0.999),
    ("epsilon", 1e-30, 1.0),
    ("eps", 1e-30, 1.0),
    ("attention_scale", 1e-6, 1e6),
    ("initializer_range", 0.0, 100.0),
    ("", 0, 1 << 24),
)
MOST_CHARACTERS = 100  # of a text
MOST_TOKENS = 1000  # of a list
VOCABULARY_MULTIPLE = 128  # Megatron pads the vocabulary to a multiple of this times the number of ranks
MOST_RANKS = 16


def declared_config(family: Family, content: Mapping[str, Any], origin: str | Path = CONFIG_NAME) -> dict[str, Any]:
    """Returns the fields of a config.json that the family knows.

    Args:
        content: the JSON object.
        origin: the file, for messages.

    Raises:
        InputError: a field has a value of another type, or out of its range.
    """
    content = {"num_layers": content.get("num_hidden_layers"), **content}
    fields = family.weights.fields
    found = {name: content[name] for name in fields if content.get(name) is not None}
    if type(found.get("bad_words_id")) is int:
        found["bad_words_id"] = [found["bad_words_id"]]
    for name, value in found.items():
        if not _is_a(fields[name], value):
            raise InputError(f"{origin}: {name} {value!r:.100}: {EXPECTED[fields[name]]} is expected")
        _check_range(name, value, origin)
    return dict(family.weights.declared(found, origin))


def _is_a(kind: type, value: Any) -> bool:
    if kind is list:
        return type(value) is list and all(type(token) is int for token in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _check_range(name: str, value: Any, origin: str | Path) -> None:
    if isinstance(value, str | list):
        most = MOST_CHARACTERS if isinstance(value, str) else MOST_TOKENS
        if len(value) > most:
            raise InputError(f"{origin}: {name}: has a length of {len(value)}; at most {most} is expected")
        return
    least, most = next((least, most) for end, least, most in RANGES if name.endswith(end))
    if not least <= value <= most:  # NaN fails too
        raise InputError(f"{origin}: {name} {value!r:.100}: {least:g} to {most:g} is expected")


def read_preset(family: Family, name: str) -> tuple[str, dict[str, Any]]:
    """Reads a preset by published name, name in `configs/model`, or path; returns its name and settings.

    Raises:
        InputError: there is no such preset, or it is no configuration.
    """
    for known, settings in _presets_of(family).items():
        if name in (known, known.rpartition("/")[2], f"{known.rpartition('/')[2]}.json"):
            return known, settings
    path = preset_file(name if name.endswith(".json") else f"{name}.json")
    return str(path), declared_config(family, read_object(path), path)


def family_of_preset(name: str) -> Family | None:
    """Returns the family that a preset names; None if there is no preset or it names none."""
    return next(
        (
            family
            for family in registry.families()
            for known in (*family.published, *family.presets)
            if name in (known, known.rpartition("/")[2], f"{known.rpartition('/')[2]}.json")
        ),
        None,
    ) or (registry.of_model(name) if name.endswith(".json") else None)


def guess_preset(family: Family, sizes: Mapping[str, Any]) -> str | None:
    """Returns the published model of these sizes, or the only one that differs in the vocabulary's padding alone."""
    defaults = family.weights.defaults
    rows, rest = sizes["vocab_size"], [size for size in family.weights.sizes if size != "vocab_size"]
    vocabularies = {
        name: preset["vocab_size"]
        for name, preset in _presets_of(family).items()
        if all(preset.get(size, defaults.get(size)) == sizes[size] for size in rest)
    }
    exact = [name for name, words in vocabularies.items() if words == rows]
    padded = [name for name, words in vocabularies.items() if rows in _padded_sizes(words)]
    return next(iter(exact or padded), None) if len(exact or padded) == 1 else None


def _presets_of(family: Family) -> dict[str, dict[str, Any]]:
    """Returns the configurations of a family's published models, by name."""
    return published_presets((*family.published, *family.presets))


def _padded_sizes(words: int) -> set[int]:
    """Returns the possible numbers of rows of a vocabulary that was padded for some number of ranks."""
    multiples = [VOCABULARY_MULTIPLE * ranks for ranks in range(1, MOST_RANKS + 1)]
    return {-(-words // multiple) * multiple for multiple in multiples}


def checked_config(
    family: Family,
    sizes: Mapping[str, Any],
    declared: Mapping[str, Any],
    preset: str | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the configuration that all sources agree on.

    Args:
        sizes: read from the weights.
        declared: read from config.json.
        preset: name of the preset that the weights have to fit; None if none was requested.
        settings: settings of the preset, or of the published model that the weights seem to be.

    Raises:
        InputError: two sources differ, the number of heads is unknown or does not divide the hidden size, or a banned
            token is not in the vocabulary.
    """
    sources = {"the weights": sizes, CONFIG_NAME: declared}
    if preset:
        sources[f"the preset {preset}"] = settings
    _check_agreement(family.weights.agreed, sources)
    config = {**settings, **declared, **sizes}
    if "num_attention_heads" in family.weights.fields:
        _check_heads(config)
    for token in config.get("bad_words_id", []):
        if not 0 <= token < config["vocab_size"]:
            raise InputError(f"bad_words_id {token}: is not in the vocabulary of {config['vocab_size']}")
    return config


def _check_agreement(agreed: Sequence[str], sources: dict[str, Mapping[str, Any]]) -> None:
    """Raises InputError where two sources of the configuration disagree.

    A vocabulary may be larger than the preset's: rows that pad it for a number of ranks are kept.
    """
    differences = []
    for field in agreed:
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
