"""The options of fine-tuning, checked against each other."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paddle import distributed
from paddlenlp.trainer import IntervalStrategy, TrainingArguments
from paddlenlp.utils.log import logger

from glm.data.mixture import NamedFile, check_shares, given_shares, named_files
from glm.data.task_table import TASKS
from glm.data.tasks import CHOOSE, EXTRACT, GENERATE, parts_text
from glm.data.templates import TEMPLATES
from glm.errors import UsageError
from glm.generation.config import GenerationConfig, option
from glm.options.data import WITHOUT_MEANING, DataArguments, meaningless
from glm.options.foreign_names import NONE
from glm.options.model import ModelArguments
from glm.options.parser import OptionParser, Reading
from glm.options.ranges import ABOVE_0, BELOW_1, COUNT, MANY, Ranges, out_of_range, raise_any
from glm.options.run_config import published_config
from glm.parallel import gloo
from glm.runtime.device import choose_device
from glm.runtime.onednn import multiplies_bfloat16
from glm.runtime.paths import published, published_values

SPLITS = ("train", "dev", "test")  # each with an option `SPLIT_file`
# Shapes of the learning rate after warmup; the first ones fall.
DECAYING = ("linear", "cosine", "inverse_sqrt", "polynomial")
SHAPES = (*DECAYING, "constant", "constant_with_warmup")
# What can be trained instead of the model, with its options.
ADAPTERS = {
    "lora": ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
    "prefix_tuning": ("num_prefix_tokens", "prefix_projection"),
    "adapter_bottleneck": ("adapter_up_std",),
}
# Options of PaddleNLP's Trainer that our subclass supports; the others are not in --help, and refused if they are set.
HONOURED = {
    *("output_dir", "overwrite_output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim"),
    *("num_train_epochs", "max_steps", "warmup_ratio", "warmup_steps", "power", "seed"),
    *("evaluation_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    *("logging_dir", "logging_strategy", "logging_first_step", "report_to", "run_name", "disable_tqdm"),
    *("bf16", "fp16", "fp16_opt_level", "scale_loss", "amp_master_grad"),
    *("amp_custom_black_list", "amp_custom_white_list", "recompute", "device", "dataloader_num_workers"),
    *("sharding", "sharding_parallel_degree", "sharding_parallel_config", "tensor_parallel_degree"),
    *("logging_steps", "lr_scheduler_type", "release_grads"),
}
# Values beside the default that turn an unsupported option off, as PaddleNLP's scripts write them.
OFF = {
    "pipeline_parallel_degree": (0, 1),
    "sep_parallel_degree": (0, 1),
    "context_parallel_degree": (0, 1),
    "expert_parallel_degree": (0, 1),
    "expert_tensor_parallel_degree": (0, 1),
    "eval_accumulation_steps": (0,),
}
REASONS = {  # for options about which there is more to say than that they have no effect
    **{name: "not supported" for name in OFF if name.endswith("_degree")},
    "sequence_parallel": "not supported; leave it out",
    "sharding_degree": "is sharding_parallel_degree by an old name; use that",
    "no_cuda": "use --device cpu",
    "lr_end": "has no effect in this program; leave it out (lr_decay_ratio says where every schedule ends)",
    **{name: reason for name, reason in NONE.items() if name in ("local_rank", "remove_unused_columns")},
}
SHARE = (0.0, BELOW_1, "use 0 or more, and less than 1")
RANGES: Ranges = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "max_tokens", "update_freq"), COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "recompute_layers", "logging_steps", "eval_steps"), COUNT),
    "required_batch_size_multiple": COUNT,
    **dict.fromkeys(("save_steps", "early_stopping_patience"), COUNT),
    "pad_to_multiple_of": (1, 4096, "use 1 or more"),
    "max_steps": (1, MANY, "use 1 or more, or leave it out"),
    "save_total_limit": (1, MANY, "use 1 or more, or leave it out to keep all"),
    "tensor_parallel_degree": (1, 4096, "use 1 or more"),
    "sharding_parallel_degree": (1, 4096, "use 1 or more"),
    "seed": (0, 2**32 - 1, "use 0 or more"),
    "weight_decay": (0, 100, "use 0 or more"),
    "warmup_steps": (0, MANY, "use 0 or more"),
    "warmup_ratio": (0, 1, "use 0 to 1"),
    "max_grad_norm": (0, 1e30, "use 0 or more"),
    "dataloader_num_workers": (0, 256, "use 0 or more"),
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "label_smoothing": SHARE,
    "adam_epsilon": (ABOVE_0, 1, "use a number above 0, at most 1"),
    "learning_rate": (ABOVE_0, 100, "use a number above 0"),
    "num_train_epochs": (ABOVE_0, 1e6, "use a number above 0"),
    "power": (ABOVE_0, 100, "use a number above 0"),
    "scale_loss": (1, 2**40, "use 1 or more"),
    "lr_decay_ratio": (0, 1, "use 0 to 1"),
    "layerwise_lr_decay": (ABOVE_0, 1, "use a number above 0, at most 1"),
}
NOT_SET = {"max_steps": (-1,), "tensor_parallel_degree": (-1, 0), "sharding_parallel_degree": (-1,)}
ADAPTER_RANGES: Ranges = {
    "lora_rank": (1, 4096, "use 1 or more"),
    "lora_alpha": (1, 10**6, "use 1 or more"),
    "lora_dropout": SHARE,
    "num_prefix_tokens": (1, 4096, "use 1 or more"),
    "adapter_bottleneck": (1, 1 << 16, "use 1 or more"),
    "adapter_up_std": (0, 100, "use 0 or more"),
}
FILE_RANGES: Ranges = {
    "max_bad_records": (0, MANY, "use 0 or more"),
    "max_train_samples": COUNT,
    "max_predict_samples": COUNT,
}
OBJECTIVE_RANGES: Ranges = {
    "mask_prob": (ABOVE_0, 1, "use a number above 0, at most 1"),
    "max_pred": COUNT,
    "target_mask_prob": (0, 1, "use 0 to 1"),
    "max_source_positions": COUNT,
    "max_target_positions": COUNT,
    "discriminator_weight": (0, 1e6, "use 0 or more"),
    "inconsistency_weight": (0, 1e6, "use 0 or more"),
    "discriminator_sampling_temperature": (ABOVE_0, 1e6, "use a number above 0"),
    "discriminator_warmup_steps": (-1, MANY, "use 0 or more"),  # fairseq's -1 is 0
    "discriminator_start_warmup_steps": (-1, MANY, "use 0 or more"),
    "inconsistency_warmup_steps": (-1, MANY, "use 0 or more"),
    "inconsistency_start_warmup_steps": (-1, MANY, "use 0 or more"),
}
SHARDING = ("stage1", "stage2")
TRACKERS = {"visualdl": "visualdl", "tensorboard": "tensorboardX", "swanlab": "swanlab", "wandb": "wandb"}  # packages
# Options that need an action, and options that exclude each other: if the file has one and the command line the other,
# the command line wins.
OF_ACTIONS = {
    "do_train": ("train_file", "resume_from_checkpoint"),
    "do_eval": ("dev_file", "evaluation_strategy", "eval_steps", "load_best_model_at_end", "early_stopping_patience"),
    "do_predict": ("test_file", "max_predict_samples"),
    "select_topk": (),
    "recompute": ("recompute_layers",),
}
GIVES_WAY = (  # the first gives way to the second
    *(("max_tokens", "per_device_train_batch_size"), ("per_device_train_batch_size", "max_tokens")),
    *(("update_freq", "gradient_accumulation_steps"), ("gradient_accumulation_steps", "update_freq")),
    *((one, other) for one in ADAPTERS for other in ADAPTERS if one != other),
    *(("fp16", "bf16"), ("bf16", "fp16")),
    *(("max_steps", "num_train_epochs"), ("warmup_steps", "warmup_ratio")),
    *(("template", "task_name"), ("target_prefix", "task_name")),
)

# For tasks that choose, see `glm.training.choice_loss`.
LOSSES = ("cross_entropy", "hinge", "generative", "mix", "adapet")
# Options of training without meaning for tasks of a kind.
WITHOUT_LEARNING = {
    GENERATE: ("loss_func",),
    EXTRACT: ("loss_func",),
    CHOOSE: ("label_smoothing", "packing", "allow_cut_targets"),
}
HIDDEN = {item.name for item in dataclasses.fields(TrainingArguments)} - HONOURED
MOST_LOGGING_STEPS = 500  # PaddleNLP's default
LOGS_A_RUN = 20  # log lines of a run at least, unless the user sets logging_steps

# PaddleNLP has more, but its Trainer cannot make one (adafactor), and another changes nothing on a CPU (adamw_mini).
OPTIMIZERS = ("adamw", "adamw_custom", "adamw_16bit_moment")

OF_GEOMETRY = ("objective", "mask_prob", "max_pred", "target_mask_prob")  # of ObjectiveArguments

# Options of half precision, with the values that turn them off.
OF_HALF_PRECISION = {
    "fp16_opt_level": "O1",
    "scale_loss": 32768,
    "amp_master_grad": False,
    "amp_custom_black_list": None,
    "amp_custom_white_list": None,
}


LANGUAGE = "{lang}"  # in a file's name, replaced by each of several languages


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
        "Records for evaluation during and after training; several as in train_file, each with its own scores.",
    )
    test_file: str | list[str] | None = option(None, "Records to predict (--do_predict); several as in dev_file.")
    train_langs: str | None = option(
        None, "Languages to train on, separated by commas; {lang} in the name of train_file stands for each."
    )
    eval_langs: str | None = option(
        None, "The same for dev_file and test_file; scores for each language and their mean."
    )
    weights: str | None = option(None, "Share of each train_file in an epoch, e.g. 2,1; all of each if unset.")
    sampling_temperature: float | None = option(
        None, "T: a train_file of n records has a share of n^T in an epoch (1 in proportion, 0 all alike)."
    )
    max_train_samples: int | None = option(
        None, "Use only that many usable training records of a file, the first ones."
    )
    max_predict_samples: int | None = option(
        None, "Predict only that many records of a file with --do_predict, the first ones."
    )
    max_bad_records: int = option(
        0,
        "Unusable records of a file that may be left out and written to refused-*.jsonl; more stop the run.",
    )
    allow_cut_targets: bool = option(False, "Cut a target longer than tgt_length, which then never learns to end.")
    data_cache_dir: str | None = option(
        None, "Folder of tokenized training records, found again by content; ~/.cache/glm if not given."
    )

    def __post_init__(self):
        raise_any(out_of_range(vars(self), FILE_RANGES))
        self._expand("train_langs", ("train_file",))
        self._expand("eval_langs", ("dev_file", "test_file"))
        for split in SPLITS:
            self.of_split(split)
        sets = {"count": len(self.of_split("train")), "one": "train_file", "several": "files of train_file"}
        check_shares(self.weights, self.sampling_temperature, **sets)

    def _expand(self, option_name: str, options: Sequence[str]):
        """Replaces a name with {lang} by a file for each language."""
        given = getattr(self, option_name)
        names = {name: path for name in options if isinstance(path := getattr(self, name), str) and LANGUAGE in path}
        if given is None:
            for name, path in names.items():
                raise UsageError(f"{name} {path}: {LANGUAGE} needs {option_name}, the languages that it stands for")
            return
        codes = [code.strip() for code in given.split(",")]
        if twice := [code for code in codes if codes.count(code) > 1 or not code]:
            raise UsageError(f"{option_name} {given}: {twice[0] or 'a language without a name'} stands there twice")
        if not names:
            raise UsageError(f"{option_name} {given}: has no effect; write {LANGUAGE} into the name of {options[0]}")
        for name, path in names.items():
            files = {code: path.replace(LANGUAGE, code) for code in codes}
            for code, file in files.items():
                if not Path(file).exists():
                    raise UsageError(f"{option_name} {given}: there is no {name} of {code}, {file}")
            setattr(self, name, [f"{code}={file}" for code, file in files.items()])

    def of_split(self, split: str) -> tuple[NamedFile, ...]:
        """Returns the files of `train`, `dev` or `test`. Raises UsageError for names that cannot be told apart."""
        return named_files(f"{split}_file", getattr(self, f"{split}_file"))

    def shares(self, sizes: Sequence[int]) -> list[float] | None:
        """Returns the share that each training set has of an epoch; None if all of each is read.

        Args:
            sizes: examples of each.
        """
        return given_shares(sizes, self.weights, self.sampling_temperature)


@dataclass
class DropoutArguments:
    """Dropout rates that replace the model's own."""

    attention_dropout_prob: float | None = option(None, "Dropout of attention weights; the model's if unset.")
    embedding_dropout_prob: float | None = option(None, "Dropout after the embeddings; the model's if unset.")
    output_dropout_prob: float | None = option(None, "Dropout after attention and MLP; the model's if unset.")

    def __post_init__(self):
        raise_any(out_of_range(vars(self), dict.fromkeys(vars(self), SHARE)))

    @property
    def given(self) -> dict[str, float]:
        """Returns the rates that were given, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass
class ObjectiveArguments:
    """What training predicts of a record, by which losses, and from which parts of a model, for families that can
    choose (UniLM; GanLM, whose names are fairseq's)."""

    objective: str | None = option(
        None,
        "masked: some tokens of the target, drawn anew in each epoch; pseudo_masked: each, at a [MASK] of its own "
        "that sees the tokens before it [masked].",
        choices=["masked", "pseudo_masked"],
    )
    mask_prob: float | None = option(None, "Share of the target's tokens that masked predicts [0.2].")
    max_pred: int | None = option(None, "Most tokens of a target that masked predicts [20].")
    target_mask_prob: float | None = option(
        None, "Share of the tokens before a [MASK] that pseudo_masked masks or replaces too [0]."
    )

    start: str | None = option(
        None,
        "Parts of a model that a GanLM starts from: both decoders, the generator alone, or the discriminator as "
        "the decoder that writes [both where there are two].",
        choices=["both", "generator", "discriminator"],
    )
    max_source_positions: int | None = option(
        None, "Most tokens of a source; the model's table is cut, or gets further rows of zeros [the model's]."
    )
    max_target_positions: int | None = option(None, "Most tokens of a target; as max_source_positions.")
    discriminator_weight: float | None = option(None, "Weight of the discriminator's loss [5]; 0 leaves it out.")
    discriminator_warmup_steps: int | None = option(None, "Updates over which it grows from 0 [0].")
    discriminator_start_warmup_steps: int | None = option(None, "Updates before that in which it is 0 [0].")
    inconsistency_weight: float | None = option(
        None, "Weight of the generator's loss where the discriminator erred [1]; 0 leaves it out."
    )
    inconsistency_warmup_steps: int | None = option(None, "Updates over which it grows from 0 [0].")
    inconsistency_start_warmup_steps: int | None = option(None, "Updates before that in which it is 0 [0].")
    discriminator_sampling_temperature: float | None = option(
        None, "Divides the logits from which the tokens to be judged are drawn [1]."
    )

    def __post_init__(self):
        errors = out_of_range(vars(self), OBJECTIVE_RANGES)
        if self.start in ("generator", "discriminator"):
            for name in ("discriminator_weight", "inconsistency_weight"):
                if getattr(self, name):
                    errors.append(f"{name} {getattr(self, name)}: needs both decoders; leave out --start {self.start}")
        raise_any(errors)

    @property
    def parts(self) -> str | None:
        """`start`, or what the given weights need."""
        return self.start or ("both" if self.discriminator_weight or self.inconsistency_weight else None)

    @property
    def given(self) -> dict[str, Any]:
        """Returns the options that were given, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def of_geometry(self) -> dict[str, Any]:
        """Returns the given options that affect how a record is laid out."""
        return {name: value for name, value in self.given.items() if name in OF_GEOMETRY}

    @property
    def of_model(self) -> dict[str, Any]:
        """Returns the given options that replace the model's own settings."""
        others = {"start", *OF_GEOMETRY}
        return {name: value for name, value in self.given.items() if name not in others}


@dataclass
class AdapterArguments:
    """LoRA, prefix tuning or residual adapters: a small addition to the model is trained in place of the model."""

    lora: bool = option(False, "Train a LoRA adapter; the model's own weights stay, and only the adapter is saved.")
    lora_rank: int = option(8, "Rank of its matrices.")
    lora_alpha: int = option(16, "Its output is multiplied by lora_alpha / lora_rank.")
    lora_dropout: float = option(0.0, "Dropout of its input.")
    lora_targets: str | None = option(
        None,
        "Linear layers of a block that get an adapter, joined by | [that of queries, keys and values].",
    )
    prefix_tuning: bool = option(
        False, "Train keys and values that every token sees; the model's own weights stay, and only these are saved."
    )
    num_prefix_tokens: int = option(128, "Number of virtual tokens in each layer.")  # as PaddleNLP's scripts
    prefix_projection: bool = option(
        False, "Compute them by a network with one hidden layer, which is trained and saved."
    )
    adapter_bottleneck: int | None = option(
        None,
        "Train an adapter of this width behind each block, of each task its own; the model's own weights stay, and "
        "only the adapters are saved.",
    )
    adapter_up_std: float | None = option(
        None,
        "Standard deviation of the weights of a new adapter's last linear layer [0: it does nothing; VLM's 0.02].",
    )

    def __post_init__(self):
        errors = out_of_range(vars(self), ADAPTER_RANGES)
        asked = [kind for kind in ADAPTERS if getattr(self, kind)]
        errors += [
            f"{kind} {getattr(self, kind)}: not beside {asked[0]} {getattr(self, asked[0])}; leave one of them out"
            for kind in asked[1:]
        ]
        raise_any(errors)

    @property
    def kind(self) -> str | None:
        """The kind of adapter to train, a key of ADAPTERS; None to train the model."""
        return next((kind for kind in ADAPTERS if getattr(self, kind)), None)

    @property
    def shown(self) -> str:
        """The option that chooses the adapter, with its value."""
        return f"{self.kind} {getattr(self, self.kind)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the options that have an effect, by name, defaults included."""
        names = (self.kind, *ADAPTERS[self.kind]) if self.kind else ()
        return {name: getattr(self, name) for name in names}

    @property
    def without_effect(self) -> dict[str, str]:
        """Returns options that have no effect, each with the option that it would need."""
        return {name: kind for kind, names in ADAPTERS.items() if kind != self.kind for name in names}


@dataclass
class FinetuneTrainingArguments(TrainingArguments):
    """PaddleNLP's TrainingArguments and what GLM's example adds to them."""

    loss_func: str = option(
        "cross_entropy",
        "What is learnt of candidates: cross_entropy over them, hinge, generative (log p of the right one), or mix: "
        "the sum of the first and the third; adapet also pushes the wrong words down.",
        choices=list(LOSSES),
    )
    label_smoothing: float = option(0.1, "e: the loss spreads e / V over the vocabulary.")
    lr_scheduler_type: str = option("linear", "Shape of the learning rate after the warmup.", choices=list(SHAPES))
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
    early_stopping_patience: int | None = option(
        None, "End after this many evaluations in which metric_for_best_model did not improve."
    )
    dry_run: bool = option(
        False, "Show three examples, lengths, memory, steps and the time of a few measured steps; train nothing."
    )
    group_by_length: bool = option(False, "Make batches of examples of similar length.")
    max_tokens: int | None = option(
        None, "Most tokens of a device's batch, padding included, in place of per_device_train_batch_size."
    )
    required_batch_size_multiple: int | None = option(
        None, "Batches of examples of similar length have fewer examples than this, or a multiple of it; 8 in fairseq."
    )
    update_freq: int | None = option(
        None, "Batches per optimizer step: gradient_accumulation_steps by its fairseq name."
    )
    resume_with_changes: bool = option(
        False, "Resume from a checkpoint although data or settings have changed since; its manifest notes the changes."
    )
    packing: bool = option(False, "Short examples of a batch share a row without seeing each other.")
    pad_to_multiple_of: int = option(8, "Rows of a batch are padded to a multiple of this, so that shapes repeat.")
    optim: str = option("adamw", f"Optimizer: {', '.join(OPTIMIZERS)}.")
    fp16_opt_level: str = option(
        "O1", "AMP level of --fp16 and --bf16; O2 keeps weights in half precision too.", choices=["O1", "O2"]
    )
    recompute_layers: int | None = option(
        None, "Number of layers, from the first on, that --recompute applies to; all if unset."
    )
    release_grads: bool | None = option(
        None, "Free gradients after each step; they need not be set to zero then [true; false with sharding stage2]."
    )

    HIDDEN = HIDDEN
    BASE_TITLE = "PaddleNLP's Trainer"

    def __post_init__(self):
        parallel = ("tensor_parallel_degree", "sharding_parallel_degree")
        asked = {name: getattr(self, name) for name in parallel}
        raise_any([*out_of_range(vars(self), RANGES, also=NOT_SET), *self._refused(), *self._clashes()])
        self._take_update_freq()
        self._choose_release()
        tools = self._tools()
        self.report_to = [tool for tool in tools if tool == "visualdl"]  # PaddleNLP's own
        self.trackers = [tool for tool in tools if tool != "visualdl"]
        if self.early_stopping_patience is not None and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        self.device = choose_device(self.device)
        self._choose_precision()
        self._init_base()
        for name, degree in asked.items():
            if degree > 1 and getattr(self, name) != degree:  # the base class ignores the degree in a single process
                raise UsageError(
                    f"{name} {degree}: needs {degree} processes; start with python -m paddle.distributed.launch"
                )
        self.tensor_parallel_degree = max(self.tensor_parallel_degree, 1)
        if self.lr_decay_ratio is None:
            self.lr_decay_ratio = 0.1 if self.lr_scheduler_type in DECAYING else 1.0

    def _choose_precision(self) -> None:
        """Sets what a CPU does with --fp16 and --bf16, whose automatic mixed precision is a GPU's."""
        self.trains_in_bfloat16 = False  # the products of linear layers on a CPU
        if self.device != "cpu" or not (self.fp16 or self.bf16):
            return
        if self.fp16:
            logger.warning("fp16: a CPU computes in float32, so this run does")
        elif self.tensor_parallel_degree > 1:
            logger.warning("bf16: a CPU computes layers that are split over processes in float32, so this run does")
        elif not multiplies_bfloat16():
            logger.warning("bf16: this CPU has no products in bfloat16 (AVX512_BF16, AMX), so this run is in float32")
        else:
            self.trains_in_bfloat16 = True
            for name, off in OF_HALF_PRECISION.items():
                if getattr(self, name) != off:
                    logger.warning(f"{name} {getattr(self, name)}: is for a GPU, so this run goes without")
        self.fp16 = self.bf16 = False

    def _tools(self) -> list[str]:
        """Returns the tools of `--report_to`; VisualDL if none is given."""
        given = ["visualdl"] if self.report_to is None else self.report_to
        words = [given] if isinstance(given, str) else given
        names = [name.strip() for word in words for name in str(word).split(",")]
        if "all" in names:
            names = [tool for tool, package in TRACKERS.items() if find_spec(package) is not None]
        return [name for name in dict.fromkeys(names) if name != "none"]

    def _refused(self) -> list[str]:
        """Returns unsupported options that were set, one line each."""
        found = []
        for item in dataclasses.fields(TrainingArguments):
            if item.name in HIDDEN and hasattr(self, item.name):
                value = getattr(self, item.name)
                if value != item.default and value not in OFF.get(item.name, ()):
                    reason = REASONS.get(item.name, "has no effect in this program; leave it out")
                    found.append(f"{item.name} {value}: {reason}")
        return found

    def _clashes(self) -> list[str]:
        """Returns options that exclude each other, one line each."""
        kinds = (self._parallel_clashes, self._precision_clashes, self._schedule_clashes, self._saving_clashes)
        return [line for kind in kinds for line in kind()]

    def _parallel_clashes(self) -> Iterator[str]:
        processes, degree = distributed.get_world_size(), max(self.tensor_parallel_degree, 1)
        if processes > 1 and processes % degree:
            yield f"tensor_parallel_degree {degree}: does not divide the {processes} processes"
        kinds = str(self.sharding).split()
        for kind in kinds:
            if kind in ("stage3", "offload"):
                yield f"sharding {self.sharding}: {kind} is not supported; use stage1 or stage2"
            elif kind not in SHARDING:
                yield f"sharding {self.sharding}: use {' or '.join(SHARDING)}"
        if "split_param" in str(self.sharding_parallel_config):
            yield (
                f"sharding_parallel_config {self.sharding_parallel_config}: split_param is not supported; leave it out"
            )
        elif self.sharding_parallel_config and not kinds:
            yield f"sharding_parallel_config {self.sharding_parallel_config}: has no effect without --sharding"
        if self.release_grads and "stage2" in kinds:
            yield f"release_grads True: has no effect with sharding {self.sharding}; leave it out"
        if kinds and set(kinds) <= set(SHARDING) and processes == 1 and self.sharding_parallel_degree <= 1:
            yield f"sharding {self.sharding}: needs several processes; start with python -m paddle.distributed.launch"

    def _choose_release(self):
        if self.release_grads is None:
            self.release_grads = "stage2" not in str(self.sharding).split()  # stage 2 has gradient storage of its own

    def _take_update_freq(self):
        if self.update_freq is not None:
            self.gradient_accumulation_steps = self.update_freq

    def _precision_clashes(self) -> Iterator[str]:
        if self.update_freq is not None and self.gradient_accumulation_steps not in (1, self.update_freq):
            yield (
                f"update_freq {self.update_freq}: is gradient_accumulation_steps by another name, and that is "
                f"{self.gradient_accumulation_steps}; leave one out"
            )
        if self.recompute_layers is not None and not self.recompute:
            yield f"recompute_layers {self.recompute_layers}: has no effect without --recompute"
        for name, off in OF_HALF_PRECISION.items():
            if getattr(self, name) != off and not (self.fp16 or self.bf16):
                yield f"{name} {getattr(self, name)}: has no effect without --fp16 or --bf16"
        if self.optim not in OPTIMIZERS:
            yield f"optim {self.optim}: use {', '.join(OPTIMIZERS[:-1])} or {OPTIMIZERS[-1]}"
        if self.fp16 and self.bf16:
            yield "fp16 True: has no effect beside bf16 True; choose one"

    def _schedule_clashes(self) -> Iterator[str]:
        shape = self.lr_scheduler_type
        if self.power != 1.0 and shape != "polynomial":
            yield f"power {self.power}: has no effect with lr_scheduler_type {shape}"
        if shape == "inverse_sqrt" and not (self.warmup_steps or self.warmup_ratio):
            yield "lr_scheduler_type inverse_sqrt: falls from the end of a warmup; add warmup_steps or warmup_ratio"
        if self.lr_decay_ratio is not None and shape not in DECAYING:
            yield (
                f"lr_decay_ratio {self.lr_decay_ratio}: has no effect with lr_scheduler_type {shape}; "
                f"leave it out or use {' or '.join(DECAYING)}"
            )

    def _saving_clashes(self) -> Iterator[str]:
        """Checks before PaddleNLP does, whose messages are longer."""
        evaluates = self.eval_steps is not None or _word(self.evaluation_strategy) != "no"
        if self.early_stopping_patience is not None and not (self.do_train and evaluates):
            yield (
                f"early_stopping_patience {self.early_stopping_patience}: needs evaluations while it trains; add "
                "--do_eval with --eval_steps N, or --evaluation_strategy epoch"
            )
        if self.dry_run and not self.do_train:
            yield "dry_run True: has no effect without --do_train"
        if self.dry_run and distributed.get_world_size() > 1:
            yield "dry_run True: is for one process; leave the launcher out"
        for tool in self._tools():
            if tool not in TRACKERS:
                yield f"report_to {tool}: use {', '.join(TRACKERS)} or none, several separated by commas"
            elif find_spec(TRACKERS[tool]) is None:
                missing = f"{TRACKERS[tool]} is not installed; pip install it as requirements-trackers.txt has it"
                yield f"report_to {tool}: {missing}"
        if self.load_best_model_at_end and self.save_strategy != self.evaluation_strategy and not self.eval_steps:
            yield (
                f"load_best_model_at_end True: save_strategy {_word(self.save_strategy)} and evaluation_strategy "
                f"{_word(self.evaluation_strategy)} have to be the same; set both to epoch, or to steps"
            )

    def _init_base(self):
        """Evaluates only at the end for --do_eval without eval_steps, where PaddleNLP evaluates at every log line."""
        at_end = self.do_eval and self.eval_steps is None and self.evaluation_strategy == IntervalStrategy.NO.value
        self.do_eval = self.do_eval and not at_end
        shape, self.lr_scheduler_type = self.lr_scheduler_type, "linear"  # PaddleNLP does not know all shapes
        self.logs_a_share = self.logging_steps is None
        if self.logs_a_share:
            self.logging_steps = MOST_LOGGING_STEPS
        if self.logging_dir is None:  # PaddleNLP's default contains the machine's name
            self.logging_dir = str(Path(self.output_dir) / "runs" / datetime.now().strftime("%b%d_%H-%M-%S"))
        if self.device == "cpu" and distributed.get_world_size() > 1:
            gloo.install()
        super().__post_init__()  # this creates the process groups
        self.lr_scheduler_type = shape
        self.do_eval = self.do_eval or at_end

    def to_json_string(self) -> str:
        """Returns all options for a log that may be published."""
        return published(super().to_json_string())

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Returns all options as parameters for such a log."""
        return published_values(super().to_sanitized_dict())


@dataclass(frozen=True)
class FinetuneArguments:
    """All arguments of `finetune_generation.py`.

    Args:
        given: options that were set, by name.
        values: the values of all options as they were read, by name.
        typed: the names of those that stand on the command line.
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
    typed: set[str]
    argv: list[str]

    @property
    def first_file(self) -> NamedFile:
        """The first file that the run reads: for training, else for evaluation, else for prediction."""
        asked = {"train": self.training.do_train, "dev": self.training.do_eval, "test": self.training.do_predict}
        return self.files.of_split(next(split for split in SPLITS if asked[split]))[0]

    def data_of(self, file: NamedFile) -> DataArguments:
        """Returns the options for a file's records; the file's name chooses the task if the options do not."""
        named = (file.name in TEMPLATES or file.name in TASKS) and not {"task_name", "template"} & set(self.given)
        return dataclasses.replace(self.data, task_name=file.name) if named else self.data

    def task_of(self, file: NamedFile) -> str:
        """Returns the name of a file's task: the file's own, else that of the options."""
        return file.name or ("task" if self.data.template is not None else self.data.task_name)

    @property
    def tasks(self) -> list[str]:
        """Tasks that adapters are trained for: those of the training files."""
        return [self.task_of(file) for file in self.files.of_split("train")]

    def run_config(self) -> dict[str, Any]:
        """Returns the effective configuration, defaults included: a configuration file that repeats the run."""
        once = {"overwrite_output_dir", "resume_from_checkpoint", "resume_with_changes"}  # concern this run only
        left_out = once | self._without_effect()
        kept = {name: value for name, value in self.values.items() if value is not None and name not in left_out}
        if "template" in kept:
            kept["template"] = parts_text(kept["template"])
        return published_config(kept)

    def _without_effect(self) -> set[str]:
        """Returns defaults that would be refused if they were set beside the other options."""
        names = {"per_device_train_batch_size"} if self.training.max_tokens is not None else set()
        files = [file for split in SPLITS for file in self.files.of_split(split)]
        if any(self.data_of(file) is not self.data for file in files):  # the files' names choose the tasks
            names.add("task_name")
        names |= {"src_length"} if self.data.max_seq_length is not None else set()
        kind = self.data.known_kind
        names |= {*WITHOUT_MEANING.get(kind, ()), *WITHOUT_LEARNING.get(kind, ())}
        if self.data.classification_head is not None:
            names |= {"loss_func", "multi_token", "unidirectional", "candidate_length_penalty"}
        return names | set(self.adapter.without_effect)


def parse_finetune_arguments(argv: list[str]) -> FinetuneArguments:
    """Parses the arguments of `finetune_generation.py`: `[config.json] [--option value ...]`.

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
    parser = OptionParser(groups, "Fine-tunes a GLM to generate text, and evaluates it.", elsewhere=of_prediction())
    reading = parser.read(argv)
    let_the_file_give_way(reading, parser.defaults)
    built = parser.build(reading)
    if not reading.errors:
        arguments = FinetuneArguments(*built, reading.given, vars(reading.values), reading.typed, argv)
        reading.errors += [*_clashes(arguments), *_task_clashes(arguments), *adapter_clashes(arguments)]
    raise_any(reading.errors)
    return arguments


def of_prediction() -> tuple[set[str], str]:
    """Maps options that only prediction has to the script that has them."""
    from glm.options.predict import PredictArguments

    return {item.name for item in dataclasses.fields(PredictArguments)}, "predict.py"


def _word(strategy: Any) -> str:
    return getattr(strategy, "value", strategy)


def let_the_file_give_way(reading: Reading, defaults: dict[str, Any]) -> None:
    """Drops settings of the file that the command line excludes."""

    def switched_off(name: str) -> bool:
        return name in reading.typed and not getattr(reading.values, name)

    def give_way(name: str, other: str) -> None:
        if name in defaults and other in defaults:  # both are options of this program
            reading.give_way(name, other, defaults[name])

    for action, names in OF_ACTIONS.items():
        for name in names if action in defaults and switched_off(action) else ():
            give_way(name, action)
    for kind, names in ADAPTERS.items():
        for name in names if switched_off(kind) else ():
            give_way(name, kind)
    for one, other in GIVES_WAY:
        give_way(one, other)


def _clashes(arguments: FinetuneArguments) -> Iterator[str]:
    """Returns options of different groups that exclude each other, one line each."""
    files, training, given = arguments.files, arguments.training, arguments.given
    if not (training.do_train or training.do_eval or training.do_predict):
        yield "nothing to do: add --do_train, --do_eval or --do_predict"
    for name, action in (("train_file", "do_train"), ("dev_file", "do_eval"), ("test_file", "do_predict")):
        if getattr(files, name) is not None and not getattr(training, action):
            yield f"{name} {getattr(files, name)}: has no effect without --{action}"
    if training.resume_from_checkpoint is not None and not training.do_train:
        yield (
            f"resume_from_checkpoint {training.resume_from_checkpoint}: has no effect without --do_train; to evaluate "
            "a checkpoint give its folder as --model_name_or_path"
        )
    # A published data set replaces no missing file of the user's: it is used only if no file is given, or by name.
    evaluates = training.do_eval or training.evaluation_strategy != IntervalStrategy.NO
    if training.do_train and files.train_file is not None and evaluates and files.dev_file is None:
        yield "do_eval True: needs --dev_file beside a --train_file of your own; give one, or leave it out"
    if training.do_train and files.train_file is None and files.dev_file and "task_name" not in given:
        yield (
            f"dev_file {files.dev_file}: needs --train_file beside it; give one, or name the data set to train on "
            f"(--task_name {arguments.data.task_name})"
        )
    if training.do_train and "eval_steps" in given and not evaluates:
        yield f"eval_steps {training.eval_steps}: has no effect without --do_eval"
    if training.do_predict and files.test_file is None:
        yield "do_predict True: give the records with --test_file"
    for name in ("weights", "sampling_temperature"):
        for other in ("max_tokens", "required_batch_size_multiple"):
            if getattr(files, name) is not None and getattr(training, other) is not None:
                yield (
                    f"{name} {getattr(files, name)}: not beside {other} {getattr(training, other)}, with which an "
                    "epoch's batches depend on what is drawn; use per_device_train_batch_size"
                )
    if training.max_tokens is not None and "per_device_train_batch_size" in given:
        yield (
            f"max_tokens {training.max_tokens}: has no effect beside per_device_train_batch_size "
            f"{training.per_device_train_batch_size}; leave one out"
        )


def _task_clashes(arguments: FinetuneArguments) -> Iterator[str]:
    """Returns options without meaning for the task of a run."""
    given, training = arguments.given, arguments.training
    kind = arguments.data.known_kind
    yield from meaningless(kind, given)
    for name in WITHOUT_LEARNING.get(kind, ()):
        if given.get(name):
            yield f"{name} {given[name]}: has no effect on a task of kind {kind}; leave it out"
    if arguments.data.classification_head is not None:
        if "loss_func" in given:
            yield f"loss_func {given['loss_func']}: has no effect beside classification_head; leave it out"
        if arguments.adapter.kind is not None:
            yield f"{arguments.adapter.shown}: not beside classification_head; leave one of them out"
    if kind == CHOOSE and training.tensor_parallel_degree > 1 and training.do_train:
        degree = training.tensor_parallel_degree
        yield f"tensor_parallel_degree {degree}: not for training on a task of kind {kind}; leave it out"


def adapter_clashes(arguments: Any) -> Iterator[str]:
    """Returns options that exclude a run's adapter, one line each."""
    adapter, training, kind = arguments.adapter, arguments.training, arguments.adapter.kind
    for name, needed in adapter.without_effect.items():
        if name in arguments.given:
            yield f"{name} {arguments.given[name]}: has no effect without --{needed}"
    if kind is None:
        return
    if training.tensor_parallel_degree > 1 and adapter.prefix_tuning:
        degree = training.tensor_parallel_degree
        yield f"{adapter.shown}: not beside tensor_parallel_degree {degree}; leave one of them out"
    if not training.do_train:
        yield f"{adapter.shown}: has no effect without --do_train; an adapter's folder is used as it is"
    if arguments.model.model_name_or_path.endswith(".json"):
        yield (
            f"{adapter.shown}: model_name_or_path {arguments.model.model_name_or_path} starts from random weights, "
            "which nothing would save; give a trained model"
        )
    for name in ("freeze", "layerwise_lr_decay"):
        if adapter.prefix_tuning and name in arguments.given:
            yield f"{name} {arguments.given[name]}: has no effect with --prefix_tuning; leave it out"
