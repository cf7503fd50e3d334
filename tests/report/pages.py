"""Pages to look into: reports of made-up rows, a training's page."""

from pathlib import Path

from glm.evaluation.metrics import Scorer
from glm.evaluation.statistics import Pair
from glm.report.page import write_report, write_training_page
from glm.report.provenance import Provenance
from glm.report.rows import ReportRows
from glm.report.task_page import TaskRows, write_task_report

EVIL = "<script>alert('1')</script>&amp;\"'{{ 7 * 7 }}</textarea>\u2028\x00"
LOG = [
    {"step": 10, "loss": 2.0, "learning_rate": 1e-3, "interval_tokens_per_second": 9000.0},
    {"step": 20, "loss": 1.0, "learning_rate": 5e-4},
    {"step": 20, "eval_loss": 1.5, "eval_bleu-4 (char, corpus)": 12.0, "eval_rouge-l (char)": 34.0}
    | {"eval_exact match": 5.0, "eval_distinct-2 (char)": 50.0},
]


def row_of(number: int, text: str, reference: str | None = "谁写了这本书？", *, source: str = "", **more) -> dict:
    """A row of a predictions file with two beams."""
    predictions = [{"text": text, "score": -0.25}, {"text": "另一个", "score": -1.5}]
    row = {
        "id": number,
        "source": source or f"这本书由某人写成，第{number}本。",
        "answer": "某人",
        "predictions": predictions,
    }
    return row | ({} if reference is None else {"reference": reference}) | more


def report(folder: Path, rows: list[dict], *, log=(), settings=None, title: str = "题目") -> Path:
    """Writes the report of rows."""
    found, scorer = ReportRows(), Scorer()
    for row in rows:
        found.add(row)
    answered = [row for row in rows if "error" not in row and "reference" in row]
    scorer.add(
        Pair(row["predictions"][0]["text"], (row["reference"],), row["source"], row["answer"]) for row in answered
    )
    scores = scorer.result() if answered else None
    provenance = Provenance(f"python predict.py '{EVIL}'", settings or {"prefix": EVIL, "unset": None}, "cpu")
    return write_report(folder, found, scores, provenance, title=title, log=log)


def training_page(folder: Path, *, step=20, running=True, log=LOG, seconds_left: float | None = 3725.4) -> Path:
    """Writes the page of a training."""
    write_training_page(
        folder,
        Provenance("python finetune_generation.py c.json", {"seed": 42}, "cpu"),
        step=step,
        max_steps=1000,
        running=running,
        seconds_left=seconds_left,
        report_address=lambda step: f"eval/step-{step}.report/report.html",
        log=log,
    )
    return folder / "training.html"


def choice(number: int, chosen: str, right: str | None, share: float = 0.9, **more) -> dict:
    """A row of a choice between two labels."""
    other = "no" if chosen == "yes" else "yes"
    candidates = [
        {"label": label, "text": label, "probability": probability, "score": -1.0}
        for label, probability in ((other, 1 - share), (chosen, share))
    ]
    row = {"id": number, "source": f"第{number}句", "prediction": chosen, "candidates": candidates}
    return row | ({} if right is None else {"reference": right}) | more


def answer(number: int, text: str, *right: str, score: float | None = -1.0, **more) -> dict:
    """A row of a question whose answer is extracted."""
    row = {"id": number, "question": f"问{number}？", "context": "长江流经武汉。", "language": "zh", "window": 1}
    row |= {"windows": 3, "window_text": "长江流经武汉。", "prediction": text, "score": score}
    return row | {"references": list(right)} | more


def task_report(folder: Path, rows: list[dict], *, reference="reference", scores=None, log=()) -> Path:
    """Writes the report of rows of a task that chooses, or with `references` of one that extracts."""
    found = TaskRows(reference)
    for row in rows:
        found.add(row)
    return write_task_report(folder, found, scores, Provenance("x", {}, "cpu"), title="题目", log=log)
