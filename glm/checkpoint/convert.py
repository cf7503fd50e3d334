"""Converts model files from one format to another, one tensor at a time.

From Python: `import_checkpoint`, `export_checkpoint`, `reshard_checkpoint`; on the command line
`python -m glm checkpoint`.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from glm.checkpoint.formats import CONFIG_NAME, FAIRSEQ_MODEL, MODULE, RANK_FILE, TRACKERS, WORLD_SIZE
from glm.checkpoint.names import Weights, foreign_names, transposed_linears
from glm.checkpoint.paddle_files import write_paddle
from glm.checkpoint.ranks import head_by_head, split_weights
from glm.checkpoint.safetensors_files import write_safetensors
from glm.checkpoint.torch_files import write_torch
from glm.checkpoint.whole import WholeModel, open_model
from glm.errors import InputError, UsageError
from glm.options.run_config import RUN_CONFIG_NAME, trained_with
from glm.parallel.plan import check_degree
from glm.runtime.atomic import new_folder

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
# Copied beside the family's tokenizer if they exist: files of other libraries' tokenizers, and the settings of a run.
COMPANIONS = (
    *("vocab.txt", "vocab.json", "merges.txt"),
    *(TOKENIZER_CONFIG_NAME, "special_tokens_map.json", "added_tokens.json"),
    RUN_CONFIG_NAME,
)
FAIRSEQ_NAME = "checkpoint.pt"  # file of an exported fairseq model
GENERATION_NAME = "generation_config.json"
ITERATION = "0"  # folder of an exported Megatron model


def import_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    preset: str | None = None,
    base: str | Path | None = None,
    positions: int | None = None,
    tasks: int | None = None,
) -> WholeModel:
    """Imports a model of any format in the toolkit's own format; every number keeps its bits.

    Args:
        source: its folder, or its one file.
        target: a folder that does not exist yet, or is empty.
        preset: a published name, a name in `configs/model` or a `.json` file, which the weights must fit.
        base: the whole model, for files that hold only the weights that were trained.
        positions, tasks: how many the model is to have; None for those it has (`WeightNames.reshaped`).

    Returns:
        The model as it was found.

    Raises:
        InputError: the source cannot be read or does not fit; the target exists or cannot be written.
    """
    try:
        model = open_model(source, preset, base=base)
    except InputError as error:
        if "\n  missing " in str(error) and base is None:
            raise InputError(f"{error}\n  if it holds only what was trained, name its model with --base") from error
        raise
    _write(_reshaped(model, positions, tasks), Path(target), "glm", 1)
    return model


def _reshaped(model: WholeModel, positions: int | None, tasks: int | None) -> WholeModel:
    """Resizes tables of a model; messages about it go to standard error."""
    if positions is None and tasks is None:
        return model
    names = model.source.family.weights
    weights, warnings = names.reshaped(model.weights, positions=positions, tasks=tasks)
    for warning in warnings:
        print(f"{model.source.path}: {warning}", file=sys.stderr)
    sizes = names.sizes_of({name: tensor.shape for name, tensor in weights.items()})
    return replace(model, config={**model.config, **sizes}, weights=dict(weights))


def export_checkpoint(
    source: str | Path, target: str | Path, *, to: str, degree: int = 1, preset: str | None = None
) -> WholeModel:
    """Exports a model of any format in another format.

    Args:
        to: a key of `WRITERS`.
        degree: number of tensor-parallel ranks; more than one only in the formats of `RANKED`.

    Raises:
        UsageError: the format has no ranks.
        InputError: as `import_checkpoint`; or `degree` does not divide the model.
    """
    model = open_model(source, preset)
    if to in model.source.family.weights.foreign_to:
        raise UsageError(f"format {to}: no program reads a {model.source.family.title} in it; use another one")
    _write(model, Path(target), to, degree)
    return model


def reshard_checkpoint(
    source: str | Path, target: str | Path, *, degree: int, preset: str | None = None
) -> WholeModel:
    """Converts a model, in its own format, to another number of tensor-parallel ranks.

    Raises:
        UsageError: the format has no ranks.
        InputError: as `import_checkpoint`; or `degree` does not divide the model.
    """
    model = open_model(source, preset)
    _write(model, Path(target), model.source.format, degree)
    return model


def _write(model: WholeModel, target: Path, to: str, degree: int) -> None:
    model.print_notes()
    _check_degree(to, degree, model)
    with new_folder(target) as folder:
        _check_space(folder, model)
        WRITERS[to](folder, model, degree)
        for name in (*model.source.family.tokenizer_files, *COMPANIONS):
            if (model.source.path / name).is_file() and not (folder / name).exists():
                shutil.copyfile(model.source.path / name, folder / name)


def _check_degree(to: str, degree: int, model: WholeModel) -> None:
    if degree < 1:
        raise UsageError(f"tensor_parallel_degree {degree}: must be at least 1")
    if degree > 1 and to not in RANKED:
        raise UsageError(
            f"tensor_parallel_degree {degree}: the format {to} is one whole model; those with ranks are "
            f"{', '.join(RANKED)}"
        )
    check_degree(degree, model.config, model.source.family.weights.divided)


def _check_space(folder: Path, model: WholeModel) -> None:
    needed = sum(tensor.nbytes for tensor in model.weights.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder.parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


# -- one function per format


def _write_glm(folder: Path, model: WholeModel, degree: int) -> None:
    _write_config(folder, model, "glm")
    for name, weights in _paddle_ranks("model{}.safetensors", model, degree):
        write_safetensors(folder / name, weights, framework="np")


def _write_paddlenlp(folder: Path, model: WholeModel, degree: int) -> None:
    _write_config(folder, model, "paddlenlp")
    names = model.source.family.weights
    for name, weights in _paddle_ranks("model_state{}.pdparams", model, degree):
        write_paddle(folder / name, foreign_names(names, weights, "paddlenlp", linears_out_in=False))


def _write_huggingface(folder: Path, model: WholeModel, degree: int) -> None:
    _write_config(folder, model, "huggingface")
    _write_code(folder, model)
    write_safetensors(folder / "model.safetensors", _foreign(model, model.weights, "huggingface"), framework="pt")


def _write_code(folder: Path, model: WholeModel) -> None:
    """Writes the Python files with which transformers runs the model, if its family has some and the tokenizer
    exists."""
    family, place = model.source.family, model.source.path
    if family.code is None:
        return
    if not (place / family.tokenizer_files[0]).is_file():
        print(f"{place}: has no {family.tokenizer_files[0]}, so transformers cannot run the export", file=sys.stderr)
        return
    for file in sorted(family.code.glob("*.py")):
        shutil.copyfile(file, folder / file.name)
    tokenizer = family.open_tokenizer(place)
    _write_json(folder / TOKENIZER_CONFIG_NAME, family.code_tokenizer(tokenizer))
    settings = family.code_settings(tokenizer, trained_with(str(place)))
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")) | settings
    _write_json(folder / CONFIG_NAME, config)
    generation = {name: config[name] for name in ("eos_token_id", "pad_token_id")}
    _write_json(folder / GENERATION_NAME, generation)


def _write_huggingface_bin(folder: Path, model: WholeModel, degree: int) -> None:
    _write_config(folder, model, "huggingface-bin")
    _write_code(folder, model)
    write_torch(folder / "pytorch_model.bin", _foreign(model, model.weights, "huggingface-bin"))


def _write_megatron(folder: Path, model: WholeModel, degree: int) -> None:
    """Writes Megatron's files, with a config.json, which Megatron does not have: the number of heads is stored nowhere
    else."""
    _write_config(folder, model, "megatron")
    (folder / ITERATION).mkdir()
    extras = {"iteration": int(ITERATION), WORLD_SIZE: degree}
    names = model.source.family.weights
    if names.copied_rows("megatron", model.config):
        extras[names.copied_rows_key] = True
    for rank in range(degree):
        part = split_weights(names.plan, model.weights, rank=rank, degree=degree)
        weights = _foreign(model, part, "megatron")
        write_torch(folder / ITERATION / RANK_FILE.format(rank), {MODULE: weights, **extras})
    for name in TRACKERS:
        (folder / name).write_text(ITERATION, encoding="utf-8")


def _write_fairseq(folder: Path, model: WholeModel, degree: int) -> None:
    """Writes a fairseq file: weights, tied ones under each of their names, and the options with the model's sizes."""
    names = model.source.family.weights
    weights = _foreign(model, model.weights, "fairseq")
    weights |= {copy: weights[name] for copy, name in names.copies(model.config, "fairseq").items()}
    cfg = {"model": names.foreign_options(model.config, "fairseq")}
    write_torch(folder / FAIRSEQ_NAME, {FAIRSEQ_MODEL: weights, "cfg": cfg})


