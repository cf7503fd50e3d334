"""Streams growing texts: which part is final, and server-sent events."""

import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from glm.prediction.output import json_line

DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # asks proxies not to buffer events
UNFINISHED = "\ufffd"  # replacement character of an incomplete UTF-8 sequence


class GrowingText:
    """Splits a text that grows token by token into parts that never have to be retracted.

    A part is sent when one token more has left it as it is, and when it cannot be the start of a stop any more.

    Args:
        text_of: the text of tokens, as it would be shown.
        stops: texts at which it ends.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str], stops: Collection[str] = ()):
        self.text_of = text_of
        self.stops = stops
        self.sent = ""
        self._before = ""

    def grown(self, tokens: Sequence[int]) -> str:
        """Returns what can be sent now that it has these tokens; may be empty."""
        text = self.text_of(tokens)
        kept = os.path.commonprefix([self._before, text]).rstrip(UNFINISHED)
        self._before = text
        kept = kept[: len(kept) - self._start_of_stop(kept)]
        return self._part(kept) if kept.startswith(self.sent) else ""

    def rest(self, text: str) -> str:
        """Returns what remains to be sent of the finished text."""
        return self._part(text) if text.startswith(self.sent) else ""

    def _part(self, text: str) -> str:
        part, self.sent = text[len(self.sent) :], text
        return part

    def _start_of_stop(self, text: str) -> int:
        """Returns the number of characters at the end of a text that may begin a stop."""
        longest = max(map(len, self.stops), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0


async def as_events(contents: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Formats objects as server-sent events."""
    async for content in contents:
        yield b"data: " + json_line(content) + b"\n"
    yield DONE
