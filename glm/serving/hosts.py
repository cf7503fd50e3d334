"""Checks whether a request is meant for this server, so that pages of other sites cannot reach it under a name of
theirs.

A browser sends the name in the page's address as `Host`. A site whose name is made to resolve to this machine (DNS
rebinding) is known by that; a page of another site that asks directly, by its `Origin`.
"""

import ipaddress
import socket
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from glm.errors import shown

PORTS = {"http": 80, "https": 443}  # default port of each scheme


class Refusal(NamedTuple):
    """Why a request is refused: the HTTP status, a message, and an error code."""

    status: int
    message: str
    code: str


class Hosts:
    """The names that a server answers to.

    Args:
        bound: the address or name it serves at.
        others: more names, as behind a proxy; pages of these may ask, too.
    """

    def __init__(self, bound: str, others: Sequence[str] = ()):
        self.bound = _address(bound or "0.0.0.0")
        self.others = {name.lower().rstrip(".") for name in others}
        self.names = {bound.lower(), *self.others}
        if self.bound is not None and (self.bound.is_loopback or self.bound.is_unspecified) or bound == "localhost":
            self.names.add("localhost")
        if self.bound is not None and self.bound.is_unspecified:
            self.names.add(socket.gethostname().lower())

    def refusal(self, host: str | None, origin: str | None) -> Refusal | None:
        """Returns why a request is refused, or None.

        Args:
            host, origin: the headers; what is no browser need not send them.
        """
        asked = _split(f"//{host}") if host is not None else None
        if host is not None and (asked is None or not self._is_own(asked[0])):
            message = f"Host {shown(host)}: is not this server's name; name it with --allowed_hosts"
            return Refusal(421, message, "foreign_host")
        if origin is None or host is None:
            return None
        page = _split(origin)
        if page is not None and (page[0] in self.others or _with_port(page) == _with_port(asked, page[2])):
            return None
        message = f"Origin {shown(origin)}: is another site; name its host with --allowed_hosts"
        return Refusal(403, message, "foreign_origin")

    def _is_own(self, name: str) -> bool:
        address = _address(name)
        if name in self.names or address is None:
            return name in self.names
        if self.bound is None:  # a name that was given; "localhost" is one
            return "localhost" in self.names and address.is_loopback
        # Other sites are reached by names, so where all addresses are bound any address is allowed.
        return self.bound.is_unspecified or address == self.bound or (address.is_loopback and self.bound.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _split(url: str) -> tuple[str, int | None, str] | None:
    """Splits an address into name, port and scheme; None if it is none."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        return None
    return name.rstrip("."), port, parts.scheme


def _with_port(address: tuple[str, int | None, str], scheme: str | None = None) -> tuple[str, int | None]:
    name, port, own = address
    return name, port or PORTS.get(scheme or own)
