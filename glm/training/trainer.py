"""The trainer of all families, on PaddleNLP's Trainer: losses, order of data, evaluation by generation."""

import functools
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor, nn
from paddle.io import Dataset
from paddlenlp.trainer import PrinterCallback, ProgressCallback, TrainerState

from glm.adapters.files import AdapterConfig, adapter_weights, fill_adapter, read_adapter_weights, write_adapter
from glm.checkpoint.gathering import gather_whole, take_part
from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.data.collator import padded_width
from glm.data.frames import Encoder
from glm.data.records import Record
from glm.data.store import Examples
from glm.evaluation.symptoms import Symptoms
from glm.generation.config import GenerationConfig
from glm.models.protocol import Example
from glm.modules.pretrained import WEIGHTS_NAME
from glm.options.finetune import FinetuneTrainingArguments
from glm.options.run_config import RUN_CONFIG_NAME
from glm.parallel.plan import part_of_weight
from glm.prediction.heads import HEAD_NAME, of_head
from glm.prediction.kinds import predicted_rows, writer_of
from glm.report.provenance import Provenance
from glm.runtime.signals import StopSignals
from glm.training.capacity import MemoryReturn
from glm.training.clip import GlobalNormClip
from glm.training.early_stopping import EarlyStopping, stops_early
from glm.training.evaluation import SetEvaluation, figures_of, scores_of_rows, symptoms_of, write_evaluation
from glm.training.guards import Guard
from glm.training.objectives import mean_dev_loss, objective_of
from glm.training.optimizer_state import check_finite, lazy_tensors, write_tensors
from glm.training.pages import TrainingPage, write_evaluation_report
from glm.training.progress import (
    GradientNorm,
    MetricsLog,
    ProgressBar,
    logged_evaluation,
    process_memory_gib,
    shows_bar,
)
from glm.training.resumable import ResumableTrainer
from glm.training.run_data import RecordSet
from glm.training.sampler import EpochBatchSampler
from glm.training.schedule import decaying_schedule
from glm.training.trackers import Tracker

MOST_NAMED = 16  # most records of a step in a message


class TrainingSet(Dataset):
    """Encoded examples in the form that Paddle's loader takes. Randomness in an example is a function of seed, epoch
    and index, so that a resumed run, and any number of workers, draws the same.

    Args:
        sampler: knows the epoch; the loader's workers begin anew in each.
    """

    def __init__(self, examples: Examples, sampler: EpochBatchSampler, seed: int):
        super().__init__()
        self.examples, self.sampler, self.seed = examples, sampler, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self._draw(index, self.sampler.epoch)

    def _draw(self, index: int, epoch: int) -> Example:
        return self.examples.draw(index, np.random.default_rng([self.seed, epoch, index]))

    def sizes(self, indices: Sequence[int], epoch: int) -> tuple[int, int]:
        """Counts tokens and labels of these examples in an epoch."""
        if not self.examples.is_drawn:
            return int(self.examples.lengths[indices].sum()), int(self.examples.target_lengths[indices].sum())
        drawn = [self._draw(index, epoch) for index in indices]
        return sum(map(len, drawn)), sum(example.num_labels for example in drawn)


def build_sampler(args: FinetuneTrainingArguments, examples: Examples) -> EpochBatchSampler:
    """Makes the order in which a process of a run sees its examples."""
    # Fairseq's order: by source, then target.
    orders = examples.lengths - examples.target_lengths, examples.target_lengths
    return EpochBatchSampler(
        [padded_width(width, args.pad_to_multiple_of) for width in examples.widths.tolist()],
        batch_size=args.per_device_train_batch_size if args.max_tokens is None else None,
        max_tokens=args.max_tokens,
        by_length=args.group_by_length,
        accumulation=args.gradient_accumulation_steps,
        multiple=args.required_batch_size_multiple or 1,
        order_by=orders if args.required_batch_size_multiple else None,
        seed=args.seed,
        num_replicas=args.dataset_world_size,
        rank=args.dataset_rank,
        mixture=examples.mixture(args.seed),
    )


