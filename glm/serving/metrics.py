"""Counts a server's work in Prometheus' format: `GET /metrics`."""

import time
from collections.abc import Callable, Collection, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # histogram bounds
OTHER = "other"  # stands for paths without a route, which a client could make up without limit


class Metrics:
    """Counters, gauges and histograms of one server.

    Args:
        load: how many texts are decoded, and how many wait, at the time of asking.
        places: texts that can be decoded together.
    """

    def __init__(self, load: Callable[[], Mapping[str, int]], *, places: int):
        self.registry = CollectorRegistry()
        for name, text in (("decoding", "Texts that are decoded now."), ("waiting", "Texts that wait for a place.")):
            gauge = Gauge(f"glm_texts_{name}", text, registry=self.registry)
            gauge.set_function(lambda name=name: load()[name])
        Gauge("glm_text_places", "Texts that can be decoded together.", registry=self.registry).set(places)
        self.prompt_tokens = self._counter("glm_prompt_tokens", "Tokens read, of prompts.")
        self.generated_tokens = self._counter("glm_generated_tokens", "Tokens written, of texts that were finished.")
        self.requests = self._counter("glm_requests", "Requests answered, by path and status.", "path", "status")
        self.wait = self._histogram("glm_wait_seconds", "From a text's arrival until it has a place.")
        self.first_token = self._histogram("glm_first_token_seconds", "From a text's arrival to its first token.")
        self.text = self._histogram("glm_text_seconds", "From a text's arrival until it is finished.")
        self.request = self._histogram("glm_request_seconds", "From a request to the end of its answer.", "path")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)

    def exposed(self) -> bytes:
        """Returns all of them in Prometheus' text format."""
        return generate_latest(self.registry)


class Counted:
    """Counts an application's requests, and measures their seconds.

    Args:
        paths: paths that are counted separately.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Collection[str]):
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 499, time.perf_counter()  # clients that disconnected before the answer began
        path = scope["path"] if scope["path"] in self.paths else OTHER

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.request.labels(path).observe(time.perf_counter() - start)
