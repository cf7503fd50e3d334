"""The application's routes, and what surrounds every request: key, host, limits, errors, and cancelling work when a
client disconnects."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm.errors import InputError, shown
from glm.serving.adapters import AdapterDesk
from glm.serving.batcher import DecodingError, QueueFullError
from glm.serving.bodies import SMALL, Body, Desk, Limits, parse
from glm.serving.completions import Completions, Job
from glm.serving.errors import ApiError, JSONResponse, render
from glm.serving.hosts import Hosts
from glm.serving.languages import preferred, with_translated_rows
from glm.serving.metrics import CONTENT_TYPE, Counted
from glm.serving.schemas import (
    AdapterRequest,
    ChatRequest,
    ChooseRequest,
    CompletionRequest,
    Decoded,
    DetokenizeRequest,
    ExtractRequest,
    GenerateRequest,
    TokenizeRequest,
)
from glm.serving.service import Service
from glm.serving.streams import HEADERS, MEDIA_TYPE, as_events

MOST_HELD = 64 << 20  # bytes of all bodies being read or answered
BODY_SECONDS = 30.0  # until a body has to be complete
SCHEMAS = (AdapterRequest, CompletionRequest, ChatRequest, GenerateRequest, ChooseRequest, ExtractRequest)
SCHEMAS += (TokenizeRequest, DetokenizeRequest)
LOOKS = ["GET", "HEAD"]  # load balancers use HEAD
OPEN_PATHS = {"/", "/health"}  # paths that need no key
PAGE = Path(__file__).with_name("page.html")
# The page loads nothing from elsewhere and talks to this server only.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def build_app(
    service: Service,
    *,
    api_key: str | None = None,
    request_timeout: float = 120.0,
    limits: Limits | None = None,
    hosts: Hosts | None = None,
    adapters: AdapterDesk | None = None,
) -> FastAPI:
    """Builds the application.

    Args:
        api_key: what requests have to bring, if anything.
        request_timeout: seconds until a request is given up.
        limits: what one request may bring.
        hosts: what requests may call this server; None does not look.
        adapters: adds tasks and takes them out, for who has the key.
    """
    limits = limits or Limits()
    exchange = Exchange(service, limits, request_timeout)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        for desk in (exchange.reader, *(each.desk for each in (service, *service.of_tasks.values()))):
            desk.close()
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(
        title="GLM",
        docs_url=None,  # FastAPI's page loads scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        default_response_class=JSONResponse,
        telemetry={"tracing": False, "metrics": False},
    )
    app.add_middleware(Guard, api_key=api_key, limits=limits, hosts=hosts)
    add_error_handlers(app)
    add_routes_about(app, service)
    add_routes_of_openai(app, service, exchange)
    add_routes_of_tasks(app, service, exchange)
    add_routes_of_adapters(app, exchange, adapters, api_key)
    # The middleware added last sees requests first.
    app.add_middleware(Counted, metrics=service.batcher.metrics, paths={*paths_of(app)})
    return app


class Exchange:
    """Reads the bodies of requests and sends answers, within the limits of size and time.

    Args:
        limits: what one request may bring.
        seconds: until a request is given up.
    """

    def __init__(self, service: Service, limits: Limits, seconds: float):
        self.service = service
        self.limits = limits
        self.seconds = seconds
        # Reads large bodies; small ones are read at once, so that they never queue behind large ones.
        self.reader = Desk("reading")

    async def asked(self, request: Request, schema: type[Body]) -> Body:
        """Reads the body of a request. Raises ApiError if it does not follow the schema."""
        data = await request.body()
        if len(data) <= SMALL:
            return parse(data, schema, self.limits)
        self.reader.give_memory_back()
        return await self.reader.run(parse, data, schema, self.limits)

    async def answer(self, request: Request, work: Coroutine[Any, Any, Any]) -> Response:
        """Answers with the result of work, as JSON."""

        async def rendered() -> bytes:
            return await self.service.desk.run(render, with_translated_rows(await work, preferred(request.headers)))

        return Response(await answered(request, rendered(), self.seconds), media_type="application/json")

    async def completed(self, request: Request, body: Decoded, whole: str, job: str) -> Response:
        """Answers a request of OpenAI's API, whole or in parts; `whole` and `job` name methods of `Completions`."""
        check_model(self.service, body.model)
        completions = self.service.of(body.model).completions
        if body.stream:
            return await self._streamed(request, completions, getattr(completions, job)(body))
        return await self.answer(request, getattr(completions, whole)(body))

    async def _streamed(self, request: Request, completions: Completions, job: Coroutine[Any, Any, Job]) -> Response:
        deadline = time.monotonic() + self.seconds

        async def begun() -> AsyncIterator[dict[str, Any]]:
            return await completions.stream(await job)

        parts = in_time(await answered(request, begun(), self.seconds), deadline, preferred(request.headers))
        return StreamingResponse(as_events(parts), media_type=MEDIA_TYPE, headers=HEADERS)


