"""Fine-tunes a GLM to generate, choose or extract text, evaluates it, and predicts.

python finetune_generation.py configs/demo.json
python finetune_generation.py configs/demo.json --learning_rate 1e-3
python finetune_generation.py --model_name_or_path THUDM/glm-large-chinese --do_train --do_eval --output_dir runs/qg
"""

import shlex
import sys
from pathlib import Path
from typing import Any

from glm.errors import Stopped
from glm.evaluation.data_sets import figures_by_set
from glm.evaluation.metrics import Scores
from glm.evaluation.symptoms import Symptoms, loss_symptom
from glm.evaluation.table import print_headlines, print_sets, print_warnings
from glm.options.finetune import parse_finetune_arguments
from glm.parallel.ranks import on_main
from glm.prediction.kinds import predicted_rows
from glm.prediction.predictions import write_rows
from glm.prediction.scoring import Tally, coverage, more_figures, write_set_scores
from glm.report.curves import read_log
from glm.report.files import METRICS_NAME, TRAINING_PAGE
from glm.runtime.device import prepare
from glm.runtime.entry import INCOMPLETE, run
from glm.runtime.signals import StopSignals
from glm.runtime.watchdog import watching
from glm.training.checkpoints import Checkpoint
from glm.training.dry_run import show_dry_run
from glm.training.going_on import after_a_loss
from glm.training.pages import describe_model
from glm.training.run_data import RecordSet, RunData, first_records
from glm.training.run_folder import write_done
from glm.training.setup import begin_run, build_trainer, opened_run
from glm.training.trainer import GenerationTrainer


def main(argv: list[str]) -> int:
    """Parses, opens the run's folder, builds, runs, and says that it is done."""
    arguments = parse_finetune_arguments(argv)
    prepare(arguments.training.device)
    signals = StopSignals()
    with signals.heard(), watching(after_a_loss(arguments)), opened_run(arguments) as checkpoint:
        trainer, data = build_trainer(arguments, checkpoint=checkpoint, signals=signals)
        if arguments.training.dry_run:
            show_dry_run(trainer, first_records(arguments, trainer.encoder), data.reports["train"])
            return 0
        on_main(lambda: begin_run(trainer, data, checkpoint))
        try:
            code = train_evaluate_predict(trainer, data, checkpoint)
        except Stopped as stopped:
            raise Stopped(stopped.number, trainer.keep_progress()) from stopped
        for tracker in trainer.trackers:
            tracker.close()
        facts = {"exit_code": code, "global_step": trainer.state.global_step}
        on_main(lambda: write_done(Path(arguments.training.output_dir), facts))
        return code


def train_evaluate_predict(trainer: GenerationTrainer, data: RunData, checkpoint: Checkpoint | None) -> int:
    """Does what the arguments ask for; returns the exit code."""
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
            print_evaluation(metrics, names)
        if training.do_train:
            trainer.save_state()  # the log has the evaluation now
    if trainer.is_world_process_zero():
        warnings = warnings_of(trainer, data)
        if training.do_train:
            describe_model(output_dir, trainer.provenance, metrics, data.reports, trainer.signatures, warnings)
        print_warnings(warnings)
        if training.do_train:
            print_what_is_left(output_dir)
    return predict_sets(trainer, data.test_sets) if training.do_predict else 0


def print_what_is_left(output_dir: Path) -> None:
    """Prints which files exist now, and what to do with them."""
    page = output_dir / TRAINING_PAGE
    left = [f"{output_dir} (the model)", *([f"{page} (open it in a browser)"] if page.is_file() else [])]
    words = ["python", "predict.py", "--model_name_or_path", str(output_dir), "--test_file", "FILE"]
    print(f"written: {', '.join(left)}", file=sys.stderr)
    print(f"next: {shlex.join(words)}", file=sys.stderr)


def print_evaluation(metrics: dict[str, float], names: dict[str, str]) -> None:
    """Prints the figures of the dev records; for several sets a column each."""
    title, of_sets = "evaluation on the dev records", figures_by_set(metrics, prefix="eval_")
    if of_sets:
        print_sets(of_sets, title=title)
    else:
        print_headlines(metrics, names, title=title)


def predict_sets(trainer: GenerationTrainer, sets: list[RecordSet]) -> int:
    """Predicts the test records and scores those with a reference: `predictions.jsonl` and `metrics.json`; for several
    sets `predictions.SET.jsonl`, and a table with their mean. Returns the exit code."""
    output_dir, title, scored, code = Path(trainer.args.output_dir), "prediction of the test records", {}, 0
    for test_set in sets:
        encoder = test_set.encoder
        rows = predicted_rows(trainer.writer_for(encoder), encoder.kind, test_set.records, all_beams=False)
        if any("error" in row for row in rows):
            code = INCOMPLETE
        if not trainer.is_world_process_zero():
            continue
        name = test_set.name if len(sets) > 1 else ""
        write_rows(output_dir / (f"predictions.{name}.jsonl" if name else "predictions.jsonl"), rows)
        more = more_figures(trainer.run_config.get("task_name"), encoder)
        if scores := scores_of(rows, encoder.kind, name, more):
            scored[test_set.name] = scores
    if scored:
        write_set_scores(output_dir / "metrics.json", scored, single=len(sets) == 1)
    if len(sets) > 1 and scored:
        print_sets({name: scores.figures for name, scores in scored.items()}, title=title)
    for scores in scored.values() if len(sets) == 1 else ():
        print_headlines(scores.figures, scores.signatures, title=title)
    return code


def scores_of(rows: list[dict[str, Any]], kind: str, name: str, more: list[Any]) -> Scores | None:
    """Scores test records, if some have a reference; prints their symptoms.

    Args:
        kind: of their task.
        name: of the set; empty where there is one.
        more: see `Tally`.
    """
    tally, subject = Tally(kind, more=more), f"test records of {name}" if name else "test records"
    for row in rows:
        tally.add(row)
    print_warnings([f"{subject}: {line}" for line in tally.symptoms.lines()])
    if not tally.scored:
        return None
    if tally.scored < tally.rows - tally.failed:
        print(f"{subject}: {coverage(tally.scored, tally.rows)}; the scores are of these", file=sys.stderr)
    return tally.scores()


def warnings_of(trainer: GenerationTrainer, data: RunData) -> list[str]:
    """Returns warnings about a run: its loss, its data, the texts of its last evaluation."""
    found = []
    if trainer.args.do_train:
        log = read_log(Path(trainer.args.output_dir) / METRICS_NAME)
        if line := loss_symptom(log, learning_rate=trainer.args.learning_rate):
            found.append(line)
    for split, report in data.reports.items():
        if report.cut_sources and split.partition("/")[0] == "train":
            found.append(
                f"{report.cut_sources} of {report.used} training sources were cut and lost {report.lost_tokens} "
                "tokens or more: raise --src_length if what matters may be in them"
            )
    return [*found, *dev_warnings(trainer.symptoms)]


def dev_warnings(symptoms: dict[str, Symptoms]) -> list[str]:
    """Returns warnings about the texts of the dev sets."""
    subjects = {name: f"dev records of {name}" if len(symptoms) > 1 else "dev records" for name in symptoms}
    return [f"{subjects[name]}: {line}" for name, found in symptoms.items() for line in found.lines()]


if __name__ == "__main__":
    sys.exit(run(main))
