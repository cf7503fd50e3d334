"""Fine-tunes a GLM to generate text, evaluates it with beam search, and predicts.

python finetune_generation.py configs/demo.json
python finetune_generation.py configs/demo.json --learning_rate 1e-3
python finetune_generation.py --model_name_or_path THUDM/glm-large-chinese --do_train --do_eval --output_dir runs/qg
"""

import sys
from pathlib import Path

from glm.errors import Stopped
from glm.evaluation.data_sets import figures_by_set
from glm.evaluation.metrics import FIGURES, signatures
from glm.evaluation.table import print_scores, print_sets
from glm.options.finetune import parse_finetune_arguments
from glm.parallel.ranks import on_main
from glm.prediction.predictions import write_predictions
from glm.prediction.scoring import score_predictions, write_set_scores
from glm.prediction.writer import predict
from glm.runtime.device import prepare
from glm.runtime.entry import INCOMPLETE, run
from glm.runtime.signals import StopSignals
from glm.runtime.watchdog import watching
from glm.training.checkpoints import Checkpoint
from glm.training.pages import describe_model
from glm.training.run_data import RecordSet, RunData
from glm.training.run_folder import write_done
from glm.training.setup import begin_run, build_trainer, opened_run
from glm.training.trainer import GenerationTrainer


def main(argv: list[str]) -> int:
    """Parse, open the run's folder, build, run, say that it is done."""
    arguments = parse_finetune_arguments(argv)
    prepare(arguments.training.device)
    signals = StopSignals()
    with signals.heard(), watching(), opened_run(arguments) as checkpoint:
        trainer, data = build_trainer(arguments, checkpoint=checkpoint, signals=signals)
        on_main(lambda: begin_run(trainer, data, checkpoint))
        try:
            code = train_evaluate_predict(trainer, data, checkpoint)
        except Stopped:
            trainer.keep_progress()
            raise
        facts = {"exit_code": code, "global_step": trainer.state.global_step}
        on_main(lambda: write_done(Path(arguments.training.output_dir), facts))
        return code


def train_evaluate_predict(trainer: GenerationTrainer, data: RunData, checkpoint: Checkpoint | None) -> int:
    """What the arguments ask for; returns the exit code."""
    training, output_dir = trainer.args, Path(trainer.args.output_dir)
    if training.do_train:
        result = trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
        trainer.save_model()
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    metrics: dict[str, float] = {}
    if training.do_eval:
        metrics = trainer.final_evaluation()
        trainer.save_metrics("eval", metrics)
        names = {f"eval_{name}": signature for name, signature in signatures(FIGURES).items()}
        if trainer.is_world_process_zero():
            print_evaluation(metrics, names)
    if training.do_train and trainer.is_world_process_zero():
        describe_model(output_dir, trainer.provenance, metrics, data.reports)
    if training.do_predict:
        return predict_sets(trainer, data.test_sets)
    return 0


def print_evaluation(metrics: dict[str, float], names: dict[str, str]) -> None:
    """Prints the figures of the dev records; of several sets a column each."""
    title, of_sets = "evaluation on the dev records", figures_by_set(metrics, prefix="eval_")
    if of_sets:
        print_sets(of_sets, title=title)
    else:
        print_scores(metrics, names, title=title)


def predict_sets(trainer: GenerationTrainer, sets: list[RecordSet]) -> int:
    """Predicts the test records: `predictions.jsonl` and `metrics.json`; of several sets `predictions.SET.jsonl`, and
    a table. Returns the exit code."""
    output_dir, code, scored = Path(trainer.args.output_dir), 0, {}
    for test_set in sets:
        predictions = predict(trainer.writer_for(test_set.encoder), test_set.records)
        name = f"predictions.{test_set.name}.jsonl" if len(sets) > 1 else "predictions.jsonl"
        if trainer.is_world_process_zero():
            write_predictions(output_dir / name, predictions)
        answered = [prediction for prediction in predictions if prediction.error is None]
        if all(prediction.record.target is not None for prediction in answered):
            counts = {"records": len(answered), "failed records": len(predictions) - len(answered)}
            scored[test_set.name] = score_predictions(answered).with_figures(counts)
        if len(answered) < len(predictions):
            code = INCOMPLETE
    if scored and trainer.is_world_process_zero():
        write_set_scores(output_dir / "metrics.json", scored, single=len(sets) == 1)
        if len(sets) == 1:
            (scores,) = scored.values()
            print_scores(scores.figures, scores.signatures, title="prediction of the test records")
        else:
            print_sets(
                {name: scores.figures for name, scores in scored.items()}, title="prediction of the test records"
            )
    return code


if __name__ == "__main__":
    sys.exit(run(main))
