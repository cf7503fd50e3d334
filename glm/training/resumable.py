"""PaddleNLP's Trainer with exact resuming: however a run ended, the same command continues as if it had not.

A checkpoint has what the next step depends on: weights, the optimizer's tensors, and some numbers. The order of data
and the random state are functions of seed and step, so they are not saved. Nothing in it is a pickle.
"""

import dataclasses
import json
import math
import re
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.io import DataLoader
from paddlenlp.trainer import IntervalStrategy, Trainer, TrainerCallback, TrainerState
from paddlenlp.trainer.trainer import TRAINER_STATE_NAME
from paddlenlp.trainer.trainer_utils import TrainOutput
from paddlenlp.utils.log import logger
from pydantic import Field

from glm.adapters.files import ADAPTER_FILES
from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError, Stopped
from glm.options.finetune import LOGS_A_RUN, MOST_LOGGING_STEPS
from glm.parallel.ranks import anywhere, on_main
from glm.report.curves import read_log
from glm.report.files import METRICS_NAME
from glm.runtime.atomic import put_files, write_whole
from glm.runtime.paths import found_path, published
from glm.runtime.settings_file import Settings, checked, read_object, read_settings
from glm.runtime.signals import StopSignals
from glm.runtime.workers import end_with_run
from glm.training import checkpoints
from glm.training.loading_errors import Examples, check_batch, guarded
from glm.training.optimizer_state import lazy_tensors, load_named_state, named_state, write_tensors
from glm.training.parameters import has_idle_parts
from glm.training.randomness import seed_step
from glm.training.sampler import EpochBatchSampler

OPTIMIZER_NAME = "optimizer.safetensors"
RUN_STATE_NAME = "run_state.json"


class RunState(Settings):
    """`run_state.json`: what the next step depends on beside tensors."""

    scheduler_step: Annotated[int, Field(ge=0)]
    scaler: dict[str, Any] | None
    loss_since_log: float
    logged_step: Annotated[int, Field(ge=0)]
    logged_loss: float
    evaluation_due: bool


class SavedTrainerState(Settings):
    """PaddleNLP's `trainer_state.json`."""

    best_metric: float | None
    best_model_checkpoint: Annotated[str, Field(max_length=4096)] | None
    consumed_samples: Annotated[int, Field(ge=0)]
    epoch: Annotated[float, Field(ge=0)] | None
    global_step: Annotated[int, Field(ge=0)]
    is_local_process_zero: bool
    is_world_process_zero: bool
    log_history: list[dict[str, Any]]
    max_steps: int
    num_train_epochs: float
    total_flos: float
    trial_name: str | None
    trial_params: dict[str, Any] | None


