"""What a request of the data API costs beside the least it could: ``make bench-api``.

Runs in ``marquee scratch``. The sample is built first. Processor time is that of the processes
themselves, as Linux counts it in nanoseconds: it stays steady on a busy machine. Each pair is
measured in turns, and the ratio is the median of the rounds.

- ``hello``: FastAPI that returns a dict, served by the same uvicorn: the yardstick of what is kept.
- ``the server alone``: sends 12 kB and does nothing else, the least that a kept answer can cost.
- ``Redis hit``: nothing is kept in the process, all is shared; Redis' own time is beside it.
- ``one row``, ``10,000 rows``: not kept; API and PostgreSQL together, beside asyncpg alone and
  PostgreSQL, which fetches the same rows in the same order and makes no bytes of them. Asyncpg has
  a prepared statement on one connection, the least there is; once more it is its pool with the
  defaults, as a program of several requests would have it.
- ``mix``: 85 of 100 requests are kept, 15 read one row each; the load generator is on the machine.
- ``memory``: of the process, after many large answers that all differ.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import asyncpg
import psycopg2
import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import MARQUEE
from ingestion.tests.conftest import unused_port
from ingestion.tests.redis_server import PROGRAM, RedisServer
from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target

FACT = "fct_transactions"
BIG = 10_000  # rows
CONNECTIONS = 8
BARE = "/bare"
chance = random.Random(15)  # noqa: S311 - no secret
KEPT = {"limit": 100, "select": "date_day,city_name,category_name,amount,transaction_count"}


class Cost(NamedTuple):
    """Microseconds of processor time a request: of the client or server, and of PostgreSQL."""

    own: float
    database: float

    @property
    def both(self) -> float:
        return self.own + self.database


class Client(asyncio.Protocol):
    """One connection that is kept, with one request at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.found = bytearray()
        self.wanted: int | None = None
        self.done: asyncio.Future[tuple[int, int]] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.found += data
        if self.wanted is None:
            end = self.found.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.found[:end]).lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.wanted = end + 4 + length
        if len(self.found) >= self.wanted and self.done:
            status, size = int(self.found[9:12]), len(self.found)
            self.found, self.wanted = bytearray(), None
            self.done.set_result((status, size))

    def connection_lost(self, error: Exception | None) -> None:
        if self.done and not self.done.done():
            self.done.set_exception(error or ConnectionError("closed"))

    async def ask(self, request: bytes) -> tuple[int, int]:
        """Send a request; status and bytes of its answer."""
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.done


