"""Report and training page in a real browser. Opt-in, as `tests/serving/test_browser.py`."""

import re

import pytest

from glm.report import page as page_module
from glm.report.rows import SHOWN
from report.pages import EVIL, LOG, answer, choice, report, row_of, task_report, training_page
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
    """All plots show, and their texts are within them."""
    assert page.evaluate(
        "[...document.querySelectorAll('.plots svg')].filter((plot) => plot.checkVisibility()).every((plot) => {"
        " const [outer, inner] = [plot.getBoundingClientRect(), plot.getBBox()];"
        " return outer.width > 0 && inner.x >= 0 && inner.x + inner.width <= 672 && inner.y >= 0; })"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_of_many(browser, large, width):
    with opened(browser, large.as_uri(), size=(width, 800)) as page:
        assert large.stat().st_size < 2_000_000
        assert_no_wider_than(page, width)
        assert_drawn(page)
        assert page.locator(".plots svg").count() == 5 and page.locator(".sample").count() == 5 * SHOWN
        assert page.locator("script").count() == 1 and page.locator("textarea").count() == 0  # the page's own
        assert page.locator(".best", has_text="<script>alert('1')</script>&amp;").count() > 0
        assert not page.is_visible("text=prefix")
        unfold(page)
        assert page.is_visible("text=prefix") and EVIL[:40] in page.locator("pre").inner_text()
        assert_no_wider_than(page, width)


def unfold(page) -> None:
    """Opens all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")


def test_rows_are_searched_as_one_types(browser, large):
    with opened(browser, large.as_uri()) as page:
        unfold(page)
        rows = page.locator("#rows tbody tr:visible")
        assert rows.count() == 980
        page.fill("#search", "w" * 20)  # the table shows the beginnings of long texts
        assert 0 < rows.count() < 980 and page.inner_text("#found") == f"{rows.count()} / 980"
        page.fill("#search", "某人 nothing-like-this")
        assert rows.count() == 0
        page.fill("#search", "")
        assert rows.count() == 980


@pytest.mark.parametrize(("locale", "first", "second"), [("en-US", "Samples", "样本"), ("zh-CN", "样本", "Samples")])
def test_one_language_at_a_time(browser, tmp_path, locale, first, second):
    with opened(browser, report(tmp_path, [row_of(1, "谁？")]).as_uri(), locale=locale) as page:
        assert page.inner_text("#samples") == first
        page.click(f"text={'中文' if locale == 'en-US' else 'English'}")
        assert page.inner_text("#samples") == second


def test_dark_where_the_system_is(browser, tmp_path):
    address = report(tmp_path, [row_of(1, "谁？")]).as_uri()
    lightness = []
    for scheme in ("light", "dark"):
        with opened(browser, address, color_scheme=scheme) as page:
            for part in ("body", ".sample", "mark", "del", "ins", "th"):
                style = f"getComputedStyle(document.querySelector('{part}'))"
                ink, paper = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
                assert contrast(ink, paper) >= 4.5, (scheme, part, ink, paper)
            lightness.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert luminance(lightness[1]) < 0.1 < 0.8 < luminance(lightness[0])


def luminance(colour: str) -> float:
    """The relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """How far apart two colours are (WCAG 2)."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_links_lead_to_their_sections(browser, large):
    with opened(browser, large.as_uri()) as page:
        links = page.locator("nav a")
        assert links.count() == 7
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
        assert not page.is_visible("text=nothing was scored")
        unfold(page)
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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["choose", "extract"])
def test_a_page_of_a_task(browser, tmp_path, width, kind):
    if kind == "choose":
        rows = [choice(number, "yes", ("yes", "no")[number % 2], source=PASSAGE + EVIL) for number in range(30)]
        path = task_report(tmp_path, rows, log=LOG)
    else:
        texts = ["武汉", EVIL, "W" * 300]
        rows = [answer(number, texts[number % 3], "武汉", window_text=PASSAGE) for number in range(30)]
        path = task_report(tmp_path, rows, reference="references", log=LOG)
    with opened(browser, path.as_uri(), size=(width, 800), locale="zh-CN") as page:
        assert_no_wider_than(page, width)
        assert page.inner_text("#samples") == "样本" and page.locator(".sample").count() > SHOWN
        assert not page.is_visible("#rows")
        unfold(page)
        assert_no_wider_than(page, width)
        page.fill("#search", "nothing-like-this")
        assert page.locator("#rows tbody tr:visible").count() == 0 and page.inner_text("#found") == "0 / 30"