class ResumableTrainer(Trainer):
    """Saves, resumes and stops a run; subclasses define what is learnt and evaluated.

    Args:
        sampler: the order of data; None if the run does not train.
        signals: signals that stop the run.
        facts: what a checkpoint's manifest says of the run.
        same_command: what the run's command does when it is given again after a checkpoint, for messages.
    """

    def __init__(
        self,
        *args,
        sampler: EpochBatchSampler | None,
        signals: StopSignals | None = None,
        facts: dict[str, Any] | None = None,
        same_command: str = "the same command goes on from there",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.same_command = same_command
        self.sampler = sampler
        self.signals = signals or StopSignals()
        self.facts = facts or {}
        self._saved_step: int | None = None  # step of the newest checkpoint of this process
        # The run's state from the checkpoint, until the first step takes it over.
        self._resumed: dict[str, Any] | None = None
        self._loss_since_log = paddle.zeros([])
        self._carried_loss: float | None = None  # share of the logged loss from steps before the checkpoint
        self._evaluation_due = False  # whether the run was stopped before the evaluation of the present step
        self.is_stopping = 0  # the signal that all ranks agreed on
        self.add_callback(_Flow(self))

    # -- for subclasses

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Returns the tensors to save, trained ones and those that belong to them, by name, as this process has
        them."""

    @abstractmethod
    def write_model(self, folder: Path, weights: dict[str, LazyTensor]) -> None:
        """Writes a model that can be loaded: whole tensors, from the main process."""

    @abstractmethod
    def loss_and_gradient(self, model, inputs, step_control: int) -> Tensor:
        """Returns the loss of a batch [], and adds its gradient to that of the step."""

    @abstractmethod
    def place_of(self, example: int) -> str:
        """Says where a training example is from, for messages; never raises."""

    def has_stopped_early(self, state: TrainerState) -> bool:
        """Whether the run with this state had stopped before its last step."""
        return False

    @abstractmethod
    def out_of_memory(self, inputs: dict[str, Tensor]) -> str:
        """Says what to do about a batch that did not fit into memory."""

    def _gather(self, tensors: dict[str, Tensor]) -> dict[str, LazyTensor]:
        """Gathers whole tensors by name; called by all processes, written by the main one. A single process has them
        already."""
        return lazy_tensors(tensors)

    def _take_share(self, tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
        """Returns this process's part of whole tensors. A single process takes all."""
        return tensors

    # -- the run

    def train(self, resume_from_checkpoint: str | None = None, ignore_keys_for_eval=None) -> TrainOutput:
        """Trains, from the start or from a checkpoint folder that was verified.

        Raises:
            InputError: the checkpoint does not fit the run, or the run cannot go on.
            Stopped: a signal came; a checkpoint of the step that was finished is there.
        """
        if self.args.logs_a_share:
            self.args.logging_steps = min(max(1, self.total_steps() // LOGS_A_RUN), MOST_LOGGING_STEPS)
        with self.signals.deferred():
            if resume_from_checkpoint is not None:
                state = self._read_state(Path(resume_from_checkpoint))
                if state.global_step >= self.total_steps() or self.has_stopped_early(state):
                    # PaddleNLP would make one more step.
                    return self._end_at_once(resume_from_checkpoint, state)
            # PaddleNLP looks only for a pickled best model, and would fetch the data that resuming skips.
            load_best, self.args.load_best_model_at_end = self.args.load_best_model_at_end, False
            self.args.ignore_data_skip = True
            try:
                output = super().train(resume_from_checkpoint, ignore_keys_for_eval)
            except (SystemError, OSError) as error:
                _check_workers_live(error)
                raise
            finally:
                self.args.load_best_model_at_end = load_best
            self._load_best_if_wanted()
            return output

    def keep_progress(self) -> str:
        """Saves a checkpoint of the last step, unless there is one or other weights have been loaded since.

        Returns:
            What is there, and what the same command does with it.
        """
        if self.state.global_step and self.state.global_step != self._saved_step and not self.is_in_train:
            with self.signals.deferred():
                self._save_checkpoint(self.model)
        return self._what_is_saved()

    def _what_is_saved(self) -> str:
        if self._saved_step is None:
            return "stopped before there was anything to save"
        folder = checkpoints.folder_of(Path(self.args.output_dir), self._saved_step)
        return f"stopped: {folder} is saved, and {self.same_command}"

    def _read_state(self, checkpoint: Path) -> TrainerState:
        """Reads the run's state from a checkpoint, and moves to its place in the data."""
        self._resumed = read_settings(checkpoint / RUN_STATE_NAME, RunState).model_dump()
        self._evaluation_due = self._resumed["evaluation_due"]
        path = checkpoint / TRAINER_STATE_NAME
        checked(read_object(path), SavedTrainerState, path)  # before PaddleNLP reads it
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self._saved_step = state.global_step
        self.sampler.start = state.global_step % self.sampler.steps_per_epoch * self.sampler.rounds_per_step
        return state

    def _end_at_once(self, checkpoint: str, state: TrainerState) -> TrainOutput:
        logger.info(f"{checkpoint} is the end of the run: nothing is left to train")
        self._load_from_checkpoint(checkpoint)
        self.state = state
        self.evaluate_if_due()
        on_main(self._rotate)  # it may have been killed between its last checkpoint and this
        loss = (self._resumed["logged_loss"] + self._resumed["loss_since_log"]) / state.global_step
        metrics = {"train_loss": loss}
        self.log(metrics)
        self._load_best_if_wanted()
        return TrainOutput(state.global_step, loss, metrics)

    def total_steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        return int(self.sampler.steps_per_epoch * self.args.num_train_epochs)

    def training_step(self, model, inputs, step_control=0) -> Tensor:
        check_batch(inputs)
        try:
            loss = self.loss_and_gradient(model, inputs, step_control)
        except (MemoryError, OSError) as error:  # MemoryError is Paddle's, OSError NumPy's
            if "MemoryError" not in f"{type(error).__name__}: {error}":
                raise
            raise InputError(f"step {self.state.global_step + 1}: {self.out_of_memory(inputs)}") from error
        carried, self._carried_loss = self._carried_loss, None
        return loss if carried is None else loss + carried

    def begin_step(self) -> None:
        """Seeds the step; the first one after a checkpoint also takes over the log's partial sums."""
        args = self.args
        seed_step(
            args.seed,
            self.state.global_step,
            data_rank=args.dataset_rank,
            tensor_rank=max(args.tensor_parallel_rank, 0),
        )
        if not args.release_grads and not args.sharding and has_idle_parts(self.model):
            # A gradient of zeros that is left would move weights that no example of this step reaches, but not in a
            # run that goes on from here.
            self.optimizer.clear_grad(set_to_zero=False)
        if self._resumed is not None:
            self._carried_loss = self._resumed["loss_since_log"]
            self._globalstep_last_logged = self._resumed["logged_step"]
            self._total_loss_scalar = self._resumed["logged_loss"]
            self._resumed = None

    def _maybe_log_save_evaluate(self, tr_loss, model, *args, **kwargs):
        self._loss_since_log = tr_loss
        try:
            super()._maybe_log_save_evaluate(tr_loss, model, *args, **kwargs)
        except Stopped as stopped:  # during evaluation
            self.is_stopping, self._evaluation_due = stopped.number, True
            self._save_checkpoint(model)
        if self.is_stopping and self._saved_step == self.state.global_step:
            raise Stopped(self.is_stopping, self._what_is_saved())

    def interruptible(self) -> AbstractContextManager:
        """Lets a signal end a block at once. With several ranks it does not, because they have to stop together."""
        return nullcontext() if self.args.world_size > 1 else self.signals.at_once()

    def evaluate_if_due(self) -> None:
        """Evaluates the step before which the run was stopped, if its evaluation is missing."""
        if self._evaluation_due:
            self._evaluation_due = False
            self._note_best(self.evaluate())

    # -- saving

    def _save_checkpoint(self, model, metrics=None):
        output_dir, step = Path(self.args.output_dir), self.state.global_step
        self._note_best(metrics)
        weights = self._gather(self.weights())
        optimizer = self._gather(named_state(self.model, self.optimizer))

        def write(folder: Path) -> None:
            self.write_model(folder, weights)
            write_tensors(folder / OPTIMIZER_NAME, optimizer)
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            (folder / RUN_STATE_NAME).write_text(json.dumps(self._run_state(), indent=2) + "\n", encoding="utf-8")

        def save() -> None:
            try:
                checkpoints.write_checkpoint(output_dir, step, write, self.facts)
            except InputError as error:
                raise InputError(f"{error}; earlier checkpoints are untouched, and {self.same_command}") from error
            self._rotate()

        on_main(save)
        self._saved_step = step

    def _rotate(self) -> None:
        folder = Path(self.args.output_dir)
        checkpoints.rotate(folder, limit=self.args.save_total_limit, best=self._best_name())

    def save_model(self, output_dir: str | None = None, merge_tensor_parallel: bool = False) -> None:
        """Writes the whole model into a folder: each file under a temporary name, then renamed.

        An adapter of a run that is overwritten goes: it would be taken for this one's.
        """
        weights, folder = self._gather(self.weights()), Path(output_dir or self.args.output_dir)

        def save() -> None:
            with put_files(folder) as aside:
                self.write_model(aside, weights)
                written = {path.name for path in aside.iterdir()}
            for name in ADAPTER_FILES:
                if name not in written:
                    (folder / name).unlink(missing_ok=True)

        on_main(save)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Writes `<split>_results.json` and extends `all_results.json`, atomically; PaddleNLP may leave half a file,
        which it cannot read."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        write_whole(folder / f"{split}_results.json", json.dumps(metrics, indent=4, sort_keys=True))
        if combined:
            path = folder / "all_results.json"
            write_whole(path, json.dumps({**_results(path), **metrics}, indent=4, sort_keys=True))

    def save_state(self) -> None:
        """Writes the final `trainer_state.json` with the whole log; PaddleNLP drops entries that it printed."""
        if self.is_world_process_zero():
            state = dataclasses.replace(self.state, log_history=read_log(Path(self.args.output_dir) / METRICS_NAME))
            text = json.dumps(dataclasses.asdict(state), indent=2, sort_keys=True)
            write_whole(Path(self.args.output_dir) / TRAINER_STATE_NAME, text + "\n")

    def _run_state(self) -> dict[str, Any]:
        """Returns what the next step depends on beside tensors; JSON keeps all digits of floats."""
        return {
            "scheduler_step": self.lr_scheduler.last_epoch,
            "scaler": _plain(self.scaler.state_dict()) if self.do_grad_scaling else None,
            "loss_since_log": float(self._loss_since_log),
            "logged_step": self._globalstep_last_logged,
            "logged_loss": self._total_loss_scalar,
            "evaluation_due": self._evaluation_due,
        }

    def expected_sizes(self) -> dict[str, int]:
        """Returns the bytes of a checkpoint and of the model in it, and how many checkpoints the run will write."""
        model = sum(self._whole_size(weight) * weight.element_size() for weight in self.weights().values())
        trained = sum(self._whole_size(weight) for weight in self.model.parameters() if not weight.stop_gradient)
        # Two moments; with O2 also float32 weights.
        of_optimizer = trained * 4 * (3 if self.args.fp16_opt_level == "O2" else 2)
        steps, strategy = self.total_steps(), self.args.save_strategy
        if strategy == IntervalStrategy.NO:
            saves = 0
        elif strategy == IntervalStrategy.EPOCH:
            saves = -(-steps // self.sampler.steps_per_epoch)
        else:
            saves = steps // self.args.save_steps
        return {"checkpoint_bytes": model + of_optimizer, "model_bytes": model, "saves": saves}

    def _whole_size(self, weight: Tensor) -> int:
        """Counts the numbers of a weight over all processes that hold a part of it."""
        return weight.size * (self.args.tensor_parallel_degree if weight.is_distributed else 1)

    def _note_best(self, metrics: dict[str, float] | None) -> None:
        """Notes the present step if its figure is the best so far; NaN never is."""
        wanted = self.args.metric_for_best_model
        if metrics is None or wanted is None:
            return
        value = metrics[f"eval_{wanted.removeprefix('eval_')}"]
        best, sign = self.state.best_metric, 1 if self.args.greater_is_better else -1
        if math.isfinite(value) and (best is None or sign * value > sign * best):
            self.state.best_metric = value
            folder = checkpoints.folder_of(Path(self.args.output_dir), self.state.global_step)
            self.state.best_model_checkpoint = published(str(folder))

    def _best_name(self) -> str | None:
        best = self.state.best_model_checkpoint
        return Path(best).name if best else None

    # -- loading

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tensors = self._take_share(read_safetensors(Path(checkpoint) / OPTIMIZER_NAME))
        # The learning rate follows from the step: after a change of settings the saved one must not be used.
        self.lr_scheduler.step(self._resumed["scheduler_step"])
        load_named_state(
            self.model,
            self.optimizer,
            tensors,
            self.lr_scheduler.state_dict(),
            sharding_rank=self.args.sharding_parallel_rank,
        )
        if self.do_grad_scaling:
            self.scaler.load_state_dict(self._resumed["scaler"])

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        loader.worker_init_fn = end_with_run
        loader.dataset, loader.collate_fn = Examples(loader.dataset, self.place_of), guarded(loader.collate_fn)
        return loader

    def _load_rng_state(self, checkpoint) -> None:
        """Does nothing: no random state is saved, see `glm.training.randomness`."""

    def _load_best_if_wanted(self) -> None:
        name = self._best_name()
        if self.args.load_best_model_at_end and name is not None:
            folder = Path(self.args.output_dir) / name
            if not folder.is_dir():  # the run was resumed from another folder's checkpoint
                folder = Path(found_path(self.state.best_model_checkpoint))
            on_main(lambda: checkpoints.verify(folder))
            self._load_from_checkpoint(str(folder))
            self.on_best_loaded(checkpoints.step_of(folder))

    def on_best_loaded(self, step: int) -> None:
        """Called when the best weights, from this step, have replaced the last ones."""
        self._saved_step = self.state.global_step  # these weights may only be saved as those of their own step


class _Flow(TrainerCallback):
    """Controls what happens when: stops after a step, and does what is due at an epoch's last step once, at the
    epoch's end."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer
        self.due = (False, False, False)

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.evaluate_if_due()

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.begin_step()

    def on_step_end(self, args, state, control, **kwargs):
        steps = self.trainer.sampler.steps_per_epoch
        state.epoch = state.global_step / steps  # after resuming, PaddleNLP counts the epoch's batches from 0
        self.trainer.is_stopping = anywhere(self.trainer.signals.number)
        if state.global_step % steps:
            self._stop_if_wanted(control)
        else:
            self.due = (control.should_log, control.should_evaluate, control.should_save)
            control.should_log = control.should_evaluate = control.should_save = False

    def on_epoch_end(self, args, state, control, **kwargs):
        log, evaluate, save = self.due
        self.due = (False, False, False)
        control.should_log |= log
        control.should_evaluate |= evaluate
        control.should_save |= save
        self._stop_if_wanted(control)

    def _stop_if_wanted(self, control) -> None:
        if self.trainer.is_stopping:
            control.should_save = True
            if control.should_evaluate:
                self.trainer._evaluation_due, control.should_evaluate = True, False


def _results(path: Path) -> dict[str, Any]:
    """Reads the results in a file; none if it is missing or incomplete."""
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except InputError as error:
        logger.warning(f"{error}; it is written anew")
        return {}


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Converts a state of numbers and arrays to JSON's types."""
    return {name: np.asarray(value).tolist() for name, value in state.items()}


def _check_workers_live(error: Exception) -> None:
    """Raises InputError if an error is what Paddle raises when a worker dies, wherever the program is at that moment.

    It is a SystemError; where Python's part of a backward is what it interrupts, Paddle makes an OSError of that.
    """
    if told := re.search(r"DataLoader process .*", str(error)):
        raise InputError(f"a worker of the data loader died: {told[0]}") from error
    if isinstance(error, SystemError):  # the death was noticed only when no batch came
        raise InputError(f"the data loader failed, as when a worker died: {error}") from error
