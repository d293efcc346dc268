"""Answers that servers share in Redis: exact, never trusted, and never missed while it is away."""

from __future__ import annotations

import json
import signal
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from ingestion.tests.api_server import Api, rebuilt, serving, until, warehouse_of
from ingestion.tests.built import Built
from ingestion.tests.redis_server import PROGRAM, RedisServer
from ingestion.tests.test_api_faults import Load
from ingestion.warehouse.target import Target

for package in ("asyncpg", "fastapi", "hiredis", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason="make test-api installs it")
if not PROGRAM:
    pytest.skip("there is no redis-server: apt install redis-server", allow_module_level=True)

PATIENT = ("--redis-wait", "10000")  # however busy this machine is
NOTHING_KEPT = ("--cache-mb", "0")  # each request asks Redis
PATHS = ["/v1/marts/dim_movie", "/v1/marts/daily_transactions?format=csv"]


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with warehouse_of(built, target, tmp_path_factory.mktemp("shared")) as warehouse:
        yield warehouse


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


def hits(api: Api) -> float:
    return api.figure("marquee_api_redis_hits_total")


def queries(api: Api) -> float:
    return api.figure("marquee_api_queries_total")


def connected(api: Api) -> bool:
    return api.health()["redis"] == "connected"


def ready(api: Api) -> None:
    until(lambda: connected(api), "Redis is connected")


def shared(redis: RedisServer, count: int) -> None:
    until(lambda: len(redis.stored()) >= count, f"{count} answers are in Redis")


REQUESTS = [
    ("/v1/marts/dim_movie", {"limit": 20}, {}),
    ("/v1/marts/dim_movie", {"limit": 21}, {"Accept-Encoding": "identity"}),
    ("/v1/marts/dim_city", {"limit": 1, "format": "csv"}, {}),
    ("/v1/marts/fct_transactions", {"limit": 5000, "format": "arrow"}, {}),
    ("/v1/metrics/transaction_count", {"group_by": "month,city_name"}, {}),
]


def test_what_one_server_has_asked_another_one_need_not(site: Built, redis: RedisServer):
    """The same bytes and headers, in and without gzip; also after all servers were stopped."""
    with serving(site, "--redis", redis.url, *PATIENT) as one:
        ready(one)
        first = [one.get(path, params, headers=headers) for path, params, headers in REQUESTS]
        assert {page.status_code for page in first} == {200}
        shared(redis, len(REQUESTS))
        assert hits(one) == 0
    with serving(site, "--redis", redis.url, *PATIENT) as other:
        ready(other)
        for before, (path, params, headers) in zip(first, REQUESTS, strict=True):
            again = other.get(path, params, headers=headers)
            assert again.content == before.content
            for name in ("etag", "content-type", "link", "next-cursor", "warehouse-build"):
                assert again.headers.get(name) == before.headers.get(name)
            plain = other.get(path, params, headers={"Accept-Encoding": "identity"})
            assert plain.content == before.content
        assert (hits(other), queries(other)) == (len(REQUESTS), 0)
        assert "next-cursor" in first[0].headers


def test_a_build_is_seen_at_once_and_only_its_mart_is_asked_anew(site: Built, redis: RedisServer):
    options = ("--redis", redis.url, *PATIENT, *NOTHING_KEPT)
    with serving(site, *options) as one, serving(site, *options) as other:
        ready(one)
        ready(other)
        for mart in ("dim_city", "dim_movie"):
            one.mart(mart)
        shared(redis, 2)
        for _ in range(20):
            invocation = rebuilt(site, "dim_city")
            for api in (one, other):
                until(
                    lambda api=api, build=invocation: (
                        api.mart("dim_city").headers["warehouse-build"] == build
                    ),
                    "the build is seen",
                )
            builds = {api.mart("dim_city").json()["build"] for api in (one, other)}
            assert len(builds) == 1, "the body is of the build, too"
        before = hits(other), queries(other)
        other.mart("dim_movie")
        assert (hits(other), queries(other)) == (before[0] + 1, before[1])
        dates = [redis.ask("TTL", key) for key in redis.stored()]
        assert all(int(date[1:]) > 0 for date in dates), "old ones go by themselves"


def test_another_shape_of_a_mart_is_another_answer(site: Built, redis: RedisServer):
    """The manifest changes without a build: neither cache nor ETag keeps what was before."""
    path = site.target_path / "manifest.json"
    whole = path.read_text()
    with serving(site, "--redis", redis.url) as api:
        ready(api)
        before = api.mart("dim_genre")
        shared(redis, 1)
        manifest = json.loads(whole)
        node = next(n for n in manifest["nodes"].values() if n["name"] == "dim_genre")
        del node["columns"]["genre_name"]
        path.write_text(json.dumps(manifest))
        try:
            rebuilt(site, "dim_city")  # it looks at the manifest with each build
            tag = {"If-None-Match": before.headers["etag"]}
            after = until(
                lambda: [p for p in [api.mart("dim_genre", headers=tag)] if p.status_code == 200],
                "the new shape is served",
            )[0]
            assert "genre_name" in before.json()["data"][0]
            assert "genre_name" not in after.json()["data"][0]
        finally:
            path.write_text(whole)


