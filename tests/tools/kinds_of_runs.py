"""Generates every kind of run for the tests of exact resuming, from the list of options.

A flag is a kind of its own, an option with choices one of each choice. What other options are set to stands in
`VALUES`, or in `LEFT_OUT` why they are no kind: an option that is new is in neither, and `forgotten` names it. What
every family trains in its own way, `IN_EACH_FAMILY`, is a kind of each; a family that is new is forgotten, too.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from paddlenlp.trainer import TrainingArguments

from glm.models import registry
from glm.options.data import DataArguments
from glm.options.finetune import (
    ADAPTERS,
    HONOURED,
    OF_GEOMETRY,
    OF_HALF_PRECISION,
    OPTIMIZERS,
    AdapterArguments,
    DropoutArguments,
    FileArguments,
    FinetuneTrainingArguments,
    ObjectiveArguments,
)
from glm.options.model import ModelArguments

STEPS = 12  # steps of every kind; an epoch has 5, unless a step takes more or fewer records
EVERY = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 1}
ROOT = Path(__file__).resolve().parents[2]
TARGETS = registry.find(registry.FIRST).weights.lora_targets
# Small models of the other families, and their tokenizers.
MODELS: dict[str, dict[str, Any]] = {
    "mglm": {
        **{"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "max_sequence_length": 100},
        "initializer_range": 0.1,
    },
    "unilm": {
        "initializer_range": 0.1,
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        **{"max_position_embeddings": 128, "type_vocab_size": 6},
    },
    "ganlm": {
        **{"hidden_size": 32, "mlp_size": 48, "num_attention_heads": 4, "encoder_layers": 2, "generator_layers": 2},
        **{"discriminator_layers": 1, "max_source_positions": 64, "max_target_positions": 32, "relative_buckets": 32},
    },
}
TOKENIZERS = {"unilm": ROOT / "data" / "wordpiece", "ganlm": ROOT / "data" / "tokenizer"}
NO_MODELS = {
    "mt5": "PaddleNLP's own model, there to be compared with",
    "vlm": "no tokenizer of its kind is bundled; tests/training/test_bottleneck.py goes on with its adapters",
}

# Options and the values that make kinds: the program's own, then PaddleNLP's that change a run.
VALUES: dict[str, list] = {
    **dict.fromkeys(("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"), [0.0, 0.3]),
    "lora_rank": [3],
    "lora_alpha": [5],
    "lora_dropout": [0.2],
    "lora_targets": [*TARGETS, "|".join(TARGETS)],
    "num_prefix_tokens": [5],
    "adapter_bottleneck": [6],
    "adapter_up_std": [0.1],
    "label_smoothing": [0.0],
    "lr_decay_ratio": [0.5],
    "layerwise_lr_decay": [0.7],
    "freeze": ["embeddings", "layers.0", "embeddings|layers.1|final_layernorm"],
    "max_tokens": [250],
    "required_batch_size_multiple": [2],
    "update_freq": [3],
    "pad_to_multiple_of": [1],
    "recompute_layers": [1],
    "release_grads": ["false"],
    "seed": [7],
    "per_device_train_batch_size": [3],
    "gradient_accumulation_steps": [2],
    "num_train_epochs": [2.4],
    "learning_rate": [1e-3],
    "warmup_steps": [4],
    "warmup_ratio": [0.3],
    "power": [2.0],
    "weight_decay": [0.1],
    "adam_beta1": [0.8],
    "adam_beta2": [0.95],
    "adam_epsilon": [1e-4],
    "max_grad_norm": [0.0, 0.1],
    "optim": [*OPTIMIZERS],
    "recompute": [True],
    "bf16": [True],
    "dataloader_num_workers": [2],
    "save_strategy": ["epoch"],
    "save_total_limit": [1],
    "logging_strategy": ["epoch"],
    "logging_steps": [5],
    "logging_first_step": [True],
    "early_stopping_patience": [9],
    "mask_prob": [0.5],
    "max_pred": [3],
    "target_mask_prob": [0.4],
    "max_source_positions": [62],
    "max_target_positions": [30],
    "discriminator_weight": [0.0, 2.0],
    "discriminator_warmup_steps": [8],
    "discriminator_start_warmup_steps": [5],
    "inconsistency_weight": [0.0, 3.0],
    "inconsistency_warmup_steps": [8],
    "inconsistency_start_warmup_steps": [5],
    "discriminator_sampling_temperature": [2.0],
    "load_best_model_at_end": [True],
}
IN_EACH_FAMILY = (
    *("lora", "lora_targets", "lora_dropout", "prefix_tuning", "prefix_projection", "freeze", "layerwise_lr_decay"),
    *("recompute", "packing", "max_tokens", "group_by_length", "update_freq", "dataloader_num_workers"),
    *("load_best_model_at_end", "label_smoothing", "bf16"),
)
# Options that an option, or one value of it, needs; None leaves out one that all runs have.
TRAINED = {"model_name_or_path": "base", "tokenizer_name_or_path": None, "learning_rate": 1e-2}
EVALUATED = {
    **{"do_eval": True, "dev_file": "dev.json", "evaluation_strategy": "steps", "metric_for_best_model": "loss"},
    **{"eval_steps": 3, "save_steps": 3},
}
OF_GANLM = [item.name for item in fields(ObjectiveArguments) if item.name not in (*OF_GEOMETRY, "objective")]
NEEDS: dict[str, dict] = {
    **dict.fromkeys(("objective", "mask_prob", "max_pred"), {"family": "unilm"}),
    "target_mask_prob": {"family": "unilm", "objective": "pseudo_masked"},
    **dict.fromkeys(OF_GANLM, {"family": "ganlm"}),
    "start": {"family": "ganlm", **TRAINED},
    **dict.fromkeys(("lora", *ADAPTERS["lora"]), {"lora": True, **TRAINED}),
    **dict.fromkeys(
        ("prefix_tuning", *ADAPTERS["prefix_tuning"]), {"prefix_tuning": True, "num_prefix_tokens": 4, **TRAINED}
    ),
    **dict.fromkeys(
        ("adapter_bottleneck", *ADAPTERS["adapter_bottleneck"]),
        {"adapter_bottleneck": 4, "weight_decay": 0.0, **TRAINED},
    ),
    "max_tokens": {"per_device_train_batch_size": None},
    "required_batch_size_multiple": {"per_device_train_batch_size": None, "max_tokens": 250},
    "recompute_layers": {"recompute": True},
    "num_train_epochs": {"max_steps": None},
    "power": {"lr_scheduler_type": "polynomial"},
    "lr_scheduler_type inverse_sqrt": {"warmup_steps": 3},
    "early_stopping_patience": EVALUATED,
    "load_best_model_at_end": {**EVALUATED, "save_total_limit": 1},
}
LEFT_OUT = {
    **dict.fromkeys(
        (item.name for item in fields(ModelArguments)), "where a run starts; adapters' runs start elsewhere"
    ),
    **dict.fromkeys(
        (item.name for item in fields(DataArguments)), "how records are laid out, before training; see the fingerprint"
    ),
    **dict.fromkeys((item.name for item in fields(FileArguments)), "which records there are; see the fingerprint"),
    **dict.fromkeys(("fp16", *OF_HALF_PRECISION), "of a GPU"),
    **dict.fromkeys(("max_steps", "save_steps"), "of every kind"),
    **dict.fromkeys((item for item in EVALUATED if item not in EVERY), "of what is evaluated while it learns"),
    **dict.fromkeys(("greater_is_better", "per_device_eval_batch_size"), "of evaluation, which teaches nothing"),
    **dict.fromkeys(("do_train", "do_predict", "dry_run", "device"), "what is done at all"),
    **dict.fromkeys(("output_dir", "overwrite_output_dir", "resume_from_checkpoint"), "where a run is"),
    **dict.fromkeys(("report_to", "run_name", "logging_dir", "disable_tqdm"), "who is told of it"),
    **dict.fromkeys(
        ("sharding", "sharding_parallel_degree", "sharding_parallel_config", "tensor_parallel_degree"),
        "of several processes, whose kinds stand in the test",
    ),
    "resume_with_changes": "lets a run go on as another one",
    "loss_func": "of tasks that choose, whose runs have tests of their own",
}
# Pairs of options that affect the same arithmetic.
TOGETHER = [
    *((adapter, other) for adapter in ADAPTERS for other in ("recompute", "packing", "max_tokens", "update_freq")),
    *((adapter, other) for adapter in ADAPTERS for other in ("load_best_model_at_end", "dataloader_num_workers")),
    ("lora", "freeze"),
    ("lora", "layerwise_lr_decay"),
    ("packing", "recompute"),
    ("logging_steps", "update_freq"),
    ("max_tokens", "update_freq"),
    ("freeze", "recompute"),
    *((other, "bf16") for other in (*ADAPTERS, "recompute", "packing", "freeze", "update_freq")),
]


# Tasks that are trained together: the second has so few records that updates go by without one.
JOINT = {
    "joint tasks": {},
    "joint tasks, update_freq": {"update_freq": 2, "packing": True},
    "joint tasks, release_grads": {"release_grads": "false"},
}


def _options() -> Iterator[tuple[str, list | None]]:
    """Returns options of training by name, with the values that make kinds; None where neither table has them."""
    groups = (ModelArguments, DataArguments, FileArguments, DropoutArguments, ObjectiveArguments, AdapterArguments)
    own = [item for group in groups for item in fields(group) if item.init]
    own += [item for item in fields(FinetuneTrainingArguments) if item.name not in _PADDLES]
    for item in own:
        choices = [choice for choice in item.metadata.get("choices") or () if choice != item.default]
        yield item.name, choices or VALUES.get(item.name) or ([True] if item.default is False else None)
    declared = {item.name for item in own}
    for name in sorted({*HONOURED, *VALUES}):
        if name not in declared:
            yield name, VALUES.get(name)


_PADDLES = {item.name for item in fields(TrainingArguments)} - set(FinetuneTrainingArguments.__annotations__)


def forgotten() -> list[str]:
    """Returns options, and families, that neither make a kind nor are declared to make none."""
    families = [name for name in registry.FAMILIES if name not in (registry.FIRST, *MODELS, *NO_MODELS)]
    return families + [name for name, values in _options() if values is None and name not in LEFT_OUT]


def _kind(name: str, value: Any) -> dict[str, Any]:
    return {**NEEDS.get(name, {}), **NEEDS.get(f"{name} {value}", {}), name: value}


def _kinds_of_family(family: str) -> dict[str, dict[str, Any]]:
    """Adapts a run to a family that it is repeated for, LoRA's targets included."""
    found = {family: {"family": family, **EVERY}}
    values = dict(_options())
    for name in IN_EACH_FAMILY:
        targets = registry.find(family).weights.lora_targets
        for value in [*targets, "|".join(targets)] if name == "lora_targets" else values[name][-1:]:
            kind = {"family": family, **EVERY, **_kind(name, value)}
            found[f"{family}, {name} {value}".removesuffix(" True")] = kind
    return found


def kinds() -> dict[str, dict[str, Any]]:
    """Options of every kind of run by its name; `base` and names of files stand for the folder's model and records,
    and `family` is no option: whose model and tokenizer it has, if not the first one's."""
    found = {"plain": EVERY}
    values = {name: values or () for name, values in _options() if name not in LEFT_OUT}
    for name, some in values.items():
        found |= {f"{name} {value}".removesuffix(" True"): {**EVERY, **_kind(name, value)} for value in some}
    for one, other in TOGETHER:
        found[f"{one}, {other}"] = {**EVERY, **_kind(other, values[other][-1]), **_kind(one, values[one][-1])}
    for name, more in JOINT.items():
        files = {"train_file": ["qg=train.json", "title=dev.json"]}
        found[name] = {**EVERY, **NEEDS["adapter_bottleneck"], **files, **more}
    for family in MODELS:
        found |= _kinds_of_family(family)
    return found
