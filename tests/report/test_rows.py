"""Rows that a report shows: against sorting all of them."""

import random

import pytest

from glm.report.rows import SHOWN, ReportRows


def row_of(number: int, text: str | None, reference: str | None = "谁写了这本书？", **more) -> dict:
    texts = [] if text is None else [{"text": text, "score": -1.0}, {"text": "second", "score": -2.0}]
    row = {"id": number, "source": f"第 {number} 号书", "answer": "某人", "predictions": texts}
    return row | ({} if reference is None else {"reference": reference}) | more


def collect(rows) -> ReportRows:
    found = ReportRows()
    for row in rows:
        found.add(row)
    return found


def ids(kept) -> list[int]:
    return [sample.row["id"] for sample in kept]


@pytest.fixture
def rows() -> list[dict]:
    """60 rows, the reference cut to every length and padded with other characters: many scores, some equal."""
    reference = "谁写了这本书？"
    return [row_of(number, reference[: number % 8] + "天" * (number % 5)) for number in range(60)]


def by_hand(text: str, reference: str) -> float:
    """The edit similarity in percent, of the table of distances."""
    distances = [*range(len(reference) + 1)]
    for place, character in enumerate(text, start=1):
        row = [place]
        for number, other in enumerate(reference, start=1):
            row.append(min(row[-1] + 1, distances[number] + 1, distances[number - 1] + (character != other)))
        distances = row
    return 100 * (1 - distances[-1] / max(len(text), len(reference)))


def test_best_and_worst_by_the_score_of_the_record_alone(rows):
    alone = {row["id"]: by_hand(row["predictions"][0]["text"], row["reference"]) for row in rows}
    found = collect(rows)
    ranked = sorted(alone.values())
    assert [sample.score for sample in found.best] == pytest.approx(ranked[::-1][:SHOWN])
    assert [sample.score for sample in found.worst] == pytest.approx(ranked[:SHOWN])
    for sample in [*found.best, *found.worst, *found.random]:
        assert sample.score == pytest.approx(alone[sample.row["id"]])


def test_the_order_of_rows_does_not_matter(rows):
    first = collect(rows)
    random.Random(3).shuffle(rows)
    second = collect(rows)
    for name in ("best", "worst", "random", "repeating", "empty"):
        assert ids(getattr(first, name)) == ids(getattr(second, name)), name
    assert first.lengths == second.lengths


def test_random_rows_are_not_the_first_and_none_twice():
    found = ids(collect(row_of(number, "谁？") for number in range(500)).random)
    assert len(set(found)) == SHOWN and max(found) > 100


def test_equal_rows_can_be_kept():
    assert ids(collect([row_of(1, "谁？")] * 30).best) == [1] * SHOWN


def test_lengths_without_white_space():
    found = collect([row_of(1, "谁 写\n的？", "谁？"), row_of(2, "谁？", None), row_of(3, None)])
    assert found.lengths == {"source": {4: 3}, "reference": {2: 1, 7: 1}, "generated": {4: 1, 2: 1, 0: 1}}


def test_empties_repeats_and_failures_are_counted():
    rows = [
        row_of(1, None),
        row_of(2, " "),
        row_of(3, "问题问题问题问题"),
        row_of(4, "谁？", error="line 4"),
        row_of(5, "谁？"),
    ]
    found = collect(rows)
    assert (found.count, found.answered, found.failed, found.empties, found.repeats) == (5, 4, 1, 2, 1)
    assert set(ids(found.empty)) == {1, 2} and ids(found.repeating) == [3] and ids(found.errors) == [4]
    (repeating,) = found.repeating
    assert repeating.repeated == pytest.approx(1 - 2 / 5)  # 2 different 4-grams of 5


def test_texts_generated_several_times():
    texts = ["谁？"] * 3 + ["何时？"] * 2 + ["哪里？"]
    assert collect(row_of(n, text) for n, text in enumerate(texts)).same_texts == [("谁？", 3), ("何时？", 2)]


def test_marks_of_a_sample():
    exact, leaking, other = (
        next(iter(collect([row_of(1, text)]).best)) for text in ("谁写了 这本书?", "某人写了？", "")
    )
    assert (exact.is_exact, exact.leaks_answer) == (True, False)
    assert (leaking.is_exact, leaking.leaks_answer) == (False, True)
    assert (other.is_exact, other.leaks_answer, other.score) == (False, False, 0.0)


def test_without_references_nothing_is_ranked():
    found = collect(row_of(number, "谁？", None) for number in range(3))
    assert not list(found.best) and not list(found.worst) and len(list(found.random)) == 3