def test_a_redis_that_is_killed_under_load_and_comes_back(site: Built, redis: RedisServer):
    options = ("--redis", redis.url, "--workers", "2", *PATIENT, *NOTHING_KEPT)
    with serving(site, *options) as api:
        until(lambda: api.figure("marquee_api_redis_connected") == 2, "both are connected")
        with Load(api, PATHS) as load:
            load.after(200)
            for _ in range(3):
                redis.kill()
                load.after(100)
                redis.start()
                until(lambda: api.figure("marquee_api_redis_connected") == 2, "both are back")
                before = hits(api)
                until(lambda before=before: hits(api) > before, "it is used again")
            load.after(100)
    assert set(load.statuses) == {200}, load.statuses


def test_a_redis_that_hangs_under_load_is_not_waited_for(site: Built, redis: RedisServer):
    """It is given up by what waits, not asked by what comes, and used again when it goes on."""
    with serving(site, "--redis", redis.url, *NOTHING_KEPT) as api:
        ready(api)
        with Load(api, PATHS) as load:
            load.after(100)
            for wait_until_away in (False, True):
                redis.send(signal.SIGSTOP)
                load.after(100)
                if wait_until_away:
                    until(lambda: not connected(api), "the connection is given up")
                    load.after(100)
                redis.send(signal.SIGCONT)
                ready(api)
                before = hits(api)
                until(lambda before=before: hits(api) > before, "it is used again")
        assert api.figure("marquee_api_redis_errors_total") > 0
    assert set(load.statuses) == {200}, load.statuses


def test_a_request_is_answered_before_a_redis_that_hangs_is_given_up(
    site: Built, redis: RedisServer
):
    """It waits less than the connection, which is made anew after a second."""
    with serving(site, "--redis", redis.url, *NOTHING_KEPT) as api:
        ready(api)
        for _ in range(20):  # a busy machine may take longer
            redis.send(signal.SIGSTOP)
            assert api.mart("dim_city").status_code == 200
            answered_first = connected(api)
            redis.send(signal.SIGCONT)
            if answered_first:
                break
            ready(api)
        assert answered_first


def test_without_redis_the_server_starts_and_finds_it_later(site: Built, tmp_path: Path):
    redis = RedisServer(tmp_path)
    with serving(site, "--redis", redis.url) as api:
        assert api.mart("dim_city").status_code == 200
        assert "refused" in api.health()["redis"] or "Connect" in api.health()["redis"]
        redis.start()
        try:
            ready(api)
            api.mart("dim_city", {"limit": 7})
            shared(redis, 1)
        finally:
            redis.kill()


