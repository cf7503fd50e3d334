"""The routes, and what surrounds each request: key, host, limits, errors, and dropping the work of who left."""

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
from glm.serving.languages import preferred
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

MOST_HELD = 64 << 20  # bytes of all bodies that are being read or answered
BODY_SECONDS = 30.0  # until a body has to be there
SCHEMAS = (AdapterRequest, CompletionRequest, ChatRequest, GenerateRequest, ChooseRequest, ExtractRequest)
LOOKS = ["GET", "HEAD"]  # load balancers ask without wanting an answer's body
OPEN_PATHS = {"/", "/health"}  # no key is needed
PAGE = Path(__file__).with_name("page.html")
# The page loads nothing from anywhere and talks to this server only.
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
    """The application.

    Args:
        api_key: what requests have to bring, if anything.
        request_timeout: seconds until a request is given up.
        limits: what one request may bring.
        hosts: what requests may call this server; None does not look.
        adapters: adds tasks and takes them out, for who has the key.
    """
    limits = limits or Limits()
    reader = Desk("reading")  # of large bodies; small ones, read at once, do not wait behind them to be laid out

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        reader.close()
        for each in (service, *service.of_tasks.values()):
            each.desk.close()
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(
        title="GLM",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        default_response_class=JSONResponse,
        telemetry={"tracing": False, "metrics": False},
    )
    app.add_middleware(Guard, api_key=api_key, limits=limits, hosts=hosts)
    add_error_handlers(app)
    add_routes_about(app, service)
    completions = service.completions

    async def asked(request: Request, schema: type[Body]) -> Body:
        data = await request.body()
        if len(data) <= SMALL:
            return parse(data, schema, limits)
        reader.give_memory_back()
        return await reader.run(parse, data, schema, limits)

    async def answer(request: Request, work: Coroutine[Any, Any, Any]) -> Response:
        async def rendered() -> bytes:
            return await service.desk.run(render, await work)

        return Response(await answered(request, rendered(), request_timeout), media_type="application/json")

    async def streamed(request: Request, completions: Completions, job: Coroutine[Any, Any, Job]) -> Response:
        deadline = time.monotonic() + request_timeout

        async def begun() -> AsyncIterator[dict[str, Any]]:
            return await completions.stream(await job)

        parts = in_time(await answered(request, begun(), request_timeout), deadline, preferred(request.headers))
        return StreamingResponse(as_events(parts), media_type=MEDIA_TYPE, headers=HEADERS)

    async def completed(request: Request, body: Decoded, whole: str, job: str) -> Response:
        check_model(service, body.model)
        own = service.of(body.model).completions
        if body.stream:
            return await streamed(request, own, getattr(own, job)(body))
        return await answer(request, getattr(own, whole)(body))

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        body = await asked(request, CompletionRequest)
        return await completed(request, body, "complete", "job")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await asked(request, ChatRequest)
        return await completed(request, body, "chat", "chat_job")

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        body = await asked(request, TokenizeRequest)
        return await answer(request, service.desk.run(completions.tokenize, body))

    @app.post("/detokenize")
    async def detokenize(request: Request) -> Response:
        body = await asked(request, DetokenizeRequest)
        return await answer(request, service.desk.run(completions.detokenize, body))

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        body = await asked(request, GenerateRequest)
        return await answer(request, service.of(body.task).generate(body))

    @app.post("/choose")
    async def choose(request: Request) -> Response:
        return await answer(request, service.tasks.choose(await asked(request, ChooseRequest)))

    @app.post("/extract")
    async def extract(request: Request) -> Response:
        return await answer(request, service.tasks.extract(await asked(request, ExtractRequest)))

    @app.post("/adapters")
    async def add(request: Request) -> Response:
        desk = open_to_change(adapters, api_key)
        return await answer(request, desk.add(await asked(request, AdapterRequest)))

    @app.delete("/adapters/{name}")
    async def remove(request: Request, name: str) -> Response:
        return await answer(request, open_to_change(adapters, api_key).remove(name))

    app.add_middleware(
        Counted, metrics=service.batcher.metrics, paths={*paths_of(app)}
    )  # the last one sees requests first
    return app


