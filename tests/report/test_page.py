"""The pages as a browser reads them: parsed, not searched for strings."""

import base64
import hashlib
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import FileSystemBytecodeCache

from glm.report import page as page_module
from glm.report.page import MOST_OF_FIELD, MOST_OF_SOURCE, REFRESH_SECONDS, write_report
from glm.report.provenance import Provenance
from glm.report.rows import SHOWN, ReportRows
from report import pages
from report.pages import EVIL, LOG, row_of

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """A page's text, its elements with their attributes, and the text of each `class`."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str]] = []
        self.text = ""
        self.by_class: dict[str, list[str]] = {}
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            name = dict(attributes).get("class") or ""
            self.open.append((tag, name))
            self.by_class.setdefault(name or tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if {"style", "script"} & {tag for tag, _ in self.open}:
            return
        self.text += data
        for tag, name in self.open:
            self.by_class[name or tag][-1] += data

    def attributes(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(*arguments, **options) -> Page:
    return Page(pages.report(*arguments, **options))


def training_page(*arguments, **options) -> Page:
    return Page(pages.training_page(*arguments, **options))


def test_scores_with_signatures_overall_and_by_length(tmp_path):
    page = report(tmp_path, [row_of(1, "谁写了这本书？"), row_of(2, "天"), row_of(3, "谁？", source="长" * 100)])
    cells = page.by_class["name"]
    assert cells.count("bleu-4 (char, corpus)") == 2 and cells.count("rouge-l (jieba)") == 2
    assert "nrefs:1|norm:nfkc|case:lower|tok:bert-basic|f:1|refs:best|avg:records|empty:0|rouge:1.0.1" in page.text
    assert {"1-64", "65-128", "3", "2", "1"} <= set(page.by_class["number"])  # numbers of records are whole
    plots = {attributes["aria-label"] for attributes in page.attributes("svg")}
    assert plots == {"Scores by length of the source", "Length of the source", "Length of the generated text"}
    names = {"scores-by-length.png", "source-length.png", "generated-length.png"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"plots", "report.html"}


def test_samples_with_beams_and_marks(tmp_path):
    page = report(tmp_path, [row_of(7, "这本书是谁写成的？")])
    assert "某人" in page.by_class["answer"] and {"这本书", "写成"} <= set(page.by_class["copied"])
    assert page.by_class["best"] == ["这本书是谁写成的？"] and "另一个" in page.text
    assert "-0.250" in page.text and "-1.500" in page.text


def test_groups_of_many_and_of_few(tmp_path):
    few = report(tmp_path / "few", [row_of(number, "谁？") for number in range(SHOWN)])
    assert len(few.by_class["sample"]) == SHOWN and "All records" in few.text
    many = report(tmp_path / "many", [row_of(number, "谁？谁？谁？" if number % 2 else "") for number in range(50)])
    assert len(many.by_class["sample"]) == 5 * SHOWN
    assert all(heading in many.text for heading in ("Best", "Worst", "Random", "With most repeats", "Empty"))


def test_curves_of_the_training(tmp_path):
    page = report(tmp_path, [row_of(1, "谁？")], log=LOG)
    drawn = {attributes["aria-label"] for attributes in page.attributes("svg")}
    assert {"Loss", "Learning rate"} <= drawn
    assert not {"Speed", "Scores of the dev records"} & drawn  # a curve of one dot says less than its number
    tiles = [text for text in page.by_class["tile"] if "tokens per second" in text]
    assert tiles and tiles[0].startswith("9000tokens per second") and "10" in tiles[0]


def test_nothing_answered(tmp_path):
    page = report(tmp_path, [row_of(1, "", error=f"in.json, line 1: {EVIL}")])
    assert "nothing was scored" in page.text and "in.json, line 1: <script>" in page.text
    assert page.attributes("svg") == [] and "sample" not in page.by_class


def test_no_references(tmp_path):
    page = report(tmp_path, [row_of(1, "谁？", None)])
    assert "have no references" in page.text and len(page.by_class["sample"]) == 1


def test_any_text_is_only_text(tmp_path):
    rows = [row_of(number, EVIL * (number % 3), EVIL, source=EVIL + "某人" + EVIL) for number in range(40)]
    rows = [row | {"id": EVIL, "answer": EVIL} for row in rows]
    page = report(tmp_path, rows, title=EVIL)
    assert page.attributes("script") == [{}] and page.attributes("textarea") == []  # the page's own
    assert "{{ 7 * 7 }}" in page.text and "49" not in page.by_class["best"][0]
    assert page.attributes("img") == []


def test_half_a_surrogate_pair(tmp_path):
    """An id or a file's name may hold one; UTF-8 has none."""
    assert "?" in report(tmp_path, [row_of(1, "谁？") | {"id": "\ud800"}]).text


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = report(tmp_path, [row_of(1, "谁？")], log=LOG)
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"@import|url\(", page.raw)
    policy = next(
        entry["content"] for entry in page.attributes("meta") if "content" in entry and "http-equiv" in entry
    )
    (script,) = re.findall(r"<script>(.*?)</script>", page.raw, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@pytest.mark.parametrize("character", ["长", "<", "a b "])
def test_a_thousand_long_rows_stay_small(tmp_path, character):
    """Sources of 5,000 characters, 20 beams of 1,000 and long curves: far more than a model reads and writes."""
    found = ReportRows()
    beams = [{"text": character * 1000, "score": -1.0}] * 19
    for number in range(1000):
        row = row_of(number, character * 20, character * 20, source=f"{number} {character * 5000}")
        found.add(row | {"predictions": [row["predictions"][0], *beams]})
    log = [{"step": step, "loss": 1 / (step + 1), "learning_rate": step % 7} for step in range(20_000)]
    path = write_report(tmp_path, found, None, Provenance("x", {}, "cpu"), title="t", log=log)
    assert path.stat().st_size < 2_000_000


def test_a_long_source_is_shown_around_its_answer(tmp_path):
    source = "前" * 10_000 + "某人" + "后" * 10_000
    page = report(tmp_path, [row_of(1, "谁？" * 10_000, "问" * 5000, source=source)])
    (shown,) = page.by_class["source"]
    assert "前某人后" in shown and len(shown) < MOST_OF_SOURCE + 100
    before, after = (int(number.replace(",", "")) for number in re.findall(r"\(\+([\d,]+)\)", shown))
    assert before + shown.count("前") == 10_000 and after + shown.count("后") == 10_000
    assert f"(+{5000 - MOST_OF_FIELD:,})" in page.text


def test_what_the_model_did_not_see_is_grey(tmp_path):
    source = "甲乙丙丁某人戊己"
    page = report(tmp_path, [row_of(1, "谁？", source=source, cut=4, seen=[2, 6])])
    assert page.by_class["unseen"][2:] == ["甲乙", "戊己"] and page.by_class["answer"][2:] == [
        "某人"
    ]  # behind those of the legend, in two languages
    assert page.by_class["source"] == [source]
    page = report(tmp_path, [row_of(1, "谁？", source="前" * 5000 + source, cut=4, seen=[4990, 5004])])
    assert {*"".join(page.by_class["unseen"][2:])} <= {*"前某人戊己"} and "answer" in page.by_class


def test_the_difference_to_the_reference(tmp_path):
    page = report(tmp_path, [row_of(1, "谁写这本书 Ａbc？", "谁写了这本书 abc？")])
    assert (page.by_class["del"][2:], page.by_class["ins"][2:]) == (["了"], [])
    (shown,) = page.by_class["difference"]
    assert shown == "谁写了这本书 Ａbc？"
    page = report(tmp_path, [row_of(1, "谁写 this book？", "谁写 that book？")])
    assert (page.by_class["del"][2:], page.by_class["ins"][2:]) == (["that"], ["this"])


def test_all_rows_can_be_searched(tmp_path):
    page = report(tmp_path, [row_of(number, f"谁{number}？") for number in range(1200)])
    assert page.raw.count("<tr><td>") == 1000 + 4 and "The first 1,000 of 1,200" in page.text
    assert page.attributes("input")[0]["type"] == "search"


def test_names_by_task(tmp_path):
    rows = ReportRows()
    rows.add(row_of(1, "谁？"))
    for of_questions in (True, False):
        path = write_report(tmp_path, rows, None, Provenance("x", {}, "cpu"), title="t", of_questions=of_questions)
        assert ("gold question" in Page(path).text) == of_questions


def test_settings_command_and_versions(tmp_path):
    page = report(tmp_path, [row_of(1, "谁？")], settings={"num_beams": 5, "template": None})
    assert page.by_class["pre"][0].startswith("python predict.py '<script>")
    assert "num_beams" in page.by_class["th"] and "template" not in page.by_class["th"]
    assert {"Python", "paddlenlp", "machine"} <= set(page.by_class["th"])


def test_a_report_written_anew_leaves_no_old_plot(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "mine.png").write_bytes(b"mine")
    report(tmp_path, [row_of(1, "谁？")], log=LOG)
    assert (tmp_path / "plots" / "loss.png").exists()
    report(tmp_path, [row_of(1, "谁？")])
    assert not (tmp_path / "plots" / "loss.png").exists() and (tmp_path / "plots" / "mine.png").exists()


def test_training_page(tmp_path):
    page = training_page(tmp_path)
    assert {"http-equiv": "refresh", "content": str(REFRESH_SECONDS)} in page.attributes("meta")
    assert page.attributes("progress") == [{"max": "1000", "value": "20"}]
    assert "20 / 1,000" in page.text and "1:02:05" in page.text and "1.0000loss" in page.text.replace("\n", "")
    assert [entry["href"] for entry in page.attributes("a")] == ["eval/step-20.report/report.html"]
    assert {"1.5000", "12.00", "34.00"} <= set(page.by_class["number"])
    assert (tmp_path / "plots" / "loss.png").exists()


def test_training_page_of_an_ended_run(tmp_path):
    page = training_page(tmp_path, running=False, seconds_left=None)
    assert "refresh" not in {entry.get("http-equiv") for entry in page.attributes("meta")} and "Ended at" in page.text


def test_training_page_before_the_first_line(tmp_path):
    page = training_page(tmp_path, log=[], seconds_left=None)
    assert "Nothing is logged yet" in page.text and page.attributes("svg") == []


def test_templates_are_compiled_once_and_kept_where_there_is_room(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(page_module, "private_cache", lambda name: cache)
    monkeypatch.setattr(page_module, "now", lambda: "now")
    page = training_page(tmp_path)
    kept = list(cache.iterdir())
    assert kept and training_page(tmp_path).raw == page.raw and list(cache.iterdir()) == kept
    kept[0].write_bytes(b"damaged")
    assert training_page(tmp_path).raw == page.raw

    def full(self, bucket):
        raise OSError("no space left")

    for file in cache.iterdir():
        file.unlink()
    monkeypatch.setattr(FileSystemBytecodeCache, "dump_bytecode", full)
    assert training_page(tmp_path).raw == page.raw and not list(cache.iterdir())


def test_a_reader_never_finds_half_a_page(tmp_path, monkeypatch):
    training_page(tmp_path)
    before, replace = (tmp_path / "training.html").read_bytes(), os.replace

    def killed(new, path):
        if path.suffix == ".html":
            raise OSError("killed")
        replace(new, path)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(OSError, match="killed"):
        training_page(tmp_path, running=False)
    assert (tmp_path / "training.html").read_bytes() == before
