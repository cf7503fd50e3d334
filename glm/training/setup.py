"""Builds a trainer from arguments; everything that can fail fails here, before the first step."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddle import nn
from paddlenlp.trainer import set_seed
from paddlenlp.utils.log import logger

from glm.adapters.bottleneck import PAD_ROWS, BottleneckConfig, new_bottlenecks
from glm.adapters.files import (
    AdapterConfig,
    add_adapter,
    lora_config,
    name_of_base,
    prefix_config,
    read_adapter_config,
)
from glm.adapters.schema import PrefixSettings
from glm.checkpoint.loading import base_digests, find_family, load_config, load_model
from glm.checkpoint.quantized import refuse_quantized
from glm.checkpoint.tokenizers import load_tokenizer
from glm.cpu.arrays import SMALL, wait_actively
from glm.data.collator import padded_width
from glm.data.frames import Encoder
from glm.data.pairs import PairEncoder
from glm.data.store import Examples
from glm.data.tasks import CHOOSE, GENERATE, Frame
from glm.data.templates import Template
from glm.errors import InputError, UsageError
from glm.evaluation.accuracy import SIGNATURES as CHOICE_FIGURES
from glm.evaluation.answers import answer_figures
from glm.evaluation.data_sets import split_name
from glm.evaluation.metrics import FIGURES, name_advice
from glm.evaluation.token_rouge import NAMES as TOKEN_ROUGE
from glm.models.configuration import ModelConfig
from glm.models.protocol import Family
from glm.options.finetune import FinetuneArguments
from glm.options.model import ModelArguments
from glm.options.run_config import TrainedWith
from glm.parallel.ranks import on_main
from glm.prediction.heads import add_head
from glm.prediction.setup import build_encoder
from glm.report.provenance import command_of
from glm.runtime.signals import StopSignals
from glm.training.capacity import warn_of_memory
from glm.training.checkpoints import Checkpoint, newest_whole, sweep, verify
from glm.training.fingerprint import fingerprint, manifest_facts
from glm.training.going_on import overwrites_anything, same_command
from glm.training.parameters import freeze, set_layerwise_rates
from glm.training.precision import train_in_bfloat16
from glm.training.progress import rewind_metrics
from glm.training.run_data import RunData, read_run_data
from glm.training.run_folder import (
    DONE_NAME,
    check_disk,
    check_is_free,
    clear_earlier_run,
    holds_unfinished,
    locked,
    set_later_aside,
)
from glm.training.tasks import number_of
from glm.training.trainer import GenerationTrainer


def build_trainer(
    arguments: FinetuneArguments, *, checkpoint: Checkpoint | None = None, signals: StopSignals | None = None
) -> tuple[GenerationTrainer, RunData]:
    """Reads and checks the data, then loads the model.

    Args:
        checkpoint: what the run goes on from.
        signals: signals that stop it.

    Returns:
        The trainer, and the data it was given.

    Raises:
        InputError: anything the user gave cannot be used.
    """
    family = find_family(arguments.model.model_name_or_path)
    arguments = for_family(arguments, family)
    training = arguments.training
    config, encoder = _config_and_encoder(arguments, family)
    with training.main_process_first(desc="reading the data"):  # the other processes find it in the cache
        run_data = read_run_data(arguments, encoder)
    if run_data.train_examples is not None:
        _check_examples(arguments, family, config, encoder, run_data)
    facts = None
    if training.do_train:
        facts = manifest_facts(fingerprint(arguments, config, encoder, run_data), checkpoint, training)
    set_seed(seed=training.seed)
    model = _load_model(arguments, family, config, encoder)
    adapter = prepare_model(model, arguments, family, config, encoder)
    trainer = GenerationTrainer(
        model,
        training,
        encoder=encoder,
        generation=arguments.generation,
        train_examples=run_data.train_examples,
        dev_sets=run_data.dev_sets,
        run_config=arguments.run_config(),
        command=command_of("finetune_generation.py", arguments.argv),
        adapter=adapter,
        signals=signals,
        facts=facts,
        length_penalty=arguments.data.candidate_length_penalty,
        same_command=same_command(arguments),
    )
    for note in encoder.notes:
        logger.warning(note)
    return trainer, run_data


def _config_and_encoder(arguments: FinetuneArguments, family: Family) -> tuple[ModelConfig, Encoder]:
    """Reads configuration and tokenizer, and makes the encoder of the first file; checks options against them."""
    data, training, files = arguments.data, arguments.training, arguments.files
    name = arguments.model.model_name_or_path
    tokenizer = load_tokenizer(family, arguments.model.tokenizer_name_or_path or name)
    settings = {
        **arguments.dropout.given,
        **arguments.objective.of_model,
        "tensor_parallel_degree": training.tensor_parallel_degree,
        "tensor_parallel_rank": training.tensor_parallel_rank,
    }
    config = load_config(family, name, tokenizer, settings=settings, start=arguments.objective.parts)
    dev_files = files.of_split("dev")
    frame = arguments.data_of(dev_files[0]).find_template(family.templates)
    check_metric(training.metric_for_best_model, frame, [file.name for file in dev_files])
    if training.do_train:
        check_can_be_trained(name)
    encoder = build_encoder(
        family,
        tokenizer,
        arguments.data_of(arguments.first_file),
        arguments.generation,
        allow_cut_targets=files.allow_cut_targets,
        objective=arguments.objective.of_geometry,
        task=number_of(arguments, family, arguments.first_file),
    )
    if isinstance(encoder, PairEncoder):
        encoder.check_lengths(config)
    else:
        encoder.geometry.check_lengths(config, data.src_length, arguments.generation.tgt_length)
    return config, encoder


def _check_examples(
    arguments: FinetuneArguments, family: Family, config: ModelConfig, encoder: Encoder, run_data: RunData
) -> None:
    """Checks that training examples fit into batches and memory, and notes what they say of punctuation."""
    data, training = arguments.data, arguments.training
    if training.max_tokens is not None:
        check_max_tokens(training.max_tokens, training.pad_to_multiple_of, run_data.train_examples)
    if encoder.kind != CHOOSE:  # the estimate counts one row per record
        warn_of_memory(family, config, arguments, run_data.train_examples)
    if data.punctuation is None and run_data.learns_full_width:
        data.punctuation = arguments.values["punctuation"] = "fullwidth"  # saved with the model


def _load_model(arguments: FinetuneArguments, family: Family, config: ModelConfig, encoder: Encoder) -> nn.Layer:
    """Loads the model, with a classification head if the task needs one."""
    data, name = arguments.data, arguments.model.model_name_or_path
    model = load_model(family, name, config, start=arguments.objective.parts)
    needed = "labelled_states" if isinstance(encoder, PairEncoder) else "labelled_logits"
    if encoder.kind == CHOOSE and not hasattr(model, needed):
        raise InputError(
            f"task_name {data.task_name}: {family.title} does not learn to choose; give a model of another family"
        )
    if data.classification_head is not None:
        add_head(model, encoder, name, is_trained=not arguments.training.do_train)
    return model


def prepare_model(
    model: nn.Layer, arguments: Any, family: Family, config: ModelConfig, encoder: Encoder | None = None
) -> AdapterConfig | None:
    """Prepares a loaded model for a run, and returns the settings of its adapter, if one is trained instead of it.

    Args:
        arguments: those of fine-tuning or of pretraining.
        encoder: the encoder, for fine-tuning.

    Raises:
        InputError: an option names layers that there are none of.
    """
    training = arguments.training
    if training.device == "cpu" and config.hidden_size <= SMALL:
        wait_actively()
    adapter = _add_adapter(model, arguments, encoder) if arguments.adapter.kind is not None else None
    if training.recompute_layers is not None:
        set_recomputed_layers(model, training.recompute_layers)
    if training.freeze is not None:
        freeze(family.weights, model, training.freeze, num_layers=getattr(config, "num_layers", 0))
    if training.layerwise_lr_decay is not None:
        set_layerwise_rates(family.weights, model, training.layerwise_lr_decay, num_layers=config.num_layers)
    if training.trains_in_bfloat16:
        train_in_bfloat16(model)
    return adapter


def for_family(arguments: Any, family: Family) -> Any:
    """Completes the options of a run, fine-tuning or pretraining, with what depends on the family.

    Raises:
        UsageError: an option asks for what the family cannot do, or names layers that it does not have.
    """
    degree = {"tensor_parallel_degree": arguments.training.tensor_parallel_degree}  # it may be -1, which means none
    family.check_options(arguments.values | degree)
    adapter, known = arguments.adapter, family.weights.lora_targets
    if adapter.adapter_bottleneck is not None:
        _check_bottleneck(arguments, family)
    if not adapter.lora:
        return arguments
    targets = adapter.lora_targets or known[0]
    if set(targets.split("|")) - set(known):
        raise UsageError(f"lora_targets {targets}: join {', '.join(known)} by |")
    return replace(
        arguments,
        adapter=replace(adapter, lora_targets=targets),
        values=arguments.values | {"lora_targets": targets},
    )


def _check_bottleneck(arguments: Any, family: Family) -> None:
    """Raises UsageError for options that residual adapters do not allow."""
    if not isinstance(arguments, FinetuneArguments):
        raise UsageError(f"{arguments.adapter.shown}: is for fine-tuning, whose records are of a task; leave it out")
    decay = arguments.training.weight_decay
    if family.tasks and decay:
        raise UsageError(f"weight_decay {decay}: would move rows of the word table that are frozen; use 0")
    if arguments.data.known_kind not in (None, GENERATE):
        raise UsageError(f"{arguments.adapter.shown}: is for tasks that generate text; leave it out")


def _add_adapter(model: nn.Layer, arguments: Any, encoder: Encoder | None) -> AdapterConfig:
    options, base, run = arguments.adapter, arguments.model.model_name_or_path, arguments.training.output_dir
    if options.prefix_tuning:
        projection = options.prefix_projection
        config = prefix_config(base, model, run=run, tokens=options.num_prefix_tokens, projection=projection)
    elif options.adapter_bottleneck is not None:
        config = _bottleneck_config(model, arguments, encoder)
    else:
        config = lora_config(
            base,
            run=run,
            targets=options.lora_targets,
            rank=options.lora_rank,
            alpha=options.lora_alpha,
            dropout=options.lora_dropout,
        )
    add_adapter(model, config)
    return config


def _bottleneck_config(model: nn.Layer, arguments: FinetuneArguments, encoder: Encoder) -> BottleneckConfig:
    """Makes settings of new residual adapters, one per training file, and of the rows of a family's own tags."""
    options, base, run = arguments.adapter, arguments.model.model_name_or_path, arguments.training.output_dir
    family, files, tasks, rows = encoder.family, arguments.files.of_split("train"), arguments.tasks, {}
    up_std = options.adapter_up_std
    if family.tasks:
        tasks = [arguments.data_of(file).task_name for file in files]
        if unknown := [name for name in tasks if name not in family.tasks]:
            raise UsageError(f"task_name {unknown[0]}: {family.title} has the tasks {', '.join(family.tasks)}")
        rows = {name: encoder.tokenizer.rows_of(name) for name in tasks}
        rows |= {PAD_ROWS: [encoder.tokenizer.pad_token_id]} if len(tasks) > 1 else {}
        up_std = model.config.initializer_range if up_std is None else up_std
    config = new_bottlenecks(
        name_of_base(base, run),
        base_digests(family, base, model.config, model),
        tasks=tasks,
        width=options.adapter_bottleneck,
        rows=rows,
        up_std=up_std or 0.0,
    )
    shared = arguments.run_config()
    for name, file in zip(tasks, files, strict=True):
        own = {"task_name": arguments.data_of(file).task_name} if arguments.data.template is None else {}
        config.tasks[name]["settings"] = TrainedWith.of(shared | own)
    return config