class Server:
    """A server on this machine.

    Attributes:
        process: it.
        port: its port.
        key: a key without a limit; nothing for hello.
    """

    def __init__(self, process: subprocess.Popen, port: int, key: str = "") -> None:
        self.process, self.port, self.key = process, port, key

    def request(self, path: str, params: dict | None = None, **headers: str) -> bytes:
        query = f"?{urlencode(params, doseq=True)}" if params else ""
        lines = [f"GET {path}{query} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"Authorization: Bearer {self.key}"] * bool(self.key)
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def load(self, wanted: Sequence[bytes], status: int = 200) -> list[float]:
        """Send requests over some connections; seconds of each. All must have the status."""
        times = asyncio.run(_load(self.port, wanted))
        wrong = [found for found, _ in times if found != status]
        if wrong:
            sys.exit(f"{len(wrong)} of {len(wanted)} requests had another status: {wrong[0]}")
        return [seconds for _, seconds in times]

    @property
    def megabytes(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def _load(port: int, wanted: Sequence[bytes]) -> list[tuple[int, float]]:
    loop = asyncio.get_running_loop()
    left, times = iter(wanted), []

    async def work() -> None:
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        for request in left:
            began = time.perf_counter()
            status, _ = await client.ask(request)
            times.append((status, time.perf_counter() - began))
        client.transport.close()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return times


def cpu_of(pids: Sequence[int]) -> float:
    """Seconds of processor time that processes have used, all their threads."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def backends(target: Target, name: str) -> list[int]:
    """Processes of PostgreSQL that serve a program."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select pid from pg_stat_activity where application_name = %s", (name,))
        return [pid for (pid,) in cursor.fetchall()]


@contextmanager
def running(command: list[str], port: int, path: str, key: str = "") -> Iterator[Server]:
    """A server, once it answers."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if requests.get(f"http://127.0.0.1:{port}{path}", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.1)
        else:
            sys.exit(f"{' '.join(command[:4])} does not answer")
        yield Server(process, port, key)
    finally:
        process.terminate()
        process.wait()


def hello(port: int) -> None:
    """FastAPI's hello; and below it an application that only sends what a kept answer is."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    names = ("content-type", "cache-control", "vary", "etag", "warehouse-build", "x-content-type")
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(name.encode(), b"x" * 30) for name in names] + [(b"content-length", b"12000")],
    }
    body = {"type": "http.response.body", "body": b"x" * 12_000}

    @app.get("/")
    async def say() -> dict[str, str]:
        return {"hello": "world"}

    async def both(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == BARE:
            await send(start)
            await send(body)
        else:
            await app(scope, receive, send)

    uvicorn.run(both, port=port, access_log=False, log_level="warning")


class Bench:
    """The pairs, over one server of the API and one of hello."""

    def __init__(
        self,
        target: Target,
        api: Server,
        other: Server,
        rounds: int,
        shared: tuple[Server, RedisServer] | None,
    ) -> None:
        self.target, self.api, self.hello, self.rounds = target, api, other, rounds
        self.shared = shared
        self.fresh = itertools.count(1)
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"select transaction_id from marts.{FACT}")  # noqa: S608 - ours
            self.ids = [one for (one,) in cursor.fetchall()]
        chance.shuffle(self.ids)
        self.next_id = itertools.cycle(self.ids)

    def served(self, server: Server, wanted: Sequence[bytes], status: int = 200) -> Cost:
        """What requests cost a server, and PostgreSQL behind it."""
        known = backends(self.target, "marquee api")
        before, database = cpu_of([server.process.pid]), cpu_of(known)
        server.load(wanted, status)
        own = cpu_of([server.process.pid]) - before
        behind = backends(self.target, "marquee api")
        spent = cpu_of(behind) - database if set(known) <= set(behind) else 0.0
        return Cost(1e6 * own / len(wanted), 1e6 * spent / len(wanted))

    def fetched(self, sql: str, values: Sequence[Any], *, pooled: bool = False) -> Cost:
        """What the same costs asyncpg alone."""
        return asyncio.run((self._pooled if pooled else self._fetched)(sql, values))

    def _login(self) -> dict[str, Any]:
        one = self.target
        return {
            "host": one.host,
            "port": one.port,
            "user": one.user,
            "password": one.password,
            "database": one.dbname,
        }

    async def _fetched(self, sql: str, values: Sequence[Any]) -> Cost:
        connection = await asyncpg.connect(**self._login())
        statement = await connection.prepare(sql)
        cost = await self._timed(statement.fetch, values, connection.get_server_pid())
        await connection.close()
        return cost

    async def _pooled(self, sql: str, values: Sequence[Any]) -> Cost:
        async with asyncpg.create_pool(**self._login(), min_size=1, max_size=1) as pool:
            pid = await pool.fetchval("select pg_backend_pid()")
            return await self._timed(lambda value: pool.fetch(sql, value), values, pid)

    async def _timed(self, fetch: Callable[[Any], Any], values: Sequence[Any], pid: int) -> Cost:
        await fetch(values[0])
        before, database = time.process_time(), cpu_of([pid])
        for value in values:
            await fetch(value)
        cost = time.process_time() - before, cpu_of([pid]) - database
        return Cost(*(1e6 * seconds / len(values) for seconds in cost))

    def pair(
        self,
        name: str,
        limit: float | None,
        one: Callable[[], Cost],
        two: Callable[[], Cost],
        *,
        only_own: bool = False,
    ) -> None:
        """Print what one costs of two, the median of the rounds."""
        one()  # not counted: modules are imported, statements prepared
        found = []
        for _ in range(self.rounds):
            first, second = one(), two()
            ratio = first.own / second.own if only_own else first.both / second.both
            found.append((first, second, ratio))
        first, second, ratio = sorted(found, key=lambda each: each[2])[len(found) // 2]
        said = ""
        if limit is not None:
            said = f"   at most {limit}: {'met' if ratio <= limit else 'not met'}"
        print(
            f"{name:<34} {first.own:>9,.0f} {first.database:>9,.0f} {second.own:>9,.0f}"
            f" {second.database:>9,.0f} {ratio:>7.2f}{said}"
        )

    def all(self, requests_each: int, seconds: float, large: int) -> None:
        print(
            f"{'us of processor time a request':<34} {'API':>9} {'database':>9} {'beside':>9}"
            f" {'database':>9} {'ratio':>7}"
        )
        self.kept(requests_each)
        if self.shared:
            self.redis_hits(requests_each, *self.shared)
        else:
            print("Redis hit: there is no redis-server here")
        self.not_kept(requests_each)
        self.mix(seconds)
        self.memory(large)

    def kept(self, count: int) -> None:
        path = "/v1/marts/daily_transactions"
        page = self.api.request(path, KEPT)
        url = f"http://127.0.0.1:{self.api.port}{path}"
        headers = {"Authorization": f"Bearer {self.api.key}"}
        answer = requests.get(url, KEPT, headers=headers, timeout=60)
        same = self.api.request(path, KEPT, If_None_Match=answer.headers["etag"])
        other = [self.hello.request("/")] * count

        def plain() -> Cost:
            return self.served(self.hello, other)

        size = len(answer.content) / 1000
        self.pair(
            f"kept, {size:.0f} kB, beside hello", 0.4,
            lambda: self.served(self.api, [page] * count), plain,
        )  # fmt: skip
        bare = [self.hello.request(BARE)] * count
        self.pair(
            "the server alone, beside hello", None, lambda: self.served(self.hello, bare), plain
        )
        self.pair(
            "304, beside hello", 0.3, lambda: self.served(self.api, [same] * count, 304), plain
        )

    def redis_hits(self, count: int, api: Server, redis: RedisServer) -> None:
        other = [self.hello.request("/")] * count
        for name, headers in (("in gzip", {"Accept_Encoding": "gzip"}), ("plain", {})):
            # different ones, as equal requests at once would share one look into Redis
            pages = [KEPT | {"limit": limit} for limit in range(76, 126)]
            each = [api.request("/v1/marts/daily_transactions", one, **headers) for one in pages]
            wanted = list(itertools.islice(itertools.cycle(each), count))

            def hit(wanted: list[bytes] = wanted) -> Cost:
                before, beside = _redis_hits(api), cpu_of([redis.process.pid])
                cost = self.served(api, wanted)
                if _redis_hits(api) - before < count:
                    sys.exit("some of the requests were no hits")
                return Cost(cost.own, 1e6 * (cpu_of([redis.process.pid]) - beside) / count)

            api.load(each)  # they are shared from now on
            time.sleep(2)
            self.pair(
                f"Redis hit, {name}, beside hello", 1.0, hit,
                lambda: self.served(self.hello, other), only_own=True,
            )  # fmt: skip

    def not_kept(self, count: int) -> None:
        path, few = f"/v1/marts/{FACT}", max(200, count // 5)

        def ids(number: int) -> list[str]:
            return list(itertools.islice(self.next_id, number))

        def rows() -> Cost:
            return self.served(self.api, [self._one_row() for _ in range(few)])

        sql = f"select * from marts.{FACT} where transaction_id = $1 limit 100"  # noqa: S608
        self.pair("one row, beside asyncpg", 2.0, rows, lambda: self.fetched(sql, ids(few)))
        self.pair(
            "one row, beside asyncpg's pool",
            2.0,
            rows,
            lambda: self.fetched(sql, ids(few), pooled=True),
        )
        key = requests.get(
            f"http://127.0.0.1:{self.api.port}{path}/schema",
            headers={"Authorization": f"Bearer {self.api.key}"},
            timeout=60,
        ).json()["key"]
        order = f"order by {', '.join(key)} limit {BIG}"  # as the API's pages are
        sql = f"select * from marts.{FACT} where amount > $1::numeric {order}"  # noqa: S608
        for form in ("csv", "arrow"):

            def many(form: str = form) -> Cost:
                wanted = [
                    {"amount__gt": f"-{next(self.fresh)}", "limit": BIG, "format": form}
                    for _ in range(20)
                ]
                return self.served(self.api, [self.api.request(path, one) for one in wanted])

            self.pair(
                f"{BIG:,} rows as {form}, beside asyncpg", 0.8, many,
                lambda: self.fetched(sql, [-next(self.fresh) for _ in range(20)]),
            )  # fmt: skip

    def mix(self, seconds: float) -> None:
        """85 of 100 kept, 15 not; as many as fit into the time."""
        hot = [
            self.api.request("/v1/marts/daily_transactions", KEPT | {"limit": limit})
            for limit in range(1, 101)
        ]
        self.api.load(hot)
        wanted = [self._mixed(hot) for _ in range(2000)]
        began = time.perf_counter()
        self.api.load(wanted)
        count = max(2000, int(2000 * seconds / (time.perf_counter() - began)))
        wanted = [self._mixed(hot) for _ in range(count)]
        began = time.perf_counter()
        times = sorted(self.api.load(wanted))
        rate = count / (time.perf_counter() - began)
        late = times[int(len(times) * 0.95)] * 1000
        print(
            f"\nmix: {rate:,.0f} requests/s (at least 3,000), p50"
            f" {statistics.median(times) * 1000:.1f} ms, p95 {late:.1f} ms (less than 20),"
            f" {len(self.ids):,} facts, {count:,} requests, all 200"
        )

    def _mixed(self, hot: Sequence[bytes]) -> bytes:
        return chance.choice(hot) if chance.random() < 0.85 else self._one_row()

    def _one_row(self) -> bytes:
        params = {"transaction_id": next(self.next_id)}
        return self.api.request(f"/v1/marts/{FACT}", params)

    def memory(self, large: int) -> None:
        wanted = [
            self.api.request(
                f"/v1/marts/{FACT}",
                {"amount__gt": f"-{next(self.fresh)}", "limit": BIG, "format": "csv"},
            )
            for _ in range(large)
        ]
        before = self.api.megabytes
        self.api.load(wanted)
        print(
            f"memory: {before:.0f} MB before, {self.api.megabytes:.0f} MB after {large:,} answers"
            f" of {BIG:,} rows that differ (at most 200)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=5000, help="of a round")
    parser.add_argument("--seconds", type=float, default=20, help="of the mix")
    parser.add_argument("--large", type=int, default=300, help="large answers")
    parser.add_argument("--rows", type=int, default=0, help="transactions more than the sample's")
    parser.add_argument("--hello", type=int, help="be hello, on a port")
    arguments = parser.parse_args()
    if arguments.hello:
        hello(arguments.hello)
        return
    _build(arguments.rows)
    made = [*MARQUEE, "api", "key", "create", "bench", "--rate", "0"]
    key = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    port, other = unused_port(), unused_port()
    with (
        running([*MARQUEE, "api", "serve", "--port", str(port)], port, "/ready", key) as api,
        running([sys.executable, __file__, "--hello", str(other)], other, "/") as plain,
        sharing(key) as shared,
    ):
        bench = Bench(load_target(), api, plain, arguments.rounds, shared)
        bench.all(arguments.requests, arguments.seconds, arguments.large)


@contextmanager
def sharing(key: str) -> Iterator[tuple[Server, RedisServer] | None]:
    """A server that keeps nothing itself and shares all in a Redis; None without redis-server."""
    if not PROGRAM:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder)).start()
        port = unused_port()
        options = ["--cache-mb", "0", "--redis", redis.url, "--redis-wait", "10000"]
        command = [*MARQUEE, "api", "serve", "--port", str(port), *options]
        try:
            with running(command, port, "/ready", key) as api:
                yield api, redis
        finally:
            redis.kill()


def _redis_hits(api: Server) -> float:
    lines = requests.get(f"http://127.0.0.1:{api.port}/metrics", timeout=60).text.splitlines()
    name = "marquee_api_redis_hits_total "
    return next((float(line.split()[1]) for line in lines if line.startswith(name)), 0.0)


def _build(rows: int) -> None:
    """The sample's marts; with more transactions, if asked for."""
    steps: list[list[str]] = [[*MARQUEE, "run"]]
    with tempfile.TemporaryDirectory() as folder:
        if rows:
            file = f"{folder}/more.jsonl"
            steps.append([*MARQUEE, "generate", "transactions", "--rows", str(rows), "--to", file])
            steps.append([*MARQUEE, "ingest", "transactions", file])
            dbt = str(Path(sys.executable).with_name("dbt"))
            steps.append([dbt, "run", "--select", "+fct_transactions+"])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, env=os.environ, check=False)
            if done.returncode:
                sys.exit(
                    f"{' '.join(step[:4])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
                )


if __name__ == "__main__":
    try:
        main()
    except psycopg2.Error as error:
        sys.exit(str(error))
