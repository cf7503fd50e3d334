"""Formats of model folders: recognises a folder's format and opens its tensors.

| format          | files                                                                                 |
|-----------------|---------------------------------------------------------------------------------------|
| glm             | this toolkit's, and PaddleNLP's in safetensors: model.safetensors                     |
| quantized       | the same in int8, of `python -m glm quantize`; see `glm.checkpoint.quantized`         |
| paddlenlp       | model_state.pdparams                                                                  |
| huggingface     | model.safetensors with linears [out, in]                                              |
| huggingface-bin | pytorch_model.bin; or model.N.bin of UniLM, of which the last is taken                  |
| megatron        | latest or latest_checkpointed_iteration.txt, ITERATION/mp_rank_XX_model_states.pt      |
| fairseq         | NAME.pt, a dict with `model` and `cfg`; the file itself may be given, or its folder    |

A bare file of a rank of Megatron (`pretrained.pt`) is a whole model. The first four have a config.json beside
them and may be several files with an index (`….index.json`); of the first two there are also parts of tensor-parallel
ranks (`model_state.tp00.pdparams`). A file that is a pickle is read only where there are no safetensors.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glm.checkpoint.names import Weights, are_linears_out_in, canonical_names, transposed_linears
from glm.checkpoint.paddle_files import read_paddle
from glm.checkpoint.pickled_values import Settings, tensors_in
from glm.checkpoint.quantized import is_quantized, with_scales
from glm.checkpoint.ranks import block_by_block, merge_weights
from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import check_no_overlap, reading, same_numbers
from glm.checkpoint.torch_files import read_torch
from glm.errors import InputError, shown
from glm.models import registry
from glm.models.protocol import Family
from glm.runtime.settings_file import read_object

CONFIG_NAME = registry.CONFIG_NAME
# Adapter folders, by their settings file: what they are, and what to do with them.
ADAPTERS = {
    "lora_config.json": "a LoRA adapter without its model; merge them with python -m glm merge",
    "bottleneck_config.json": "adapters without their model; give the folder of it (base_model_name_or_path there)",
    "prefix_config.json": "a prefix without its model; give the folder of its model (base_model_name_or_path there)",
}
TRACKERS = ("latest", "latest_checkpointed_iteration.txt")
RANK_FILE = "mp_rank_{:02}_model_states.pt"
RANK_FILES = re.compile(r"mp_rank_(\d{2,3})_model_states\.pt")
RANK_ENDING = ".pt"
BEST_FILE = "checkpoint_best.pt"  # preferred among several fairseq files
FAIRSEQ_MODEL = "model"  # entry of a fairseq file with the weights
MOST_OF_NAME = 255  # bytes; longest file name that file systems allow
MODULE = "module"  # entry of a Megatron rank file with the weights
WORLD_SIZE = "mp_world_size"  # another entry: the number of ranks


@dataclass(frozen=True)
class Source:
    """A model as it is stored in its files.

    Attributes:
        path: its folder.
        family: which it belongs to.
        format: a key of the table above.
        files: all files of weights.
        ranks: the tensors of each tensor-parallel rank; one for a whole model.
        config: what config.json says, or nothing.
        extras: what Megatron's first file holds beside the weights.
    """

    path: Path
    family: Family
    format: str
    files: list[Path]
    ranks: list[Weights]
    config: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def linears_out_in(self) -> bool:
        """Whether linear weights are [out, in]."""
        return are_linears_out_in(self.family.weights, self.ranks[0])

    def whole(self, heads: int | None) -> Weights:
        """Whole weights under the family's names, linears as [in, out].

        Args:
            heads: number of attention heads; needed only for ranks of PaddleNLP.

        Raises:
            InputError: the ranks do not fit together.
        """
        names = self.family.weights
        ranks = [canonical_names(names, weights, linears_out_in=self.linears_out_in) for weights in self.ranks]
        if self.linears_out_in:
            ranks = [transposed_linears(names, weights) for weights in ranks]
        elif len(ranks) > 1:
            if type(heads) is not int or heads < 1 or heads % len(ranks):
                raise InputError(f"{heads or 'an unknown number of'} attention heads cannot be of {len(ranks)} ranks")
            ranks = [block_by_block(names, weights, heads=heads // len(ranks)) for weights in ranks]
        return merge_weights(names.plan, ranks, origin=self.path)


def open_checkpoint(folder: Path, family: Family | None = None) -> Source:
    """Recognises the format of a folder or a single file, and opens its tensors without reading weights.

    Args:
        family: the family, if its configuration says nothing; recognised by the names of weights if None.

    Raises:
        InputError: it holds no weights, or a file cannot be read.
    """
    if folder.is_file():
        return open_file(folder, _config_of(folder.parent), family)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for stem, ending, read in KINDS_OF_FILES:
        ranks = _files_of_kind(folder, stem, ending)
        if ranks:
            return _opened(folder, ranks, ending, read, _config_of(folder), family)
    if _iteration_folder(folder) is not None:
        return _open_megatron(folder, _rank_files(folder), _config_of(folder), family)
    if (file := fairseq_file(folder)) is not None:
        return _open_pt(file, _config_of(folder), family)
    for name, advice in ADAPTERS.items():
        if (folder / name).is_file():
            raise InputError(f"{folder}: {advice}")
    raise InputError(
        f"{folder}: the folder has no weights (model.safetensors, model_state.pdparams, pytorch_model.bin, "
        f"one of them with .index.json, UniLM's model.N.bin, Megatron's {' or '.join(TRACKERS)}, or fairseq's .pt)"
    )


def fairseq_file(path: Path) -> Path | None:
    """Returns the fairseq file that a path means: the path itself, or in a folder without other weights the best file
    or the only one."""
    if path.is_file():
        return path if path.suffix == RANK_ENDING else None
    if not path.is_dir() or _iteration_folder(path) is not None:
        return None
    if any(_files_of_kind(path, stem, ending) for stem, ending, _ in KINDS_OF_FILES):
        return None
    found = sorted(path.glob(f"*{RANK_ENDING}"))
    best = path / BEST_FILE
    return best if best in found else (found[0] if len(found) == 1 else None)


def open_file(path: Path, config: dict[str, Any], family: Family | None = None) -> Source:
    """Opens a model stored in one file, whatever its name, with the configuration that belongs to it.

    Args:
        family: as of `open_checkpoint`.

    Raises:
        InputError: it is of no known kind, or cannot be read.
    """
    for _, ending, read in KINDS_OF_FILES:
        if path.suffix == f".{ending}":
            return _opened(path.parent, [[path]], ending, read, config, family)
    if path.suffix == RANK_ENDING:
        return _open_pt(path, config, family)
    known = [*(ending for _, ending, _ in KINDS_OF_FILES), RANK_ENDING[1:]]
    raise InputError(f"{path}: is a file, but not one of weights ({', '.join(known)})")


def _read_bin(path: Path) -> Weights:
    """Opens the tensors of a `.bin` file: a state dict, or one under the key `module`."""
    tree = read_torch(path)
    if isinstance(tree, dict) and isinstance(tree.get(MODULE), dict):
        tree = tree[MODULE]
    with reading(path, "PyTorch file"):
        return tensors_in(tree, path)


Reader = Callable[[Path], Weights]
EPOCHS = ("model.N", re.compile(r"model\.(\d{1,9})\.bin"))  # files of UniLM's fine-tuning, one per epoch
KINDS_OF_FILES: tuple[tuple[str, str, Reader], ...] = (
    ("model", "safetensors", read_safetensors),
    ("model_state", "pdparams", read_paddle),
    ("pytorch_model", "bin", _read_bin),
    (EPOCHS[0], "bin", _read_bin),
)


def _files_of_kind(folder: Path, stem: str, ending: str) -> list[list[Path]]:
    """Returns the files of each rank."""
    if (folder / f"{stem}.{ending}").is_file():
        return [[folder / f"{stem}.{ending}"]]
    if stem == EPOCHS[0]:
        epochs = {int(match[1]): path for path in folder.iterdir() if (match := EPOCHS[1].fullmatch(path.name))}
        return [[epochs[max(epochs)]]] if epochs else []
    index = folder / f"{stem}.{ending}.index.json"
    if index.is_file():
        return [_indexed(index)]
    return [[path] for path in _numbered(folder, re.compile(rf"{stem}\.tp(\d{{2,3}})\.{ending}"))]


def _numbered(folder: Path, pattern: re.Pattern) -> list[Path]:
    """Returns the files of ranks 0, 1, …

    Raises:
        InputError: one of them is missing.
    """
    found = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    missing = [str(rank) for rank in range(max(found, default=-1) + 1) if rank not in found]
    if missing:
        raise InputError(f"{folder}: of ranks 0 to {max(found)} the files of {', '.join(missing)} are missing")
    return [path for _, path in sorted(found.items())]


def _indexed(index: Path) -> list[Path]:
    """Returns the files that an index lists; each has to be a plain name in the same folder."""
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index}: has no weight_map")
    files = []
    for name in dict.fromkeys(map(str, names.values())):
        if (
            Path(name).name != name
            or name in ("", "..")
            or "\\" in name
            or "\0" in name
            or len(name.encode("utf-8", "replace")) > MOST_OF_NAME
        ):
            raise InputError(f"{index}: names a file outside its folder ({shown(name)})")
        if not (index.parent / name).is_file():
            raise InputError(f"{index}: names {shown(name)}, which is not there")
        files.append(index.parent / name)
    return files


def _opened(
    folder: Path,
    ranks: list[list[Path]],
    ending: str,
    read: Reader,
    config: dict[str, Any],
    family: Family | None,
) -> Source:
    tensors = [_together(files, read) for files in ranks]
    if is_quantized(config):
        tensors = [with_scales(weights, config, folder) for weights in tensors]
    family = _family_of(config, tensors[0], folder, family)
    tensors = [_once(family, weights) for weights in tensors]
    formats = {"pdparams": "paddlenlp", "bin": "huggingface-bin"}
    found = formats.get(ending) or ("huggingface" if are_linears_out_in(family.weights, tensors[0]) else "glm")
    found = "quantized" if is_quantized(config) else found
    return Source(folder, family, found, [path for files in ranks for path in files], tensors, config)


def _family_of(config: dict[str, Any], names: Iterable[str], folder: Path, wanted: Family | None) -> Family:
    if wanted is None:
        return registry.recognise(config, names, origin=folder, folder=folder)
    if "model_type" in config and registry.recognise(config, origin=folder) is not wanted:
        raise InputError(f"{folder}: {CONFIG_NAME} says {config['model_type']!r}, and the preset is of {wanted.name}")
    return wanted


def _config_of(folder: Path) -> dict[str, Any]:
    return read_object(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}


def _together(files: Iterable[Path], read: Reader) -> Weights:
    """Merges the tensors of the files of one rank."""
    together: Weights = {}
    for path in files:
        tensors = read(path)
        twice = sorted(set(tensors) & set(together))
        if twice:
            raise InputError(f"{path}: {shown(twice[0])} is in another file, too")
        together |= tensors
    return together


def _once(family: Family, tensors: Weights) -> Weights:
    """Drops the tensors that a family does not need, and duplicates.

    Raises:
        InputError: what should be the same weight twice is not, or tensors share bytes otherwise.
    """
    names, kept = family.weights, {}
    for name, tensor in tensors.items():
        origin = names.copy_of(name)
        if name.endswith(names.ignored) or (origin is not None and origin not in tensors):
            if origin is None:
                continue
            kept[origin] = tensor
        elif origin is None:
            kept[name] = tensor
        elif not same_numbers(tensor, tensors[origin]):
            raise InputError(f"{shown(name)}: has other numbers than {shown(origin)}, with which it is tied")
    check_no_overlap(kept)
    return kept


def _iteration_folder(folder: Path) -> Path | None:
    """Returns the folder with a Megatron model's files: the one that the tracker names, or the folder itself."""
    for name in TRACKERS:
        tracker = folder / name
        if tracker.is_file():
            iteration = tracker.read_bytes()[:200].decode("utf-8", errors="replace").strip()
            if Path(iteration).name != iteration or iteration in ("", "..") or len(iteration.encode()) > MOST_OF_NAME:
                raise InputError(f"{tracker}: {shown(iteration)} is not the name of a folder")
            return folder / iteration
    return folder if any(RANK_FILES.fullmatch(path.name) for path in folder.iterdir()) else None