def check_can_be_trained(name_or_path: str) -> None:
    """Raises InputError if a run is to start from what cannot be merged into the model it would save: a prefix,
    adapters, or weights in int8."""
    refuse_quantized(name_or_path, "training")
    settings = read_adapter_config(Path(name_or_path))
    if isinstance(settings, PrefixSettings | BottleneckConfig):
        kind = "a prefix" if isinstance(settings, PrefixSettings) else "adapters"
        raise InputError(
            f"model_name_or_path {name_or_path}: is {kind}, and training starts from a model; give its model, "
            f"{settings.base_model_name_or_path}, or go on with its own run (--resume_from_checkpoint)"
        )


def set_recomputed_layers(model: nn.Layer, layers: int) -> None:
    """Raises UsageError if the model has fewer layers (`--recompute_layers`)."""
    if layers > model.config.num_layers:
        raise UsageError(f"recompute_layers {layers}: the model has {model.config.num_layers}")
    for stack in model.stacks:
        stack.recompute_layers = layers


def check_max_tokens(max_tokens: int, multiple: int, examples: Examples) -> None:
    """Raises InputError if an example does not fit into a batch (`--max_tokens`)."""
    longest = int(examples.widths.argmax())
    length = int(examples.widths[longest])
    width = padded_width(length, multiple)
    if width > max_tokens:
        raise InputError(
            f"{examples.origins[longest]}: {length} tokens ({width} padded) do not fit into max_tokens {max_tokens}"
        )


