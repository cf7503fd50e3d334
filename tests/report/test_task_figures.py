"""Figures on the page of a task that chooses: which label was taken for which, and accuracy by length."""

from glm.evaluation.accuracy import score_choices
from glm.report.provenance import Provenance
from glm.report.task_page import TaskRows, write_task_report
from report.test_page import Page


def chosen(identity, source, prediction, reference, share):
    others = [label for label in "abc" if label != prediction]
    shares = {prediction: share, others[0]: (1 - share) * 0.75, others[1]: (1 - share) * 0.25}
    candidates = [{"label": x, "text": x, "probability": shares[x], "score": shares[x]} for x in "abc"]
    return {
        "id": identity,
        "source": source,
        "prediction": prediction,
        "reference": reference,
        "candidates": candidates,
    }


CHOICES = [
    chosen("one", "短" * 10, "a", "a", 0.9),
    chosen("two", "短" * 20, "b", "a", 0.6),
    chosen("three", "长" * 200, "b", "a", 0.8),
    chosen("four", "长" * 210, "c", "c", 0.7),
    {"id": "five", "error": "line 5, field label: none"},
]


def page_of(folder, rows, scores, *, reference="reference"):
    kept = TaskRows(reference)
    for row in rows:
        kept.add(row)
    return Page(write_task_report(folder, kept, scores, Provenance("python predict.py", {}, "cpu"), title="题目"))


def test_which_label_was_taken_for_which(tmp_path):
    page = page_of(tmp_path, CHOICES, score_choices(CHOICES[:4]))
    table = page.text[page.text.index("预测abc") :].split("\n")[:4]
    assert table == ["预测abc", "a120", "b000", "c001"]  # cells of a row have nothing between them


def test_failed_rows_and_lengths(tmp_path):
    page = page_of(tmp_path, CHOICES, score_choices(CHOICES[:4]))
    assert "line 5, field label: none" in page.text
    assert (tmp_path / "plots" / "scores-by-length.png").is_file()
    found = score_choices(CHOICES[:4]).by_source_length
    assert [figures["accuracy"] for figures in found.values()] == [50.0, 50.0]
