"""The page in a real browser: Debian's chromium, driven by Playwright. Opt-in: skipped where one of them is missing.

apt-get install chromium fonts-noto-cjk && .venv/bin/python -m pip install -r requirements-browser.txt
"""

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tools import browser_tools
from tools.browser_tools import assert_no_wider_than, wait_for

ROOT = Path(__file__).resolve().parents[2]
PASSAGE = "青石镇位于河的北岸，距离省会约1公里，人口大约3万。"


@pytest.fixture(scope="module")
def url(program):
    return f"http://127.0.0.1:{program[1]}"


@contextmanager
def opened(browser, url: str, **options):
    """The page, once it knows the server's settings."""
    with browser_tools.opened(browser, url, **options) as page:
        page.wait_for_selector("#num_beams", state="attached")
        yield page


def generate(page) -> list[tuple[str, float]]:
    """Clicks, and waits: the texts and scores that are shown."""
    page.click("#generate")
    return shown(page)


def shown(page) -> list[tuple[str, float]]:
    wait_for(page, "request === null && (document.querySelector('#results li') || $('error').textContent)")
    items = page.locator("#results li")
    return [
        (item.locator("span").nth(0).inner_text(), float(item.locator("span").nth(1).inner_text()))
        for item in items.all()
    ]


def expected(url: str, **body) -> list[tuple[str, float]]:
    """What the API answers to the same."""
    (row,) = httpx.post(f"{url}/generate", json=body, timeout=60).json()["rows"]
    found = row.get("predictions") or sum(row["blanks"], [])
    return [(text["text"], pytest.approx(text["score"], abs=2e-3)) for text in found]


def test_an_answer_marked_with_the_mouse(browser, url):
    with opened(browser, url) as page:
        assert page.inner_text("#status") == "Nothing generated yet."
        page.fill("#source", PASSAGE)
        box = page.locator("#source").bounding_box()
        page.mouse.move(box["x"] + 12, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 60, box["y"] + 20, steps=5)
        page.mouse.up()
        page.wait_for_timeout(100)
        answer = page.input_value("#answer")
        assert 2 <= len(answer) <= 4 and PASSAGE.startswith(answer)
        assert page.inner_text("#record mark") == answer
        found = generate(page)
        assert found == expected(url, records=[{"context": PASSAGE, "answer": answer}], num_return_sequences=3)
        assert len(found) == 3 and re.match(r"3 texts in \d+\.\d s\.", page.inner_text("#status"))


def test_an_answer_that_is_typed(browser, url):
    with opened(browser, url) as page:
        page.fill("#source", PASSAGE)
        page.fill("#answer", "松江")
        assert page.inner_text("#answer-hint") == "This answer does not occur in the passage."
        page.fill("#answer", "3万")
        assert page.inner_text("#answer-hint") == "" and page.inner_text("#record mark") == "3万"
        page.fill("#source", "<b>松江</b>")
        assert page.locator("#record mark").count() == 0 and page.locator("#record b").count() == 0


def test_the_keyboard_is_enough(browser, url):
    with opened(browser, url, permissions=["clipboard-read", "clipboard-write"]) as page:
        for _ in range(9):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "source":
                break
        page.keyboard.insert_text(PASSAGE)
        page.keyboard.press("Control+Home")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        wait_for(page, "$('answer').value === '青石镇'")
        page.keyboard.press("Control+Enter")
        found = shown(page)
        assert found == expected(url, records=[{"context": PASSAGE, "answer": "青石镇"}], num_return_sequences=3)
        page.keyboard.press("Control+A")  # to replace it: no answer
        page.wait_for_timeout(100)
        assert page.input_value("#answer") == "青石镇"
        page.focus("#tab-record")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-fill" and page.is_visible("#text")


def test_blanks(browser, url):
    with opened(browser, url) as page:
        page.click("#tab-fill")
        page.click("[data-blank='[MASK]']")
        page.keyboard.insert_text("位于河的北岸，人口大约")
        page.click("[data-blank='[sMASK]']")
        text = "[MASK]位于河的北岸，人口大约[sMASK]"
        assert page.input_value("#text") == text
        found = generate(page)
        assert found == expected(url, texts=[text], num_return_sequences=3) and len(found) == 6
        blanks = [found[0][0], found[3][0]]
        assert page.inner_text("#filled") == f"{blanks[0]}位于河的北岸，人口大约{blanks[1]}"
        assert page.locator("#filled mark").all_inner_texts() == blanks
        page.fill("#text", "春天来了")  # no blank: continued
        found = generate(page)
        wait_for(page, "$('filled').textContent.startsWith('春天来了')")


def test_options(browser, url):
    with opened(browser, url) as page:
        page.click("#example")
        page.click("summary")
        assert page.is_disabled("#temperature") and page.is_enabled("#early_stopping")
        page.fill("#num_beams", "1")
        page.locator("#num_beams").blur()
        assert page.input_value("#num_return_sequences") == "1" and page.is_disabled("#early_stopping")
        record = {"context": page.input_value("#source"), "answer": page.input_value("#answer")}
        assert generate(page) == expected(url, records=[record], num_beams=1)
        page.select_option("#select_topk", "false")
        page.fill("#temperature", "1.5")
        drawn = generate(page)
        assert drawn == expected(url, records=[record], num_beams=1, select_topk=False, temperature=1.5)
        page.fill("#num_beams", "99")
        page.click("#generate")
        wait_for(page, "$('error').textContent")
        assert page.inner_text("#error") == "num_beams 99: use 1 to 32" and shown(page) == []
        page.click("#reset")
        assert page.input_value("#num_beams") == "3" and len(generate(page)) == 3


