"""PaddleNLP's Trainer for GLM: its loss, its order of data, evaluation by generation, checkpoints in safetensors."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle.io import Dataset
from paddlenlp.trainer import Trainer, TrainerCallback, TrainerState
from paddlenlp.trainer.trainer import TRAINER_STATE_NAME
from paddlenlp.trainer.trainer_utils import TrainOutput
from paddlenlp.utils.log import logger
from safetensors import SafetensorError
from safetensors.numpy import load_file

from glm.arguments import GLMTrainingArguments
from glm.blank_infilling import IGNORE_INDEX, Example
from glm.data.collator import Collator
from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.modeling import WEIGHTS_NAME, GLMForConditionalGeneration
from glm.prediction import Writer, predict, score_predictions, write_predictions, write_scores
from glm.report.files import METRICS_NAME
from glm.report.provenance import Provenance
from glm.run_config import RUN_CONFIG_NAME
from glm.training.pages import TrainingPage, write_evaluation_report
from glm.training.sampler import EpochBatchSampler
from glm.training.schedule import decaying_schedule


class Examples(Dataset):
    """Encoded examples as Paddle's loader wants them."""

    def __init__(self, examples: Sequence[Example]):
        super().__init__()
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


class MetricsLog(TrainerCallback):
    """Appends all that the Trainer logs to `metrics.jsonl` in the output folder."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with (Path(args.output_dir) / METRICS_NAME).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}, ensure_ascii=False) + "\n")


class GLMTrainer(Trainer):
    """Trains a GLM and evaluates it by generating.

    Args:
        model: the GLM.
        args: arguments of the run.
        encoder: lays out records; brings the tokenizer.
        generation: how evaluation generates.
        train_examples: what is learnt; may be empty if the run does not train.
        dev_records: what evaluation generates for; may be empty if the run does not evaluate.
        run_config: settings saved beside every checkpoint, for prediction and for repeating the run.
        command: the command line of the run, for its pages.
    """

    def __init__(
        self,
        model: GLMForConditionalGeneration,
        args: GLMTrainingArguments,
        *,
        encoder: ExampleEncoder,
        generation: GenerationConfig,
        train_examples: Sequence[Example] = (),
        dev_records: Sequence[Record] = (),
        run_config: dict[str, Any] | None = None,
        command: str = "",
    ):
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(encoder.geometry, pad_token_id=encoder.tokenizer.pad_token_id),
            train_dataset=Examples(train_examples),
            tokenizer=encoder.tokenizer,
            callbacks=[MetricsLog],
        )
        self.encoder = encoder
        self.generation = generation
        self.dev_records = dev_records
        self.run_config = run_config or {}
        self.provenance = Provenance(command, self.run_config, args.device)
        self.add_callback(TrainingPage(self.provenance))
        self._restore_from: str | None = None  # a checkpoint whose random state the next step starts with
        self._weights_step: int | None = None  # of the best model, once it is loaded
        self._last_evaluation: tuple[int, dict[str, float]] | None = None  # step and figures of the present weights

    def print_config(self, args=None, key=""):
        """PaddleNLP prints some 200 lines here; the settings of the run are in finetune_config.json."""

    @property
    def writer(self) -> Writer:
        """Generates with the present weights."""
        return Writer(self.model, self.encoder, self.generation, self.args.per_device_eval_batch_size)

    # -- objective

    def compute_loss(self, model, inputs, return_outputs=False):
        loss = model(**inputs, label_smoothing=self.args.label_smoothing)
        return (loss, loss) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int):
        if self.args.lr_decay_ratio is None:  # a schedule that does not decay to a share of its peak
            return super().create_scheduler(num_training_steps)
        if self.lr_scheduler is None:
            self.lr_scheduler = decaying_schedule(
                self.args.learning_rate,
                warmup_steps=self.args.warmup_steps or int(self.args.warmup_ratio * num_training_steps),
                total_steps=num_training_steps,
                decay_ratio=self.args.lr_decay_ratio,
                shape=self.args.lr_scheduler_type.value,
            )
        return self.lr_scheduler

    # -- order of data, resuming

    def _get_train_sampler(self) -> EpochBatchSampler:
        return EpochBatchSampler(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            seed=self.args.seed,
            num_replicas=self.args.dataset_world_size,
            rank=self.args.dataset_rank,
        )

    def train(self, resume_from_checkpoint: str | None = None, ignore_keys_for_eval=None):
        """Trains, from the start or on from a checkpoint folder.

        Raises:
            InputError: the checkpoint folder has no weights.
        """
        if resume_from_checkpoint is not None:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            if state.global_step >= self._total_steps():  # PaddleNLP would take one step more
                logger.info(f"{resume_from_checkpoint} is the end of the run: nothing is left to train")
                self._load_from_checkpoint(resume_from_checkpoint)
                self.state = state
                self._load_best_if_wanted()
                return TrainOutput(state.global_step, 0.0, {})
        self._restore_from = resume_from_checkpoint
        # PaddleNLP looks for the best model's weights in pickled form only, so this is done here.
        load_best, self.args.load_best_model_at_end = self.args.load_best_model_at_end, False
        try:
            output = super().train(resume_from_checkpoint, ignore_keys_for_eval)
        finally:
            self.args.load_best_model_at_end = load_best
        self._load_best_if_wanted()
        return output

    def _load_best_if_wanted(self) -> None:
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_from_checkpoint(self.state.best_model_checkpoint)
            self._weights_step = int(self.state.best_model_checkpoint.rpartition("-")[2])
            self._last_evaluation = None

    def _total_steps(self) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        per_epoch = max(len(self._get_train_sampler()) // self.args.gradient_accumulation_steps, 1)
        return int(per_epoch * self.args.num_train_epochs)

    def training_step(self, model, inputs, step_control=0):
        if self._restore_from:
            # PaddleNLP restores the random state only if it skipped batches, not at an epoch's first step.
            self._load_rng_state(self._restore_from)
            self._restore_from = None
        return super().training_step(model, inputs, step_control)

    # -- checkpoints

    def _save_checkpoint(self, model, metrics=None):
        super()._save_checkpoint(model, metrics)
        if self.args.local_rank == -1:  # PaddleNLP keeps to save_total_limit in distributed runs only
            self._rotate_checkpoints(output_dir=self.args.output_dir)

    def _save(self, output_dir: str | None = None, state_dict=None, merge_tensor_parallel: bool = False):
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(
            str(folder), safe_serialization=True, max_shard_size="1024GB", is_main_process=self.args.should_save
        )
        if self.args.should_save:
            self.tokenizer.save_pretrained(str(folder))
            text = json.dumps(self.run_config, ensure_ascii=False, indent=2)
            (folder / RUN_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None = None):
        if resume_from_checkpoint is None:
            return
        weights = Path(resume_from_checkpoint) / WEIGHTS_NAME
        if not weights.is_file():
            raise InputError(f"checkpoint {resume_from_checkpoint}: there is no {WEIGHTS_NAME} in it")
        try:
            self.model.set_state_dict(load_file(weights))
        except SafetensorError as error:
            raise InputError(f"{weights}: cannot be read ({error})") from error

    # -- evaluation

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Generates for the dev records with the options of the run, and scores it; also the loss on their questions.

        The predictions are written to `<output_dir>/eval/step-<n>.jsonl`, the scores with their signatures and by
        source length to `step-<n>.metrics.json` beside it, a page of both to `step-<n>.report/report.html`.

        Returns:
            `<prefix>_loss` (mean per token, without label smoothing) and `<prefix>_<metric>`, metrics in percent.
        """
        start = time.perf_counter()
        self.model.eval()
        with self.autocast_smart_context_manager():
            loss = self._dev_loss()
            predictions = predict(
                self.writer.with_all_beams(),
                self.dev_records,
                description="evaluating",
                progress=not self.args.disable_tqdm and self.is_local_process_zero(),
            )
        seconds = time.perf_counter() - start
        scores = score_predictions(predictions)
        step = self._weights_step or self.state.global_step
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir) / "eval"
            most = self.generation.num_return_sequences
            write_predictions(folder / f"step-{step}.jsonl", predictions, most_texts=most)
            write_scores(folder / f"step-{step}.metrics.json", scores)
        metrics = {"loss": loss, **scores.figures}
        metrics |= {"samples_per_second": round(len(predictions) / seconds, 3), "runtime": round(seconds, 3)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics | {"step": step})
        if self.is_world_process_zero():
            write_evaluation_report(Path(self.args.output_dir), step, predictions, scores, self.provenance)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._last_evaluation = (self.state.global_step, metrics)
        return metrics

    def final_evaluation(self) -> dict[str, float]:
        """`evaluate` of the final weights, not run again if the last step of training has done so."""
        if self._last_evaluation and self._last_evaluation[0] == self.state.global_step:
            return self._last_evaluation[1]
        return self.evaluate()

    @paddle.no_grad()
    def _dev_loss(self) -> float:
        """Mean loss per labelled token of the dev records."""
        examples = sorted((self.encoder.example(record) for record in self.dev_records), key=_total_length)
        size = self.args.per_device_eval_batch_size
        total, tokens = 0.0, 0
        for start in range(0, len(examples), size):
            batch = self.data_collator(examples[start : start + size])
            count = int((batch["labels"] != IGNORE_INDEX).sum())
            total += count * float(self.model(**{name: paddle.to_tensor(table) for name, table in batch.items()}))
            tokens += count
        return total / tokens


def _total_length(example: Example) -> int:
    return len(example.source_ids) + len(example.target_ids)
