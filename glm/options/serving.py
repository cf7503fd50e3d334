"""The options of a server."""

import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from glm.errors import UsageError, shown
from glm.generation.config import option
from glm.options.ranges import ABOVE_0, MANY, out_of_range
from glm.runtime.settings_file import as_utf8

KEY_VARIABLE = "GLM_API_KEY"  # environment variable with the key
KEY_BYTES = 4096  # largest size of a file with a key


@dataclass
class ServingArguments:
    """Where a server is, who may use it, and how much one request may ask for."""

    host: str = option("127.0.0.1", "Address to serve at; one that other machines can reach needs a key.")
    port: int = option(8000, "Port to serve at; 0 chooses a free one.")
    allowed_hosts: str | None = option(
        None, "Host names, separated by commas, that requests may use beside the address, for example behind a proxy."
    )
    api_key_file: str | None = option(
        None, "File with the key that requests have to send as 'Authorization: Bearer KEY'; GLM_API_KEY if not given."
    )
    api_key: str | None = option(
        None, "The key itself; all users of the machine can read it in the list of processes, so a file is better."
    )
    max_waiting: int = option(256, "Texts that may wait to be generated; further requests are refused (503).")
    request_timeout: float = option(120.0, "Seconds until a request is cancelled (504).")
    max_request_bytes: int = option(4 << 20, "Bytes of a request's body (413).")
    max_request_items: int = option(20_000, "Values and names of a request's JSON (413).")
    max_request_depth: int = option(16, "Nested lists and objects of a request's JSON (400).")
    max_request_characters: int = option(1 << 18, "Characters of a request's texts together (413).")

    BASE_TITLE = "Where a server is, who may use it, and how much one request may ask for"

    def serving_errors(self, *, serves: bool) -> list[str]:
        """Reads the key, and checks all options; returns one line for each error.

        Errors are a value out of range, a key that cannot be used, or an open address without a key.
        """
        counts = (item.name for item in fields(ServingArguments) if item.name.startswith("max_"))
        ranges = dict.fromkeys(counts, (1, MANY, "use 1 or more")) | {
            "port": (0, 65535, "use 0 to 65535"),
            "request_timeout": (ABOVE_0, 10**6, "use a number above 0"),
        }
        errors = out_of_range(vars(self), ranges)
        if not all(self.other_names) or not all(name.isprintable() and "/" not in name for name in self.other_names):
            errors.append(f"allowed_hosts {shown(self.allowed_hosts)}: use names of hosts, separated by commas")
        if not serves:
            return errors
        try:
            self.api_key = self._find_key()
        except UsageError as error:
            return [*errors, *error.messages]
        if self.api_key is None and not is_own_address(self.host):
            errors.append(
                f"host {self.host}: can be reached from other machines; protect it with --api_key_file FILE, or "
                f"{KEY_VARIABLE} in the environment"
            )
        return errors

    @property
    def other_names(self) -> list[str]:
        """Host names, beside the server's address, that requests may use."""
        return [] if self.allowed_hosts is None else [name.strip() for name in self.allowed_hosts.split(",")]

    def _find_key(self) -> str | None:
        if self.api_key is not None and self.api_key_file is not None:
            raise UsageError(f"api_key_file {self.api_key_file}: has no effect beside api_key; leave that out")
        origin, key = "api_key", self.api_key
        if self.api_key_file is not None:
            origin, key = f"api_key_file {self.api_key_file}", read_key(Path(self.api_key_file))
        elif key is None and KEY_VARIABLE in os.environ:
            origin, key = KEY_VARIABLE, os.environ[KEY_VARIABLE]
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
            raise UsageError(f"{origin}: use printable ASCII characters, at least one")  # without showing them
        return key


def read_key(path: Path) -> str:
    """Reads a key from a file that contains nothing else.

    Raises:
        UsageError: the file cannot be read or is too large for one.
    """
    try:
        if not path.is_file():
            raise UsageError(f"api_key_file {path}: no such file")
        with path.open("rb") as file:
            data = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"api_key_file {path}: cannot be read ({error.strerror})") from error
    if len(data) > KEY_BYTES:
        raise UsageError(f"api_key_file {path}: holds more than {KEY_BYTES} bytes; a key alone is expected")
    with suppress(ValueError):
        data = as_utf8(data)
    return data.decode("utf-8-sig", errors="replace").strip()


def is_own_address(host: str) -> bool:
    """Whether only this machine can reach a host name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
