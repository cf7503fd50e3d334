"""The server's end of the process that accepts its connections, see `glm.serving.acceptor`."""

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from glm.serving.status import Board, Status

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 2.0  # for accepted connections to be passed on


class Front:
    """Starts the accepting process, and takes over its connections.

    Args:
        listener: where connections come in.
        names: of the server, the address it serves at first; see `glm.serving.hosts.Hosts`.
        connected: is called with each connection.
        lost: is called if the process ends by itself.
    """

    def __init__(
        self,
        listener: socket.socket,
        names: Sequence[str],
        connected: Callable[[socket.socket], None],
        lost: Callable[[], None],
    ):
        self.connected, self.lost = connected, lost
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        self._ended = asyncio.Event()
        with tempfile.TemporaryFile() as file, theirs:
            Board.reserve(file.fileno())
            self._board = Board(file.fileno())
            files = (listener.fileno(), theirs.fileno(), file.fileno())
            command = [sys.executable, "-m", "glm.serving.acceptor", *map(str, files), *names]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=files, stdin=subprocess.DEVNULL)
        asyncio.get_running_loop().add_reader(self._channel, self._take)

    def note(self, status: Status) -> None:
        """Updates the status that the process answers with."""
        self._board.note(status)

    async def end(self) -> None:
        """Ends the process, and takes over what it had accepted."""
        self.lost = lambda: None
        with suppress(OSError):  # the process has ended already
            self._channel.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), END_SECONDS)
        self._process.kill()
        self._process.wait()

    def _take(self) -> None:
        """Takes over the connections that were passed on."""
        with suppress(BlockingIOError):
            while True:
                data, files, _, _ = socket.recv_fds(self._channel, 1, 1)
                if not data:
                    break
                for file in files:
                    self.connected(socket.socket(fileno=file))
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._ended.set()
            self.lost()