def open_to_change(adapters: AdapterDesk | None, api_key: str | None) -> AdapterDesk:
    """What changes the tasks of a server. Raises ApiError where there is no key, or the model takes no adapters."""
    if api_key is None:
        raise ApiError(403, "adapters change for who has the key only; start with --api_key_file", code="no_api_key")
    if adapters is None:
        raise ApiError(403, "adapters: the model here takes none", code="no_adapters")
    return adapters


def check_model(service: Service, name: str | None) -> None:
    """Raises ApiError where another model is meant."""
    if name not in (None, service.name, *service.of_tasks):
        message = f"model {shown(name)}: is not served; the model here is {service.name}"
        raise ApiError(404, message, code="model_not_found", param="model")


def add_routes_about(app: FastAPI, service: Service) -> None:
    """The page, and what there is to know of server and model. None of these waits for a thread."""

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
    """The result of work that is cancelled when the client leaves, or when the time is over.

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
    """Parts of an answer as they come; an error is the last one, for the status has been sent.

    Args:
        deadline: by the monotonic clock.
        language: of the error.
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
    """The error of an answer that took too long."""
    return ApiError(504, f"not done within {seconds:.3g} s; ask for fewer or shorter texts, or later", code="timeout")


def failure_of(error: Exception) -> ApiError:
    """What went wrong behind the API, as an error of the API."""
    if isinstance(error, QueueFullError):
        return ApiError(503, "too many texts are waiting; try again later", code="queue_full")
    if isinstance(error, InputError):
        subject = str(error).split()[0].strip(":,")  # messages start with what is wrong
        known = any(subject in schema.model_fields for schema in SCHEMAS)
        text = shown(str(error), 2000, kept="\n")
        return ApiError(422, text, code="invalid_value", param=subject if known else None)
    return ApiError(500, f"decoding failed: {error}", code="decoding_failed")


async def departure(request: Request) -> None:
    """Returns when the client of a request, whose body was read, has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def add_error_handlers(app: FastAPI) -> None:
    """Turns every error into the one form of `ApiError`."""

    @app.exception_handler(ApiError)
    def refused(request: Request, error: ApiError) -> JSONResponse:
        return error.response(preferred(request.headers))

    @app.exception_handler(ClientDisconnect)
    def left(_: Request, error: ClientDisconnect) -> JSONResponse:
        return ApiError(499, "the client closed the connection", code="client_left").response()  # nobody reads it

    @app.exception_handler(InputError)
    def unusable(request: Request, error: InputError) -> JSONResponse:
        return failure_of(error).response(preferred(request.headers))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "body_too_large", 503: "queue_full"}
        message = {
            404: f"{shown(request.url.path)}: is not there; there are {', '.join(paths_of(app))}",
            405: f"{request.method} {shown(request.url.path)}: use another method, POST or GET",
        }.get(error.status_code, error.detail)
        code = code.get(error.status_code, "bad_request")
        return ApiError(error.status_code, message, code=code).response(preferred(request.headers))

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        message = "the server failed; its log says why"
        return ApiError(500, message, code="server_failed").response(preferred(request.headers))


def paths_of(app: FastAPI) -> list[str]:
    """The paths that there are."""
    return list(dict.fromkeys(route.path for route in app.routes))


class Guard:
    """Turns away requests for others, without key, of other types than JSON, and bodies too large or too slow."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, limits: Limits, hosts: Hosts | None):
        self.app = app
        self.api_key = api_key
        self.hosts = hosts
        self.most_bytes = limits.max_request_bytes
        self.held = 0  # bytes of all bodies that are being read or answered

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
        # Other sites' pages may send other types here without asking; JSON they may not.
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
    """A body on its way, which has to be small enough and come soon enough.

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
        """The next message.

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
