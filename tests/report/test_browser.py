"""Report and training page in a real browser. Opt-in, as `tests/serving/test_browser.py`."""

import pytest

from glm.report import page as page_module
from glm.report.rows import SHOWN
from report.pages import EVIL, LOG, report, row_of, training_page
from tools.browser_tools import assert_no_wider_than, opened

PASSAGE = "青石镇位于河的北岸，距离省会约1公里，人口大约3万。某人写了这本书。" * 40
WIDTHS = [320, 375, 700, 1280]


def thousand_rows() -> list[dict]:
    """Rows of all kinds: good, empty, repeating, failed; with long passages, long words and markup."""
    rows = []
    for number in range(1000):
        text = ["谁写了这本书？", "", "谁？谁？谁？谁？", EVIL, "W" * 300][number % 5]
        beams = [{"text": text, "score": -0.25}, *({"text": "这本书是谁写成的？", "score": -1.5} for _ in range(4))]
        more = {"error": f"in.json, line {number}: {EVIL}"} if number % 50 == 0 else {}
        source = PASSAGE + EVIL if number % 3 else "某人" + "w" * 300
        rows.append(row_of(number, text, source=source, **more) | {"predictions": beams})
    return rows


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The report of 1,000 rows."""
    return report(tmp_path_factory.mktemp("large"), thousand_rows(), log=LOG, title="长" * 60 + EVIL)


def assert_drawn(page) -> None:
    """All pictures are there."""
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_of_many(browser, large, width):
    with opened(browser, large.as_uri(), size=(width, 800)) as page:
        assert large.stat().st_size < 2_000_000
        assert_no_wider_than(page, width)
        assert_drawn(page)
        assert page.locator(".plots img").count() >= 6 and page.locator(".sample").count() == 5 * SHOWN
        assert page.locator("script, textarea").count() == 0
        assert page.locator(".best", has_text="<script>alert('1')</script>&amp;").count() > 0
        page.click("summary")
        assert page.is_visible("text=prefix") and EVIL[:40] in page.inner_text("details")
        assert_no_wider_than(page, width)


def test_links_lead_to_their_sections(browser, large):
    with opened(browser, large.as_uri()) as page:
        links = page.locator("nav a")
        assert links.count() == 6
        for link in links.all():
            link.click()
            heading = page.locator(link.get_attribute("href")).bounding_box()
            assert -1 < heading["y"] < 800


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "rows",
    [[], [row_of(1, "", error="in.json, line 1: empty")], [row_of(1, "谁？", None, source=PASSAGE)]],
    ids=["no predictions", "one that failed", "one"],
)
def test_a_report_of_few(browser, tmp_path, rows, width):
    with opened(browser, report(tmp_path, rows).as_uri(), size=(width, 800)) as page:
        answered = sum("error" not in row for row in rows)
        assert page.locator(".sample").count() == answered
        assert page.is_visible("text=nothing was scored")
        assert_no_wider_than(page, width)
        assert_drawn(page)


def test_a_running_page_shows_what_is_new(browser, tmp_path, monkeypatch):
    """It looks for news by itself, until the run has ended."""
    monkeypatch.setattr(page_module, "REFRESH_SECONDS", 1)
    file = training_page(tmp_path)
    with opened(browser, tmp_path.as_uri() + "/training.html", size=(320, 800)) as page:
        assert "20 / 1,000" in page.inner_text(".tiles")
        assert_no_wider_than(page, 320)
        assert_drawn(page)
        training_page(tmp_path, step=40)
        page.locator(".tiles", has_text="40 / 1,000").wait_for()
        training_page(tmp_path, step=1000, running=False)
        page.locator("header", has_text="Ended at").wait_for()
        file.write_text("gone", encoding="utf-8")
        page.wait_for_timeout(1500)
        assert "1,000 / 1,000" in page.inner_text(".tiles")


def test_an_evaluation_leads_to_its_report(browser, tmp_path):
    training_page(tmp_path)
    report(tmp_path / "eval" / "step-20.report", [row_of(1, "谁？")], title="step 20")
    with opened(browser, tmp_path.as_uri()) as page:
        page.goto((tmp_path / "training.html").as_uri())
        page.click("text=report")
        page.locator("h1", has_text="step 20").wait_for()
