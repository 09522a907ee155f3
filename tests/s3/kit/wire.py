"""Requests over raw sockets: what no well-behaved client would send.

Owns: sockets with deadlines and what came back over them. Must never: wait without a deadline, or repeat a request.
"""

import contextlib
import re
import socket
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

from . import sigv4

# A door that has not answered by then hangs.
DEADLINE_S = 30


@dataclass(frozen=True)
class Answer:
    """What came back: status 0 when the connection was closed without an answer."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self):
        """S3's error code, or an empty string."""
        found = re.search(rb"<Error>.*?<Code>([^<]*)</Code>", self.body, re.DOTALL)
        return found.group(1).decode() if found else ""

    def __str__(self):
        return f"{self.status} {self.code or self.body[:120]!r}"


class Wire:
    """One endpoint, spoken to by hand with one key."""

    def __init__(self, endpoint, key):
        self.key = key
        self.host = urlsplit(endpoint).netloc
        name, _, port = self.host.rpartition(":")
        self.address = (name.strip("[]"), int(port))

    def connect(self, deadline_s=DEADLINE_S):
        return socket.create_connection(self.address, timeout=deadline_s)

    def send(self, data, method="GET"):
        """Sends bytes over a connection of their own and reads the one answer."""
        with self.connect() as connection:
            send_all(connection, data)
            return read_answer(connection, method)

    def signed(self, method, target, *, body=b"", headers=None, payload=None, scope=None, key=None):
        """A request as bytes, signed as it stands. `payload` defaults to UNSIGNED-PAYLOAD."""
        given = headers or {}
        all_headers = {"Host": self.host, **given}
        signed = sigv4.signed_headers(
            key or self.key, scope or sigv4.Scope.at(), method, target, all_headers, payload or sigv4.UNSIGNED
        )
        if "Content-Length" not in given and "Transfer-Encoding" not in given:
            signed["Content-Length"] = str(len(body))
        return plain(method, target, signed) + body

    def ask(self, method, target, **how):
        """Sends a signed request and reads the answer."""
        return self.send(self.signed(method, target, **how), method)


def plain(method, target, headers):
    """The head of a request as bytes; the target may hold any byte, as latin-1."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def send_all(connection, data):
    """Sends what the other side takes: it may answer and close before it has read all."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)


def read_answer(connection, method="GET"):
    response = HTTPResponse(connection, method=method)
    try:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    except TimeoutError as error:
        raise AssertionError(f"no answer within {connection.gettimeout()} s") from error
    except (HTTPException, ConnectionError):
        return Answer(0)
    finally:
        response.close()
