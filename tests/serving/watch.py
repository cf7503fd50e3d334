"""Asks a server for `/health` until standard input ends, then prints the seconds that each answer took, as JSON.

A process of its own: what it measures is the server's, not what else the tests do meanwhile.
"""

import json
import select
import socket
import sys
import time

REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def main(port: int) -> None:
    seconds = []
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
            link.sendall(REQUEST)
            answer = link.recv(1000)
        assert answer.split()[1] == b"200", answer
        seconds.append(time.monotonic() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(int(sys.argv[1]))
