"""Tokenizers, golden models and batches for tests of VLM."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import tokenizers
from safetensors.numpy import load_file
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from glm.checkpoint.loading import find_family, load_config, load_model
from glm.models.vlm.tokenization import END_OF_TEXT, BytePairTokenizer

NO_LABEL = -1  # as in the originals' files
FILES = ("vocab.json", "merges.txt", "added_tokens.json")


def write_tokenizer(folder: Path, texts: Iterable[str], *, words: int = 320) -> Path:
    """Trains a byte-level BPE with so many words on texts, and writes it to GPT-2's two files."""
    pieces = tokenizers.Tokenizer(BPE())
    pieces.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=words - 1, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    pieces.model.save(str(folder))
    vocabulary = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    (folder / FILES[0]).write_text(json.dumps({**vocabulary, END_OF_TEXT: len(vocabulary)}), encoding="utf-8")
    return folder


def golden_folder(weights: Path, folder: Path) -> Path:
    """Makes a model folder in VLM's form, of golden weights and the .json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / "model.safetensors")
    for name in FILES:
        shutil.copyfile(weights.parent / "tokenizer" / name, folder / name)
    facts = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **facts["config"]}), encoding="utf-8")
    return folder


def load_folder(folder: Path) -> tuple[Any, BytePairTokenizer]:
    """Loads model and tokenizer of a folder as the toolkit does, without dropout."""
    family = find_family(str(folder))
    assert family.name == "vlm"
    tokenizer = family.open_tokenizer(folder)
    model = load_model(family, str(folder), load_config(family, str(folder), tokenizer))
    model.eval()
    return model, tokenizer


def in_float64(model: Any) -> Any:
    """Returns a model with the same numbers that computes in float64."""
    paddle.set_default_dtype("float64")
    try:
        with type(model).without_drawing():
            wide, weights = type(model)(model.config), dict(model.named_parameters())
        for name, weight in wide.named_parameters():
            weight.set_value(paddle.to_tensor(weights[name].numpy(), dtype="float64"))
    finally:
        paddle.set_default_dtype("float32")
    wide.eval()
    return wide


def ints(table: Any) -> paddle.Tensor:
    return paddle.to_tensor(np.asarray(table, np.int64))


def golden_batch(
    ids: np.ndarray, segments: np.ndarray, labels: np.ndarray | None, tasks: Sequence[int], pad: int
) -> dict[str, paddle.Tensor]:
    """Converts rows in the originals' form, padded on the right with pad, to the model's input."""
    lengths = (ids != pad).sum(axis=1)
    batch = {"input_ids": ids, "segment_ids": segments, "lengths": lengths[:, None], "tasks": np.array(tasks)[:, None]}
    if labels is not None:
        following = np.full(labels.shape, -100)
        following[:, :-1] = np.where(labels[:, 1:] == NO_LABEL, -100, labels[:, 1:])
        batch["labels"] = following
    return {name: ints(table) for name, table in batch.items()}


def golden_case(tensors: dict[str, np.ndarray], name: str, tasks: Sequence[int], pad: int) -> dict[str, paddle.Tensor]:
    """Returns the batch of a case of a golden file."""
    parts = (tensors[f"{name}.{part}"] for part in ("input_ids", "token_type_ids", "lm_labels"))
    return golden_batch(*parts, tasks, pad)


def tensors_beside(weights: Path) -> dict[str, np.ndarray]:
    """Returns what the originals computed with golden weights."""
    return load_file(weights.with_name(f"{weights.stem}_io.safetensors"))
