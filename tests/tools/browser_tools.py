"""A page in a real browser, and what must not happen in it."""

import time
from contextlib import contextmanager

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def opened(browser, url: str, *, locale: str = "en-US", size=(1280, 800), **options):
    """A page; in the end nothing has gone wrong in it, and nothing was asked of anybody but `url`."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, locale=locale, **options)
    page, problems = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: is_error(message) and problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: request.url.startswith((url, "data:")) or problems.append(request.url))
    page.goto(url)
    yield page
    assert problems == []
    context.close()


def is_error(message) -> bool:
    """Whether the console tells of an error; that a server refused a request is none of the page's."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def wait_for(page, expression: str) -> None:
    """Until an expression holds; Playwright's own waiting needs `eval`, which the pages forbid."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def assert_no_wider_than(page, width: int) -> None:
    """Nothing has to be scrolled to from the side."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
