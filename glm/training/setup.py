"""From arguments to a trainer: everything that can fail, fails here, before the first step."""

import shutil
from pathlib import Path

from paddlenlp.trainer import set_seed
from paddlenlp.trainer.trainer_utils import get_last_checkpoint

from glm.arguments import DataArguments, FinetuneArguments
from glm.checkpoint.loading import load_config, load_model, load_tokenizer
from glm.data.published import fetch_records
from glm.data.records import Record, read_records
from glm.errors import InputError
from glm.prediction import build_encoder, check_positions
from glm.training.trainer import METRICS_NAME, WEIGHTS_NAME, GLMTrainer

CHECKPOINTS = "checkpoint-*"


def build_trainer(arguments: FinetuneArguments) -> tuple[GLMTrainer, list[Record]]:
    """Reads and checks the data, then loads the model.

    Returns:
        The trainer, and the records to predict (none without --do_predict).

    Raises:
        InputError: anything the user gave cannot be used.
    """
    data, training = arguments.data, arguments.training
    if training.tensor_parallel_degree > 1:
        raise InputError(
            f"tensor_parallel_degree {training.tensor_parallel_degree}: splitting the model is not finished in this "
            "version; leave it out"
        )
    tokenizer = load_tokenizer(arguments.model.tokenizer_name_or_path or arguments.model.model_name_or_path)
    config = load_config(
        arguments.model.model_name_or_path,
        tokenizer,
        settings={**arguments.model.dropout, "tensor_parallel_degree": training.tensor_parallel_degree},
    )
    check_positions(config, data, arguments.generation)
    encoder = build_encoder(tokenizer, data, arguments.generation)
    train_records = _records(data, "train", data.train_file) if training.do_train else []
    dev_records = _records(data, "dev", data.dev_file) if training.do_eval else []
    test_records = read_records(data.test_file, need_question=False) if training.do_predict else []
    train_examples = [encoder.example(record) for record in train_records]
    for record in dev_records + test_records:
        encoder.source_ids(record)  # a record that cannot be laid out is an error now, not after hours

    set_seed(seed=training.seed)
    trainer = GLMTrainer(
        load_model(arguments.model.model_name_or_path, config),
        training,
        encoder=encoder,
        generation=arguments.generation,
        train_examples=train_examples,
        dev_records=dev_records,
        run_config=arguments.run_config(),
    )
    return trainer, test_records


def _records(data: DataArguments, split: str, file: str | None) -> list[Record]:
    """The records of a file, or of the task's published data set if none is given."""
    return fetch_records(data.task_name, split) if file is None else read_records(file)


def find_checkpoint(wish: str | None, output_dir: str) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` means: a folder, or `true` for the newest in `output_dir`.

    Raises:
        InputError: there is no such checkpoint.
    """
    if wish is None:
        return None
    if wish.lower() == "true":
        newest = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
        if newest is None:
            raise InputError(f"resume_from_checkpoint {wish}: no checkpoint in {output_dir}")
        return newest
    if not (Path(wish) / WEIGHTS_NAME).is_file():
        raise InputError(f"resume_from_checkpoint {wish}: no checkpoint there ({WEIGHTS_NAME} is missing)")
    return wish


def check_output_folder(output_dir: str, *, overwrite: bool, resumes: bool) -> None:
    """Refuses to write over what an earlier run left.

    Raises:
        InputError: the folder holds something, and the run neither overwrites nor resumes it.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {output_dir}: is a file")
    if not overwrite and not resumes and folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"output_dir {output_dir}: is not empty; choose another, or add --overwrite_output_dir or "
            "--resume_from_checkpoint true"
        )


def clear_earlier_run(output_dir: str) -> None:
    """Removes an earlier run's checkpoints and log (`--overwrite_output_dir`), lest they mix with the new ones."""
    folder = Path(output_dir)
    for checkpoint in folder.glob(CHECKPOINTS):
        shutil.rmtree(checkpoint)
    (folder / METRICS_NAME).unlink(missing_ok=True)
