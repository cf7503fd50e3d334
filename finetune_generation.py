"""Fine-tunes a GLM to generate text, evaluates it with beam search, and predicts.

python finetune_generation.py configs/demo.json
python finetune_generation.py configs/demo.json --learning_rate 1e-3
python finetune_generation.py --model_name_or_path THUDM/glm-large-chinese --do_train --do_eval --output_dir runs/qg
"""

import sys
from pathlib import Path

from glm.arguments import parse_finetune_arguments
from glm.device import prepare
from glm.entry import INCOMPLETE, run
from glm.evaluation.metrics import FIGURES, signatures
from glm.evaluation.table import print_scores
from glm.prediction import predict, score_predictions, write_predictions, write_scores
from glm.training.pages import describe_model
from glm.training.setup import (
    build_trainer,
    check_output_folder,
    check_start_is_kept,
    clear_earlier_run,
    find_checkpoint,
)


def main(argv: list[str]) -> int:
    """Parse, build, train, evaluate, predict."""
    arguments = parse_finetune_arguments(argv)
    training = arguments.training
    prepare(training.device)
    checkpoint = find_checkpoint(training.resume_from_checkpoint, training.output_dir)
    check_output_folder(training.output_dir, overwrite=training.overwrite_output_dir, resumes=checkpoint is not None)
    if training.overwrite_output_dir:
        check_start_is_kept(arguments.model, training.output_dir)
    trainer, data = build_trainer(arguments)
    output_dir = Path(training.output_dir)

    if trainer.is_world_process_zero():
        if training.do_train and training.overwrite_output_dir and checkpoint is None:
            clear_earlier_run(training.output_dir)
        data.write(output_dir)
    if training.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    metrics: dict[str, float] = {}
    if training.do_eval:
        metrics = trainer.final_evaluation()
        trainer.save_metrics("eval", metrics)
        names = {f"eval_{name}": signature for name, signature in signatures(FIGURES).items()}
        print_scores(metrics, names, title="evaluation on the dev records")
    if training.do_train and trainer.is_world_process_zero():
        describe_model(output_dir, trainer.provenance, metrics, data.reports)
    if training.do_predict:
        predictions = predict(trainer.writer, data.test_records)
        if trainer.is_world_process_zero():
            write_predictions(output_dir / "predictions.jsonl", predictions)
        answered = [prediction for prediction in predictions if prediction.error is None]
        if all(prediction.record.target is not None for prediction in answered):
            counts = {"records": len(answered), "failed records": len(predictions) - len(answered)}
            scores = score_predictions(answered).with_figures(counts)
            if trainer.is_world_process_zero():
                write_scores(output_dir / "metrics.json", scores)
            print_scores(scores.figures, scores.signatures, title="prediction of the test records")
        if len(answered) < len(predictions):
            return INCOMPLETE
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
