"""Blocks the network for any Python that has this folder on its path: each attempt is an error, and is noted.

Python imports a module of this name by itself. Sockets of the file system, which processes of one program use among
themselves, are no network.
"""

import os
import sys

BLOCKED = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def block(event: str, arguments: tuple) -> None:
    if event not in BLOCKED:
        return
    address = arguments[BLOCKED[event]]
    if event not in ("socket.getaddrinfo", "socket.gethostbyname") and not isinstance(address, tuple):
        return
    with open(os.environ["NETWORK_ATTEMPTS"], "a", encoding="utf-8") as file:
        file.write(f"{event} {address} by {sys.argv}\n")
    raise OSError(f"no network in a test: {event} {address}")


sys.addaudithook(block)