def add_routes_of_openai(app: FastAPI, service: Service, exchange: Exchange) -> None:
    """Adds the routes of OpenAI's API, and those that vLLM's servers have beside it."""
    completions = service.completions

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        body = await exchange.asked(request, CompletionRequest)
        return await exchange.completed(request, body, "complete", "job")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await exchange.asked(request, ChatRequest)
        return await exchange.completed(request, body, "chat", "chat_job")

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        body = await exchange.asked(request, TokenizeRequest)
        return await exchange.answer(request, service.desk.run(completions.tokenize, body))

    @app.post("/detokenize")
    async def detokenize(request: Request) -> Response:
        body = await exchange.asked(request, DetokenizeRequest)
        return await exchange.answer(request, service.desk.run(completions.detokenize, body))


def add_routes_of_tasks(app: FastAPI, service: Service, exchange: Exchange) -> None:
    """Adds the routes of this toolkit's own kinds of task."""

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        body = await exchange.asked(request, GenerateRequest)
        return await exchange.answer(request, service.of(body.task).generate(body))

    @app.post("/choose")
    async def choose(request: Request) -> Response:
        body = await exchange.asked(request, ChooseRequest)
        return await exchange.answer(request, service.tasks.choose(body))

    @app.post("/extract")
    async def extract(request: Request) -> Response:
        body = await exchange.asked(request, ExtractRequest)
        return await exchange.answer(request, service.tasks.extract(body))


def add_routes_of_adapters(
    app: FastAPI, exchange: Exchange, adapters: AdapterDesk | None, api_key: str | None
) -> None:
    """Adds the routes that add tasks to the server and take them out."""

    @app.post("/adapters")
    async def add(request: Request) -> Response:
        desk = open_to_change(adapters, api_key)
        return await exchange.answer(request, desk.add(await exchange.asked(request, AdapterRequest)))

    @app.delete("/adapters/{name}")
    async def remove(request: Request, name: str) -> Response:
        return await exchange.answer(request, open_to_change(adapters, api_key).remove(name))


def open_to_change(adapters: AdapterDesk | None, api_key: str | None) -> AdapterDesk:
    """Returns what changes a server's tasks. Raises ApiError without a key, or if the model takes no adapters."""
    if api_key is None:
        raise ApiError(403, "adapters change for who has the key only; start with --api_key_file", code="no_api_key")
    if adapters is None:
        raise ApiError(403, "adapters: the model here takes none", code="no_adapters")
    return adapters


def check_model(service: Service, name: str | None) -> None:
    """Raises ApiError if a request names another model."""
    if name not in (None, service.name, *service.of_tasks):
        message = f"model {shown(name)}: is not served; the model here is {service.name}"
        raise ApiError(404, message, code="model_not_found", param="model")


def add_routes_about(app: FastAPI, service: Service) -> None:
    """Adds the routes of the page and of information about server and model. None of them waits for a thread."""

    @app.api_route("/", methods=LOOKS)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    @app.api_route("/health", methods=LOOKS)
    async def health() -> JSONResponse:
        return JSONResponse(*service.status().answer())

    @app.api_route("/metrics", methods=LOOKS)
    async def metrics() -> Response:
        return Response(service.batcher.metrics.exposed(), media_type=CONTENT_TYPE)

    @app.api_route("/settings", methods=LOOKS)
    async def settings() -> JSONResponse:
        return JSONResponse(service.settings())

    @app.api_route("/tokenizer_info", methods=LOOKS)
    async def tokenizer_info() -> JSONResponse:
        return JSONResponse(service.completions.tokenizer_info())

    @app.api_route("/v1/models", methods=LOOKS)
    async def models() -> JSONResponse:
        return JSONResponse(service.models())

    @app.api_route("/v1/models/{name:path}", methods=LOOKS)
    async def model(name: str) -> JSONResponse:
        check_model(service, name)
        return JSONResponse(service.model(name))


