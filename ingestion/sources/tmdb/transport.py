"""One HTTP request, bounded: in time, in the size of its body, in how deep its JSON is nested.

A server, or somebody between, may send without end, slower than any timeout notices, or a small
body that unpacks to gigabytes. Nothing of that may cost more than the request.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from http.client import HTTPException
from socket import SHUT_RDWR, socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

PIECE = 65536  # bytes read at once
MOST_DEPTH = 32  # lists and objects in each other; TMDB's own answers have four
MOST_DIGITS = 100  # of a whole number; Python reads longer ones ever more slowly, and then refuses
PACKINGS = {"gzip", "x-gzip", "deflate"}  # of bodies: the values of Content-Encoding
WITH_A_BODY = {200, 400, 401, 403, 404, 422}  # statuses whose body says something


class NoAnswerError(Exception):
    """What was wrong with an answer, in a few words. ``lasting``: to ask again would not help."""

    def __init__(self, fault: str, *, lasting: bool = False) -> None:
        super().__init__(fault)
        self.lasting = lasting


@dataclass(frozen=True)
class Answer:
    """An HTTP status, its headers and the unpacked body (empty where the status needs none)."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Requests to one server, from any number of threads; each has a connection of its own.

    Args:
        base_url: what all addresses begin with.
        timeout: seconds that a request may take in all, from its first byte to its last.
        most_bytes: size that an unpacked body may have.
        trusts_environment: take proxies and certificates from the environment.
    """

    def __init__(
        self, base_url: str, timeout: float, most_bytes: int, *, trusts_environment: bool
    ) -> None:
        self._base_url, self._timeout, self._most_bytes = base_url, timeout, most_bytes
        self._trusts_environment = trusts_environment
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._watch = _Watch(timeout)

    def close(self) -> None:
        self._watch.end()
        for session in self._sessions:
            session.close()

    def get(self, path: str, params: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Ask once.

        Raises:
            NoAnswerError: there was none, or one that breaks a bound. Nothing is chained to it: an
                error of the HTTP library holds the URL, where a key can stand.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **headers}
        request = requests.Request("GET", self._base_url + path, headers=headers, params=params)
        fault, started = None, time.monotonic()
        try:
            return self._send(request)
        except NoAnswerError as error:
            fault = error
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            if time.monotonic() - started >= self._timeout:
                fault = NoAnswerError(f"no whole answer within {self._timeout:g} seconds")
            else:
                fault = NoAnswerError(type(error).__name__)
        raise fault.with_traceback(None)

    def _send(self, request: requests.Request) -> Answer:
        session = self._session()
        with (
            self._watch.over(self._local.adapter),
            session.send(
                request.prepare(),
                timeout=self._timeout,
                allow_redirects=False,  # the token is for this host only
                **self._local.options,
            ) as response,
        ):
            content = b""
            if response.status_code in WITH_A_BODY:
                try:
                    content = self._body(response)
                except (NoAnswerError, HTTPError, HTTPException, OSError):
                    if response.status_code == 200:
                        raise
            return Answer(response.status_code, response.headers, content)

    def _body(self, response: requests.Response) -> bytes:
        packing = response.headers.get("Content-Encoding", "").strip().lower()
        if packing not in PACKINGS | {"", "identity"}:
            raise NoAnswerError("a body packed in an unknown way", lasting=True)
        # zlib finds out which of both it is
        unpack = zlib.decompressobj(wbits=47) if packing in PACKINGS else None
        body, room = bytearray(), self._most_bytes + 1
        with _unpacking():
            for piece in response.raw.stream(PIECE, decode_content=False):
                # nothing is unpacked beyond the bound
                body += unpack.decompress(piece, room - len(body)) if unpack else piece
                if len(body) >= room:
                    most = f"{self._most_bytes / 1e6:g} MB"
                    raise NoAnswerError(f"a body of more than {most}", lasting=True)
        if unpack and body and not unpack.eof:
            raise NoAnswerError("a body that is cut short")
        return bytes(body)

    def _session(self) -> requests.Session:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            adapter = self._local.adapter = _Adapter()
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            # one host, no redirects: proxies and certificates are found once, not at each request
            session.trust_env = self._trusts_environment
            self._local.options = session.merge_environment_settings(
                self._base_url, {}, True, None, None
            )  # True: bodies are read piece by piece
            self._sessions.append(session)
        return session


@contextmanager
def _unpacking() -> Iterator[None]:
    """Call a body that cannot be unpacked what it is."""
    try:
        yield
    except zlib.error:
        raise NoAnswerError("a body that cannot be unpacked") from None


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Numbers with a point, huge ones and NaN are Decimals.

    Raises:
        NoAnswerError: it is none, or nested too deep.
    """
    try:
        body = json.loads(content, parse_float=_number, parse_int=_number, parse_constant=Decimal)
    except RecursionError:
        raise NoAnswerError("JSON that is nested too deep", lasting=True) from None
    except ValueError:
        raise NoAnswerError("a body that is not JSON") from None
    if not isinstance(body, dict):
        raise NoAnswerError("a body that is no JSON object")
    level: list[Any] = [body]
    for _ in range(MOST_DEPTH):
        level = [
            item
            for group in level
            for item in (group.values() if isinstance(group, dict) else group)
            if isinstance(item, dict | list)
        ]
        if not level:
            return body
    raise NoAnswerError("JSON that is nested too deep", lasting=True)


def _number(text: str) -> int | Decimal | str:
    """A number of JSON; as text where its exponent is beyond what a Decimal can have."""
    if len(text) <= MOST_DIGITS and text.lstrip("-").isdecimal():
        return int(text)
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


class _Adapter(HTTPAdapter):
    """Keeps hold of its session's socket, which the connection lets go of for the last answer."""

    sock: socket | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _Held):
            pool.ConnectionCls = type("Held", (_Held, pool.ConnectionCls), {"adapter": self})
        return pool


class _Held:
    """A connection whose socket the adapter knows, from before any byte has gone through it."""

    adapter: _Adapter
    _sock: socket | None = None

    @property
    def sock(self) -> socket | None:
        return self._sock

    @sock.setter
    def sock(self, sock: socket | None) -> None:
        self._sock = sock
        self.adapter.sock = sock or self.adapter.sock


class _Watch:
    """Cuts the connections of requests that take too long: whatever they wait for then fails."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._due: dict[_Adapter, float] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        threading.Thread(target=self._look, name="tmdb-watch", daemon=True).start()

    @contextmanager
    def over(self, adapter: _Adapter) -> Iterator[None]:
        """Watch over one request."""
        with self._lock:
            self._due[adapter] = time.monotonic() + self._timeout
        try:
            yield
        finally:
            with self._lock:
                del self._due[adapter]

    def end(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(min(0.2, self._timeout / 4)):
            with self._lock:
                now = time.monotonic()
                for adapter, due in self._due.items():
                    if now >= due and adapter.sock is not None:
                        with suppress(OSError, TypeError):  # closed since, or a tunnel's
                            socket.shutdown(adapter.sock, SHUT_RDWR)
