"""A checkpoint as the toolkit sees it, whatever its layout: a configuration, and whole weights that fit it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.configuration import checked_config, declared_config, guess_preset, read_preset
from glm.checkpoint.formats import CONFIG_NAME, Source, open_checkpoint
from glm.checkpoint.names import WORDS, Weights, checked_weights, infer_sizes
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError
from glm.models.glm.command_tokens import COMMAND_TOKENS
from glm.models.presets import published_presets


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
        return f"format {self.source.format}{ranks}, {count:,} parameters in {dtypes}, {kind}"


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
    name, settings = read_preset(preset) if preset else (None, {})
    try:
        declared = declared_config(source.config)
        weights = source.whole(declared.get("num_attention_heads") or settings.get("num_attention_heads"))
        sizes = infer_sizes(weights)
        model_name = name or guess_preset(sizes)
        settings = settings or published_presets().get(model_name, {})
        config = checked_config(sizes, declared, name, settings)
        weights = checked_weights(weights, config)
        if not source.has_separate_gmask:
            for row in settings.get("bad_words_id", []):
                weights[WORDS] = _with_gmask_row(weights[WORDS], row)
    except InputError as error:
        raise InputError(f"{source.path}: {_of_another_model(source)}{error}") from error
    return WholeModel(source, config, weights, model_name)


def _of_another_model(source: Source) -> str:
    model_type = source.config.get("model_type")
    return "" if model_type in (None, "glm") else f"{CONFIG_NAME} says model_type {model_type!r:.50}, not glm; "


def _with_gmask_row(words: LazyTensor, row: int) -> LazyTensor:
    """The word embedding with gMASK's row, which in THUDM's files of glm-10b-chinese is eop's, on its own.

    Raises:
        InputError: there is no row of eop before it.
    """
    eop = row - COMMAND_TOKENS["[gMASK]"] + COMMAND_TOKENS["<|endofpiece|>"]
    if eop < 0:
        raise InputError(f"bad_words_id {row}: cannot be gMASK, whose row is that of eop in Megatron's files")

    def load() -> np.ndarray:
        numbers = np.array(words.load())
        numbers[row] = numbers[eop]
        return numbers

    return LazyTensor(words.shape, words.dtype, load)
