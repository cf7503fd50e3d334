"""Fine-tunes a GLM to generate, choose or extract text, evaluates it, and predicts.

python finetune_generation.py configs/demo.json
python finetune_generation.py configs/demo.json --learning_rate 1e-3
python finetune_generation.py --model_name_or_path THUDM/glm-large-chinese --do_train --do_eval --output_dir runs/qg
"""

import sys
from pathlib import Path

from glm.errors import Stopped
from glm.evaluation.table import print_scores
from glm.options.finetune import parse_finetune_arguments
from glm.parallel.ranks import on_main
from glm.prediction.kinds import KINDS, predicted_rows
from glm.prediction.predictions import write_rows
from glm.prediction.scoring import write_scores
from glm.runtime.device import prepare
from glm.runtime.entry import INCOMPLETE, run
from glm.runtime.signals import StopSignals
from glm.runtime.watchdog import watching
from glm.training.checkpoints import Checkpoint
from glm.training.pages import describe_model
from glm.training.run_data import RunData
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
        names = {f"eval_{name}": signature for name, signature in trainer.signatures.items()}
        if trainer.is_world_process_zero():
            print_scores(metrics, names, title="evaluation on the dev records")
    if training.do_train and trainer.is_world_process_zero():
        describe_model(output_dir, trainer.provenance, metrics, data.reports, trainer.signatures)
    if training.do_predict:
        return predict_test(trainer, data, output_dir)
    return 0


def predict_test(trainer: GenerationTrainer, data: RunData, output_dir: Path) -> int:
    """Predicts the test records, and scores them where all say what is right; returns the exit code."""
    kind, is_main = KINDS[trainer.encoder.kind], trainer.is_world_process_zero()
    rows = predicted_rows(trainer.writer, trainer.encoder.kind, data.test_records)
    if is_main:
        write_rows(output_dir / "predictions.jsonl", rows, most_texts=trainer.generation.num_return_sequences)
    answered = [row for row in rows if "error" not in row]
    if answered and all(kind.reference in row for row in answered):
        counts = {"records": len(answered), "failed records": len(rows) - len(answered)}
        scores = kind.score(answered).with_figures(counts)
        if is_main:
            write_scores(output_dir / "metrics.json", scores)
            print_scores(scores.figures, scores.signatures, title="prediction of the test records")
    return INCOMPLETE if len(answered) < len(rows) else 0


if __name__ == "__main__":
    sys.exit(run(main))
