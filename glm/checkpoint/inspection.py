"""Describes model files from their headers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from glm.checkpoint.configuration import family_of_preset
from glm.checkpoint.formats import Source, open_checkpoint
from glm.checkpoint.whole import whole_model
from glm.errors import InputError, shown


@dataclass(frozen=True)
class Inspection:
    """A model's files, the published model of the same sizes, and why it cannot be imported, if so."""

    source: Source
    preset: str | None
    problem: str | None


def inspect_checkpoint(folder: str | Path, *, preset: str | None = None) -> Inspection:
    """Inspects a model of any format; no weights are read.

    Raises:
        InputError: it holds no weights, or one of its files cannot be read.
    """
    source = open_checkpoint(Path(folder), family_of_preset(preset) if preset else None)
    try:
        return Inspection(source, whole_model(source, preset).preset, None)
    except InputError as error:
        return Inspection(source, None, str(error))


def report(inspection: Inspection) -> list[str]:
    """Returns the lines of a report: a summary, every tensor as stored in its file, the problem."""
    source = inspection.source
    tensors = [tensor for weights in source.ranks for tensor in weights.values()]
    dtypes = Counter(tensor.dtype for tensor in tensors)
    disk = sum(path.stat().st_size for path in source.files)
    orientation = "[out, in] (PyTorch)" if source.linears_out_in else "[in, out] (Paddle)"
    lines = [
        f"family         {source.family.name}",
        f"format         {source.format}",
        f"files          {', '.join(str(path.relative_to(source.path)) for path in source.files)}",
        f"ranks          {len(source.ranks)}",
        f"preset         {inspection.preset or '-'}",
        f"linear weights {orientation}",
        f"tensors        {len(tensors)}: {', '.join(f'{count} {dtype}' for dtype, count in dtypes.most_common())}",
        f"size           {sum(tensor.nbytes for tensor in tensors):,} bytes of tensors, {disk:,} bytes of files",
        "",
    ]
    for rank, weights in enumerate(source.ranks):
        lines += [f"rank {rank}"] if len(source.ranks) > 1 else []
        width = max((len(shown(name)) for name in weights), default=0)
        lines += [f"{shown(name):{width}}  {tensor.dtype:8}  {list(tensor.shape)}" for name, tensor in weights.items()]
    return [*lines, "", f"problem: {inspection.problem}" if inspection.problem else "no problems"]
