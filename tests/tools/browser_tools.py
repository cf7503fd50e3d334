"""Opens pages in a real browser, and checks that they cause no errors and no requests."""

import time
from contextlib import contextmanager

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def opened(browser, url: str, *, locale: str = "en-US", size=(1280, 800), **options):
    """Yields a page; checks at the end that it caused no error and requested nothing but `url`."""
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
    """Whether a console message is an error; a request refused by the server does not count."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def wait_for(page, expression: str) -> None:
    """Waits until an expression is true; Playwright's own waiting needs `eval`, which the pages forbid."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def assert_no_wider_than(page, width: int) -> None:
    """Checks that a page needs no horizontal scrolling."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
