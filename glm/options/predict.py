"""The options of prediction; lengths, template and decoding default to those of the model's training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from glm.errors import UsageError
from glm.generation.config import GenerationConfig, option, options_to_reset
from glm.options.data import FRAME, OF_FRAME, DataArguments, meaningless
from glm.options.model import ModelArguments
from glm.options.parser import OptionParser
from glm.options.ranges import MANY, Ranges, out_of_range
from glm.options.run_config import trained_with
from glm.options.serving import ServingArguments
from glm.runtime.device import choose_device

# Options of `predict.py` that a server does not have, and options that only a server has.
FILES_OPTIONS = ("test_file", "fill", "fill_file", "output_file", "metrics_file", "overwrite_output", "resume")
FILES_OPTIONS += ("output_format", "token_scores", "show", "report", "keep_columns", "max_predict_samples")
SERVING_OPTIONS = tuple(item.name for item in fields(ServingArguments))


# Options that people give to this script although they belong to the other one.
OF_TRAINING = (
    (
        "train_file",
        "dev_file",
        "do_train",
        "do_eval",
        "do_predict",
        "output_dir",
        "overwrite_output_dir",
        "learning_rate",
    ),
    "finetune_generation.py",
)
RANGES: Ranges = {
    "per_device_eval_batch_size": (1, MANY, "use 1 or more"),
    "show": (0, MANY, "use 0 or more"),
    "max_predict_samples": (1, MANY, "use 1 or more"),
}


@dataclass
class PredictArguments(ServingArguments):
    """What to generate text for, where it goes, and how it is made."""

    test_file: str | list[str] | None = option(
        None,
        "Records, one JSON object per line; standard input if not given. Several as NAME=PATH NAME=PATH, each with "
        "figures of its own; NAME is the language, or the task, where it is the name of one.",
    )
    adapters: str | None = option(
        None,
        "Adapters, residual or LoRA, of tasks that share the model: NAME=FOLDER, several with commas between them. A "
        "record names its task in the column task, else it is of --task_name, else of none.",
    )
    fill: str | None = option(None, "A text whose blanks, marked as its family does, are filled; instead of records.")
    fill_file: str | None = option(None, "Texts with blanks, one per line; instead of records.")
    output_file: str | None = option(None, "One JSON line per record; standard output if not given.")
    metrics_file: str | None = option(None, "Scores as JSON (the data needs references).")
    report: str | None = option(
        None, "Folder for a page of scores, plots and samples with all beams (report.html), and the plots as PNG."
    )
    keep_columns: str | None = option(
        None, "Columns that are copied into the rows of the output, separated by commas; all: every one."
    )
    max_predict_samples: int | None = option(None, "Predict only that many records, the first ones.")
    overwrite_output: bool = option(False, "Replace output_file, metrics_file and the report if they exist.")
    resume: bool = option(False, "Continue an interrupted run: only what output_file lacks is generated.")
    prefix: str = option("", "Beginning of every text: given to the model, not generated.")
    allowed_outputs_file: str | None = option(None, "Outputs, one per line: nothing else is generated (after prefix).")
    output_format: str = option(
        "json",
        "Of output_file: json, one line per record; unilm, lines of a source, U+0001, and its texts with || between "
        "them (the JSON lines then go to output_file.jsonl).",
        choices=["json", "unilm"],
    )
    token_scores: bool = option(False, "Write the log-probability of every token.")
    per_device_eval_batch_size: int = option(16, "Records decoded together.")
    decode_dtype: str = option(
        "float32",
        "Type of weights and products: bfloat16 is faster where the processor has such products, and rounds; int8 (on "
        "a CPU) is the fastest, reads a quarter of the bytes, and rounds more.",
        choices=["float32", "bfloat16", "float16", "int8"],
    )
    show: int = option(5, "Number of samples printed as a table, if output_file is given.")
    device: str = option("gpu", "gpu or cpu.")
    tensor_parallel_degree: int = option(1, "Processes that the model is split over; all that the launcher starts.")
    serve: bool = option(False, "Serve a page and an HTTP API instead of predicting records.")

    def __post_init__(self):
        errors = [
            *out_of_range(vars(self), RANGES),
            *self.serving_errors(serves=self.serve),
            *self._parallel_errors(),
            *self._clashes(),
        ]
        self.device = _noting(errors, choose_device, self.device)
        if self.decode_dtype == "float16" and self.device == "cpu":
            errors.append("decode_dtype float16: a CPU has no such products; use float32, bfloat16 or int8")
        if self.decode_dtype == "int8" and self.device != "cpu":
            errors.append(f"decode_dtype int8: for a CPU; use float16 or bfloat16 on {self.device}, or --device cpu")
        if errors:
            raise UsageError(*errors)

    def _clashes(self) -> Iterator[str]:
        inputs = [name for name in ("test_file", "fill", "fill_file") if getattr(self, name) is not None]
        if len(inputs) > 1:
            yield f"{inputs[1]} {getattr(self, inputs[1])}: has no effect beside {inputs[0]}; choose one"
        if self.fills and self.metrics_file is not None:
            yield f"metrics_file {self.metrics_file}: filled blanks have no references to be scored against"
        if self.fills and self.report is not None:
            yield f"report {self.report}: there is none of filled blanks; leave it out"
        if self.adapters is not None and not self.serve:
            if self.test_file is None:
                yield f"adapters {self.adapters}: needs records of a --test_file"
            for name in ("prefix", "allowed_outputs_file", "keep_columns"):
                if value := getattr(self, name):
                    yield f"{name} {value}: not beside adapters, whose tasks have texts of their own; leave it out"
        if self.resume:
            for name, given in {"output_file": self.output_file, "test_file or fill_file": self.input_file}.items():
                if given is None:
                    yield f"resume True: there is nothing to continue without {name}"
            if self.overwrite_output:
                yield "resume True: has no effect beside overwrite_output True; choose one"

    def _parallel_errors(self) -> Iterator[str]:
        from paddle import distributed  # imported here so that `--help` is quick

        degree, processes = self.tensor_parallel_degree, distributed.get_world_size()
        if degree != processes:
            yield (
                f"tensor_parallel_degree {degree}: there are {processes} processes; start as many with python -m "
                "paddle.distributed.launch (--nproc_per_node N, or --gpus)"
            )
        if degree == 1 or degree != processes:
            return
        if self.serve:
            yield f"serve True: not beside tensor_parallel_degree {degree}; leave one of them out"
        if self.decode_dtype != "float32" and self.device == "cpu":
            yield f"decode_dtype {self.decode_dtype}: not beside tensor_parallel_degree {degree} on a CPU"
        if self.input_file is None and self.fill is None:
            yield f"tensor_parallel_degree {degree}: standard input has one reader; give a --test_file"

    @property
    def fills(self) -> bool:
        """Whether blanks are filled, rather than records answered."""
        return self.fill is not None or self.fill_file is not None

    @property
    def input_file(self) -> str | None:
        """The file with the records or texts to predict for."""
        return self.test_file or self.fill_file


def _noting(errors: list[str], choose: Callable[[str], str], value: str) -> str:
    """Calls a function on a value; if it raises, notes the error and returns the value itself."""
    try:
        return choose(value)
    except UsageError as error:
        errors += error.messages
        return value


@dataclass(frozen=True)
class PredictOptions:
    """All options of `predict.py`.

    Args:
        inherited: options that were not given and come from the model folder, by name.
        argv: the command line.
        given: options that were set, by name.
    """

    model: ModelArguments
    data: DataArguments
    generation: GenerationConfig
    prediction: PredictArguments
    inherited: dict[str, Any]
    argv: list[str]
    given: dict[str, Any] = field(default_factory=dict)


def parse_predict_arguments(argv: list[str]) -> PredictOptions:
    """Parses the arguments of `predict.py`: `[config.json] [--option value ...]`. Lengths, template and decoding
    options that are not given come from the model's training.

    Raises:
        UsageError: an option is unknown, malformed, out of range or without effect beside the others.
    """
    groups = (ModelArguments, DataArguments, GenerationConfig, PredictArguments)
    parser = OptionParser(groups, "Generates text with a fine-tuned GLM, and scores it.", elsewhere=OF_TRAINING)
    reading = parser.read(argv)
    own = options_to_reset(reading.given)
    if FRAME & set(reading.given):  # another frame: nothing of the model's own applies
        own |= OF_FRAME
    settings = trained_with(reading.values.model_name_or_path)
    inherited = {name: value for name, value in settings.items() if name not in own}
    reading = parser.read(argv, inherited=inherited)
    built = parser.build(reading)
    if not reading.errors:
        options = PredictOptions(*built, inherited, argv, reading.given)
        options.data.inherited = frozenset(inherited)
        reading.errors += _without_effect(reading.given, options.prediction)
        if not options.prediction.fills:
            reading.errors += meaningless(options.data.known_kind, reading.given)
    if reading.errors:
        raise UsageError(*reading.errors)
    return options


def _without_effect(given: dict[str, Any], arguments: PredictArguments) -> Iterator[str]:
    """Returns options that were given and have no effect, one line each."""
    for name in FILES_OPTIONS if arguments.serve else SERVING_OPTIONS:
        if name in given:
            how = "with --serve" if arguments.serve else "without --serve"
            value = "" if name == "api_key" else f" {given[name]}"  # the key is a secret
            yield f"{name}{value}: has no effect {how}; leave it out"
    if arguments.fills:
        framing = {"task_name", "template", "target_prefix", "source_column", "answer_column", "target_column"}
        for name in sorted(framing | {"show", "keep_columns", "multi_turn"}):
            if name in given:
                yield f"{name} {given[name]}: has no effect where blanks are filled; leave it out"
    if arguments.output_format == "unilm" and (arguments.output_file is None or arguments.fills):
        needed = "where blanks are filled" if arguments.fills else "without output_file"
        yield f"output_format unilm: has no effect {needed}; leave it out"
    if "show" in given and arguments.output_file is None:
        yield f"show {given['show']}: has no effect without output_file"
