"""`python -m glm pretrain`: pretrains a model on running text, from scratch or from an existing model.

python -m glm pretrain configs/pretrain.json --train_data texts.jsonl
python -m glm pretrain --model_name_or_path THUDM/glm-large-chinese --train_data a=a.txt b=b.jsonl --output_dir runs/p
"""

from pathlib import Path

from glm.errors import Stopped
from glm.evaluation.data_sets import figures_by_set
from glm.evaluation.symptoms import loss_symptom
from glm.evaluation.table import print_scores, print_sets, print_warnings
from glm.options.pretrain import parse_pretrain_arguments
from glm.parallel.ranks import on_main
from glm.report.curves import read_log
from glm.report.files import METRICS_NAME
from glm.runtime.device import prepare
from glm.runtime.signals import StopSignals
from glm.runtime.watchdog import watching
from glm.training.checkpoints import Checkpoint
from glm.training.dry_run import show_samples_dry_run
from glm.training.going_on import after_a_loss
from glm.training.pages import describe_model
from glm.training.pretraining import PretrainData, PretrainingTrainer, build_pretraining_trainer
from glm.training.run_folder import write_done
from glm.training.setup import begin_run, opened_run

UNIT = "nats per predicted token"


def main(argv: list[str]) -> int:
    """Parses, opens the run's folder, builds, trains, and says that it is done."""
    arguments = parse_pretrain_arguments(argv)
    prepare(arguments.training.device)
    signals = StopSignals()
    with signals.heard(), watching(after_a_loss(arguments)), opened_run(arguments) as checkpoint:
        trainer, data = build_pretraining_trainer(arguments, checkpoint=checkpoint, signals=signals)
        if arguments.training.dry_run:
            show_samples_dry_run(trainer, data.reports)
            return 0
        on_main(lambda: begin_run(trainer, data.run_data, checkpoint))
        try:
            pretrain(trainer, data, checkpoint)
        except Stopped as stopped:
            raise Stopped(stopped.number, trainer.keep_progress()) from stopped
        for tracker in trainer.trackers:
            tracker.close()
        facts = {"exit_code": 0, "global_step": trainer.state.global_step}
        on_main(lambda: write_done(Path(arguments.training.output_dir), facts))
        return 0


def pretrain(trainer: PretrainingTrainer, data: PretrainData, checkpoint: Checkpoint | None) -> None:
    """Trains and saves the model, evaluates it on the held-out texts, and writes its model card."""
    output_dir = Path(trainer.args.output_dir)
    result = trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    metrics: dict[str, float] = {}
    if trainer.args.do_eval:
        metrics = trainer.final_evaluation()
        trainer.save_metrics("eval", metrics)
        trainer.save_state()  # the log has the evaluation now
    if trainer.is_world_process_zero():
        if metrics:
            print_losses(metrics)
        symptom = loss_symptom(read_log(output_dir / METRICS_NAME), learning_rate=trainer.args.learning_rate)
        warnings = [symptom] if symptom else []
        units = {name.removeprefix("eval_"): UNIT for name in metrics if "loss" in name}
        describe_model(output_dir, trainer.provenance, metrics, data.reports, units, warnings)
        print_warnings(warnings)


def print_losses(metrics: dict[str, float]) -> None:
    """Prints the losses on the held-out texts; for several corpora a column each."""
    title = f"loss on the held-out texts, {UNIT}"
    if of_sets := figures_by_set(metrics, prefix="eval_"):
        print_sets(of_sets, title=title)
    else:
        losses = {name.removeprefix("eval_"): value for name, value in metrics.items() if "loss" in name}
        print_scores(losses, {}, title=title)
