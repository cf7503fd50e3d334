"""From arguments to a trainer: everything that can fail, fails here, before the first step."""

import shutil
from pathlib import Path

from paddlenlp.peft import LoRAConfig
from paddlenlp.trainer import set_seed

from glm.arguments import FinetuneArguments, ModelArguments
from glm.checkpoint.adapters import ADAPTER_WEIGHTS_NAME, add_lora, lora_config
from glm.checkpoint.loading import load_config, load_model, load_tokenizer
from glm.data.collator import padded_width
from glm.data.store import ExampleStore
from glm.errors import InputError, UsageError
from glm.evaluation.metrics import FIGURES, name_advice
from glm.modeling import WEIGHTS_NAME, GLMForConditionalGeneration
from glm.prediction import build_encoder, check_positions
from glm.report.files import CARD_NAME, METRICS_NAME, TRAINING_PAGE
from glm.report.model_card import is_users_own
from glm.report.provenance import command_of
from glm.training.parameters import freeze, set_layerwise_rates
from glm.training.run_data import REFUSED_NAME, REPORT_NAME, RunData, read_run_data
from glm.training.trainer import GLMTrainer

CHECKPOINTS = "checkpoint-[0-9]*"
# The Trainer writes the scheduler's state last: without it a kill cut the saving short.
CHECKPOINT_FILES = ("trainer_state.json", "optimizer.pdopt", "scheduler.pdparams")
RESULT_FILES = (
    METRICS_NAME,
    TRAINING_PAGE,
    REPORT_NAME,
    "predictions.jsonl",
    "metrics.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "trainer_state.json",
)


def build_trainer(arguments: FinetuneArguments) -> tuple[GLMTrainer, RunData]:
    """Reads and checks the data, then loads the model.

    Returns:
        The trainer, and the data it was given.

    Raises:
        InputError: anything the user gave cannot be used.
    """
    data, training = arguments.data, arguments.training
    tokenizer = load_tokenizer(arguments.model.tokenizer_name_or_path or arguments.model.model_name_or_path)
    config = load_config(
        arguments.model.model_name_or_path,
        tokenizer,
        settings={
            **arguments.dropout.given,
            "tensor_parallel_degree": training.tensor_parallel_degree,
            "tensor_parallel_rank": training.tensor_parallel_rank,
        },
    )
    check_positions(config, data, arguments.generation)
    check_metric(training.metric_for_best_model)
    encoder = build_encoder(tokenizer, data, arguments.generation, allow_cut_targets=arguments.files.allow_cut_targets)
    with training.main_process_first(desc="reading the data"):  # the others find it in the cache
        run_data = read_run_data(arguments, encoder)
    if training.max_tokens is not None and run_data.train_examples is not None:
        check_max_tokens(training.max_tokens, training.pad_to_multiple_of, run_data.train_examples)

    set_seed(seed=training.seed)
    model = load_model(arguments.model.model_name_or_path, config)
    lora = _add_adapter(model, arguments) if arguments.adapter.lora else None
    if training.freeze is not None:
        freeze(model, training.freeze, num_layers=config.num_layers)
    if training.layerwise_lr_decay is not None:
        set_layerwise_rates(model, training.layerwise_lr_decay, num_layers=config.num_layers)
    trainer = GLMTrainer(
        model,
        training,
        encoder=encoder,
        generation=arguments.generation,
        train_examples=run_data.train_examples,
        dev_records=run_data.dev_records,
        run_config=arguments.run_config(),
        command=command_of("finetune_generation.py", arguments.argv),
        lora=lora,
    )
    return trainer, run_data


def _add_adapter(model: GLMForConditionalGeneration, arguments: FinetuneArguments) -> LoRAConfig:
    options = arguments.adapter
    config = lora_config(
        arguments.model.model_name_or_path,
        targets=options.lora_targets,
        rank=options.lora_rank,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
    )
    add_lora(model, config)
    return config


def check_max_tokens(max_tokens: int, multiple: int, examples: ExampleStore) -> None:
    """Raises InputError if an example does not fit into a batch (`--max_tokens`)."""
    longest = int(examples.lengths.argmax())
    length = int(examples.lengths[longest])
    width = padded_width(length, multiple)
    if width > max_tokens:
        raise InputError(
            f"{examples.origins[longest]}: {length} tokens ({width} padded) do not fit into max_tokens {max_tokens}"
        )


def check_metric(name: str | None) -> None:
    """Raises UsageError if evaluation has no figure of this name (`--metric_for_best_model`)."""
    if name is None:
        return
    known = ["loss", *(figure for figure in FIGURES if figure != "answer leaks")]  # not every task has an answer
    if name.removeprefix("eval_") not in known:
        raise UsageError(f"metric_for_best_model {name}: unknown; {name_advice(name, known)}")


def find_checkpoint(wish: str | None, output_dir: str) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` means: a folder, or `true` for the newest in `output_dir`.

    Raises:
        InputError: there is no such checkpoint.
    """
    if wish is None:
        return None
    if wish.lower() == "true":
        whole = [folder for folder in Path(output_dir).glob(CHECKPOINTS) if not _missing_files(folder)]
        if not whole:
            raise InputError(f"resume_from_checkpoint {wish}: no checkpoint in {output_dir}")
        return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2])))
    missing = _missing_files(Path(wish))
    if missing:
        raise InputError(f"resume_from_checkpoint {wish}: not a whole checkpoint ({', '.join(missing)} missing)")
    return wish


def _missing_files(checkpoint: Path) -> list[str]:
    weights = ADAPTER_WEIGHTS_NAME if (checkpoint / ADAPTER_WEIGHTS_NAME).exists() else WEIGHTS_NAME
    return [name for name in (weights, *CHECKPOINT_FILES) if not (checkpoint / name).is_file()]


def check_output_folder(output_dir: str, *, overwrite: bool, resumes: bool) -> None:
    """Refuses to write over what an earlier run left.

    Raises:
        InputError: the folder holds something, and the run neither overwrites nor resumes it.
    """
    folder = Path(output_dir)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"output_dir {output_dir}: is a file or lies in one")
    if not overwrite and not resumes and folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"output_dir {output_dir}: is not empty; choose another, or add --overwrite_output_dir or "
            "--resume_from_checkpoint true"
        )


def check_start_is_kept(model: ModelArguments, output_dir: str) -> None:
    """Raises InputError if the model or tokenizer to start from lies in a folder that is to be overwritten."""
    for name in ("model_name_or_path", "tokenizer_name_or_path"):
        path = getattr(model, name)
        if path and Path(path).exists() and Path(path).resolve().is_relative_to(Path(output_dir).resolve()):
            raise InputError(f"{name} {path}: lies in the output_dir to be overwritten; choose another output_dir")


def clear_earlier_run(output_dir: str) -> None:
    """Removes an earlier run's checkpoints and results (`--overwrite_output_dir`), lest they mix with the new ones."""
    folder = Path(output_dir)
    for checkpoint in folder.glob(CHECKPOINTS):
        if checkpoint.is_dir() and not checkpoint.is_symlink():
            shutil.rmtree(checkpoint)
    for predictions in (folder / "eval").glob("step-*.json*"):
        predictions.unlink()
    for report in (folder / "eval").glob("step-*.report"):
        shutil.rmtree(report)
    for refused in folder.glob(REFUSED_NAME.format(split="*")):
        refused.unlink()
    if not is_users_own(folder / CARD_NAME):
        (folder / CARD_NAME).unlink(missing_ok=True)
    for name in RESULT_FILES:
        (folder / name).unlink(missing_ok=True)
