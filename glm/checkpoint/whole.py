"""A checkpoint as the toolkit sees it, whatever its layout: a configuration, and whole weights that fit it.

Sizes are seen in the weights, and checked against config.json and a preset.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.formats import Source, open_checkpoint, read_json
from glm.checkpoint.names import WORDS, Weights, checked_weights, infer_sizes
from glm.checkpoint.tensors import LazyTensor
from glm.command_tokens import COMMAND_TOKENS
from glm.errors import InputError
from glm.presets import HUB_ORGANISATION, preset_file, published_presets

SIZES = ("num_layers", "vocab_size", "hidden_size", "max_sequence_length", "block_position_encoding")
AGREED = (*SIZES, "num_attention_heads", "layernorm_epsilon")  # on these the sources of a configuration must agree
# What of a config.json means something to GLM, see `glm.configuration`; the rest is its framework's.
FIELDS = (
    *AGREED,
    "embedding_dropout_prob",
    "attention_dropout_prob",
    "output_dropout_prob",
    "attention_scale",
    "initializer_range",
    "use_scaled_init_for_output_weights",
    "bad_words_id",
)


@dataclass(frozen=True)
class WholeModel:
    """Whole weights, under the toolkit's names and Paddle's way round, and the configuration they fit.

    Attributes:
        preset: the published model it is one of, as far as the sizes tell; None if of none.
    """

    source: Source
    config: dict[str, Any]
    weights: Weights
    preset: str | None

    @property
    def summary(self) -> str:
        """Format, number of ranks, size and published model in a few words."""
        ranks = f", {len(self.source.ranks)} ranks" if len(self.source.ranks) > 1 else ""
        count = sum(math.prod(tensor.shape) for tensor in self.weights.values())
        dtypes = " and ".join(sorted({tensor.dtype for tensor in self.weights.values()}))
        kind = self.preset or "no published size"
        return f"format {self.source.format}{ranks}, {count / 1e6:.1f} M parameters in {dtypes}, {kind}"


def open_model(folder: str | Path, preset: str | None = None) -> WholeModel:
    """Opens a checkpoint of any format; no weights are read.

    Args:
        preset: a published name, a name in `configs/model` or a `.json` file, which the weights must fit.

    Raises:
        InputError: it cannot be read, is not whole, or does not fit its configuration or the preset.
    """
    return whole_model(open_checkpoint(Path(folder)), preset)


def whole_model(source: Source, preset: str | None = None) -> WholeModel:
    """As `open_model`, of what is opened already."""
    own = declared_config(source.config)
    name, given = read_preset(preset) if preset else (None, {})
    try:
        weights = source.whole(own.get("num_attention_heads") or given.get("num_attention_heads"))
        sizes = infer_sizes(weights)
        _check_agreement({"the weights": sizes, "config.json": own, f"the preset {name}": given})
        guess = name or guess_preset(sizes)
        rest = given or published_presets().get(guess, {})
        config = {**rest, **own, **sizes}
        _check_heads(config)
        weights = checked_weights(weights, config)
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from error
    if not source.has_separate_gmask:
        for row in config.get("bad_words_id", []):
            weights[WORDS] = _with_gmask_row(weights[WORDS], row)
    return WholeModel(source, config, weights, guess)


def declared_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of a GLM."""
    known = {"num_layers": config.get("num_hidden_layers"), **config}
    found = {name: known[name] for name in FIELDS if known.get(name) is not None}
    if isinstance(found.get("bad_words_id"), int):
        found["bad_words_id"] = [found["bad_words_id"]]
    return found


def read_preset(name: str) -> tuple[str, dict[str, Any]]:
    """A preset by published name, name in `configs/model`, or path: what to call it, and its settings.

    Raises:
        InputError: there is no such preset.
    """
    published = published_presets()
    for known in (name, HUB_ORGANISATION + name.removesuffix(".json")):
        if known in published:
            return known, published[known]
    path = preset_file(name if name.endswith(".json") else f"{name}.json")
    return str(path), declared_config(read_json(path))


def guess_preset(sizes: Mapping[str, Any]) -> str | None:
    """The published model that has these sizes."""
    fitting = (
        name for name, preset in published_presets().items() if all(preset[size] == sizes[size] for size in SIZES)
    )
    return next(fitting, None)


def _check_agreement(sources: dict[str, Mapping[str, Any]]) -> None:
    """Raises InputError where two sources of the configuration say different things.

    A vocabulary may be larger than the preset's: rows that pad it to a multiple of the number of ranks stay.
    """
    differences = []
    for field in AGREED:
        said = {origin: values[field] for origin, values in sources.items() if field in values}
        if field == "vocab_size" and isinstance(said.get("the weights"), int):
            said = {
                origin: value
                for origin, value in said.items()
                if not (origin.startswith("the preset") and isinstance(value, int) and value <= said["the weights"])
            }
        if any(value != next(iter(said.values())) for value in said.values()):
            differences.append(f"  {field}: " + ", ".join(f"{value} in {origin}" for origin, value in said.items()))
    if differences:
        raise InputError("the configuration is contradictory\n" + "\n".join(differences))


def _check_heads(config: Mapping[str, Any]) -> None:
    heads = config.get("num_attention_heads")
    if heads is None:
        raise InputError(
            "the number of attention heads is not to be seen in the weights, no config.json says it, and no published "
            "model has these sizes; name one that fits with --preset"
        )
    if type(heads) is not int or heads < 1 or config["hidden_size"] % heads:
        raise InputError(f"num_attention_heads {heads}: does not divide hidden_size {config['hidden_size']}")


def _with_gmask_row(words: LazyTensor, row: int) -> LazyTensor:
    """The word embedding with gMASK's row, which in THUDM's files of glm-10b-chinese is eop's, on its own."""
    eop = row - COMMAND_TOKENS["[gMASK]"] + COMMAND_TOKENS["<|endofpiece|>"]

    def load() -> np.ndarray:
        numbers = np.array(words.load())
        numbers[row] = numbers[eop]
        return numbers

    return LazyTensor(words.shape, words.dtype, load)
