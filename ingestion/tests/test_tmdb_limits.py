"""The TMDB client against servers that send too much, too slowly, or something else."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timezone
from typing import Any

import pytest

from ingestion.errors import UserError
from ingestion.sources.tmdb.client import TmdbClient, TmdbUnavailable
from ingestion.sources.tmdb.rows import film_row
from ingestion.sources.tmdb.settings import LAST_PAGE, TmdbSettings
from ingestion.sources.tmdb.transport import parse
from ingestion.tests.sockets import accepting
from ingestion.tests.test_tmdb import film

MB = 1_000_000
Send = Callable[[bytes], None]


@contextmanager
def server(answer: Callable[[str, Send], None]) -> Iterator[str]:
    """A server that hands each request's path, and the way to send bytes, to ``answer``.

    Yields its base URL.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                asked = b""
                while b"\r\n\r\n" not in asked:
                    if not (more := connection.recv(65536)):
                        return
                    asked += more
                answer(asked.split()[1].decode(), connection.sendall)

        with accepting(listening, serve):
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/3"


def head(status: str = "200 OK", **headers: Any) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode()


def whole(body: bytes, status: str = "200 OK", **headers: Any) -> bytes:
    return head(status, Content_Length=len(body), **headers) + body


def client_of(base_url: str, **settings: Any) -> TmdbClient:
    chosen = TmdbSettings(base_url=base_url, requests_per_second=0, backoff=0.001)
    chosen.max_tries, chosen.concurrency, chosen.timeout, chosen.min_vote_count = 2, 2, 1.0, 0
    for name, value in settings.items():
        setattr(chosen, name, value)
    return TmdbClient("token", chosen)


GOOD = json.dumps(film(1)).encode()
FAR = len(GOOD) // 2


def much(send: Send) -> None:
    send(head(Content_Length=800 * MB))
    for _ in range(800):
        send(b" " * MB)


def bomb(send: Send) -> None:
    packed = gzip.compress(b" " * 100 * MB)
    send(head(Content_Encoding="gzip"))
    for _ in range(20):
        send(packed)


def endless_chunks(send: Send) -> None:
    send(head(Transfer_Encoding="chunked"))
    while True:
        send(b"100000\r\n" + b" " * 0x100000 + b"\r\n")


def drip(send: Send, text: bytes) -> None:
    for at in range(len(text)):
        send(text[at : at + 1])
        time.sleep(0.2)