def check_metric(name: str | None, frame: Frame | None = None, sets: Sequence[str] = ()) -> None:
    """Raises UsageError if evaluation has no figure of this name (`--metric_for_best_model`).

    Args:
        frame: the run's template or task; None stands for any template.
        sets: names of the dev sets; of one of several the figure is `SET/FIGURE`, their mean `FIGURE`.
    """
    if name is None:
        return
    if frame is None or isinstance(frame, Template):
        known = ["loss", *(figure for figure in FIGURES if figure != "answer leaks")]  # some tasks have no answer
        known += TOKEN_ROUGE if frame is not None and frame.summaries is not None else ()
    elif frame.kind == CHOOSE:
        known = ["loss", *CHOICE_FIGURES]
    else:
        known = ["loss", *answer_figures()]
    of_set, figure = split_name(name.removeprefix("eval_"))
    if of_set and (of_set not in sets or len(sets) < 2):
        named = f"the dev sets are {', '.join(sets)}" if len(sets) > 1 else "there is one dev set, without a name"
        raise UsageError(f"metric_for_best_model {name}: {of_set} is none of them; {named}")
    if figure not in known and not (figure.startswith("accuracy (") and "accuracy" in known):
        raise UsageError(f"metric_for_best_model {name}: unknown; {name_advice(figure, known)}")


