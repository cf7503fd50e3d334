"""The fingerprint of a run: everything its weights depend on, stored in checkpoints and compared on resuming."""

import inspect
import json
import platform
from dataclasses import fields
from typing import Any

from paddlenlp.trainer import TrainingArguments
from paddlenlp.utils.log import logger

from glm.data.examples import ExampleEncoder
from glm.data.store import JoinedExamples
from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.options.finetune import FinetuneArguments, FinetuneTrainingArguments
from glm.options.pretrain import PretrainArguments
from glm.report.provenance import installed
from glm.runtime.environment import cpu_threads, processor
from glm.runtime.paths import published
from glm.training.checkpoints import Checkpoint
from glm.training.run_data import RunData

# PaddleNLP's options that affect what is learnt; of this program's own all do, see `fingerprint`.
LEARNING_OPTIONS = (
    "seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_train_epochs",
    "learning_rate",
    "warmup_steps",
    "warmup_ratio",
    "power",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "optim",
    "recompute",
    "fp16",
    "bf16",
    "fp16_opt_level",
    "amp_master_grad",
    "amp_custom_black_list",
    "amp_custom_white_list",
    "scale_loss",
)
# Options that are another name of one above, belong to this very comparison, or affect memory only.
WITHOUT_MEANING = {"update_freq", "resume_with_changes", "release_grads", "logging_steps", "dry_run"}
# Only one of the first two is installed.
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "numpy", "numba", "llvmlite")
DIGITS = 12  # digits of a digest in messages


def fingerprint(
    arguments: FinetuneArguments, config: ModelConfig, encoder: ExampleEncoder, data: RunData
) -> dict[str, Any]:
    """Returns the fields that must not change while a run is interrupted, by name, as JSON would give them back."""
    found = {
        "training data (SHA-256)": data.train_digest,
        "training examples": len(data.train_examples),
        **_mixture(arguments, data),
        "columns": data.train_columns,
        "tokenizer (SHA-256)": encoder.tokenizer.digest,
        "template": encoder.described,
        "src_length": encoder.src_length,
        **({} if arguments.data.max_seq_length is None else {"max_seq_length": arguments.data.max_seq_length}),
        "tgt_length": encoder.tgt_length,
        "allow_cut_targets": encoder.allow_cut_targets,
        **arguments.objective.given,
        **_learning(arguments, config),
    }
    return plain(found)


def pretraining_fingerprint(arguments: PretrainArguments, config: ModelConfig, data: Any) -> dict[str, Any]:
    """`fingerprint` of a run on running text.

    Args:
        data: `glm.training.pretraining.PretrainData`.
    """
    corpora = arguments.corpora
    found = {
        **{f"{name or 'train_data'} (SHA-256)": digest for name, digest in data.digests.items()},
        "samples": len(data.samples),
        "weights": corpora.weights,
        "sampling_temperature": corpora.sampling_temperature,
        "tokenizer (SHA-256)": data.frame.tokenizer.digest,
        "text_column": corpora.text_column,
        "documents_end_at": corpora.documents_end_at,
        **data.frame.pretraining.described,
        "multi_task_ratio": corpora.task_share if corpora.tasks else None,
        **_learning(arguments, config),
    }
    return plain(found)


def _learning(arguments: Any, config: ModelConfig) -> dict[str, Any]:
    """Returns the settings that decide how a model is trained, apart from its data."""
    training = arguments.training
    classes = type(training).__mro__[: type(training).__mro__.index(TrainingArguments)]
    own = {name for group in classes for name in group.__annotations__}
    names = [*LEARNING_OPTIONS, *(item.name for item in fields(type(training)) if item.name in own)]
    options = {name: getattr(training, name) for name in names if name not in WITHOUT_MEANING}
    options["bf16"] |= training.trains_in_bfloat16
    shape = {f"model's {name}": getattr(config, name) for name in _own_settings(config)}
    adapter = {"lora": arguments.adapter.lora}
    if arguments.adapter.kind is not None:
        adapter |= arguments.adapter.settings | {"model_name_or_path": published(arguments.model.model_name_or_path)}
    return {"data-parallel processes": training.dataset_world_size, **shape, **adapter, **options}


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Converts a fingerprint as if it was written to JSON and read back."""
    return json.loads(json.dumps(found, default=lambda option: option.value))


def _mixture(arguments: FinetuneArguments, data: RunData) -> dict[str, Any]:
    """Returns the further fields of a run with several training sets; none for a single one."""
    if not isinstance(data.train_examples, JoinedExamples):
        return {}
    files = arguments.files
    shares = {"weights": files.weights, "sampling_temperature": files.sampling_temperature}
    return {"templates": data.train_templates, **shares}


def _own_settings(config: ModelConfig) -> list[str]:
    """Returns the fields of the family's own configuration, without those of PaddleNLP's base class."""
    parameters = inspect.signature(type(config)).parameters.values()
    return [item.name for item in parameters if item.kind is not item.VAR_KEYWORD and hasattr(config, item.name)]


def versions() -> dict[str, str]:
    """Returns the versions of the packages that compute."""
    return {"python": platform.python_version(), **installed(PACKAGES)}


def machine() -> dict[str, Any]:
    """Returns what the last digits of all results depend on beside versions."""
    return {"processor": processor().get("model name", platform.machine()), "threads": cpu_threads()}


def manifest_facts(
    now: dict[str, Any], checkpoint: Checkpoint | None, training: FinetuneTrainingArguments
) -> dict[str, Any]:
    """Returns what a run's manifests say of it, including the changes since it began.

    Args:
        now: the fingerprint.
        checkpoint: what the run goes on from.

    Raises:
        InputError: something changed, without `--resume_with_changes`.
    """
    layout = {"data_parallel": training.dataset_world_size, "tensor_parallel": max(training.tensor_parallel_degree, 1)}
    facts = {"fingerprint": now, "versions": versions(), "machine": machine(), "layout": layout, "changes": []}
    if checkpoint is None:
        return facts
    before = checkpoint.facts
    then = before["fingerprint"]
    changes = [
        {"step": checkpoint.step, "field": name, "before": then.get(name), "now": now.get(name)}
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    text = "; ".join(f"{c['field']}: {_shown(c['before'])} then, {_shown(c['now'])} now" for c in changes)
    if changes and not training.resume_with_changes:
        raise InputError(
            f"{checkpoint.folder}: the run is another one now ({text}); give it as it was then, add "
            "--resume_with_changes, or start anew with --overwrite_output_dir on the command line"
        )
    if changes:
        logger.warning(f"goes on from step {checkpoint.step} with changes: {text}")
    for name, of_it in (("versions", "versions"), ("machine", "processor or number of threads")):
        if before.get(name, facts[name]) != facts[name]:
            logger.warning(f"other {of_it} than at the last start ({before[name]}): last digits may differ")
    return {**facts, "changes": before["changes"] + changes}


def _shown(value: Any) -> str:
    return f"{value[:DIGITS]}…" if isinstance(value, str) and len(value) == 64 else str(value)