class GenerationTrainer(ResumableTrainer):
    """Trains a model and evaluates it by generating.

    Args:
        model: a model of the encoder's family.
        args: arguments of the run.
        encoder: lays out records; brings the tokenizer.
        generation: how evaluation generates.
        train_examples: what is learnt; None if the run does not train.
        dev_sets: what evaluation generates for; may be empty if the run does not evaluate.
        run_config: settings saved beside every checkpoint, for prediction and for repeating the run.
        command: the command line of the run, for its pages.
        adapter: settings of the adapter that is in the model, if one is trained.
        signals: signals that stop the run.
        facts: what the manifest of a checkpoint says of the run.
        length_penalty: length penalty for candidates, see `glm.prediction.choosing.Chooser`.
        same_command: what the run's command does when it is given again, see `glm.training.going_on`.
    """

    def __init__(
        self,
        model: nn.Layer,
        args: FinetuneTrainingArguments,
        *,
        encoder: Encoder,
        generation: GenerationConfig,
        train_examples: Examples | None = None,
        dev_sets: Sequence[RecordSet] = (),
        run_config: dict[str, Any] | None = None,
        command: str = "",
        adapter: AdapterConfig | None = None,
        signals: StopSignals | None = None,
        facts: dict[str, Any] | None = None,
        same_command: str = "the same command goes on from there",
        length_penalty: float = 0.0,
    ):
        self.train_examples = train_examples
        self.objective = objective_of(encoder, args, length_penalty=length_penalty)
        self.length_penalty = length_penalty
        sampler = build_sampler(args, train_examples) if train_examples is not None else None
        # Cached: the tokens of a pretraining sample are known only once it is drawn.
        self._sizes_of = functools.lru_cache(maxsize=2)(self._sizes_of_step)
        super().__init__(
            model=model,
            args=args,
            data_collator=self.objective.collator,
            train_dataset=TrainingSet(train_examples, sampler, args.seed) if train_examples is not None else None,
            callbacks=[MetricsLog],
            sampler=sampler,
            signals=signals,
            facts=facts,
            same_command=same_command,
        )
        self.encoder, self.generation = encoder, generation
        self.dev_sets = dev_sets
        self.run_config = run_config or {}
        self.provenance = Provenance(command, self.run_config, args.device)
        self.add_callback(TrainingPage(self.provenance))
        self.adapter = adapter
        self.signatures: dict[str, str] = {}  # signatures of the last evaluation's figures
        self.symptoms: dict[str, Symptoms] = {}  # symptoms of the last evaluation, by dev set
        self._evaluated: list[SetEvaluation] = []
        self._weights_step: int | None = None  # step of the best model, once it is loaded
        self._last_evaluation: tuple[int, dict[str, float]] | None = None  # step and figures of the present weights
        self._reset_counts()
        self.guard = Guard(self._records_of)
        self.gradient_norm = GradientNorm()
        self.trackers = [Tracker(tool, self.run_config) for tool in args.trackers]
        self._add_callbacks()

    def _reset_counts(self) -> None:
        self._num_items = 0  # labelled tokens of the present step
        self._terms: Counter[str] = Counter()  # parts of the loss, summed since the last log line
        self._term_steps = 0
        self._seen = np.zeros(2)  # examples and tokens of this process's steps, over all ranks
        self._seen_at_log = self._seen.copy()

    def _add_callbacks(self) -> None:
        for callback in (self.guard, MemoryReturn(), *self.trackers):
            self.add_callback(callback)
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))
        self.add_callback(self.gradient_norm)
        self._show_progress()

    def _show_progress(self) -> None:
        for callback in (ProgressCallback, PrinterCallback):  # PaddleNLP has added one of them
            self.remove_callback(callback)
        if not shows_bar(self.args):
            self.add_callback(PrinterCallback)
        elif self.sampler is not None:
            self.add_callback(ProgressBar(self._tokens_of, self._tokens_of_epoch() / self.sampler.steps_per_epoch))

    def _tokens_of_epoch(self) -> int:
        """Counts the tokens of the first epoch, without padding."""
        return int(self.train_examples.lengths[self.sampler.mixture.epoch(0)].sum())

    def _sizes_of_step(self, step: int) -> tuple[int, int]:
        """Counts tokens and labels of an optimizer step over all ranks."""
        epoch = step // self.sampler.steps_per_epoch
        return self.train_dataset.sizes(self.sampler.step_examples(step), epoch)

    def _tokens_of(self, step: int) -> int:
        """Counts the tokens of an optimizer step over all ranks, without padding."""
        return self._sizes_of(step)[0]

    def _records_of(self, step: int) -> str:
        """Says where the examples of an optimizer step come from."""
        origins = [self.train_examples.origins[index] for index in self.sampler.step_examples(step)]
        more = f" and {len(origins) - MOST_NAMED} more" if len(origins) > MOST_NAMED else ""
        return "; ".join(origins[:MOST_NAMED]) + more

    def print_config(self, args=None, key=""):
        """Prints nothing: PaddleNLP prints some 200 lines; the settings are in finetune_config.json."""

    @property
    def dev_records(self) -> list[Record]:
        """Returns the records of all dev sets."""
        return [record for found in self.dev_sets for record in found.records]

    @property
    def writer(self) -> Any:
        """Makes a predictor with the present weights, see `glm.prediction.kinds`."""
        return self.writer_for(self.encoder)

    def writer_for(self, encoder: Encoder) -> Any:
        """Makes a predictor with the present weights for records laid out by this encoder."""
        return writer_of(
            self.model,
            encoder,
            self.generation,
            self.args.per_device_eval_batch_size,
            length_penalty=self.length_penalty,
            punctuation=self.run_config.get("punctuation"),
        )

    # -- objective

    def compute_loss(self, model, inputs, return_outputs=False, num_items: int | None = None):
        """Computes the loss of a batch.

        Args:
            num_items: labelled tokens that the sum over the batch is divided by; its own if None.
        """
        loss = self.objective.loss(model, inputs, num_items)
        return (loss, loss) if return_outputs else loss

    def loss_and_gradient(self, model, inputs, step_control: int) -> Tensor:
        """Adds the gradient of a batch's share of the mean over all labelled tokens of the optimizer step, so that
        accumulated or distributed batches give what one large batch would; PaddleNLP takes the mean of their means."""
        if step_control == 0:
            if hasattr(self.model, "begin_update"):
                self.model.begin_update(self.state.global_step)
            tokens, self._num_items = self._sizes_of(self.state.global_step)
            self._seen += (len(self.sampler.step_examples(self.state.global_step)), tokens)
        model.train()
        with self.autocast_smart_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items=self._num_items)
        self._terms.update({name: float(value) for name, value in getattr(self.model, "terms", {}).items()})
        self._term_steps += step_control == 0
        if self.args.dataset_world_size > 1:  # gradients are averaged over the ranks
            loss = loss * self.args.dataset_world_size
        (self.scaler.scale(loss) if self.do_grad_scaling else loss).backward()
        return loss.detach()

    def place_of(self, example: int) -> str:
        try:
            origin = self.train_examples.origins[example]
        except (OSError, ValueError, IndexError):  # as damaged as the example itself
            origin = f"example {example}"
        return f"{origin} (in the cache, {self.train_examples.folder_of(example)})"

    def out_of_memory(self, inputs: dict[str, Tensor]) -> str:
        rows, width = inputs["input_ids"].shape
        ways = {
            "--recompute": self.args.recompute,
            "--gradient_accumulation_steps N with a per_device_train_batch_size N times smaller": rows == 1,
            "--max_tokens": self.args.max_tokens is not None,
            "a smaller --src_length": False,
            "--lora": self.adapter is not None,
        }
        lengths = self.train_examples.lengths[self.sampler.step_examples(self.state.global_step)].tolist()
        return (
            f"out of memory with a batch of {rows} rows of {width} tokens (examples of the step have {lengths}); "
            f"cheapest first: {', '.join(way for way, is_used in ways.items() if not is_used)}"
        )

    def _check_loss_valid(self, loss):
        if not self.args.fp16:  # fp16's scaler skips such steps
            self.guard.check_loss(loss.item(), self.state.global_step)

    def has_stopped_early(self, state: TrainerState) -> bool:
        patience = self.args.early_stopping_patience
        return patience is not None and stops_early(self.args, state.log_history, patience)

    def create_optimizer(self, lr_scheduler=None):
        optimizer = super().create_optimizer(lr_scheduler)
        if self.args.max_grad_norm > 0:
            optimizer._grad_clip = GlobalNormClip(self.args.max_grad_norm)
        return optimizer

    def create_scheduler(self, num_training_steps: int):
        if self.lr_scheduler is None:
            self.lr_scheduler = decaying_schedule(
                self.args.learning_rate,
                warmup_steps=self.args.warmup_steps or self._share_of_warmup(num_training_steps),
                total_steps=num_training_steps,
                shape=self.args.lr_scheduler_type,
                decay_ratio=self.args.lr_decay_ratio,
                power=self.args.power,
            )
        return self.lr_scheduler

    def _share_of_warmup(self, num_training_steps: int) -> int:
        """Returns the warmup steps of a share; at least one if the share is above 0."""
        share = self.args.warmup_ratio
        return max(1, int(share * num_training_steps)) if share else 0

    def log(self, logs: dict[str, float], **kwargs) -> None:
        """Logs; adds to each loss the gradient norm, the memory, and speeds from the real sizes of batches, where
        PaddleNLP assumes equal ones."""
        for prefix, since in (("interval", self._seen_at_log), ("train", np.zeros(2))):
            if f"{prefix}_runtime" in logs:
                seconds = max(logs[f"{prefix}_runtime"], 1e-9)
                for unit, number in zip(("samples", "tokens"), self._seen - since, strict=True):
                    logs[f"{prefix}_{unit}_per_second"] = round(float(number) / seconds, 3)
        if "interval_runtime" in logs:
            self._seen_at_log = self._seen.copy()
            logs["memory_gib"] = round(process_memory_gib(), 3)
            if self.gradient_norm.value is not None:
                logs["gradient_norm"] = round(self.gradient_norm.value, 6)
            if self._terms:
                logs |= {name: round(value, 6) for name, value in self._figures_of_terms().items()}
                self._terms.clear()
        history = self.state.log_history  # evaluations, for `EarlyStopping`; PaddleNLP empties it
        if any(name.startswith("eval_") for name in logs):
            history = [*history, {**logs, "step": self.state.global_step}]
        super().log(logs, **kwargs)
        self.state.log_history = history

    def _figures_of_terms(self) -> dict[str, float]:
        """Returns the logged figures of the loss's terms: as the model defines them, else their means over optimizer
        steps."""
        if hasattr(self.model, "figures_of"):
            return self.model.figures_of(self._terms)
        return {name: value / max(self._term_steps, 1) for name, value in self._terms.items()}

    # -- order of data, checkpoints

    def _get_train_sampler(self) -> EpochBatchSampler:
        return self.sampler

    def weights(self) -> dict[str, Tensor]:
        return adapter_weights(self.model) if self.adapter is not None else self.model.state_dict()

    def write_model(self, folder: Path, weights: dict[str, LazyTensor]) -> None:
        if self.adapter is None:
            head = of_head(weights)
            write_tensors(folder / WEIGHTS_NAME, {name: weights[name] for name in weights if name not in head})
            if head:
                write_tensors(folder / HEAD_NAME, head)
        else:
            check_finite(weights)
            write_adapter({name: weight.load() for name, weight in weights.items()}, self.adapter, folder)
        self.model.config.architectures = [type(self.model).__name__]  # PaddleNLP's AutoModel finds the class by it
        self.model.config.save_pretrained(str(folder))
        self.encoder.family.save_tokenizer(self.encoder.tokenizer, folder)
        text = json.dumps(self.run_config, ensure_ascii=False, indent=2)
        (folder / RUN_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str | None = None):
        if resume_from_checkpoint is None:
            return
        if self.adapter is not None:
            self._fill_adapter(Path(resume_from_checkpoint))
        else:
            saved = self._take_share(read_safetensors(Path(resume_from_checkpoint) / WEIGHTS_NAME))
            if (head := Path(resume_from_checkpoint) / HEAD_NAME).is_file():
                saved |= read_safetensors(head)
            for name, weight in self.weights().items():
                weight.set_value(saved[name].load())

    def _fill_adapter(self, folder: Path) -> None:
        plan, saved = self.encoder.family.weights.plan, read_adapter_weights(folder)
        ranks = {"degree": self.args.tensor_parallel_degree, "rank": self.args.tensor_parallel_rank}
        fill_adapter(
            self.model, {name: part_of_weight(plan, name, whole, **ranks) for name, whole in saved.items()}, folder
        )

    def _gather(self, tensors: dict[str, Tensor]) -> dict[str, LazyTensor]:
        degree, rank = self.args.tensor_parallel_degree, self.args.tensor_parallel_rank
        return lazy_tensors(gather_whole(self.encoder.family.weights.plan, tensors, degree=degree, rank=rank))

    def _take_share(self, tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
        degree, rank = self.args.tensor_parallel_degree, self.args.tensor_parallel_rank
        return take_part(self.encoder.family.weights.plan, tensors, degree=degree, rank=rank)

    def on_best_loaded(self, step: int) -> None:
        super().on_best_loaded(step)
        self._weights_step, self._last_evaluation = step, None

    # -- evaluation

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Predicts and scores the dev records with the options of the run, and computes the loss on their targets.

        The predictions are written to `<output_dir>/eval/step-<n>.jsonl`, the scores with their signatures and by
        source length to `step-<n>.metrics.json` beside it, a page of both to `step-<n>.report/report.html`. Of several
        dev sets each has its own, `step-<n>.<set>.…`, and the table of all is `step-<n>.metrics.json`.

        Returns:
            `<prefix>_loss` (mean per token, without label smoothing; per question of a task that chooses) and
            `<prefix>_<metric>`, metrics in percent; of several dev sets also `<prefix>_<set>/<metric>`, and those
            without a set are the means.
        """
        start = time.perf_counter()
        self.model.eval()
        step = self._weights_step or self.state.global_step
        with self.interruptible(), self.autocast_smart_context_manager():
            figures, records = self.measure(step)
        seconds = time.perf_counter() - start
        metrics = figures | {"samples_per_second": round(records / seconds, 3), "runtime": round(seconds, 3)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics | {"step": step})
        if self.is_world_process_zero():
            self.report_evaluation(step)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._last_evaluation = (self.state.global_step, metrics)
        return metrics

    def measure(self, step: int) -> tuple[dict[str, float], int]:
        """Returns the figures of the present weights, and the number of records."""
        self._evaluated = [self._evaluate_set(dev_set) for dev_set in self.dev_sets]
        found, output_dir = self._evaluated, Path(self.args.output_dir)
        self.symptoms = {of_set.name: symptoms_of(of_set.rows) for of_set in found}
        self.signatures = found[0].scores.signatures if found else {}
        if self.is_world_process_zero():
            write_evaluation(output_dir, step, found, most_texts=self.generation.num_return_sequences)
        return figures_of(found), len(self.dev_records)

    def report_evaluation(self, step: int) -> None:
        """Writes the pages of what `measure` found, after its figures were logged."""
        write_evaluation_report(Path(self.args.output_dir), step, self._evaluated, self.provenance)

    def final_evaluation(self) -> dict[str, float]:
        """Evaluates the final weights, unless the last step of training did so, in this process or in one that was
        stopped right after it."""
        step = self.state.global_step
        if self._last_evaluation and self._last_evaluation[0] == step:
            return self._last_evaluation[1]
        is_last = self.args.do_train and self._weights_step is None
        if is_last and (metrics := logged_evaluation(Path(self.args.output_dir), step)):
            return metrics
        return self.evaluate()

    def _evaluate_set(self, dev_set: RecordSet) -> SetEvaluation:
        """Computes loss, predictions and their scores on one dev set."""
        encoder, size = dev_set.encoder, self.args.per_device_eval_batch_size
        objective = objective_of(encoder, self.args, length_penalty=self.length_penalty)
        loss = mean_dev_loss(objective, self.model, dev_set.records, size)
        rows = predicted_rows(
            self.writer_for(encoder),
            encoder.kind,
            dev_set.records,
            description=f"evaluating {dev_set.name}".strip(),
            progress=not self.args.disable_tqdm and self.is_local_process_zero(),
        )
        scores = scores_of_rows(rows, encoder, task=self.run_config.get("task_name"))
        return SetEvaluation(dev_set.name, encoder.kind, loss, rows, scores)
