"""Pretraining: the corpora of a run, the samples drawn from them, and the trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from paddlenlp.trainer import set_seed
from paddlenlp.utils.log import logger

from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.check import check_file
from glm.data.columns import ColumnOptions
from glm.data.corpus_store import CorpusSamples, corpus_digest, held_out, open_corpus
from glm.data.frames import encoder_of
from glm.data.mixture import NamedFile
from glm.data.records import BadRecord
from glm.data.report import FileReport
from glm.data.store import Examples, JoinedExamples, content_digest
from glm.data.task_pool import TaskPool, right_examples
from glm.data.task_records import open_records
from glm.data.task_table import find_frame
from glm.data.tasks import CHOOSE, EXTRACT, PRETRAIN, Task
from glm.errors import UsageError
from glm.evaluation.data_sets import named
from glm.generation.config import GenerationConfig
from glm.models.protocol import Example, Family, Geometry, Pretraining, Sample, Tokenizer
from glm.options.pretrain import PretrainArguments
from glm.report.provenance import command_of
from glm.runtime.caches import user_cache
from glm.runtime.signals import StopSignals
from glm.training.checkpoints import Checkpoint
from glm.training.fingerprint import manifest_facts, pretraining_fingerprint
from glm.training.going_on import same_command
from glm.training.objectives import PretrainingObjective, mean_dev_loss
from glm.training.run_data import RunData, announce
from glm.training.setup import check_can_be_trained, for_family, prepare_model
from glm.training.trainer import GenerationTrainer

DEV_SEED = 1_000_003  # seed of the samples of held-out texts


@dataclass(frozen=True)
class PretrainingFrame:
    """Makes samples of running text; takes the place that an encoder of records has in fine-tuning."""

    family: Family
    tokenizer: Tokenizer
    pretraining: Pretraining

    kind = PRETRAIN
    notes: Sequence[str] = ()

    @property
    def geometry(self) -> Geometry:
        """Lays out rows."""
        return self.pretraining.geometry


@dataclass
class PretrainData:
    """The data that a run learns from and is evaluated on.

    Args:
        frame: how texts become samples.
        samples: samples of all corpora.
        digests: SHA-256 of what each corpus and each task was read from, by name.
        dev: samples held out, by corpus and objective.
        reports: what was found in each corpus.
    """

    frame: PretrainingFrame
    samples: Examples
    digests: dict[str, str]
    dev: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    reports: dict[str, FileReport] = field(default_factory=dict)

    @property
    def run_data(self) -> RunData:
        """What a run's folder stores about its data."""
        return RunData(reports=self.reports)


