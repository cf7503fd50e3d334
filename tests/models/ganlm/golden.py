"""The golden models of GanLM's original: their weights, their cases, and batches as this toolkit has them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from glm.checkpoint.names import canonical_names, checked_weights, transposed_linears
from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.models.ganlm.configuration import GanLMConfig
from glm.models.ganlm.modeling import GanLMForConditionalGeneration
from glm.models.ganlm.weights import GanLMWeights
from glm.models.protocol import IGNORE_INDEX
from tools.reference_files import reference_folder, reference_paths

PAD = 1
ENDING = ".weights.safetensors"


@dataclass(frozen=True)
class Golden:
    """A model of the fixtures.

    Attributes:
        weights: its file of weights, the other two stand beside it.
    """

    weights: Path

    @property
    def name(self) -> str:
        return self.weights.name.removesuffix(ENDING)

    @cached_property
    def facts(self) -> dict:
        return json.loads((self.weights.parent / f"{self.name}.json").read_text(encoding="utf-8"))

    @cached_property
    def cases(self) -> dict[str, np.ndarray]:
        with np.load(self.weights.parent / f"{self.name}.cases.npz") as arrays:
            return dict(arrays)

    @property
    def options(self) -> dict:
        """The configuration as this toolkit writes it."""
        config = self.facts["config"]
        return {
            "vocab_size": self.facts["vocab_size"],
            "hidden_size": config["encoder_embed_dim"],
            "mlp_size": config["encoder_ffn_embed_dim"],
            "num_attention_heads": config["encoder_attention_heads"],
            "encoder_layers": config["encoder_layers"],
            "generator_layers": config["generator_decoder_layers"],
            "discriminator_layers": config["discriminator_decoder_layers"],
            "share_generator_discriminator": bool(config.get("share_generator_discriminator", False)),
            "max_source_positions": config["max_source_positions"],
            "max_target_positions": config["max_target_positions"],
            "relative_buckets": config["rel_pos_buckets"],
        }

    def model(
        self,
        dtype: str = "float64",
        *,
        rename: Callable[[str], str | None] = lambda name: name,
        extra: dict[str, np.ndarray] | None = None,
        **options,
    ) -> GanLMForConditionalGeneration:
        """The model with its weights, without dropout.

        Args:
            rename: what becomes of a weight, by our names; None for nothing.
            extra: more weights, by the original's names.
        """
        dropouts = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
        config = GanLMConfig(**{**self.options, **dict.fromkeys(dropouts, 0.0), **options})
        names = GanLMWeights()
        found = read_safetensors(self.weights)
        found |= {name: LazyTensor(t.shape, str(t.dtype), lambda t=t: t) for name, t in (extra or {}).items()}
        found = canonical_names(names, found, linears_out_in=True)
        found = {rename(name): tensor for name, tensor in found.items()}
        found.pop(None, None)
        found = checked_weights(names, transposed_linears(names, found), config.to_dict())
        paddle.set_default_dtype(dtype)
        try:
            model = GanLMForConditionalGeneration(config)
        finally:
            paddle.set_default_dtype("float32")
        for name, weight in model.named_parameters():
            weight.set_value(found[name].load().astype(dtype))
        model.eval()
        return model

    @property
    def text_ids(self) -> paddle.Tensor:
        return paddle.to_tensor([self.facts["mask_idx"]], dtype="int64")

    def batch(self, case: str) -> dict[str, paddle.Tensor]:
        """A batch as `model(**batch)` takes it, of the arrays `case/...`."""
        sources, inputs = self.cases[f"{case}/src_tokens"], self.cases[f"{case}/prev_output_tokens"]
        return batch_of(sources, inputs, self.cases[f"{case}/target"]) | {"text_ids": self.text_ids}

    def drawn(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that were drawn, [n] each."""
        real = self.cases[f"{case}/target"] != PAD
        return tuple(self.cases[f"{case}/{name}"][real].astype(np.int64) for name in ("x", "r"))


def batch_of(sources: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> dict[str, paddle.Tensor]:
    """Source and target of each row side by side, of padded arrays."""
    rows = [(s[s != PAD], p[t != PAD], t[t != PAD]) for s, p, t in zip(sources, inputs, labels, strict=True)]
    width = max(len(s) + len(p) for s, p, _ in rows)
    ids, gold = np.full((len(rows), width), PAD), np.full((len(rows), width), IGNORE_INDEX)
    segments = np.zeros((len(rows), 1, 2))
    for number, (s, p, t) in enumerate(rows):
        ids[number, : len(s) + len(p)] = [*s, *p]
        gold[number, len(s) : len(s) + len(p)] = t
        segments[number, 0] = len(s), len(p)
    arrays = {"input_ids": ids, "labels": gold, "segments": segments}
    return {name: paddle.to_tensor(array, dtype="int64") for name, array in arrays.items()}


def golden_folder() -> Path:
    """The folder of GanLM's fixtures; the test is skipped where there is none."""
    return reference_folder("ganlm")


def golden_json(name: str) -> Any:
    """What the file of this name holds, or the first that begins so (`beam-2.json` for `beam.json`); the test is
    skipped where there is none."""
    stem, ending = name.split(".", 1)
    paths = reference_paths("ganlm", f"{stem}*.{ending}")
    return json.loads(next((path for path in paths if path.name == name), paths[0]).read_text(encoding="utf-8"))


def goldens() -> list[Golden]:
    """All models of the fixtures; the test is skipped where there is none."""
    return [Golden(path) for path in reference_paths("ganlm", f"*{ENDING}")]