WRITERS = {
    "glm": _write_glm,
    "paddlenlp": _write_paddlenlp,
    "huggingface": _write_huggingface,
    "huggingface-bin": _write_huggingface_bin,
    "megatron": _write_megatron,
    "fairseq": _write_fairseq,
}
RANKED = ("megatron", "paddlenlp", "glm")


def _paddle_ranks(name: str, model: WholeModel, degree: int) -> Iterator[tuple[str, Weights]]:
    """Returns names and contents of PaddleNLP's files: one with whole weights, or one per rank."""
    if degree == 1:
        yield name.format(""), model.weights
        return
    for rank in range(degree):
        names = model.source.family.weights
        weights = split_weights(names.plan, model.weights, rank=rank, degree=degree)
        yield (
            name.format(f".tp{rank:02}"),
            head_by_head(names, weights, heads=model.config["num_attention_heads"] // degree),
        )


def _foreign(model: WholeModel, weights: Weights, format: str) -> Weights:
    """Converts weights to [out, in] and the names of the published files."""
    names = model.source.family.weights
    return foreign_names(names, transposed_linears(names, weights), format)


def _write_config(folder: Path, model: WholeModel, format: str) -> None:
    family = model.source.family
    config = {"architectures": [family.architecture], "model_type": family.name, **model.config}
    config |= family.weights.config_of(format, model.config)
    _write_json(folder / CONFIG_NAME, config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