class PretrainingTrainer(GenerationTrainer):
    """Fine-tuning's trainer with another evaluation: the loss of each objective on each held-out corpus.

    Args:
        dev: samples, by corpus and objective.
    """

    def __init__(self, *args: Any, dev: Mapping[str, Mapping[str, Sequence[Sample]]], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dev = dev

    def measure(self, step: int) -> tuple[dict[str, float], int]:
        """Returns `loss (OBJECTIVE)` of a corpus and their mean `loss`; for several corpora `CORPUS/...`, and the
        means."""
        objective, size = PretrainingObjective(self.encoder, self.args), self.args.per_device_eval_batch_size
        found = {}
        for name, by_objective in self.dev.items():
            losses = {
                f"loss ({kind})": mean_dev_loss(objective, self.model, samples, size)
                for kind, samples in by_objective.items()
            }
            found[name] = {"loss": float(np.mean(list(losses.values()))), **losses}
        count = sum(len(samples) for kinds in self.dev.values() for samples in kinds.values())
        return (next(iter(found.values())) if len(found) == 1 else named(found)), count

    def report_evaluation(self, step: int) -> None:
        """Does nothing: the figures are in the log and on `training.html`, and there are no texts to show."""


def read_pretrain_data(arguments: PretrainArguments, frame: PretrainingFrame) -> PretrainData:
    """Encodes all corpora of a run, or takes them from the cache, and reports what was found.

    Raises:
        InputError: a corpus cannot be used, or more than max_bad_records rows of it are refused.
    """
    corpora, reports, digests = arguments.corpora, {}, {}

    def opened(split: str, file: NamedFile, tasks: TaskPool | None = None) -> CorpusSamples:
        files = corpora.files_of(file.path, frame.family)
        content = corpus_digest(files)
        name = file.name or Path(file.path).name
        corpus, notes = open_corpus(
            name,
            files,
            frame.tokenizer,
            frame.pretraining,
            Path(corpora.data_cache_dir or user_cache()),
            content=content,
            most_refused=corpora.max_bad_records,
        )
        for note in notes:
            logger.warning(note)
        reports[f"{split}/{file.name}" if file.name else split] = corpus.report
        announce(corpus.report)
        if split == "train":
            digests[file.name] = content
        return CorpusSamples(name, corpus, frame.pretraining, tasks)

    tasks = read_tasks(arguments, frame, digests) if corpora.tasks else None
    train = {file.name: opened("train", file, tasks) for file in corpora.corpora("train")}
    dev = {file.name: opened("dev", file) for file in corpora.corpora("dev")}
    samples: Any = next(iter(train.values()))
    if len(train) > 1:
        samples = JoinedExamples(train, corpora.shares([len(part) for part in train.values()]))
    names = frame.family.pretraining.names
    return PretrainData(
        frame, samples, digests, held_out(dev, names, most=corpora.max_dev_samples, seed=DEV_SEED), reports
    )


def read_tasks(arguments: PretrainArguments, frame: PretrainingFrame, digests: dict[str, str]) -> TaskPool:
    """Makes the examples of all tasks of a run.

    Args:
        digests: takes those of their files in.

    Raises:
        InputError: a file cannot be used, or a task has no example.
    """
    corpora, found = arguments.corpora, {}
    for file in corpora.tasks:
        task = find_frame(file.name, None, None, None, frame.family.templates)
        if isinstance(task, Task) and task.kind == EXTRACT:
            raise UsageError(f"multi_task_data {file.name}: a task that extracts is not mixed in; fine-tune on it")
        patterns = range(len(task.patterns)) if isinstance(task, Task) else [None]
        found[file.name] = [_task_rows(file, task, pattern, arguments, frame) for pattern in patterns]
        digests[f"task {file.name}"] = content_digest(Path(file.path))
    return TaskPool(found, corpora.task_share)


def _task_rows(
    file: NamedFile, task: Any, pattern: int | None, arguments: PretrainArguments, frame: PretrainingFrame
) -> list[tuple[Example, ...]]:
    """Makes the rows of each question in a file by one pattern of its task."""
    length = frame.pretraining.described["seq_length"]
    target = min(GenerationConfig().tgt_length, length // 3)
    encoder = encoder_of(
        frame.family,
        frame.tokenizer,
        task,
        src_length=length - target,
        tgt_length=target,
        block_position="block_position" not in arguments.objective.of_family(frame.family),
        pattern_id=pattern,
    )
    records = open_records(
        file.path,
        encoder.template,
        ColumnOptions(max_record_bytes=arguments.corpora.max_record_bytes),
        need_target=True,
        reserved=frame.family.reserved,
        pattern_id=pattern,
    )
    check, batches = check_file(records, encoder, most_refused=arguments.corpora.max_bad_records)
    items = [item for batch in batches for item in batch if not isinstance(item, BadRecord)]
    check.report().require(arguments.corpora.max_bad_records)
    if encoder.kind == CHOOSE:
        return [right_examples(item, encoder) for item in items]
    return [(encoder.example_of(encoder.lay_out_source(item), encoder.lay_out_span(item)),) for item in items]


def build_pretraining_trainer(
    arguments: PretrainArguments, *, checkpoint: Checkpoint | None = None, signals: StopSignals | None = None
) -> tuple[PretrainingTrainer, PretrainData]:
    """Reads and checks the corpora, then loads the model; as `glm.training.setup.build_trainer`.

    Raises:
        InputError: anything the user gave cannot be used.
    """
    name, training = arguments.model.model_name_or_path, arguments.training
    check_can_be_trained(name)
    family = find_family(name)
    arguments = for_family(arguments, family)
    options = arguments.objective.of_family(family)
    tokenizer = load_tokenizer(family, arguments.model.tokenizer_name_or_path or name)
    ranks = {
        "tensor_parallel_degree": training.tensor_parallel_degree,
        "tensor_parallel_rank": training.tensor_parallel_rank,
    }
    config = load_config(
        family, name, tokenizer, settings={**arguments.dropout.given, **arguments.objective.of_model, **ranks}
    )
    frame = PretrainingFrame(family, tokenizer, family.pretraining.build(tokenizer, **options))
    frame.pretraining.check(config)
    check_metric(training.metric_for_best_model, arguments)
    check_max_tokens(training.max_tokens, frame)
    with training.main_process_first(desc="reading the corpora"):  # the other processes find them in the cache
        data = read_pretrain_data(arguments, frame)
    facts = manifest_facts(pretraining_fingerprint(arguments, config, data), checkpoint, training)
    set_seed(seed=training.seed)
    model = load_model(family, arguments.model.model_name_or_path, config)
    adapter = prepare_model(model, arguments, family, config)
    trainer = PretrainingTrainer(
        model,
        training,
        encoder=frame,
        generation=GenerationConfig(),
        train_examples=data.samples,
        dev=data.dev,
        run_config=arguments.run_config(),
        command=command_of("-m glm pretrain", arguments.argv),
        adapter=adapter,
        signals=signals,
        facts=facts,
        same_command=same_command(arguments),
    )
    return trainer, data


def check_max_tokens(max_tokens: int | None, frame: PretrainingFrame) -> None:
    """Raises UsageError if a sample may be larger than a batch (`--max_tokens`)."""
    if max_tokens is not None and frame.pretraining.planned[0] > max_tokens:
        raise UsageError(
            f"max_tokens {max_tokens}: a sample may have {frame.pretraining.planned[0]} tokens; use so many or more"
        )


def check_metric(name: str | None, arguments: PretrainArguments) -> None:
    """Raises UsageError if there is no figure of this name (`--metric_for_best_model`)."""
    if name is None:
        return
    figure = name.removeprefix("eval_")
    of_set, mark, own = figure.partition("/")
    sets = [file.name for file in arguments.corpora.corpora("dev")]
    names = find_family(arguments.model.model_name_or_path).pretraining.names
    known = ["loss", *(f"loss ({kind})" for kind in names)]
    if (own if mark else figure) not in known or (mark and (of_set not in sets or len(sets) < 2)):
        raise UsageError(f"metric_for_best_model {name}: unknown; use {', '.join(known)}, of several corpora NAME/…")
