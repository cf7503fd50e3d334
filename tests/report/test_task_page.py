"""Pages of tasks that choose or extract: the order of their parts, what samples show, and both languages."""

import re

from glm.evaluation.accuracy import score_choices
from glm.evaluation.answers import score_answers
from glm.report.rows import SHOWN
from report.pages import EVIL, LOG, answer, choice, task_report
from report.test_page import Page


def page_of(*arguments, **options) -> Page:
    return Page(task_report(*arguments, **options))


def test_figures_then_samples_then_folded_tables(tmp_path):
    rows = [choice(number, "yes", ("yes", "no")[number % 2]) for number in range(4)]
    page = page_of(tmp_path, [*rows, {"id": 9, "error": "no"}], scores=score_choices(rows), log=LOG)
    places = [page.raw.index(part) for part in ('class="tiles"', 'id="samples"', 'id="all"', 'id="scores"')]
    places += [page.raw.index(part) for part in ('id="confusion"', 'id="lengths"', 'id="training"', 'id="failed"')]
    assert places == sorted(places)
    assert page.raw.count('<details class="part">') == 7  # with how it was made
    assert '<h2 id="samples">' not in page.raw[page.raw.index("<details") :]
    assert page.by_class["tile"][0].startswith("50.00")
    assert page.attributes("input") == [
        {"type": "search", "id": "search", "aria-label": "search 搜索", "placeholder": "search 搜索"}
    ]


def test_groups_of_choices(tmp_path):
    rows = [choice(number, "yes", ("yes", "no")[number % 2], share=0.5 + number / 100) for number in range(40)]
    page = page_of(tmp_path, rows)
    groups = re.split(r"<h3>", page.raw)[1:5]
    firsts = [re.findall(r'class="soft">id (\d+)<', group)[:2] for group in groups]
    assert "Most confident mistakes" in groups[0] and firsts[0] == ["39", "37"]
    assert "Best" in groups[1] and firsts[1] == ["38", "36"]
    assert "Least sure of the right label" in groups[2] and firsts[2] == ["39", "37"]
    assert "Random" in groups[3] and groups[3].count('<article class="sample">') == SHOWN
    assert "89.0 %" in groups[0] and "11.0 %" in groups[0]


def test_groups_and_differences_of_answers(tmp_path):
    texts = ["武汉", "武汉市", "长江"]
    rows = [answer(number, texts[number % 3], "武汉", score=-float(number)) for number in range(30)]
    page = page_of(tmp_path, rows, reference="references", scores=score_answers(rows))
    assert page.by_class["difference"][0] in ("武汉市", "武汉长江") and "市" in page.by_class["ins"]
    assert {"武汉"} == set(page.by_class["answer"]) and "第 2 个窗口，共 3 个" in page.text
    groups = re.split(r"<h3>", page.raw)[1:5]
    assert re.findall(r'class="soft">id (\d+)<', groups[0])[:3] == ["1", "2", "4"]  # by the model's score
    assert "100.00" in groups[1] and "66.67" not in groups[1] and "0.00" in groups[2]
    assert "edit similarity" in groups[1]


def test_few_rows_are_one_group_the_best_first(tmp_path):
    rows = [answer(1, "长江", "武汉"), answer(2, "武汉", "汉口", "武汉"), answer(3, "武汉")]
    page = page_of(tmp_path, rows, reference="references")
    assert re.findall(r'class="soft">id (\d+)<', page.raw) == ["2", "1", "3"]
    assert page.by_class["flag good"] == ["right正确"] and page.by_class["flag"] == ["wrong错误"]


def test_labels_that_are_all_alike_are_said_in_both_languages(tmp_path):
    rows = [choice(number, "yes", ("yes", "no")[number % 2]) for number in range(20)]
    page = page_of(tmp_path, rows)
    assert "20 of 20 texts are the same, “yes”" in page.text and "20 条文本中有 20 条相同：“yes”" in page.text


def test_every_word_of_a_page_has_its_chinese(tmp_path):
    rows = [choice(1, "yes", "yes"), {"id": 2, "error": "坏"}]
    page = page_of(tmp_path, rows, scores=score_choices(rows[:1]), log=LOG)
    parts = page.raw[page.raw.index("<body>") : page.raw.index("How it was made</span>") - 400]
    plain = re.sub(
        r'<span class="(en|zh)"[^>]*>.*?</span>', "", re.sub(r"<script>.*?</script>", "", parts, flags=re.S)
    )
    words = {word for text in re.findall(r">([^<]+)<", plain) for word in re.findall(r"[A-Za-z]{3,}", text)}
    assert not words & {"Samples", "right", "predicted", "figure", "value", "signature", "wrong", "Scores", "records"}


def test_any_text_is_only_text(tmp_path):
    rows = [choice(number, EVIL, EVIL, source=EVIL) for number in range(12)]
    page = page_of(tmp_path, rows)
    assert page.attributes("script") == [{}] and page.attributes("textarea") == []


def test_a_last_word_without_candidates(tmp_path):
    rows = [
        {"id": number, "source": "甲", "prediction": "乙", "log_prob": -1.0, "reference": "丙"} for number in range(12)
    ]
    page = page_of(tmp_path, rows)
    assert "Most confident mistakes" not in page.text and "Least sure" in page.text