@contextmanager
def opened_run(arguments: Any) -> Iterator[Checkpoint | None]:
    """Locks the folder of a run for the duration of its block.

    Yields:
        The checkpoint that the run goes on from; None if it starts.

    Raises:
        InputError: another run holds the folder, or it has something that this run neither overwrites nor continues.
    """
    output_dir = Path(arguments.training.output_dir)
    with ExitStack() as stack:
        # Only the main process writes there.
        yield on_main(lambda: _starting_point(arguments, stack.enter_context(locked(output_dir))))


def _starting_point(arguments: Any, is_unfinished: bool) -> Checkpoint | None:
    training = arguments.training
    output_dir = Path(training.output_dir)
    unfinished = training.do_train and holds_unfinished(output_dir, is_unfinished=is_unfinished)
    if unfinished and not overwrites_anything(arguments):
        # A file's setting refers to the results that were there when it was written.
        training.overwrite_output_dir = False
    overwrites = training.overwrite_output_dir
    goes_on = is_unfinished and training.do_train and not overwrites
    checkpoint = find_checkpoint(training.resume_from_checkpoint, output_dir, goes_on=goes_on)
    check_is_free(output_dir, is_ours=overwrites or is_unfinished or checkpoint is not None)
    if overwrites:
        check_start_is_kept(arguments.model, training.output_dir)
    if checkpoint is not None:
        logger.info(f"goes on from {checkpoint.folder}")
    return checkpoint


def find_checkpoint(wish: str | None, output_dir: Path, *, goes_on: bool = False) -> Checkpoint | None:
    """Finds the checkpoint that a run resumes from.

    Args:
        wish: `--resume_from_checkpoint`: a folder, or `true` for the newest that is whole in `output_dir`.
        goes_on: whether a run in `output_dir` is unfinished, and this one takes it up without being told.

    Raises:
        InputError: the wish cannot be fulfilled.
    """
    if wish is not None and wish.lower() != "true":
        return verify(Path(wish))
    if wish is None and not goes_on:
        return None
    newest = newest_whole(output_dir)
    if newest is None and not goes_on:
        raise InputError(f"resume_from_checkpoint {wish}: no checkpoint in {output_dir} that is whole")
    return newest


def begin_run(trainer: GenerationTrainer, data: RunData, checkpoint: Checkpoint | None) -> None:
    """Prepares the folder of a run whose data and model were checked; from here on files are written.

    Raises:
        InputError: the disk will not do.
    """
    output_dir, args = Path(trainer.args.output_dir), trainer.args
    sweep(output_dir)
    if args.overwrite_output_dir and checkpoint is None and args.do_train:
        clear_earlier_run(output_dir)
    elif args.do_train:
        set_later_aside(output_dir, checkpoint)
    (output_dir / DONE_NAME).unlink(missing_ok=True)
    if args.do_train:
        rewind_metrics(output_dir, checkpoint.step if checkpoint else 0)
        check_disk(output_dir, limit=args.save_total_limit, **trainer.expected_sizes())
    data.write(output_dir)


def check_start_is_kept(model: ModelArguments, output_dir: str) -> None:
    """Raises InputError if the initial model or tokenizer lies in a folder that is to be overwritten."""
    for name in ("model_name_or_path", "tokenizer_name_or_path"):
        path = getattr(model, name)
        if path and Path(path).exists() and Path(path).resolve().is_relative_to(Path(output_dir).resolve()):
            raise InputError(f"{name} {path}: lies in the output_dir to be overwritten; choose another output_dir")
