"""The options of fine-tuning, checked against each other."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from paddle import distributed
from paddlenlp.trainer import IntervalStrategy, TrainingArguments
from paddlenlp.utils.log import logger

from glm.data.mixture import NamedFile, named_files, parse_weights, probabilities
from glm.data.templates import TEMPLATES
from glm.errors import UsageError
from glm.generation.config import GenerationConfig, option
from glm.options.data import DataArguments
from glm.options.model import ModelArguments
from glm.options.parser import OptionParser
from glm.options.run_config import published_config
from glm.parallel import gloo
from glm.runtime.device import choose_device
from glm.runtime.paths import published, published_values

SPLITS = ("train", "dev", "test")  # each with an option `SPLIT_file`
# Shapes of the learning rate behind its warmup; the first ones fall.
DECAYING = ("linear", "cosine", "inverse_sqrt", "polynomial")
SHAPES = (*DECAYING, "constant", "constant_with_warmup")
# What can be trained in place of the model, and the options of each.
ADAPTERS = {
    "lora": ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
    "prefix_tuning": ("num_prefix_tokens", "prefix_projection"),
}
# Options of PaddleNLP's Trainer that our subclass would not honour, with the values that leave them off.
WITHOUT_EFFECT = {
    "dataloader_drop_last": False,
    "max_evaluate_steps": -1,
    "prediction_loss_only": False,
    "eval_accumulation_steps": None,
    "ignore_data_skip": False,
    "to_static": False,
    "unified_checkpoint": False,
    "ignore_save_lr_and_optim": False,
    "ignore_load_lr_and_optim": False,
    "fp16_full_eval": False,
    "bf16_full_eval": False,
    "lr_end": 1e-7,  # lr_decay_ratio says where every schedule ends
    "num_cycles": 0.5,
}

# PaddleNLP has others, of which its Trainer makes none (adafactor) or one that moves nothing on a CPU (adamw_mini).
OPTIMIZERS = ("adamw", "adamw_custom", "adamw_16bit_moment")
MOST_LOGGING_STEPS = 500  # PaddleNLP's default
LOGS_A_RUN = 20  # at least, where nobody says how often

# Options of an objective that cannot be 0.
OF_GEOMETRY = ("objective", "mask_prob", "max_pred", "target_mask_prob")  # of ObjectiveArguments
NEVER_ZERO = ("discriminator_sampling_temperature", "max_source_positions", "max_target_positions")

# Options of half precision, with the values that leave them off.
OF_HALF_PRECISION = {
    "fp16_opt_level": "O1",
    "scale_loss": 32768,
    "amp_master_grad": False,
    "amp_custom_black_list": None,
    "amp_custom_white_list": None,
}


@dataclass
class FileArguments:
    """The records of a training run: JSON lines, JSON, CSV, TSV, parquet or a folder of Hugging Face's datasets.

    Each option takes several files, `NAME=PATH NAME=PATH`, see `glm.data.mixture`.
    """

    train_file: str | list[str] | None = option(
        None,
        "Training records; several as NAME=PATH NAME=PATH, where NAME may be the task if no task_name is given.",
    )
    dev_file: str | list[str] | None = option(
        None,
        "Records of evaluation during and after training; several as of train_file, each with figures of its own.",
    )
    test_file: str | list[str] | None = option(None, "Records to predict (--do_predict); several as of dev_file.")
    weights: str | None = option(None, "Share of each train_file in an epoch, e.g. 2,1; all of each if unset.")
    sampling_temperature: float | None = option(
        None, "T: a train_file of n records has a share of n^T in an epoch (1 in proportion, 0 all alike)."
    )
    max_bad_records: int = option(
        0, "Unusable records of a file that are left out, and written to refused-*.jsonl in output_dir; more stop."
    )
    allow_cut_targets: bool = option(False, "Cut a target longer than tgt_length, which then never learns to end.")
    data_cache_dir: str | None = option(
        None, "Folder of tokenized training records, found again by content; ~/.cache/glm if not given."
    )

    def __post_init__(self):
        if self.max_bad_records < 0:
            raise UsageError(f"max_bad_records {self.max_bad_records}: use 0 or more")
        for split in SPLITS:
            self.of_split(split)
        self._check_shares()

    def _check_shares(self):
        files = self.of_split("train")
        if self.weights is not None and self.sampling_temperature is not None:
            raise UsageError(f"weights {self.weights}: has no effect beside sampling_temperature; leave one out")
        for name in ("weights", "sampling_temperature"):
            if getattr(self, name) is not None and len(files) < 2:
                raise UsageError(f"{name} {getattr(self, name)}: has no effect with one train_file; leave it out")
        if self.weights is not None and len(parse_weights(self.weights)) != len(files):
            raise UsageError(
                f"weights {self.weights}: one for each of the {len(files)} files of train_file is expected"
            )
        if self.sampling_temperature is not None and not 0.0 <= self.sampling_temperature <= 1.0:
            raise UsageError(f"sampling_temperature {self.sampling_temperature}: use 0 to 1")

    def of_split(self, split: str) -> tuple[NamedFile, ...]:
        """The files of `train`, `dev` or `test`. Raises UsageError for names that cannot be told apart."""
        return named_files(f"{split}_file", getattr(self, f"{split}_file"))

    def shares(self, sizes: Sequence[int]) -> list[float] | None:
        """The share that each training set has of an epoch; None if all of each is read.

        Args:
            sizes: examples of each.
        """
        if self.weights is not None:
            return parse_weights(self.weights)
        if self.sampling_temperature is not None:
            return probabilities(sizes, self.sampling_temperature).tolist()
        return None


@dataclass
class DropoutArguments:
    """Dropout rates that replace the model's own."""

    attention_dropout_prob: float | None = option(None, "Dropout of attention weights; the model's if unset.")
    embedding_dropout_prob: float | None = option(None, "Dropout after the embeddings; the model's if unset.")
    output_dropout_prob: float | None = option(None, "Dropout after attention and MLP; the model's if unset.")

    def __post_init__(self):
        for name, value in self.given.items():
            if not 0.0 <= value < 1.0:
                raise UsageError(f"{name} {value}: use 0 or more, and less than 1")

    @property
    def given(self) -> dict[str, float]:
        """The rates that were given, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass
class ObjectiveArguments:
    """What training predicts of a record, by which losses, and from which parts of a checkpoint, for families that can
    choose (UniLM; GanLM, whose names are fairseq's)."""

    objective: str | None = option(
        None,
        "masked: some tokens of the target, drawn anew in each epoch; pseudo_masked: each, at a [MASK] of its own "
        "behind what comes before it [masked].",
        choices=["masked", "pseudo_masked"],
    )
    mask_prob: float | None = option(None, "Share of the target's tokens that masked predicts [0.2].")
    max_pred: int | None = option(None, "Most tokens of a target that masked predicts [20].")
    target_mask_prob: float | None = option(
        None, "Share of the tokens before a [MASK] that pseudo_masked masks or replaces too [0]."
    )

    start: str | None = option(
        None,
        "Parts of a checkpoint that a GanLM starts from: both decoders, the generator alone, or the discriminator as "
        "the decoder that writes [both where there are two].",
        choices=["both", "generator", "discriminator"],
    )
    max_source_positions: int | None = option(
        None, "Most tokens of a source; a checkpoint's table is cut, or has rows of zeros added [the model's]."
    )
    max_target_positions: int | None = option(None, "Most tokens of a target; as max_source_positions.")
    discriminator_weight: float | None = option(None, "Weight of the discriminator's loss [5]; 0 leaves it out.")
    discriminator_warmup_steps: int | None = option(None, "Updates over which it grows from 0 [0].")
    discriminator_start_warmup_steps: int | None = option(None, "Updates before these, without it [0].")
    inconsistency_weight: float | None = option(
        None, "Weight of the generator's loss where the discriminator erred [1]; 0 leaves it out."
    )
    inconsistency_warmup_steps: int | None = option(None, "Updates over which it grows from 0 [0].")
    inconsistency_start_warmup_steps: int | None = option(None, "Updates before these, without it [0].")
    discriminator_sampling_temperature: float | None = option(
        None, "Logits are divided by this before the tokens to be judged are drawn [1]."
    )

    def __post_init__(self):
        for name, value in self.of_model.items():
            if name.endswith("_steps"):
                continue  # fairseq's -1 is 0
            if not math.isfinite(value) or value < 0 or (value == 0 and name in NEVER_ZERO):
                raise UsageError(f"{name} {value}: use a number above 0{'' if name in NEVER_ZERO else ', or 0'}")
        if self.start in ("generator", "discriminator"):
            for name in ("discriminator_weight", "inconsistency_weight"):
                if getattr(self, name):
                    raise UsageError(
                        f"{name} {getattr(self, name)}: needs both decoders; leave out --start {self.start}"
                    )

    @property
    def parts(self) -> str | None:
        """`start`, or what the weights that are given need."""
        return self.start or ("both" if self.discriminator_weight or self.inconsistency_weight else None)

    @property
    def given(self) -> dict[str, Any]:
        """What was chosen, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def of_geometry(self) -> dict[str, Any]:
        """What was chosen of how a record is laid out."""
        return {name: value for name, value in self.given.items() if name in OF_GEOMETRY}

    @property
    def of_model(self) -> dict[str, Any]:
        """What replaces the model's own settings."""
        others = {"start", *OF_GEOMETRY}
        return {name: value for name, value in self.given.items() if name not in others}


@dataclass
class AdapterArguments:
    """LoRA, or prefix tuning: a small addition to the model is trained in place of the model."""

    lora: bool = option(False, "Train a LoRA adapter; the model's own weights stay, and only the adapter is saved.")
    lora_rank: int = option(8, "Rank of its matrices.")
    lora_alpha: int = option(16, "Its output is multiplied by lora_alpha / lora_rank.")
    lora_dropout: float = option(0.0, "Dropout of its input.")
    lora_targets: str | None = option(
        None,
        "Linear layers of a block that get one, joined by | [those of queries, keys and values].",
    )
    prefix_tuning: bool = option(
        False, "Train keys and values that every token sees; the model's own weights stay, and only these are saved."
    )
    num_prefix_tokens: int = option(128, "Virtual tokens that they are of, in each layer.")  # as PaddleNLP's scripts
    prefix_projection: bool = option(False, "Learn them through a network of one hidden layer, which is saved too.")

    def __post_init__(self):
        if self.lora and self.prefix_tuning:
            raise UsageError("prefix_tuning True: not beside lora True; leave one of them out")
        for name in ("lora_rank", "lora_alpha", "num_prefix_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: use 1 or more")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise UsageError(f"lora_dropout {self.lora_dropout}: use 0 or more, and less than 1")

    @property
    def kind(self) -> str | None:
        """The adapter to train, a key of ADAPTERS; None for the model."""
        return next((kind for kind in ADAPTERS if getattr(self, kind)), None)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that have an effect, by name, defaults included."""
        names = (self.kind, *ADAPTERS[self.kind]) if self.kind else ()
        return {name: getattr(self, name) for name in names}

    @property
    def without_effect(self) -> dict[str, str]:
        """Options that have no effect, each with the one that it would need."""
        return {name: kind for kind, names in ADAPTERS.items() if kind != self.kind for name in names}


@dataclass
class FinetuneTrainingArguments(TrainingArguments):
    """PaddleNLP's TrainingArguments and what GLM's example adds to them."""

    label_smoothing: float = option(0.1, "e: the loss spreads e / V over the vocabulary.")
    lr_scheduler_type: str = option("linear", "Shape of the learning rate behind the warmup.", choices=list(SHAPES))
    lr_decay_ratio: float | None = option(
        None,
        "Final learning rate as a share of the peak (of inverse_sqrt, the lowest) [0.1; constant ones have none].",
    )
    layerwise_lr_decay: float | None = option(
        None, "Each layer learns this many times as fast as the one above it, the embeddings slowest."
    )
    freeze: str | None = option(
        None,
        "Weights that are not trained: embeddings, layers.3, layers.0-11, other parts of the family, joined by |.",
    )
    logging_steps: int | None = option(
        None, "Steps between two lines of the log [a twentieth of the run, at most 500]."
    )
    group_by_length: bool = option(False, "Batches of examples of like length.")
    max_tokens: int | None = option(
        None, "Most tokens of a device's batch, padding included, in place of per_device_train_batch_size."
    )
    update_freq: int | None = option(
        None, "Batches per optimizer step: gradient_accumulation_steps by its fairseq name."
    )
    resume_with_changes: bool = option(
        False, "Go on from a checkpoint although data or settings have changed since; its manifest notes what has."
    )
    packing: bool = option(False, "Short examples of a batch share a row, each blind to the others.")
    pad_to_multiple_of: int = option(8, "Rows of a batch are padded to a multiple of this, so that shapes repeat.")
    recompute_layers: int | None = option(None, "Layers, from the first on, that --recompute is for; all if unset.")
    release_grads: bool | None = option(
        None, "Free gradients after each step; they need not be set to zero then [true; false with sharding stage2]."
    )

    def __post_init__(self):
        if self.update_freq is not None:
            self._take_update_freq()
        parallel = ("tensor_parallel_degree", "pipeline_parallel_degree", "sharding_parallel_degree")
        asked = {name: getattr(self, name) for name in parallel}
        self._check_numbers()
        self._check_parallel()
        self.device = choose_device(self.device)
        for precision in ("fp16", "bf16"):
            if getattr(self, precision) and self.device == "cpu":
                logger.warning(f"{precision}: a CPU computes in float32, so this run does")
                setattr(self, precision, False)
        self._init_base()
        for name, degree in asked.items():
            if degree > 1 and getattr(self, name) != degree:  # the base class drops it in a single process
                raise UsageError(
                    f"{name} {degree}: needs {degree} processes; start with python -m paddle.distributed.launch"
                )
        self.tensor_parallel_degree = max(self.tensor_parallel_degree, 1)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UsageError(f"label_smoothing {self.label_smoothing}: use 0 or more, and less than 1")
        self._check_decay()

    def _check_parallel(self):
        """Before the base class makes groups of processes, and asserts."""
        for name in ("pipeline_parallel_degree", "sep_parallel_degree", "context_parallel_degree"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} {getattr(self, name)}: not supported")
        if self.sequence_parallel:
            raise UsageError("sequence_parallel True: not supported; leave it out")
        processes, degree = distributed.get_world_size(), max(self.tensor_parallel_degree, 1)
        if processes > 1 and processes % degree:
            raise UsageError(f"tensor_parallel_degree {degree}: does not divide the {processes} processes")
        self._check_sharding()

    def _check_sharding(self):
        kinds = str(self.sharding).split()
        for kind in ("stage3", "offload"):
            if kind in kinds:
                raise UsageError(f"sharding {self.sharding}: {kind} is not supported; use stage1 or stage2")
        if "split_param" in str(self.sharding_parallel_config):
            raise UsageError(
                f"sharding_parallel_config {self.sharding_parallel_config}: split_param is not supported; leave it out"
            )
        keeps_gradients = "stage2" in kinds  # in storages of its own
        if self.release_grads and keeps_gradients:
            raise UsageError(f"release_grads True: has no effect with sharding {self.sharding}; leave it out")
        if self.release_grads is None:
            self.release_grads = not keeps_gradients

    def _take_update_freq(self):
        if self.gradient_accumulation_steps not in (1, self.update_freq):
            raise UsageError(
                f"update_freq {self.update_freq}: is gradient_accumulation_steps by another name, and that is "
                f"{self.gradient_accumulation_steps}; leave one out"
            )
        self.gradient_accumulation_steps = self.update_freq

    def _check_numbers(self):
        counts = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        for name in (*counts, "max_tokens", "pad_to_multiple_of", "recompute_layers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: use 1 or more")
        for name in ("seed", "weight_decay", "warmup_steps", "max_grad_norm", "dataloader_num_workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: use 0 or more")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name} {getattr(self, name)}: use 0 or more, and less than 1")
        for name in ("learning_rate", "num_train_epochs"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: use a number above 0")
        for name, off in WITHOUT_EFFECT.items():
            if getattr(self, name) != off:
                raise UsageError(f"{name} {getattr(self, name)}: has no effect in this program; leave it out")
        if self.recompute_layers is not None and not self.recompute:
            raise UsageError(f"recompute_layers {self.recompute_layers}: has no effect without --recompute")
        for name, off in OF_HALF_PRECISION.items():
            if getattr(self, name) != off and not (self.fp16 or self.bf16):
                raise UsageError(f"{name} {getattr(self, name)}: has no effect without --fp16 or --bf16")
        if self.optim not in OPTIMIZERS:
            raise UsageError(f"optim {self.optim}: use {', '.join(OPTIMIZERS[:-1])} or {OPTIMIZERS[-1]}")
        if self.fp16 and self.bf16:
            raise UsageError("fp16 True: has no effect beside bf16 True; choose one")

    def _init_base(self):
        """PaddleNLP turns --do_eval without eval_steps into an evaluation at every log line; here it means the end."""
        at_end = self.do_eval and self.eval_steps is None and self.evaluation_strategy == IntervalStrategy.NO.value
        self.do_eval = self.do_eval and not at_end
        shape, self.lr_scheduler_type = self.lr_scheduler_type, "linear"  # PaddleNLP does not know all shapes
        self.logs_a_share = self.logging_steps is None
        if self.logs_a_share:
            self.logging_steps = MOST_LOGGING_STEPS
        if self.logging_dir is None:  # PaddleNLP would put the machine's name into it
            self.logging_dir = str(Path(self.output_dir) / "runs" / datetime.now().strftime("%b%d_%H-%M-%S"))
        if self.device == "cpu" and distributed.get_world_size() > 1:
            gloo.install()
        super().__post_init__()  # makes the groups of processes
        self.lr_scheduler_type = shape
        self.do_eval = self.do_eval or at_end

    def to_json_string(self) -> str:
        """All options, for a log that may be published."""
        return published(super().to_json_string())

    def to_sanitized_dict(self) -> dict[str, Any]:
        """All options, for the parameters of such a log."""
        return published_values(super().to_sanitized_dict())

    def _check_decay(self):
        shape = self.lr_scheduler_type
        if self.power != 1.0 and shape != "polynomial":
            raise UsageError(f"power {self.power}: has no effect with lr_scheduler_type {shape}")
        if shape == "inverse_sqrt" and not (self.warmup_steps or self.warmup_ratio):
            raise UsageError(
                "lr_scheduler_type inverse_sqrt: falls from the end of a warmup; add warmup_steps or warmup_ratio"
            )
        if self.lr_decay_ratio is None:
            self.lr_decay_ratio = 0.1 if shape in DECAYING else 1.0
        elif shape not in DECAYING:
            raise UsageError(
                f"lr_decay_ratio {self.lr_decay_ratio}: has no effect with lr_scheduler_type {shape}; "
                f"leave it out or use {' or '.join(DECAYING)}"
            )
        elif not 0.0 <= self.lr_decay_ratio <= 1.0:
            raise UsageError(f"lr_decay_ratio {self.lr_decay_ratio}: use 0 to 1")
        if self.layerwise_lr_decay is not None and not 0.0 < self.layerwise_lr_decay <= 1.0:
            raise UsageError(f"layerwise_lr_decay {self.layerwise_lr_decay}: use a number above 0, at most 1")


@dataclass(frozen=True)
class FinetuneArguments:
    """All arguments of `finetune_generation.py`.

    Args:
        given: those that were set, by name.
        values: the values of all options as they were read, by name.
        argv: the command line.
    """

    model: ModelArguments
    data: DataArguments
    generation: GenerationConfig
    files: FileArguments
    dropout: DropoutArguments
    objective: ObjectiveArguments
    adapter: AdapterArguments
    training: FinetuneTrainingArguments
    given: dict[str, Any]
    values: dict[str, Any]
    argv: list[str]

    def data_of(self, file: NamedFile) -> DataArguments:
        """How the records of a file are laid out: by the task that its name says, if the options say none."""
        named = file.name in TEMPLATES and not {"task_name", "template"} & set(self.given)
        return dataclasses.replace(self.data, task_name=file.name) if named else self.data

    def run_config(self) -> dict[str, Any]:
        """The effective configuration, defaults included: a configuration file that repeats the run."""
        once = {"overwrite_output_dir", "resume_from_checkpoint", "resume_with_changes"}  # of this run only
        left_out = once | self._without_effect()
        kept = {name: value for name, value in self.values.items() if value is not None and name not in left_out}
        return published_config(kept)

    def _without_effect(self) -> set[str]:
        """Defaults that would be refused, were they set beside the other options."""
        names = {"per_device_train_batch_size"} if self.training.max_tokens is not None else set()
        files = [file for split in SPLITS for file in self.files.of_split(split)]
        if any(self.data_of(file) is not self.data for file in files):  # names say the tasks
            names.add("task_name")
        names |= {"src_length"} if self.data.max_seq_length is not None else set()
        return names | set(self.adapter.without_effect)


def parse_finetune_arguments(argv: list[str]) -> FinetuneArguments:
    """Arguments of `finetune_generation.py`: `[config.json] [--option value ...]`.

    Raises:
        UsageError: an option is unknown, malformed, out of range or without effect beside the others.
    """
    groups = (
        ModelArguments,
        DataArguments,
        GenerationConfig,
        FileArguments,
        DropoutArguments,
        ObjectiveArguments,
        AdapterArguments,
        FinetuneTrainingArguments,
    )
    parser = OptionParser(groups, "Fine-tunes a GLM to generate text, and evaluates it.")
    values, given = parser.read(argv)
    arguments = FinetuneArguments(*parser.build(values), given, vars(values), argv)
    _check_finetune(arguments)
    return arguments


def _check_finetune(arguments: FinetuneArguments) -> None:
    files, training = arguments.files, arguments.training
    if not (training.do_train or training.do_eval or training.do_predict):
        raise UsageError("nothing to do: add --do_train, --do_eval or --do_predict")
    for name, action in (("train_file", "do_train"), ("dev_file", "do_eval"), ("test_file", "do_predict")):
        if getattr(files, name) is not None and not getattr(training, action):
            raise UsageError(f"{name} {getattr(files, name)}: has no effect without --{action}")
    if training.resume_from_checkpoint is not None and not training.do_train:
        raise UsageError(
            f"resume_from_checkpoint {training.resume_from_checkpoint}: has no effect without --do_train; to evaluate "
            "a checkpoint give its folder as --model_name_or_path"
        )
    # A published data set stands in for none of the files, or was named: nobody's own data meet it unasked.
    evaluates = training.do_eval or training.evaluation_strategy != IntervalStrategy.NO
    if files.train_file is not None and evaluates and files.dev_file is None:
        raise UsageError("do_eval True: needs --dev_file beside a --train_file of your own; give one, or leave it out")
    if training.do_train and files.train_file is None and files.dev_file and "task_name" not in arguments.given:
        raise UsageError(
            f"dev_file {files.dev_file}: needs --train_file beside it; give one, or name the data set to train on "
            f"(--task_name {arguments.data.task_name})"
        )
    if training.do_predict and files.test_file is None:
        raise UsageError("do_predict True: give the records with --test_file")
    _check_adapter(arguments)
    for name in ("weights", "sampling_temperature"):
        if getattr(files, name) is not None and training.max_tokens is not None:
            raise UsageError(
                f"{name} {getattr(files, name)}: not beside max_tokens {training.max_tokens}, with which an epoch's "
                "batches depend on what is drawn; use per_device_train_batch_size"
            )
    if training.max_tokens is not None and "per_device_train_batch_size" in arguments.given:
        raise UsageError(
            f"max_tokens {training.max_tokens}: has no effect beside per_device_train_batch_size "
            f"{training.per_device_train_batch_size}; leave one out"
        )


def _check_adapter(arguments: FinetuneArguments) -> None:
    adapter, training, kind = arguments.adapter, arguments.training, arguments.adapter.kind
    for name, needed in adapter.without_effect.items():
        if name in arguments.given:
            raise UsageError(f"{name} {arguments.given[name]}: has no effect without --{needed}")
    if kind is None:
        return
    if training.tensor_parallel_degree > 1:
        degree = training.tensor_parallel_degree
        raise UsageError(f"{kind} True: not beside tensor_parallel_degree {degree}; leave one of them out")
    if not training.do_train:
        raise UsageError(f"{kind} True: has no effect without --do_train; an adapter's folder is used as it is")
    if arguments.model.model_name_or_path.endswith(".json"):
        raise UsageError(
            f"{kind} True: model_name_or_path {arguments.model.model_name_or_path} starts from random weights, which "
            "nothing would save; give a trained model"
        )
    for name in ("freeze", "layerwise_lr_decay"):
        if adapter.prefix_tuning and name in arguments.given:
            raise UsageError(f"{name} {arguments.given[name]}: has no effect with --prefix_tuning; leave it out")