def _open_pt(path: Path, config: dict[str, Any], family: Family | None) -> Source:
    """Opens a `.pt` file: Megatron's if it has an entry `module`, else fairseq's."""
    tree = read_torch(path)
    if isinstance(tree, dict) and MODULE in tree:
        return _open_megatron(path.parent, [path], config, family)
    return _open_fairseq(path, tree)


def _open_fairseq(path: Path, tree: Any) -> Source:
    if not isinstance(tree, dict) or not isinstance(tree.get(FAIRSEQ_MODEL), dict):
        raise InputError(f"{path}: is no model of fairseq (a dict with {FAIRSEQ_MODEL}, and cfg or args)")
    with reading(path, "PyTorch file"):
        tensors = tensors_in(tree[FAIRSEQ_MODEL], path)
    family = registry.recognise({}, tensors, origin=path)
    if not family.weights.recognises(tensors):
        raise InputError(f"{path}: its weights are of no known family ({', '.join(registry.FAMILIES)})")
    cfg = _values(tree.get("cfg"))
    options = _values(cfg.get("model")) or _values(tree.get("args"))
    config = {"model_type": family.name, **family.weights.stated(options, tensors)}
    return Source(path.parent, family, "fairseq", [path], [_once(family, tensors)], config)


def _values(value: Any) -> dict[str, Any]:
    """Returns the options in a dict or a namespace."""
    value = value.values if isinstance(value, Settings) else value
    return value if isinstance(value, dict) else {}


