"""Reads README and docs/, in both languages, for the tests."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:^<!-- not run[^\n:]*: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
MANUAL = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(MANUAL.glob("*.md"))  # the manual, in English
LANGUAGES = ("English", "Chinese")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the reason if it is not to be run."""

    language: str
    text: str
    reason: str | None

    @property
    def code(self) -> list[str]:
        """Its lines without comments, which are translated."""
        return [re.sub(r"\s+# .*", "", line) for line in self.text.splitlines()]

    @property
    def is_run(self) -> bool:
        """Whether the test runs it."""
        return self.language in ("bash", "python") and self.reason is None


def in_chinese(page: Path) -> Path:
    """The Chinese page of an English one."""
    return ROOT / "README.zh-CN.md" if page == README else page.parent / "zh" / page.name


def read(page: Path) -> str:
    """The text of a page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in FENCE.finditer(read(page)):
        yield Block(found["language"], found["text"], found["reason"])


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", read(page))
