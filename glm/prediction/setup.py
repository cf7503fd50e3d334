"""Builds a writer from options: tokenizer, configuration and model of the model folder's family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glm.checkpoint.adapters import OpenedAdapters, open_adapters, put_adapters, put_loras, take_out
from glm.checkpoint.loading import base_digests, file_digests, find_family, load_config, load_model, task_number
from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.examples import NO_CHOICE
from glm.data.frames import Encoder, encoder_of
from glm.data.mixed_records import TaskForm
from glm.data.pairs import PairEncoder
from glm.data.task_table import in_language
from glm.data.tasks import GENERATE
from glm.data.templates import NO_TEMPLATE, Template
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.models.protocol import NO_TASK, Family, Tokenizer
from glm.modules.decoding import prepare_adapters, prepare_decoding
from glm.options.data import DataArguments
from glm.options.predict import PredictOptions
from glm.options.run_config import trained_with
from glm.prediction.heads import add_head
from glm.prediction.kinds import writer_of
from glm.prediction.mixed import MixedWriter
from glm.prediction.warm_up import warm_up
from glm.prediction.writer import Writer
from glm.runtime.text_lines import read_lines


def build_encoder(
    family: Family,
    tokenizer: Tokenizer,
    data: DataArguments,
    generation: GenerationConfig,
    *,
    template: Template | None = None,
    allow_cut_targets: bool = False,
    objective: Mapping[str, Any] = NO_CHOICE,
    task: int = NO_TASK,
) -> Encoder:
    """Makes the encoder of records, by the options' template or task unless another is given."""
    return encoder_of(
        family,
        tokenizer,
        template or data.find_template(family.templates),
        src_length=data.src_length,
        tgt_length=generation.tgt_length,
        min_tgt_length=generation.min_tgt_length,
        allow_cut_targets=allow_cut_targets,
        objective=objective,
        task=task,
        **data.layout,
    )


def family_of(options: PredictOptions) -> Family:
    """Returns the family of the model. Raises InputError as `find_family`."""
    return find_family(options.model.model_name_or_path)


def build_prediction_encoder(
    options: PredictOptions, name: str = "", *, tokenizer: Tokenizer | None = None
) -> Encoder:
    """Makes the encoder of a prediction run, for records or texts with blanks. Raises InputError as `build_writer`.

    Args:
        name: name of the data set, which may be its language.
        tokenizer: the model's; read if not given.
    """
    family = family_of(options)
    family.check_options(vars(options.data) | vars(options.generation) | vars(options.prediction))
    if tokenizer is None:
        tokenizer = load_tokenizer(family, options.model.tokenizer_name_or_path or options.model.model_name_or_path)
    template = NO_TEMPLATE
    if not options.prediction.fills:
        template = in_language(options.data.find_template(family.templates), name)
    named = options.data.task_name if options.data.template is None else None
    task = task_number(family, options.model.model_name_or_path, named)
    return build_encoder(family, tokenizer, options.data, options.generation, template=template, task=task)


def build_writer(options: PredictOptions, encoder: Encoder, *, rank: int = 0, quiet: bool = False) -> Any:
    """Loads a model and makes the predictor of its kind of task.

    Args:
        encoder: theirs, see `build_prediction_encoder`.
        rank: number of this process among those that the model is split over.
        quiet: does not say on standard error which model was found.

    Raises:
        InputError: something cannot be loaded, or does not fit together.
    """
    name, arguments = options.model.model_name_or_path, options.prediction
    ranks = {"tensor_parallel_degree": arguments.tensor_parallel_degree, "tensor_parallel_rank": rank}
    config = load_config(encoder.family, name, encoder.tokenizer, settings=ranks)
    beginning = _beginning(options, encoder, config)
    has_head = options.data.classification_head is not None
    loaded = load_model(encoder.family, name, config, quiet=quiet, leaves_pending=not has_head)
    if has_head:
        add_head(loaded, encoder, name, is_trained=True)
    prepare_decoding(loaded, arguments.decode_dtype, arguments.device)
    return _writer_of(loaded, options, encoder, *beginning)


def writer_with(model: Any, options: PredictOptions, encoder: Encoder) -> Any:
    """As `build_writer`, with a model that is loaded and prepared for decoding."""
    return _writer_of(model, options, encoder, *_beginning(options, encoder, model.config))