def _rank_files(folder: Path) -> list[Path]:
    """Returns the rank files of a Megatron model."""
    iteration = _iteration_folder(folder)
    files = _numbered(iteration, RANK_FILES) if iteration.is_dir() else []
    if not files:
        raise InputError(f"{iteration}: no such folder, or no {RANK_FILE.format(0)} in it")
    return files


def _open_megatron(folder: Path, files: list[Path], config: dict[str, Any], family: Family | None) -> Source:
    ranks, extras = [], {}
    for path in files:
        tree = read_torch(path)
        if not isinstance(tree, dict) or MODULE not in tree:
            raise InputError(f"{path}: has no entry {MODULE}")
        extras = extras or {name: value for name, value in tree.items() if name != MODULE}
        with reading(path, "PyTorch file"):
            tensors = tensors_in(tree[MODULE], path)
        check_no_overlap(tensors)
        ranks.append(tensors)
    if type(extras.get(WORLD_SIZE)) is int and extras[WORLD_SIZE] != len(ranks):
        raise InputError(
            f"{files[0].parent}: the files are of {extras[WORLD_SIZE]} ranks, but there are {len(ranks)} of them"
        )
    family = _family_of(config, ranks[0], folder, family)
    return Source(folder, family, "megatron", files, ranks, config, extras)
