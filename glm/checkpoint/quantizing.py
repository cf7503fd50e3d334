"""Writes a model folder in int8, see `glm.checkpoint.quantized`. Loads Numba."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from safetensors.numpy import save_file
from tqdm import tqdm

from glm.adapters.files import read_adapter_config
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.quantized import KEY, SCALES, STATED, refuse_quantized
from glm.checkpoint.tokenizers import load_tokenizer
from glm.errors import InputError
from glm.modules.arranged import linears_of, quantized
from glm.modules.pending import fill
from glm.modules.pretrained import WEIGHTS_NAME
from glm.options.run_config import RUN_CONFIG_NAME, read_config
from glm.runtime.atomic import new_folder
from glm.runtime.device import prepare


def quantize(name: str, output_dir: Path) -> None:
    """Writes a model with the weights of its products in int8; the folder appears when it is whole.

    Its texts are those of the model's own folder with `--decode_dtype int8`.

    Args:
        name: a model's folder of any format, or a published name.
        output_dir: new or empty.

    Raises:
        InputError: it is no model, an adapter, quantized already, or of a family without such products; a weight is
            infinite or NaN; or the output folder holds something.
    """
    if read_adapter_config(Path(name)) is not None:
        raise InputError(f"{name}: is an adapter; merge it into its model first (python -m glm merge)")
    refuse_quantized(name, "quantizing")
    prepare("cpu")
    with new_folder(output_dir) as folder:
        family = find_family(name)
        tokenizer = load_tokenizer(family, name)
        model = load_model(family, name, load_config(family, name, tokenizer), leaves_pending=True)
        if not model.stacks:
            raise InputError(f"{name}: the family {family.name} does not decode in int8")
        save_file(_tensors(model, name), str(folder / WEIGHTS_NAME), metadata={"format": "np"})
        model.config.save_pretrained(str(folder))
        _add(folder / "config.json", {KEY: STATED})
        family.save_tokenizer(tokenizer, folder)
        trained = Path(name, RUN_CONFIG_NAME)
        settings = read_config(trained) if trained.is_file() else {}
        (folder / RUN_CONFIG_NAME).write_text(json.dumps(settings), encoding="utf-8")
        _add(folder / RUN_CONFIG_NAME, {"decode_dtype": STATED["dtype"]})


def _tensors(model: nn.Layer, name: str) -> dict[str, np.ndarray]:
    """What the file of weights holds."""
    by_inputs = {f"{place}.weight" for _, _, place in linears_of(model)}
    found = {}
    for weight, parameter in tqdm(list(model.named_parameters()), desc="weights", disable=None):
        if weight not in by_inputs and parameter is not model.head.weight:
            fill(parameter)
            found[weight] = parameter.numpy()
            continue
        try:
            integers, scales = quantized(parameter, by_inputs=weight in by_inputs)
        except ValueError as error:
            raise InputError(f"{name}: {weight}: {error}") from error
        found[weight] = integers.T.copy() if weight in by_inputs else integers
        found[weight + SCALES] = scales[None] if weight in by_inputs else scales[:, None]
    return found


def _add(path: Path, entries: dict[str, Any]) -> None:
    """Adds entries to a JSON file."""
    settings = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