def _beginning(options: PredictOptions, encoder: Encoder, config: Any) -> tuple[list[int], list[list[int]]]:
    """Returns the ids of the prefix, and of the allowed outputs. Raises InputError if they do not fit the lengths."""
    generation, arguments, tokenizer = options.generation, options.prediction, encoder.tokenizer
    if isinstance(encoder, PairEncoder):
        encoder.check_lengths(config)
    else:
        encoder.geometry.check_lengths(config, options.data.src_length, generation.tgt_length)
    prefix_ids = tokenizer.encode_text(arguments.prefix)
    if unknown := " ".join(tokenizer.unknown_parts(arguments.prefix)):
        raise InputError(f"prefix {arguments.prefix}: the tokenizer has no piece for {unknown}; write it otherwise")
    most = generation.tgt_length - 1 - len(encoder.opening_ids) - len(prefix_ids)
    if most < max(generation.min_tgt_length, 1):
        raise InputError(
            f"prefix {arguments.prefix} ({len(prefix_ids)} tokens): leaves no room for min_tgt_length "
            f"{generation.min_tgt_length} tokens and eop in tgt_length {generation.tgt_length}; raise tgt_length"
        )
    if arguments.allowed_outputs_file is None:
        return prefix_ids, []
    return prefix_ids, read_allowed_outputs(arguments.allowed_outputs_file, tokenizer, generation, most=most)


def _writer_of(
    model: Any, options: PredictOptions, encoder: Encoder, prefix_ids: list[int], allowed: list[list[int]]
) -> Any:
    generation, arguments = options.generation, options.prediction
    batch_size, prefix = arguments.per_device_eval_batch_size, arguments.prefix
    if encoder.kind == GENERATE:
        return Writer(
            model, encoder, generation, batch_size, prefix_ids, allowed, prefix, punctuation=options.data.punctuation
        )
    return writer_of(
        model,
        encoder,
        generation,
        batch_size,
        length_penalty=options.data.candidate_length_penalty,
        punctuation=options.data.punctuation,
    )


BARE = "pair"  # the template that is the source alone


@dataclass(frozen=True)
class OpenedTasks:
    """Tasks that share a model, opened before the model is loaded.

    Args:
        adapters: the adapters of all of them.
        data, generation, encoders: how the records of each are read, written and laid out; of an empty name those of
            none.
    """

    adapters: OpenedAdapters
    data: dict[str, DataArguments]
    generation: dict[str, GenerationConfig]
    encoders: dict[str, Encoder]

    @property
    def forms(self) -> dict[str, TaskForm]:
        """How their records are read."""
        return {name: TaskForm(encoder.template, self.data[name].columns) for name, encoder in self.encoders.items()}

    def writers(self, model: Any, options: PredictOptions) -> dict[str, Writer]:
        """What writes the texts of each with a model that is ready to decode.

        Raises:
            InputError: the model has no room for the lengths of one.
        """
        found = {}
        for name, encoder in self.encoders.items():
            data, generation = self.data[name], self.generation[name]
            encoder.geometry.check_lengths(model.config, data.src_length, generation.tgt_length)
            batch_size = options.prediction.per_device_eval_batch_size
            found[name] = Writer(model, encoder, generation, batch_size, punctuation=data.punctuation)
        return found


def open_tasks(options: PredictOptions) -> OpenedTasks:
    """Opens the tasks of `--adapters`; each uses its training's options, except for those given.

    Raises:
        InputError: the adapters cannot be used, see `open_adapters`.
    """
    family = family_of(options)
    family.check_options(vars(options.data) | vars(options.generation) | vars(options.prediction))
    adapters = open_adapters(options.prediction.adapters.split(","))
    adapters.check_model(options.model.model_name_or_path)
    tokenizer = load_tokenizer(family, options.model.tokenizer_name_or_path or options.model.model_name_or_path)
    found = OpenedTasks(adapters, {"": _without_task(options, adapters)}, {"": options.generation}, {})
    read_tasks(found, options)
    if not options.inherited:  # the model says nothing of records of no task: bare texts, as long as any task's
        if options.data.template is None:
            found.data[""] = replace(found.data[""], task_name=BARE)
        for kind, length in ((found.data, "src_length"), (found.generation, "tgt_length")):
            if length not in options.given:
                kind[""] = replace(kind[""], **{length: max(getattr(kind[name], length) for name in adapters.names)})
    order = family.tasks or adapters.names
    for name in found.data:
        number = order.index(name) if name else NO_TASK
        found.encoders[name] = _encoder_of_task(found, name, family, tokenizer, number)
    return found


def read_tasks(found: OpenedTasks, options: PredictOptions) -> None:
    """Notes how records of each task are read and its texts written: as it was trained, but for what is given."""
    given = {name: value for name, value in options.given.items() if name != "task_name"}
    for name in found.adapters.names:
        settings = found.adapters.settings(name)
        found.data[name], found.generation[name] = (
            kind(**{key: value for key, value in (settings | given).items() if key in kind.__dataclass_fields__})
            for kind in (DataArguments, GenerationConfig)
        )
        found.data[name].inherited = frozenset(settings)
        if (known := found.data[name].known_kind) not in (None, GENERATE):
            raise InputError(f"adapter {name}: its task writes no texts ({known}); leave it out")


