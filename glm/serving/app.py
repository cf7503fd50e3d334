"""The routes, and what surrounds each request: key, host, limits, errors, and dropping the work of who left."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm.errors import InputError, shown
from glm.serving.batcher import DecodingError, QueueFullError
from glm.serving.bodies import SMALL, Body, Desk, Limits, parse
from glm.serving.errors import ApiError, JSONResponse, render
from glm.serving.hosts import Hosts
from glm.serving.schemas import ChooseRequest, CompletionRequest, ExtractRequest, GenerateRequest
from glm.serving.service import Service

MOST_HELD = 64 << 20  # bytes of all bodies that are being read or answered
BODY_SECONDS = 30.0  # until a body has to be there
SCHEMAS = (CompletionRequest, GenerateRequest, ChooseRequest, ExtractRequest)
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
) -> FastAPI:
    """The application.

    Args:
        api_key: what requests have to bring, if anything.
        request_timeout: seconds until a request is given up.
        limits: what one request may bring.
        hosts: what requests may call this server; None does not look.
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

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await asked(request, CompletionRequest)
        if body.model not in (None, service.name, *service.of_tasks):
            message = f"model {shown(body.model)}: is not served; the model here is {service.name}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return await answer(request, service.of(body.model).complete(body))

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

    return app


def add_routes_about(app: FastAPI, service: Service) -> None:
    """The page, and what there is to know of server and model. None of these waits for a thread."""

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = service.batcher.is_alive
        status = {"status": "ok" if alive else "failed", **service.batcher.load}
        return JSONResponse(status, 200 if alive else 503)

    @app.get("/settings")
    async def settings() -> JSONResponse:
        return JSONResponse(service.settings())

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse(service.models())


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
        message = f"not done within {seconds:g} s; ask for fewer or shorter texts, or later"
        raise ApiError(504, message, code="timeout")
    except QueueFullError as error:
        raise ApiError(503, "too many texts are waiting; try again later", code="queue_full") from error
    except DecodingError as error:
        raise ApiError(500, f"decoding failed: {error}", code="decoding_failed") from error
    finally:
        task.cancel()
        left.cancel()


async def departure(request: Request) -> None:
    """Returns when the client of a request, whose body was read, has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def add_error_handlers(app: FastAPI) -> None:
    """Turns every error into the one form of `ApiError`."""

    @app.exception_handler(ApiError)
    def refused(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(InputError)
    def unusable(_: Request, error: InputError) -> JSONResponse:
        subject = str(error).split()[0].strip(":,")  # messages start with what is wrong
        known = any(subject in schema.model_fields for schema in SCHEMAS)
        return ApiError(
            422, shown(str(error), 2000, kept="\n"), code="invalid_value", param=subject if known else None
        ).response()

    @app.exception_handler(HTTPException)
    def http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "body_too_large", 503: "queue_full"}
        return ApiError(error.status_code, error.detail, code=code.get(error.status_code, "bad_request")).response()

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "the server failed; its log says why", code="server_failed").response()


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
            await error.response()(scope, receive, send)
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
            if error := self.hosts.refusal(host, origin):
                return error
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