def changed(value: bytes, other: bytes) -> list[bytes]:
    """What may stand in the place of a value."""
    return [
        value[:-1],
        value[: len(value) // 2],
        value[:16],
        value[:7],
        b"x",
        other,
        value[:100] + bytes([value[100] ^ 1]) + value[101:],
        value + b"x",
        b'{"build": null, "next": null, "data": []}',
        bytes(3 * 1024**2),
    ]


def test_values_that_the_api_did_not_write_are_no_answers(site: Built, redis: RedisServer):
    params = [{"limit": 50}, {"limit": 51}]
    with serving(site, "--redis", redis.url, *PATIENT, *NOTHING_KEPT) as api:
        ready(api)
        pages = [api.mart("dim_movie", one).content for one in params]
        shared(redis, 2)
        keys = redis.stored()
        values = [redis.ask("GET", key) for key in keys]
        before = hits(api)
        assert api.mart("dim_movie", params[0]).content == pages[0]
        assert hits(api) == before + 1, "whole values are answers"
        for place_of_change in range(len(changed(b"x" * 200, b""))):
            for place, key in enumerate(keys):
                wrong = changed(values[place], values[1 - place])[place_of_change]
                redis.ask("SET", key, wrong)
            before = hits(api)
            for one, page in zip(params, pages, strict=True):
                answer = api.mart("dim_movie", one)
                assert (answer.status_code, answer.content) == (200, page)
            assert hits(api) == before
        for command in (("LPUSH", "a"), ("SADD", "a"), ("HSET", "a", "b")):
            for key in keys:
                redis.ask("DEL", key)
                redis.ask(command[0], key, *command[1:])
            assert [api.mart("dim_movie", one).content for one in params] == pages
        assert connected(api)


def test_another_password_of_the_reporter_reads_nothing(site: Built, redis: RedisServer):
    """What is signed with the login of another warehouse, or of earlier, is no answer."""
    from dataclasses import replace

    from serving.api import redis_link, shared_answers

    login = replace(site.target, user="reporter", password="one")
    link = redis_link.Redis(redis_link.Address.of(redis.url), 1.0)
    places = set()
    for other in (login, replace(login, password="two"), replace(login, dbname="other")):
        found = shared_answers.SharedAnswers(link, other, lambda _: True)
        places.add(found._place("key"))
    assert len(places) == 3


def test_a_key_is_checked_before_the_shared_answers(site: Built, redis: RedisServer):
    with serving(site, "--redis", redis.url, *NOTHING_KEPT) as api:
        ready(api)
        api.mart("dim_city")
        shared(redis, 1)
        asked = api.figure("marquee_api_redis_hits_total")
        for headers in ({}, {"Authorization": f"Bearer {api.key}x"}):
            page = requests.get(f"{api.base}/v1/marts/dim_city", headers=headers, timeout=60)
            assert page.status_code == 401
        assert api.figure("marquee_api_redis_hits_total") == asked


def test_its_password_is_in_the_environment_and_shown_nowhere(site: Built, tmp_path: Path):
    redis = RedisServer(tmp_path, "correct horse".replace(" ", "-")).start()
    file = tmp_path / "password"
    file.write_text(redis.password + "\n")
    try:
        for variables in (
            {"MARQUEE_REDIS_PASSWORD": redis.password},
            {"MARQUEE_REDIS_PASSWORD_FILE": str(file)},
        ):
            with serving(site, "--redis", redis.url, **variables) as api:
                ready(api)
                line = Path(f"/proc/{api.process.pid}/cmdline").read_bytes()
                assert redis.password not in line.decode() + json.dumps(api.health())
        with serving(site, "--redis", redis.url, MARQUEE_REDIS_PASSWORD="wrong") as api:
            until(lambda: "WRONGPASS" in api.health()["redis"], "it says why")
            assert api.mart("dim_city").status_code == 200
        with serving(site, "--redis", redis.url) as api:
            until(lambda: "NOAUTH" in api.health()["redis"], "it says why")
    finally:
        redis.kill()


def test_a_socket_of_this_machine_and_a_database(site: Built, redis: RedisServer):
    with serving(site, "--redis", f"unix://{redis.socket}?db=3") as api:
        ready(api)
        api.mart("dim_city")
        until(lambda: redis.ask("INFO", "keyspace").startswith(b"# Keyspace\r\ndb3:"), "in db 3")


def test_a_redis_that_is_full_refuses_and_nobody_sees_it(site: Built, tmp_path: Path):
    # less than a Redis takes for itself
    redis = RedisServer(tmp_path, "", "maxmemory 100kb", "maxmemory-policy noeviction").start()
    try:
        with serving(site, "--redis", redis.url, *NOTHING_KEPT) as api:
            ready(api)
            for limit in range(1, 20):
                assert api.mart("dim_movie", {"limit": limit}).status_code == 200
            until(lambda: api.figure("marquee_api_redis_errors_total") > 0, "it refuses")
            assert connected(api)
    finally:
        redis.kill()


class Stranger(socketserver.StreamRequestHandler):
    """What answers on that port, and is no Redis."""

    says = b""

    def handle(self) -> None:
        with suppress(OSError):
            if self.says:
                self.wfile.write(self.says)
            while self.rfile.readline():
                pass


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n" * 50, b"\xff" * 1000]
)
def test_a_stranger_on_its_port_does_no_harm(says: bytes, site: Built):
    handler = type("Stranger", (Stranger,), {"says": says})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with serving(site, "--redis", f"redis://127.0.0.1:{server.server_address[1]}") as api:
            for limit in range(1, 30):
                assert api.mart("dim_city", {"limit": limit}).status_code == 200
            assert hits(api) == 0
        server.shutdown()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@127.0.0.1/0", "MARQUEE_REDIS_PASSWORD"),
        ("redis://user:secret@127.0.0.1/0", "MARQUEE_REDIS_PASSWORD"),
        ("http://127.0.0.1", "redis://127.0.0.1:6379/0"),
        ("127.0.0.1:6379", "redis://127.0.0.1:6379/0"),
        ("redis://127.0.0.1:port", "redis://127.0.0.1:6379/0"),
        ("redis://127.0.0.1/zero", "redis://127.0.0.1:6379/0"),
        ("unix://", "redis://127.0.0.1:6379/0"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, said: str, site: Built):
    done = site.marquee("api", "serve", "--redis", url, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "secret" not in done.stderr