async def answered(request: Request, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Waits for the result of work, which is cancelled when the client disconnects or the time is over.

    Raises:
        ApiError: it was cancelled; or the queue is full, or the model failed.
    """
    task = asyncio.create_task(work)
    left = asyncio.create_task(departure(request))
    try:
        await asyncio.wait({task, left}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if left.done():
            raise ApiError(499, "the client closed the connection", code="client_left")
        raise too_late(seconds)
    except (QueueFullError, DecodingError) as error:
        raise failure_of(error) from error
    finally:
        task.cancel()
        left.cancel()


async def in_time(
    parts: AsyncIterator[dict[str, Any]], deadline: float, language: str
) -> AsyncIterator[dict[str, Any]]:
    """Yields the parts of an answer as they come. The status has been sent by then, so an error becomes the last part.

    Args:
        deadline: time of the monotonic clock.
        language: language of the error.
    """
    start = time.monotonic()
    try:
        while True:
            try:
                yield await asyncio.wait_for(anext(parts), deadline - time.monotonic())
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield too_late(deadline - start).content(language)
                return
            except (DecodingError, InputError) as error:
                yield failure_of(error).content(language)
                return
    finally:
        await parts.aclose()


def too_late(seconds: float) -> ApiError:
    """Makes the error of an answer that took too long."""
    return ApiError(504, f"not done within {seconds:.3g} s; ask for fewer or shorter texts, or later", code="timeout")


def failure_of(error: Exception) -> ApiError:
    """Converts an exception from behind the API to an error of the API."""
    if isinstance(error, QueueFullError):
        return ApiError(503, "too many texts are waiting; try again later", code="queue_full")
    if isinstance(error, InputError):
        subject = str(error).split()[0].strip(":,")  # messages start with the name of what is wrong
        known = any(subject in schema.model_fields for schema in SCHEMAS)
        text = shown(str(error), 2000, kept="\n")
        return ApiError(422, text, code="invalid_value", param=subject if known else None)
    return ApiError(500, f"decoding failed: {error}", code="decoding_failed")


async def departure(request: Request) -> None:
    """Returns when the client of a request, whose body was read, has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def add_error_handlers(app: FastAPI) -> None:
    """Turns every error into the form of `ApiError`. In the loop: others would be called in a thread for each of many
    requests, and what a thread allocates stays with it."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return error.response(preferred(request.headers))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> JSONResponse:
        # For the log: the client is gone.
        return ApiError(499, "the client closed the connection", code="client_left").response()

    @app.exception_handler(InputError)
    async def unusable(request: Request, error: InputError) -> JSONResponse:
        return failure_of(error).response(preferred(request.headers))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "body_too_large", 503: "queue_full"}
        message = {
            404: f"{shown(request.url.path)}: is not there; there are {', '.join(paths_of(app))}",
            405: f"{request.method} {shown(request.url.path)}: use another method, POST or GET",
        }.get(error.status_code, error.detail)
        code = code.get(error.status_code, "bad_request")
        return ApiError(error.status_code, message, code=code).response(preferred(request.headers))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        message = "the server failed; its log says why"
        return ApiError(500, message, code="server_failed").response(preferred(request.headers))


def paths_of(app: FastAPI) -> list[str]:
    """Returns all paths of the application."""
    return list(dict.fromkeys(route.path for route in app.routes))


class Guard:
    """Rejects requests for other hosts, without key, of other types than JSON, and with bodies too large or too
    slow."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, limits: Limits, hosts: Hosts | None):
        self.app = app
        self.api_key = api_key
        self.hosts = hosts
        self.most_bytes = limits.max_request_bytes
        self.held = 0  # bytes of all bodies being read or answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif error := self._refusal(scope):
            await error.response(preferred(Headers(scope=scope)))(scope, receive, send)
        else:
            body = _Reading(self, receive)
            try:
                await self.app(scope, body.receive, send)
            finally:
                self.held -= body.size

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        if self.hosts is not None:
            host, origin = (_text(headers.get(name)) for name in (b"host", b"origin"))
            if refusal := self.hosts.refusal(host, origin):
                return ApiError(refusal.status, refusal.message, code=refusal.code)
        expected = f"Bearer {self.api_key}".encode()
        given = headers.get(b"authorization", b"")
        if self.api_key is not None and scope["path"] not in OPEN_PATHS and not hmac.compare_digest(given, expected):
            return ApiError(401, "send the key as 'Authorization: Bearer KEY'", code="invalid_api_key")
        if scope["method"] != "POST":
            return None
        # Pages of other sites may send other types here without a preflight request, but not JSON.
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            return ApiError(415, "send JSON, with 'Content-Type: application/json'", code="unsupported_media_type")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes:
            message = f"the body has {int(length)} bytes; at most {self.most_bytes} (max_request_bytes)"
            return ApiError(413, message, code="body_too_large")
        return None


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")


class _Reading:
    """A body being received, within limits of size and time.

    Attributes:
        size: bytes that have come.
    """

    def __init__(self, guard: Guard, receive: Receive):
        self.guard = guard
        self.size = 0
        self._receive = receive
        self._deadline = time.monotonic() + BODY_SECONDS
        self._is_whole = False

    async def receive(self) -> Message:
        """Receives the next message.

        Raises:
            HTTPException: the body is too large or too slow, or there are too many.
        """
        if self._is_whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._deadline - time.monotonic())
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {BODY_SECONDS:g} s") from None
        length = len(message.get("body", b""))
        self.size += length
        self.guard.held += length
        self._is_whole = not message.get("more_body", False)
        if self.size > self.guard.most_bytes:
            raise HTTPException(413, f"the body has more than {self.guard.most_bytes} bytes (max_request_bytes)")
        if self.guard.held > MOST_HELD:
            raise HTTPException(503, "too many large requests at once; try again later")
        return message
