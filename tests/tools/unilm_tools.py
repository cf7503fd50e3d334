"""UniLM models from files and with random weights, and batches of rows, for tests of the family."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from safetensors.numpy import load_file

from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.models.protocol import GeometryOptions
from glm.models.unilm.configuration import UniLMConfig
from glm.models.unilm.geometry import RIGHT_TO_LEFT, Example, UniLMGeometry, in_task
from glm.models.unilm.modeling import UniLMForConditionalGeneration
from glm.models.unilm.tokenization import WordPieceTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OPTIONS = GeometryOptions("[gMASK]")


def write_vocabulary(path: Path, words: Sequence[str] = "的一是不了人我在有他这中大来上国和说们为") -> Path:
    """Writes a vocabulary of BERT's own tokens and some words."""
    path.write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    return path


def original_folder(case: Path, folder: Path, *, name: str = "model.safetensors") -> Path:
    """Makes a model folder in the original's form, of a golden model described by `case` (a .json)."""
    settings = json.loads(case.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case.with_suffix(".weights.safetensors"), folder / name)
    shutil.copyfile(case.parent / settings["vocab"], folder / "vocab.txt")
    (folder / "config.json").write_text(json.dumps(settings["config"]), encoding="utf-8")
    return folder


def load_folder(folder: Path) -> tuple[UniLMForConditionalGeneration, WordPieceTokenizer]:
    """Loads model and tokenizer of a folder as the toolkit does, without dropout."""
    family = find_family(str(folder))
    assert family.name == "unilm"
    tokenizer = load_tokenizer(family, str(folder))
    model = load_model(family, str(folder), load_config(family, str(folder), tokenizer))
    model.eval()
    return model, tokenizer


def golden_model(case: Path, folder: Path) -> tuple[UniLMForConditionalGeneration, WordPieceTokenizer]:
    """Loads the model that a golden file describes, from files in the original's form."""
    return load_folder(original_folder(case, folder))


def random_model(*, seed: int = 0, **options) -> UniLMForConditionalGeneration:
    """Makes a model in evaluation mode with every number from N(0, s), weights of LayerNorms from N(1, s); s is 0.3
    for a hidden size of 24, and smaller for larger ones, so that logits have the same size."""
    sizes = {"vocab_size": 25, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 60, "hidden_dropout_prob": 0.0}
    model = UniLMForConditionalGeneration(UniLMConfig(**{**sizes, "attention_probs_dropout_prob": 0.0, **options}))
    numbers = np.random.default_rng(seed)
    for name, weight in model.named_parameters():
        centre = 1.0 if name.endswith("layernorm.weight") else 0.0
        std = 0.3 * (24 / model.config.hidden_size) ** 0.5
        weight.set_value(numbers.normal(centre, std, weight.shape).astype("float32"))
    model.eval()
    return model


def geometry_of(tokenizer: WordPieceTokenizer, **options) -> UniLMGeometry:
    """Makes a geometry with options of `GeometryOptions`."""
    return UniLMGeometry(tokenizer, replace(OPTIONS, **options))


def tensors(batch: dict[str, np.ndarray]) -> dict[str, paddle.Tensor]:
    """Converts a batch to tensors."""
    return {name: paddle.to_tensor(table) for name, table in batch.items()}


def golden_cases(case: Path) -> dict[str, np.ndarray]:
    """Returns the tensors beside a golden model."""
    return load_file(case.with_suffix(".cases.safetensors"))


def golden_rows(cases: dict[str, np.ndarray]) -> list[Example]:
    """Yields the records of golden cases, with their labels and sentence order."""
    rows = []
    for number, ids in enumerate(cases["input_ids"]):
        length, task = int((ids != 0).sum()), int(cases["task_idx"][number])
        segments = cases["segment_ids"][number][:length]
        order = int(cases["sop_label"][number])
        example = in_task(
            task, ids[:length], int((segments == segments[0]).sum()), order=order if order >= 0 else -100
        )
        used = cases["masked_weights"][number] != 0
        places = cases["masked_pos"][number][used]
        example.labels[row_places(example, places)] = cases["masked_ids"][number][used]
        rows.append(example)
    return rows


def row_places(example: Example, places: np.ndarray) -> np.ndarray:
    """Returns where the tokens at these places of the text stand in an example's row."""
    return len(example) - 1 - places if example.task == RIGHT_TO_LEFT else places


def in_text_order(example: Example, table: np.ndarray) -> np.ndarray:
    """Reorders rows of a table [L, ...] from an example's row, padded or not, to the order of its text."""
    table = table[: len(example)]
    return table[::-1] if example.task == RIGHT_TO_LEFT else table


def hidden_states(model: UniLMForConditionalGeneration, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns [n, H] after each block for the tokens of a batch without padding."""
    found = []
    hooks = [
        layer.register_forward_post_hook(lambda layer, inputs, output: found.append(output.numpy()))
        for layer in model.stacks[0].layers
    ]
    model(**{name: table for name, table in tensors(batch).items() if name not in ("labels", "order")})
    for hook in hooks:
        hook.remove()
    return found
