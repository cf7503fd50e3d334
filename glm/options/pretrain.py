"""The options of `python -m glm pretrain`, checked against each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glm.generation.config import option
from glm.options.corpora import CorpusArguments, PretrainObjectiveArguments
from glm.options.finetune import (
    AdapterArguments,
    DropoutArguments,
    FinetuneTrainingArguments,
    adapter_clashes,
    let_the_file_give_way,
)
from glm.options.model import ModelArguments
from glm.options.parser import OptionParser
from glm.options.ranges import raise_any
from glm.options.run_config import published_config

# Options of fine-tuning without meaning here.
WITHOUT_MEANING = ("do_predict", "loss_func", "packing", "group_by_length", "required_batch_size_multiple")
OF_EVALUATION = ("max_dev_samples", "eval_steps", "evaluation_strategy", "early_stopping_patience")
OF_EVALUATION += ("load_best_model_at_end", "metric_for_best_model", "per_device_eval_batch_size")


@dataclass
class PretrainTrainingArguments(FinetuneTrainingArguments):
    """How it is trained: the options of fine-tuning, PaddleNLP's Trainer's among them."""

    do_train: bool = option(True, "Without effect: this verb trains.")
    label_smoothing: float = option(0.0, "e: the loss spreads e / V over the vocabulary.")

    HIDDEN = FinetuneTrainingArguments.HIDDEN | set(WITHOUT_MEANING) | {"do_train"}
    BASE_TITLE = "Fine-tuning's, and PaddleNLP's Trainer"

    def __post_init__(self):
        refused = [
            f"{name} {getattr(self, name)}: means nothing in pretraining; leave it out"
            for name in WITHOUT_MEANING
            if getattr(self, name) != FinetuneTrainingArguments.__dataclass_fields__[name].default
        ]
        if not self.do_train:
            refused.append("do_train False: this verb trains; python -m glm perplexity measures a model")
        raise_any(refused)
        super().__post_init__()


@dataclass(frozen=True)
class PretrainArguments:
    """All arguments of `python -m glm pretrain`; the last four as of `FinetuneArguments`."""

    model: ModelArguments
    corpora: CorpusArguments
    objective: PretrainObjectiveArguments
    dropout: DropoutArguments
    adapter: AdapterArguments
    training: PretrainTrainingArguments
    given: dict[str, Any]
    values: dict[str, Any]
    typed: set[str]
    argv: list[str]

    def run_config(self) -> dict[str, Any]:
        """Returns the effective configuration, defaults included: a configuration file that repeats the run."""
        left_out = {
            "dry_run",
            "overwrite_output_dir",
            "resume_from_checkpoint",
            "resume_with_changes",
            *WITHOUT_MEANING,
        }
        left_out |= {"per_device_train_batch_size"} if self.training.max_tokens is not None else set()
        left_out |= set(self.adapter.without_effect)
        kept = {name: value for name, value in self.values.items() if value is not None and name not in left_out}
        return published_config(kept)


def parse_pretrain_arguments(argv: list[str]) -> PretrainArguments:
    """Parses the arguments of `python -m glm pretrain`: `[config.json] [--option value ...]`.

    Raises:
        UsageError: an option is unknown, malformed, out of range or without effect beside the others.
    """
    groups = (
        ModelArguments,
        CorpusArguments,
        PretrainObjectiveArguments,
        DropoutArguments,
        AdapterArguments,
        PretrainTrainingArguments,
    )
    parser = OptionParser(groups, "Pretrains a model on running text, from scratch or from an existing model.")
    parser.prog = "python -m glm pretrain"
    reading = parser.read(argv)
    let_the_file_give_way(reading, parser.defaults)
    if getattr(reading.values, "dev_data", None) is not None:
        reading.values.do_eval = True
    built = parser.build(reading)
    if not reading.errors:
        arguments = PretrainArguments(*built, reading.given, vars(reading.values), reading.typed, argv)
        reading.errors += [*_clashes(arguments), *adapter_clashes(arguments)]
    raise_any(reading.errors)
    return arguments


def _clashes(arguments: PretrainArguments) -> Iterator[str]:
    training, corpora, given = arguments.training, arguments.corpora, arguments.given
    if training.do_eval and corpora.dev_data is None:
        yield "do_eval True: give the texts held out with --dev_data"
    for name in OF_EVALUATION if corpora.dev_data is None else ():
        if name in given:
            yield f"{name} {given[name]}: has no effect without dev_data; leave it out"
    if training.max_tokens is not None and "per_device_train_batch_size" in given:
        yield (
            f"max_tokens {training.max_tokens}: has no effect beside per_device_train_batch_size "
            f"{training.per_device_train_batch_size}; leave one out"
        )
    for name in ("weights", "sampling_temperature"):
        if getattr(corpora, name) is not None and training.max_tokens is not None:
            yield (
                f"{name} {getattr(corpora, name)}: not beside max_tokens {training.max_tokens}, with which an epoch's "
                "batches depend on what is drawn; use per_device_train_batch_size"
            )