def _encoder_of_task(found: OpenedTasks, name: str, family: Family, tokenizer: Tokenizer, number: int) -> Encoder:
    return build_encoder(family, tokenizer, found.data[name], found.generation[name], task=number)


def _without_task(options: PredictOptions, adapters: OpenedAdapters) -> DataArguments:
    """Returns how records of no task are read; `--task_name` names the task of records that name none.

    Raises:
        InputError: it has no adapter.
    """
    named = options.given.get("task_name")
    if named is None:
        return options.data
    if named not in adapters.sources:
        raise InputError(f"task_name {named}: has no adapter; loaded are {', '.join(adapters.sources)}")
    own = trained_with(options.model.model_name_or_path).get("task_name", DataArguments.task_name)
    return replace(options.data, task_name=own)


def build_mixed_writer(options: PredictOptions, tasks: OpenedTasks, *, rank: int = 0) -> MixedWriter:
    """One model with the adapters of all tasks, and how each writes with it. Raises InputError as `build_writer`."""
    name, arguments = options.model.model_name_or_path, options.prediction
    encoder, adapters = tasks.encoders[""], tasks.adapters
    family = encoder.family
    ranks = {"tensor_parallel_degree": arguments.tensor_parallel_degree, "tensor_parallel_rank": rank}
    config = load_config(family, name, encoder.tokenizer, settings=ranks)
    loaded = load_model(family, name, config)
    adapters.check_weights(lambda: base_digests(family, name, config, loaded))
    put_adapters(loaded, adapters)
    prepare_decoding(loaded, arguments.decode_dtype, arguments.device)
    put_loras(family.weights, loaded, adapters)
    return MixedWriter(tasks.writers(loaded, options))


def add_tasks(
    options: PredictOptions, value: str, model: Any, encoder: Encoder
) -> tuple[OpenedTasks, Callable[[], dict[str, Writer]]]:
    """Opens adapters for a model that decodes already.

    Args:
        value: NAME=FOLDER or FOLDER.
        encoder: of the model's own records.

    Returns:
        The tasks, and what puts them into the model and gives their writers: nothing may decode meanwhile.

    Raises:
        InputError: they cannot be used, or are of another model.
    """
    family, name = encoder.family, options.model.model_name_or_path
    adapters = open_adapters([value])
    adapters.check_model(name)
    adapters.check_weights(lambda: file_digests(family, name, model.config))
    found = OpenedTasks(adapters, {}, {}, {})
    read_tasks(found, options)

    def put() -> dict[str, Writer]:
        (stack,) = model.stacks
        put_adapters(model, adapters)
        try:
            prepare_adapters(model, has_rows=adapters.config is not None and bool(adapters.config.rows))
            put_loras(family.weights, model, adapters)
            for task in adapters.names:
                number = stack.adapter_names.index(task)
                found.encoders[task] = _encoder_of_task(found, task, family, encoder.tokenizer, number)
            writers = found.writers(model, options)
            for writer in writers.values():
                warm_up(writer)
            return writers
        except Exception:
            take_out(model, adapters.names)
            raise

    return found, put


def remove_task(model: Any, name: str) -> None:
    """Takes a task out of a model that decodes; nothing may have its number then."""
    take_out(model, [name])


def read_allowed_outputs(
    path: str, tokenizer: Tokenizer, generation: GenerationConfig, *, most: int
) -> list[list[int]]:
    """Reads the ids of the allowed outputs from a file, one output per line.

    Args:
        most: most tokens of an output.

    Raises:
        InputError: the file cannot be read or has no output in it, or an output can never be generated; its line is
            named.
    """
    outputs = {}
    for number, line in enumerate(read_lines(Path(path)), start=1):
        if not line.strip():
            continue
        ids = outputs[line.strip()] = tokenizer.encode_text(line.strip())
        n = generation.no_repeat_ngram_size
        grams = [tuple(ids[place : place + n]) for place in range(len(ids) - n + 1)] if n else []
        obstacle = None
        if len(ids) > most:
            obstacle = f"tgt_length {generation.tgt_length} leaves room for {most} tokens, it has {len(ids)}"
        elif len(ids) < generation.min_tgt_length:
            obstacle = f"min_tgt_length {generation.min_tgt_length} forbids its {len(ids)} tokens"
        elif len(set(grams)) < len(grams):
            obstacle = f"no_repeat_ngram_size {n} forbids what repeats in it; 0 allows all"
        elif tokenizer.unknown_token_id in ids:
            obstacle = "the tokenizer has no pieces for all of it"
        if obstacle:
            raise InputError(f"{path}, line {number}: {line.strip()} can never be generated: {obstacle}")
    if not outputs:
        raise InputError(f"{path}: no output in it; one per line is expected")
    return list(outputs.values())
