"""Opens a model of any format as a configuration and whole weights that fit it."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.configuration import (
    checked_config,
    declared_config,
    family_of_preset,
    guess_preset,
    read_preset,
)
from glm.checkpoint.formats import Source, open_checkpoint
from glm.checkpoint.names import Weights, checked_weights, infer_sizes
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError, shown
from glm.models.presets import published_presets
from glm.models.protocol import WeightNames

# Names that tools use for an output layer that is tied to the word embedding.
OUTPUTS = ("lm_head.weight", "output_layer.weight", "embed_out.weight", "output_projection.weight")
OUTPUTS += ("cls.predictions.decoder.weight", "cls.predictions.decoder_weight")


@dataclass(frozen=True)
class WholeModel:
    """Whole weights with their family's names, linears as [in, out], and the configuration they fit.

    Attributes:
        preset: the published model of the same sizes; None if there is none.
        notes: what was left out of the files. Who uses the weights says it (`print_notes`); of a model that is opened
            for its configuration first, it would be said twice.
    """

    source: Source
    config: dict[str, Any]
    weights: Weights
    preset: str | None
    notes: tuple[str, ...] = ()

    def print_notes(self) -> None:
        """Says what was left out, on standard error."""
        for note in self.notes:
            print(note, file=sys.stderr)

    @property
    def summary(self) -> str:
        """Format, number of ranks, size and published model, for messages."""
        ranks = f", {len(self.source.ranks)} ranks" if len(self.source.ranks) > 1 else ""
        count = sum(math.prod(tensor.shape) for tensor in self.weights.values())
        dtypes = " and ".join(sorted({tensor.dtype for tensor in self.weights.values()}))
        kind = self.preset or "no published size"
        return f"format {self.source.format}{ranks}, {count:,} parameters in {dtypes}, {kind}"


def open_model(folder: str | Path, preset: str | None = None, *, base: str | Path | None = None) -> WholeModel:
    """Opens a model of any format; no weights are read.

    Args:
        folder: its folder, or its one file.
        preset: a published name, a name in `configs/model` or a `.json` file that the weights have to fit.
        base: the whole model, for files with only the trained weights.

    Raises:
        InputError: it cannot be read, is not whole, or does not fit its configuration, the preset or the base.
    """
    if base is not None:
        model = open_model(base, preset)
        return whole_model(open_checkpoint(Path(folder), model.source.family), preset, base=model)
    return whole_model(open_checkpoint(Path(folder), family_of_preset(preset) if preset else None), preset)


def whole_model(source: Source, preset: str | None = None, *, base: WholeModel | None = None) -> WholeModel:
    """Like `open_model`, for files that are open already."""
    family, names = source.family, source.family.weights
    name, settings = read_preset(family, preset) if preset else (None, {})
    try:
        declared = {**(base.config if base else {}), **declared_config(family, source.config)}
        weights = source.whole(declared.get("num_attention_heads") or settings.get("num_attention_heads"))
        weights = names.settled({**(base.weights if base else {}), **weights})
        sizes = infer_sizes(names, weights, title=family.title)
        model_name = name or guess_preset(family, sizes)
        settings = settings or published_presets((*family.published, *family.presets)).get(model_name, {})
        config = checked_config(family, sizes, declared, name, settings)
        weights, copies = without_tied_copies(names, weights, config)
        weights = checked_weights(names, weights, config)
        if names.copied_rows_key not in source.extras:
            for row, origin in names.copied_rows(source.format, settings):
                weights[names.words] = _with_copied_row(weights[names.words], row, origin)
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from error
    notes = (f"{shown(name)}: is {names.words} once more, and left out" for name in copies)
    return WholeModel(source, config, weights, model_name, tuple(notes))


def without_tied_copies(names: WeightNames, weights: Weights, config: dict[str, Any]) -> tuple[Weights, list[str]]:
    """Drops copies of the word embedding under an output layer's name, which other tools write for tied weights.

    Returns:
        The other weights, and the names of the copies.

    Raises:
        InputError: the output layer differs from the word embedding, so that this model cannot represent it.
    """
    words, expected = weights.get(names.words), names.shapes(config)
    copies = [
        name
        for name, tensor in weights.items()
        if words is not None and name not in expected and name in OUTPUTS and tensor.shape == words.shape
    ]
    for name in copies:
        if not np.array_equal(weights[name].load(), words.load(), equal_nan=True):
            raise InputError(
                f"{shown(name)}: is an output layer of its own, other than {names.words}, and this model has none "
                "beside its word embedding"
            )
    return {name: tensor for name, tensor in weights.items() if name not in copies}, copies


def _with_copied_row(words: LazyTensor, row: int, origin: int) -> LazyTensor:
    """Gives the word embedding a row of its own for a token that shares another's in the files."""

    def load() -> np.ndarray:
        numbers = np.array(words.load())
        numbers[row] = numbers[origin]
        return numbers

    return LazyTensor(words.shape, words.dtype, load)
