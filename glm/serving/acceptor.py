"""Accepts a server's connections in a process of its own, answers `/health` there, and passes everything else on.

python -m glm.serving.acceptor LISTENER CHANNEL BOARD HOST [OTHER...]: the first three are open files. Whatever the
server does, computing or reading what is large, this process has its own turn on the processor, so that an answer to
`/health` waits for nobody. It looks at the first bytes of a connection without taking them: the server reads a request
that is handed over from its beginning.
"""

import json
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass

import h11

from glm.serving.hosts import Hosts
from glm.serving.status import Board

PATH = b"/health"
HEAD_BYTES = 1 << 13  # bytes of a request that are inspected
FIRST_SECONDS = 1.0  # until a silent connection is passed on; the server has its own timeout
NEXT_SECONDS = 75.0  # until a connection is closed after an answer
TICK_SECONDS = 0.5  # between checks of these timeouts


@dataclass
class Link:
    """A connection, and the time until which it is kept waiting."""

    socket: socket.socket
    deadline: float
    was_answered: bool = False


class Acceptor:
    """Accepts connections until the server closes the channel.

    Args:
        listener: where connections come in.
        channel: where they are handed over, a byte with each; the server never writes to it.
        board: how the server is.
        hosts: what requests may call it.
    """

    def __init__(self, listener: socket.socket, channel: socket.socket, board: Board, hosts: Hosts):
        self.listener, self.channel = listener, channel
        self.board, self.hosts = board, hosts
        self._links: dict[socket.socket, Link] = {}
        self._leaving: deque[socket.socket] = deque()  # to be passed on
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Runs until the server ends; connections that came before are still passed on."""
        self.listener.setblocking(False)
        self.channel.setblocking(False)
        self._selector.register(self.listener, selectors.EVENT_READ)
        self._selector.register(self.channel, selectors.EVENT_READ)
        is_open = True
        while is_open:
            for key, events in self._selector.select(TICK_SECONDS):
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is not self.channel:
                    self._look(self._links[key.fileobj])
                elif events & selectors.EVENT_READ:
                    is_open = False
            self._look_at_clock()
            self._hand_over()
        self._end()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:  # too many open files at the moment
                time.sleep(0.01)
                return
            accepted.setblocking(False)
            self._links[accepted] = Link(accepted, time.monotonic() + FIRST_SECONDS)
            self._selector.register(accepted, selectors.EVENT_READ)

    def _look(self, link: Link) -> None:
        """Answers a request if it can be answered here; otherwise passes the connection on."""
        try:
            opening = link.socket.recv(HEAD_BYTES, socket.MSG_PEEK)
            end = opening.find(b"\r\n\r\n") + 4
            if not opening:
                self._drop(link.socket)
            elif opening.startswith((b"GET " + PATH + b" ", b"GET " + PATH + b"?")) and end > 3:
                self._answer(link, opening[:end])
            else:
                self._release(link.socket)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the client has disconnected
            self._drop(link.socket)

    def _answer(self, link: Link, head: bytes) -> None:
        """Answers a request for `/health`; an unusual one, or one for another server, is left to the server."""
        http = h11.Connection(h11.SERVER)
        try:
            http.receive_data(head)
            request, end = http.next_event(), http.next_event()
        except h11.RemoteProtocolError:
            return self._release(link.socket)
        headers = dict(request.headers)
        host, origin = (headers[name].decode("latin-1") if name in headers else None for name in (b"host", b"origin"))
        if type(end) is not h11.EndOfMessage or self.hosts.refusal(host, origin) is not None:
            return self._release(link.socket)
        link.socket.recv(len(head))
        content, status = self.board.read().answer()
        body = json.dumps(content).encode() + b"\n"
        kind = [("content-type", "application/json"), ("content-length", str(len(body)))]
        events = (h11.Response(status_code=status, headers=kind), h11.Data(data=body), h11.EndOfMessage())
        link.socket.send(b"".join(http.send(event) for event in events))
        if http.our_state is h11.MUST_CLOSE:
            return self._drop(link.socket)
        link.was_answered, link.deadline = True, time.monotonic() + NEXT_SECONDS

    def _look_at_clock(self) -> None:
        self.board.read()
        now = time.monotonic()
        for link in [link for link in self._links.values() if link.deadline < now]:
            (self._drop if link.was_answered else self._release)(link.socket)

    def _release(self, connection: socket.socket) -> None:
        """Gives up a connection: from now on it belongs to the server."""
        self._selector.unregister(connection)
        del self._links[connection]
        self._leaving.append(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._links[connection]
        connection.close()

    def _hand_over(self) -> None:
        """Passes waiting connections on, as far as the channel takes them now."""
        while self._leaving:
            try:
                socket.send_fds(self.channel, [b"."], [self._leaving[0].fileno()])
            except OSError:  # the channel is full, or the server has ended
                break
            self._leaving.popleft().close()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._leaving else 0)
        self._selector.modify(self.channel, events)

    def _end(self) -> None:
        self.listener.close()
        for connection in list(self._links):
            self._release(connection)
        self.channel.setblocking(True)
        self._hand_over()


def main(argv: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the server handles these signals, and its end ends this process
        signal.signal(number, signal.SIG_IGN)
    listener, channel, board = map(int, argv[:3])
    hosts = Hosts(argv[3], argv[4:])
    Acceptor(socket.socket(fileno=listener), socket.socket(fileno=channel), Board(board), hosts).run()


if __name__ == "__main__":
    main(sys.argv[1:])
