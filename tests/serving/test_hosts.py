"""Which names and sites a server answers, by table and over a socket."""

import socket

import pytest

from glm.options.predict import parse_predict_arguments
from glm.serving.hosts import Hosts

SITE = "http://site.example"


@pytest.mark.parametrize(
    ("bound", "host", "origin", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", None, None),
        ("127.0.0.1", "localhost:8000", None, None),
        ("127.0.0.1", "LOCALHOST:9", None, None),  # another port: a tunnel
        ("127.0.0.1", "localhost.", None, None),
        ("127.0.0.1", "[::1]:8000", None, None),
        ("127.0.0.1", None, None, None),  # HTTP/1.0 of a probe; browsers send it
        ("127.0.0.1", "site.example:8000", None, 421),
        ("127.0.0.1", "site.example:8000", f"{SITE}:8000", 421),
        ("127.0.0.1", "localhost.site.example", None, 421),
        ("127.0.0.1", "127.0.0.1.site.example", None, 421),
        ("127.0.0.1", "192.168.1.4:8000", None, 421),
        ("127.0.0.1", "0.0.0.0:8000", None, 421),
        ("127.0.0.1", "user@127.0.0.1", None, 421),
        ("127.0.0.1", "127.0.0.1/x", None, 421),
        ("127.0.0.1", "127.0.0.1:port", None, 421),
        ("127.0.0.1", "", None, 421),
        ("127.0.0.1", "\x1b[2J" + "x" * 5000, None, 421),
        ("127.0.0.1", "127.0.0.1:8000", "http://127.0.0.1:8000", None),
        ("127.0.0.1", "localhost", "http://localhost:80", None),
        ("127.0.0.1", "localhost", "https://localhost", None),
        ("127.0.0.1", "127.0.0.1:8000", SITE, 403),
        ("127.0.0.1", "127.0.0.1:8000", "http://127.0.0.1:3000", 403),  # another program of this machine
        ("127.0.0.1", "127.0.0.1:8000", "http://localhost:8000", 403),
        ("127.0.0.1", "127.0.0.1:8000", "null", 403),
        ("127.0.0.1", "127.0.0.1:8000", "", 403),
        ("localhost", "127.0.0.1:8000", None, None),
        ("localhost", "site.example", None, 421),
        ("::1", "[::1]:8000", None, None),
        ("::1", "localhost", None, None),
        ("0.0.0.0", "192.168.1.4:8000", None, None),
        ("0.0.0.0", "site.example:8000", None, 421),
        ("", "10.1.2.3", None, None),
        ("::", "[fe80::1]", None, None),
        ("192.168.1.4", "192.168.1.4:8000", None, None),
        ("192.168.1.4", "192.168.1.5:8000", None, 421),
        ("192.168.1.4", "localhost:8000", None, 421),
        ("glm.lan", "GLM.lan:8000", None, None),
        ("glm.lan", "other.lan", None, 421),
    ],
)
def test_names(bound, host, origin, status):
    error = Hosts(bound).refusal(host, origin)
    assert (error and error.status) == status
    assert error is None or (str(error).isprintable() and len(str(error)) < 400)


def test_this_machine_has_a_name():
    assert Hosts("0.0.0.0").refusal(f"{socket.gethostname()}:8000", None) is None
    assert Hosts("127.0.0.1").refusal("some.name", None).status == 421


def test_more_names():
    arguments = parse_predict_arguments(
        ["--model_name_or_path", "m", "--device", "cpu", "--serve", "--allowed_hosts", "glm.example, b.example."]
    ).prediction
    hosts = Hosts(arguments.host, arguments.other_names)
    assert hosts.refusal("glm.example", "https://glm.example") is None
    assert hosts.refusal("b.example:443", None) is hosts.refusal("127.0.0.1", "http://b.example:3000") is None
    assert hosts.refusal("c.example", None).status == 421
    assert hosts.refusal("glm.example", "https://c.example").status == 403


@pytest.mark.parametrize("path", ["/", "/health", "/settings", "/v1/models", "/v1/completions", "/generate"])
def test_nothing_is_answered_under_another_name(program, path):
    _, port = program
    for headers, expected in ((f"Host: site.example:{port}", 421), (f"Host: 127.0.0.1:{port}\r\nOrigin: {SITE}", 403)):
        method = "POST" if path in ("/generate", "/v1/completions") else "GET"
        head = (
            f"{method} {path} HTTP/1.1\r\n{headers}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
            link.sendall(head.encode())
            assert int(link.recv(100).split()[1]) == expected
