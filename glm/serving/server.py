"""Runs the page and the API: binds the address, starts, and on shutdown lets requests finish."""

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import fields, replace
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from glm.errors import InputError
from glm.modules.decoding import report_compiling
from glm.options.predict import PredictOptions
from glm.prediction.free_tasks import text_writer
from glm.prediction.setup import build_mixed_writer, build_prediction_encoder, build_writer, open_tasks
from glm.prediction.warm_up import warm_up
from glm.runtime.device import share_memory
from glm.serving.adapters import AdapterDesk
from glm.serving.app import build_app
from glm.serving.batcher import Batcher
from glm.serving.bodies import Limits
from glm.serving.front import Front
from glm.serving.hosts import Hosts
from glm.serving.service import Service

REQUEST_SECONDS = 60.0  # until a request has to be complete, head and body
# Until an idle connection is closed. Clients close theirs sooner (httpx after 5 s): if the server closed first, a
# request could be sent into a connection that is just being closed.
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30  # for unfinished requests when the server is shut down


def serve(options: PredictOptions, command: Sequence[str]) -> int:
    """Serves until a signal (Ctrl-C, SIGTERM) ends it.

    Args:
        command: see `Service`.

    Returns:
        The exit code.

    Raises:
        InputError: the address cannot be used, or as `build_writer`.
    """
    arguments = options.prediction
    share_memory()
    listener = bind(arguments.host, arguments.port)
    service = build_service(options, command)
    family = service.writer.encoder.family
    takes_adapters = "bottleneck" in family.abilities and service.own is None
    app = build_app(
        service,
        adapters=AdapterDesk(service, options) if takes_adapters else None,
        api_key=arguments.api_key,
        request_timeout=arguments.request_timeout,
        limits=Limits(**{item.name: getattr(arguments, item.name) for item in fields(Limits)}),
        hosts=Hosts(arguments.host, arguments.other_names),
    )
    run_app(app, listener, service=service, names=[arguments.host, *arguments.other_names])
    return 0


def build_service(options: PredictOptions, command: Sequence[str]) -> Service:
    """Loads the model, with adapters of tasks if given, and makes the service. Raises InputError as `build_writer`."""
    arguments = options.prediction
    tasks = open_tasks(options) if arguments.adapters is not None else None
    writers = {} if tasks is None else dict(build_mixed_writer(options, tasks).writers)
    own = writers.pop("") if writers else build_writer(options, build_prediction_encoder(options))
    writer = text_writer(own, options.generation)
    batcher = Batcher(writer, device=arguments.device, most_waiting=arguments.max_waiting)
    others = {
        name: Service(name, of_task, batcher, replace(tasks.data[name].columns, target_column=None), command)
        for name, of_task in writers.items()
    }
    columns = replace(options.data.columns, target_column=None)  # requests have none
    own = None if own is writer else own
    warm_up(writer, own)
    for of_task in writers.values():
        warm_up(of_task)
    report_compiling()
    return Service(options.model.model_name_or_path, writer, batcher, columns, command, own, others)


def bind(host: str, port: int) -> socket.socket:
    """Binds a socket to an address, without listening yet.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise InputError(f"host {host}, port {port}: cannot be used ({error.strerror}); choose another") from error
    return listener


def run_app(app: FastAPI, listener: socket.socket, *, service: Service, names: Sequence[str]) -> None:
    """Runs an application until a signal ends it; earlier requests have `GRACE_SECONDS` to finish."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn re-raises signals when it has ended
    try:
        Server(app, service, names).run(sockets=[listener])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)


class Server(uvicorn.Server):
    """uvicorn's server, which prints its address once it listens, and whose connections come from another process.

    Args:
        names: names that requests may use for it, first the address it serves at.
    """

    front: Front | None = None

    def __init__(self, app: FastAPI, service: Service, names: Sequence[str]):
        settings: dict[str, Any] = {"log_level": "error", "access_log": False, "lifespan": "on", "ws": "none"}
        settings |= {"timeout_keep_alive": KEEP_ALIVE_SECONDS, "timeout_graceful_shutdown": GRACE_SECONDS}
        super().__init__(uvicorn.Config(app, http=Protocol, **settings))
        self.service, self.names = service, names
        self._connecting: set[asyncio.Task] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        [listener] = sockets
        listener.listen(self.config.backlog)
        self.front = Front(listener, self.names, self._connect, lambda: self._keep(self._accept(listener)))
        self.front.note(self.service.status())
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"serving {self.service.name} at http://{host}:{port} (Ctrl-C stops)", file=sys.stderr, flush=True)

    async def on_tick(self, counter: int) -> bool:
        self.front.note(self.service.status())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.front.end()
        await super().shutdown(sockets)

    def _protocol(self) -> "Protocol":
        return Protocol(self.config, self.server_state, self.lifespan.state)

    def _connect(self, connection: socket.socket) -> None:
        self._keep(asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection))

    async def _accept(self, listener: socket.socket) -> None:
        """Accepts connections in this process, after the accepting process was killed."""
        print("warning: the process that accepts connections has ended; /health may be slow", file=sys.stderr)
        self.servers.append(await asyncio.get_running_loop().create_server(self._protocol, sock=listener))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


class Protocol(H11Protocol):
    """HTTP protocol that closes connections whose requests are not complete in time."""

    deadline = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._stop_watching()

    def _watch(self) -> None:
        """Starts the timer at a request's first byte, or while waiting for it, and stops it at the last."""
        state = self.conn.their_state
        is_between = state is h11.IDLE and not self.conn.trailing_data[0]  # a refused request is complete
        if is_between or state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_watching()
        if state in (h11.IDLE, h11.SEND_BODY) and self.deadline is None:
            self.deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop_watching(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
