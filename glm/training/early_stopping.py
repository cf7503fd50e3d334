"""Stops a run whose evaluations no longer improve (`--early_stopping_patience`)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from paddlenlp.trainer import TrainerCallback, TrainingArguments
from paddlenlp.utils.log import logger


def evaluations_since_best(log: Iterable[Mapping[str, Any]], figure: str, *, greater_is_better: bool) -> int:
    """Counts the evaluations since the best one; 0 if the last one is the best, or there is none.

    Args:
        log: what the Trainer has logged, in its order; a step that was evaluated twice counts once.
        figure: its name in the log, such as `eval_loss`.
    """
    values = {row["step"]: row[figure] for row in log if figure in row}
    sign = 1 if greater_is_better else -1
    best, since = -math.inf, 0
    for value in values.values():
        is_better = math.isfinite(value) and sign * value > best
        best, since = (sign * value, 0) if is_better else (best, since + 1)
    return since


def stops_early(args: TrainingArguments, log: Iterable[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last `patience` evaluations brought no improvement."""
    figure = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
    return evaluations_since_best(log, figure, greater_is_better=bool(args.greater_is_better)) >= patience


class EarlyStopping(TrainerCallback):
    """Stops after a number of evaluations without improvement.

    It is a function of the log, which checkpoints keep: a run that was interrupted stops where it would have.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_evaluate(self, args, state, control, **kwargs):
        if stops_early(args, state.log_history, self.patience) and state.global_step < state.max_steps:
            if not control.should_training_stop:
                figure, patience = args.metric_for_best_model, self.patience
                logger.info(
                    f"early stopping at step {state.global_step}: {figure} no better in {patience} evaluations"
                )
            control.should_training_stop = True
