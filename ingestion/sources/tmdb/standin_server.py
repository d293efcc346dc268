"""The HTTP side of the stand-in: connections, credentials, faults and TMDB's errors."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from ingestion.sources.tmdb.standin import StandIn

ERRORS = {  # HTTP status: (status_code, status_message) of TMDB's list of errors
    400: (22, "Invalid page: Pages start at 1 and max at 500. They are expected to be an integer."),
    401: (7, "Invalid API key: You must be granted a valid key."),
    404: (34, "The resource you requested could not be found."),
    422: (20, "Invalid date range: Should be a range no longer than 14 days."),
    429: (25, "Your request count (#) is over the allowed limit of (40)."),
    500: (11, "Internal error: Something went wrong, contact TMDB."),
    503: (46, "The API is undergoing maintenance. Try again later."),
    504: (24, "Your request to the backend server timed out. Try again."),
}


class RefusalError(Exception):
    def __init__(self, status: int, error: tuple[int, str], headers: Mapping[str, str]) -> None:
        super().__init__(error[1])
        self.status, self.headers = status, headers
        body = {"success": False, "status_code": error[0], "status_message": error[1]}
        if status >= 500:
            del body["success"]  # some of TMDB's errors come without
        self.body = json.dumps(body).encode()


def refuse(
    status: int, error: tuple[int, str] | None = None, headers: Mapping[str, str] | None = None
) -> NoReturn:
    raise RefusalError(status, error or ERRORS[status], headers or {})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandIn


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections that stay open. Reads no more of a request than TMDB needs."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def handle_one_request(self) -> None:
        try:
            line = self.rfile.readline(65537)
            headers = {}
            while (header := self.rfile.readline(65537)) not in {b"\r\n", b"\n", b""}:
                name, _, value = header.partition(b":")
                headers[name.strip().lower()] = value.strip()
            self.close_connection = headers.get(b"connection", b"").lower() == b"close"
            words = line.split()
            if len(words) != 3:
                self.close_connection = True
                return
            self._answer(words[1].decode("ascii", "replace"), headers)
        except (OSError, ValueError):
            self.close_connection = True  # the client has gone

    def _answer(self, target: str, headers: dict[bytes, bytes]) -> None:
        stand_in = self.server.stand_in
        path, _, text = target.partition("?")
        query = {name: values[-1] for name, values in parse_qs(text).items()} if text else {}
        scheme, _, bearer = headers.get(b"authorization", b"").decode().partition(" ")
        credential = bearer.strip() if scheme.lower() == "bearer" else query.pop("api_key", "")
        status, fault = 200, None
        extra: Mapping[str, str] = {}
        if stand_in.latency:
            time.sleep(stand_in.latency)
        try:
            fault = stand_in.admit(target, credential)
            if fault and fault.status:
                refuse(fault.status, headers=fault.headers)
            body = stand_in.answer(path, query)
        except RefusalError as refusal:
            status, body, extra = refusal.status, refusal.body, refusal.headers
        length = len(body)
        if fault and fault.body:
            if fault.body == "hang":
                time.sleep(fault.seconds)
            body = body[: length // 2]
            self.close_connection = True
            if fault.body == "not json":
                length = len(body)
        headers_out = {"Content-Type": "application/json;charset=utf-8", "Content-Length": length}
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in {**headers_out, **extra}.items()
        )
        self.wfile.write(head.encode() + b"\r\n" + body)


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Attributes:
        status: answer with this HTTP status and TMDB's error body for it.
        body: or spoil the answer: ``truncated``, ``not json``, or ``hang`` (for ``seconds``).
        path: regular expression that the path and query have to match.
        every: it befalls each n-th of the requests that match, from the first on.
        times: how often at most.
        headers: sent along, such as ``Retry-After``.
    """

    status: int | None = None
    body: str | None = None
    path: str = ""
    every: int = 1
    times: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 5.0
    seen: int = 0
    done: int = 0

    def befalls(self, path: str) -> bool:
        if not re.search(self.path, path) or (self.times is not None and self.done >= self.times):
            return False
        self.seen += 1
        befallen = (self.seen - 1) % self.every == 0
        self.done += befallen
        return befallen