def test_copied_command_generates_the_same(browser, url):
    with opened(browser, url, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.fill("#source", '他\'s "早上"\\n六点起床。\n$HOME `x` 松江')
        page.fill("#answer", "松江")
        page.click("summary")
        page.fill("#num_beams", "4")
        page.fill("#length_penalty", "1.5")
        page.locator("#length_penalty").blur()
        found = generate(page)
        page.click("#copy")
        wait_for(page, "$('copied').textContent === 'Copied.'")
        command = page.evaluate("navigator.clipboard.readText()")
    assert "--num_beams=4" in command and "api_key" not in command
    command = command.replace("python predict.py", f"{sys.executable} predict.py")
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    row = httpx.Response(200, text=done.stdout).json()
    assert [text["text"] for text in row["predictions"]] == [text for text, _ in found]


def test_languages(browser, url):
    with opened(browser, url, locale="zh-CN") as page:
        assert page.inner_text("label[for=source]") == "段落"
        assert page.get_attribute("html", "lang") == "zh-CN"
        page.click("#example")
        generate(page)
        assert page.inner_text("#status").startswith("3 条文本，用时 ")
        page.click("#language")
        assert page.inner_text("label[for=source]") == "Passage" and page.inner_text("#status").startswith("3 texts")
        page.fill("#source", "[MASK]")
        page.click("#generate")
        wait_for(page, "$('error').textContent")  # in the page's language, which is not the browser's any more
        assert "command token" in page.inner_text("#error")
        page.reload()
        page.wait_for_selector("#num_beams", state="attached")
        assert page.inner_text("label[for=source]") == "Passage"
        keys = page.evaluate("[TEXTS.en, TEXTS.zh].map((texts) => [Object.keys(texts), Object.keys(texts.option)])")
        assert keys[0] == keys[1]


@pytest.mark.parametrize("width", [320, 375, 700, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width(browser, url, width, scheme):
    """Nothing is wider than the window, long texts and opened options included."""
    with opened(browser, url, locale="zh-CN", size=(width, 700), color_scheme=scheme) as page:
        page.fill("#source", PASSAGE * 40 + "W" * 200)
        page.fill("#answer", "3万")
        page.click("summary")
        generate(page)
        assert_no_wider_than(page, width)
        source, behind = (page.locator(f"#record .area > {part}").bounding_box() for part in ("textarea", "pre"))
        assert source == behind  # or the mark would not be behind its text


def test_key_is_asked_for(browser, threaded):
    server = threaded(api_key="sesame")
    url = f"http://127.0.0.1:{server.port}"
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#key")
    assert page.inner_text("#error") == "send the key as 'Authorization: Bearer KEY'"
    page.click("#example")
    page.fill("#key", "sesame")
    page.click("#generate")
    page.wait_for_selector("#results li")
    assert page.inner_text("#error") == "" and page.locator("#results li").count() >= 1
    context.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_a_server_that_is_gone(browser, threaded):
    server = threaded()
    url = f"http://127.0.0.1:{server.port}"
    with opened(browser, url) as page:
        server.should_exit = True
        while answers(url):
            page.wait_for_timeout(20)
        page.click("#example")
        page.click("#generate")
        wait_for(page, "$('error').textContent")
        assert page.inner_text("#error") == "The server cannot be reached."


# -- tasks that choose or extract


def test_a_choice(browser, url):
    with opened(browser, url) as page:
        page.click("#tab-choose")
        assert page.is_visible("#cloze") and not page.is_visible("#source")
        text, candidates = "青石镇人口大约[MASK]。", ["2万", "3万", "图书馆"]
        page.fill("#cloze", text)
        page.fill("#candidates", "\n".join([*candidates, ""]))
        page.click("#generate")
        wait_for(page, "request === null && $('results').textContent")
        (row,) = httpx.post(f"{url}/choose", json={"text": text, "candidates": candidates}, timeout=60).json()["rows"]
        shown_text = page.inner_text("#results")
        assert all(candidate in shown_text for candidate in candidates)
        best = max(row["candidates"], key=lambda found: found["probability"])
        assert shown_text.index(best["text"]) < min(
            shown_text.index(found["text"]) for found in row["candidates"] if found is not best
        )  # the likeliest stands first
        assert re.match(r"3 candidates.* in \d+\.\d s", page.inner_text("#status"))
        page.fill("#candidates", "2万")
        page.keyboard.press("Control+Enter")
        wait_for(page, "$('error').textContent")
        assert "2 or more are expected" in page.inner_text("#error") and page.inner_text("#results") == ""


def test_an_answer_from_a_passage(browser, url):
    with opened(browser, url, locale="zh-CN", size=(375, 700)) as page:
        page.focus("#tab-record")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-extract" and page.is_visible("#question")
        passage = PASSAGE * 6
        page.fill("#passage", passage)
        page.fill("#question", "人口有多少？")
        page.click("#generate")
        wait_for(page, "request === null && $('status').textContent && !$('status').textContent.includes('…')")
        body = {"question": "人口有多少？", "context": passage}
        (row,) = httpx.post(f"{url}/extract", json=body, timeout=60).json()["rows"]
        assert row["windows"] > 1 and row["prediction"] in page.inner_text("#results")
        assert page.inner_text("#error") == ""
        assert str(row["windows"]) in page.inner_text("#status")
        assert_no_wider_than(page, 375)