FAULTS: dict[str, Callable[[Send], None]] = {
    "800 MB": much,
    "gzip that unpacks to gigabytes": bomb,
    "chunks without end": endless_chunks,
    "a byte now and then": lambda send: (send(head(Content_Length=len(GOOD))), drip(send, GOOD)),
    "a header's byte now and then": lambda send: drip(send, whole(GOOD)),
    "a chunk's size, slowly": lambda send: (
        send(head(Transfer_Encoding="chunked")),
        drip(send, b"0" * 1000),
    ),
    "headers without end": lambda send: (
        [send(b"HTTP/1.1 200 OK\r\n")] + [send(b"X-%d: y\r\n" % n) for n in range(10**6)]
    ),
    "nested 100,000 deep": lambda send: send(
        whole(b'{"id": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    ),
    "nested 200 deep": lambda send: send(whole(b'{"id":1,"x":' + b"[" * 200 + b"]" * 200 + b"}")),
    "objects in objects": lambda send: send(whole(b'{"id":1,"x":' * 5000 + b"1" + b"}" * 5000)),
    "cut short": lambda send: send(head(Content_Length=len(GOOD)) + GOOD[:FAR]),
    "chunks cut short": lambda send: send(
        head(Transfer_Encoding="chunked") + b"%x\r\n" % len(GOOD) + GOOD[:FAR]
    ),
    "gzip cut short": lambda send: send(whole(gzip.compress(GOOD)[:-20], Content_Encoding="gzip")),
    "gzip that is none": lambda send: send(whole(GOOD, Content_Encoding="gzip")),
    "another packing": lambda send: send(whole(GOOD, Content_Encoding="br")),
    "a page": lambda send: send(whole(b"<html>Blocked</html>", Content_Type="text/html")),
    "nothing": lambda send: send(whole(b"")),
    "no body": lambda send: send(head("204 No Content")),
    "a list": lambda send: send(whole(b"[1]")),
    "null": lambda send: send(whole(b"null")),
    "another film": lambda send: send(whole(json.dumps(film(2)).encode())),
    "true for the id": lambda send: send(whole(b'{"id": true, "title": "A"}')),
    "no id": lambda send: send(whole(b'{"title": "A"}')),
    "not UTF-8": lambda send: send(whole(b'{"id": 1, "title": "\xff\xfe"}')),
    "no HTTP": lambda send: send(b"\0\1\2 rubbish\r\n\r\n"),
    "a redirect to itself": lambda send: send(whole(b"", "302 Found", Location="/3/movie/1")),
    "another refusal": lambda send: send(whole(b"{}", "418 I'm a teapot")),
    "forbidden": lambda send: send(whole(b"{}", "403 Forbidden")),
    "a 404 that is not TMDB's": lambda send: send(whole(b"nginx", "404 Not Found")),
    "an error of 800 MB": lambda send: (
        send(head("400 Bad Request", Content_Length=800 * MB)),
        [send(b" " * MB) for _ in range(800)],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_bad_answer_costs_its_film_alone(name: str) -> None:
    def answer(path: str, send: Send) -> None:
        asked = int(path.partition("?")[0].rpartition("/")[2])
        if asked == 1:
            FAULTS[name](send)
        else:
            send(whole(json.dumps(film(asked)).encode()))

    started = time.monotonic()
    with server(answer) as base_url, client_of(base_url) as client:
        found = dict(client.films([3, 1, 2]))
    assert isinstance(found[1], TmdbUnavailable)
    assert "\n" in str(found[1]), "it says what to do"
    assert [found[n]["title"] for n in (2, 3)] == ["Film 2", "Film 3"]
    assert time.monotonic() - started < 20, "two tries of a second, on a busy machine"


@pytest.mark.parametrize("name", ["800 MB", "gzip that unpacks to gigabytes", "chunks without end"])
def test_memory_is_bounded(name: str) -> None:
    """In a process of its own, which is not given what 16 such bodies would take."""

    def answer(_: str, send: Send) -> None:
        FAULTS[name](send)

    script = (
        "import resource\n"
        "from ingestion.sources.tmdb.client import TmdbClient\n"
        "from ingestion.sources.tmdb.settings import TmdbSettings\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "settings = TmdbSettings(base_url={!r}, requests_per_second=0, max_tries=1)\n"
        "with TmdbClient('token', settings) as client:\n"
        "    assert len(list(client.films(range(1, 17)))) == 16\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    unit = 1 if sys.platform == "darwin" else 1024
    with server(answer) as base_url:
        done = subprocess.run(
            [sys.executable, "-c", script.format(base_url)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
    assert int(done.stdout) * unit < 600 * MB


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("0", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, None),
        ("Mon, 01 Jan 1900 00:00:00 GMT", None),
        ("Mon, 99 Foo 99999 99:99:99 +9999", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "left alone"),
        ("100000000", "left alone"),
    ],
)
def test_a_retry_after_of_any_kind_is_followed_or_passed_over(
    header: str, waits: str | None
) -> None:
    asked: list[str] = []

    def answer(path: str, send: Send) -> None:
        asked.append(path)
        if len(asked) == 1:
            send(whole(b"{}", "503 Service Unavailable", Retry_After=header))
        else:
            send(whole(GOOD))

    with server(answer) as base_url, client_of(base_url) as client:
        [(_, found)] = client.films([1])
    if waits:
        assert isinstance(found, TmdbUnavailable)
        assert waits in str(found)
    else:
        assert found["id"] == 1


def page(ids: list[Any], **fields: Any) -> bytes:
    return whole(json.dumps({"page": 1, "results": [{"id": n} for n in ids], **fields}).encode())


@pytest.mark.parametrize(
    "total_pages", [None, "3", 3.0, 10**9, 10**400, -1, 0, True, "many", [3], float("nan")]
)
def test_lists_end_where_they_end_whatever_total_pages_says(total_pages: Any) -> None:
    """Three pages of two films; a number of pages that cannot be true neither loses nor loops."""
    asked = []

    def answer(path: str, send: Send) -> None:
        number = int(path.rpartition("page=")[2])
        asked.append(path)
        ids = [number * 2, number * 2 + 1] if number <= 3 else []
        send(page(ids, total_pages=total_pages))

    with server(answer) as base_url, client_of(base_url) as client:
        assert sorted(client.discover(date(2000, 1, 1), date(2000, 12, 31))) == [2, 3, 4, 5, 6, 7]
        assert sorted(client.changed(date(2000, 1, 1), date(2000, 1, 10))) == [2, 3, 4, 5, 6, 7]
    assert len(asked) < 40


def test_a_server_that_gives_one_page_for_ever_is_asked_for_few() -> None:
    asked = []

    def answer(path: str, send: Send) -> None:
        asked.append(path)
        send(page([1, 2], total_pages=LAST_PAGE * 100))

    with server(answer) as base_url, client_of(base_url) as client:
        assert client.discover(None, None) == [1, 2]
    assert len(asked) < 40


ODD_RESULTS = [
    *(None, "text", 5, {"id": 1}, [None], ["text"], [[]], [{"id": None}], [{}], [{"id": "x"}]),
    *([{"id": True}], [{"id": 1.5}], [{"id": -1}], [{"id": 0}], [{"id": 2**63}], [{"id": [1]}]),
]


@pytest.mark.parametrize("results", ODD_RESULTS)
@pytest.mark.parametrize("ask", ["discover", "changed", "search"])
def test_entries_that_are_no_films_cost_themselves_and_are_counted(results: Any, ask: str) -> None:
    mixed = [{"id": 7}, *results, {"id": "8"}] if isinstance(results, list) else results

    def answer(_: str, send: Send) -> None:
        body = {"page": 1, "results": mixed, "total_pages": 1}
        send(whole(json.dumps(body).encode()))

    with server(answer) as base_url, client_of(base_url) as client:
        found = {
            "discover": lambda: client.discover(date(2000, 1, 1), date(2000, 1, 2)),
            "changed": lambda: sorted(client.changed(date(2000, 1, 1), date(2000, 1, 2))),
            "search": lambda: client.search(["a film"], 9),
        }[ask]()
        assert found == ([7, 8] if isinstance(results, list) else [])
        [reject] = client.rejects
        assert reject.path.startswith("/")
        assert reject.field.startswith("results")


@pytest.mark.parametrize("genres", [None, "text", {"id": 1}, [None], [{"id": None}], [{"id": "x"}]])
def test_genres_that_are_none_cost_themselves_and_are_counted(genres: Any) -> None:
    mixed = [{"id": 7, "name": "A"}, *genres] if isinstance(genres, list) else genres

    def answer(_: str, send: Send) -> None:
        send(whole(json.dumps({"genres": mixed}).encode()))

    with server(answer) as base_url, client_of(base_url) as client:
        found = [genre["id"] for genre in client.genres()]
        assert found == ([7] if isinstance(genres, list) else [])
        assert len(client.rejects) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "404 Not Found"])
def test_what_a_server_says_is_one_line_without_control_characters(status: str) -> None:
    said = "\x1b]8;;http://evil\x07click\x1b]52;c;aGk=\x07\r\b\u202egood\nError: all is well"

    def answer(_: str, send: Send) -> None:
        send(whole(json.dumps({"status_message": said, "status_code": 1}).encode(), status))

    with (
        server(answer) as base_url,
        client_of(base_url) as client,
        pytest.raises(UserError) as refused,
    ):
        client.discover(None, None)
    message = refused.value.message
    assert "click" in message
    assert len(message.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in message)


NUMBERS = ["1e99999999999999999999", "-1e99999999999999999999", "1e-99999999999999999999"]
NUMBERS += ["1e999999", "1e-999999", "9" * 5000, "-" + "9" * 5000, "1." + "3" * 5000, "NaN"]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_any_size_cost_their_column_alone(number: str) -> None:
    """As JSON may write them, which Python cannot."""
    body = f'{{"id": 1, "title": "A", "budget": {number}, "popularity": {number}, "x": {number}}}'
    row, rejects = film_row(parse(body.encode()), datetime.now(timezone.utc))
    assert row["title"] == "A"
    assert row["budget"] is None
    assert "budget" in {reject.field for reject in rejects}
    json.dumps(row["extra_fields"], allow_nan=False)
    assert row["popularity"] is None or abs(row["popularity"]) < 2
