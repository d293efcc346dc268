"""How fast messages of a Kafka topic land, and how soon they are seen: ``make bench-stream``.

All ways read topics of one broker on this machine, each in a process of its own: Apache Kafka where
Maven gets it, or else the one that the tests have. Processor time is that of the process, its
threads included, and not that of broker and PostgreSQL.

- ``consume``: confluent-kafka's ``consume``, whose messages are counted and thrown away: the limit.
- ``marquee``: ``marquee ingest transactions kafka://...`` into a fresh database: contract, rejects,
  ledger, COPY.
- ``dlt``: a dlt resource over the same consumer, with dlt's defaults, as dlt's own Kafka source is
  made: a dict for each message. It gets a tenth of the messages.
- ``debezium``: Debezium's JDBC sink on Kafka Connect, where Maven gets it, with large batches and
  inserts of many rows. It needs to know the columns, so its messages carry their schema, as
  Connect's JSON converter has it. Its JVM counts from its start on.

Then a producer sends 1,000 messages a second while ``--follow --build-every`` runs on a built
warehouse, and somebody asks again and again how old the newest one is in the raw table, in
``transactions_live`` and in the fact; its time is when it was due to be sent. The first 20 seconds
do not count. With --windows the time is cut in parts, each with its own figures and the follower's
memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from math import nan
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest

from benchmarks.running import MARQUEE, Run, database, run
from ingestion.tests.brokers import ApacheKafka, Broker, copy_jars
from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target

TENTH = 10
PARTITIONS = 3
WARM_UP = 20  # seconds that do not count: dbt starts, and is told of all models
PATIENCE = 600  # seconds for Kafka Connect
AGE = """
    select coalesce(extract(epoch from clock_timestamp() - max({time} at time zone 'UTC')), 60)
    from {table} where {time} <= clock_timestamp() at time zone 'UTC' and {narrow}
"""
LAST_MINUTE = "event_at > now() at time zone 'UTC' - interval '1 minute'"
SEEN = {
    "raw": AGE.format(
        table="raw_transactions.transactions",
        time="(event_ts at time zone 'UTC')",
        narrow="_dlt_load_id = (select max(load_id) from raw_transactions._dlt_loads)",
    ),
    "transactions_live": AGE.format(
        table="marts.transactions_live", time="event_at", narrow=LAST_MINUTE
    ),
    "fct_transactions": AGE.format(
        table="marts.fct_transactions", time="event_at", narrow=LAST_MINUTE
    ),
}
CONNECT = {
    "org.apache.kafka:connect-runtime": "4.1.0",
    "org.apache.kafka:connect-json": "4.1.0",
    "io.debezium:debezium-connector-jdbc": "3.2.0.Final",
    "org.slf4j:slf4j-simple": "1.7.36",
}
WORKER = """\
bootstrap.servers={broker.address}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
offset.storage.file.filename={folder}/offsets
listeners=http://127.0.0.1:0
consumer.max.poll.records=10000
consumer.fetch.min.bytes=1000000
"""
SINK = """\
name=sink
connector.class=io.debezium.connector.jdbc.JdbcSinkConnector
topics={topic}
connection.url=jdbc:postgresql://{target.host}:{target.port}/{target.dbname}?reWriteBatchedInserts=true
connection.username={target.user}
connection.password={target.password}
collection.name.format=sink
insert.mode=insert
schema.evolution=basic
batch.size=10000
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="messages; 0: not at all")
    parser.add_argument("--rate", type=float, default=1_000.0, help="messages a second, then")
    parser.add_argument("--seconds", type=int, default=60, help="for so long; 0: not at all")
    parser.add_argument("--windows", type=int, default=1, help="parts of that time")
    parser.add_argument("--side", choices=("consume", "dlt"), help="what this process is")
    parser.add_argument("--url", help="the topic")
    arguments = parser.parse_args()
    if arguments.side == "consume":
        _consume(arguments.url, arguments.rows)
    elif arguments.side == "dlt":
        _land_with_dlt(arguments.url, arguments.rows)
    else:
        with tempfile.TemporaryDirectory() as folder, _broker(Path(folder)) as broker:
            if arguments.rows:
                _throughput(broker, Path(folder), arguments.rows)
            if arguments.seconds:
                _latency(broker, Path(folder), arguments)


def _broker(folder: Path) -> Broker:
    if shutil.which("mvn") and shutil.which("java"):
        with suppress(pytest.skip.Exception):
            copy_jars(CONNECT, folder / "connect")
            return ApacheKafka(folder)
    print("Maven does not get Apache Kafka here: without Debezium, and on another broker.")
    return Broker()


def _throughput(broker: Broker, folder: Path, rows: int) -> None:
    server = load_target()
    url = broker.url("bench")
    broker.create("bench", PARTITIONS)
    made = folder / "made.jsonl"
    generate = ["generate", "transactions", "--rows", str(rows), "--seed", "42", "--out", str(made)]
    subprocess.run([*MARQUEE, *generate], check=True, stdout=subprocess.DEVNULL)
    with made.open("rb") as lines:
        _produce(broker, "bench", (line.rstrip(b"\n") for line in lines))
    this = [sys.executable, __file__, "--url", url]
    ways = {
        "consume": (1, [*this, "--side", "consume", "--rows", str(rows)]),
        "marquee": (1, [*MARQUEE, "ingest", "transactions", url]),
        "dlt": (TENTH, [*this, "--side", "dlt", "--rows", str(rows // TENTH)]),
    }
    print(f"{rows:,} messages, {made.stat().st_size / rows:.0f} bytes each\n")
    print(
        f"{'way':<10} {'wall, s':>9} {'CPU, s':>9} {'messages/s':>12} {'of consume':>11} {'MB':>6}"
    )
    limit = 0.0
    for name, (share, command) in ways.items():
        with database(server, f"bench_{name}") as target:
            done = run(command, target, folder)
            if name == "marquee":
                _check(target, rows)
        limit = limit or done.cpu * share
        _print(name, done, rows, share, limit)
    if isinstance(broker, ApacheKafka):
        sent = _produce_with_schema(broker, made)
        with database(server, "bench_debezium") as target:
            done = _run_connect(broker, folder, target, sent)
            _print("debezium", done, rows, rows / sent, limit)


def _print(name: str, done: Run, rows: int, share: float, limit: float) -> None:
    cpu, seconds = done.cpu * share, done.seconds * share
    print(
        f"{name:<10} {seconds:>9.1f} {cpu:>9.1f} {rows / seconds:>12,.0f}"
        f" {limit / cpu:>11.3f} {done.memory:>6.0f}"
    )


def _produce_with_schema(broker: Broker, made: Path) -> int:
    """The lines that are right by their types, each with its schema; how many."""
    kinds = dict.fromkeys(("transaction_id", "event_ts", "merchant", "category"), "string")
    kinds |= dict.fromkeys(("city", "status", "payment_method", "currency"), "string")
    kinds |= {"user_id": "int64", "amount": "double"}
    fields = [{"field": name, "type": kind, "optional": True} for name, kind in kinds.items()]
    schema = {"type": "struct", "optional": False, "fields": fields}
    types = {"string": str, "int64": int, "double": float}
    wanted = {name: (types[kind], type(None)) for name, kind in kinds.items()}

    def envelopes() -> Iterator[bytes]:
        with made.open("rb") as lines:
            for line in lines:
                with suppress(ValueError):
                    payload = json.loads(line)
                    if isinstance(payload, dict) and all(
                        isinstance(payload.get(name), kind) for name, kind in wanted.items()
                    ):
                        yield json.dumps({"schema": schema, "payload": payload}).encode()

    broker.create("enveloped", PARTITIONS)
    return _produce(broker, "enveloped", envelopes())


def _run_connect(broker: Broker, folder: Path, target: Target, rows: int) -> Run:
    worker, sink = folder / "worker.properties", folder / "sink.properties"
    worker.write_text(WORKER.format(broker=broker, folder=folder))
    sink.write_text(SINK.format(topic="enveloped", target=target))
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    command = ["java", "-Xmx1g", "-cp", f"{folder}/connect/*", main, str(worker), str(sink)]
    began = time.monotonic()
    with (
        (folder / "connect.log").open("w") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"LOG_DIR": str(folder)}
        ) as child,
    ):
        while _rows_of_sink(target) < rows:
            if child.poll() is not None or time.monotonic() - began > PATIENCE:
                child.kill()
                sys.exit((folder / "connect.log").read_text()[-2_000:])
            time.sleep(0.5)
        seconds = time.monotonic() - began
        child.terminate()
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _rows_of_sink(target: Target) -> int:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('sink') is not null")
        return _count(target, "sink") if cursor.fetchone()[0] else 0


def _latency(broker: Broker, folder: Path, arguments: argparse.Namespace) -> None:
    target, rate = load_target(), arguments.rate
    broker.create("live", PARTITIONS)
    subprocess.run([*MARQUEE, "run"], check=True, stdout=subprocess.DEVNULL)
    follow = ["ingest", "transactions", broker.url("live"), "--follow", "--build-every", "5"]
    sending = ["generate", "transactions", "--rate", str(rate)]
    sending += ["--rows", str(int(rate * arguments.seconds)), "--to", broker.url("live")]
    seen = {name: Seen(target, query) for name, query in SEEN.items()}
    memory: list[tuple[float, float]] = []
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*MARQUEE, *follow], stdout=log, stderr=log) as follower,
    ):
        time.sleep(5)
        began = time.monotonic()
        with subprocess.Popen([*MARQUEE, *sending], stdout=subprocess.DEVNULL) as producer:
            for table in seen.values():
                table.watch(began)
            while producer.poll() is None:
                memory.append((time.monotonic() - began, _memory(follower.pid)))
                time.sleep(1)
        for table in seen.values():
            table.stop()
        follower.send_signal(signal.SIGTERM)
    print(f"\n{rate:,.0f} messages a second for {arguments.seconds} s; latency in seconds")
    print(f"{'until seen in':<20} {'from':>6} {'to':>6} {'p50':>6} {'p99':>6} {'asked':>6}")
    width = arguments.seconds / arguments.windows
    for name, table in seen.items():
        for number in range(arguments.windows):
            since, until = number * width, (number + 1) * width
            ages = [age for at, age in table.ages if since <= at < until]
            percentiles = statistics.quantiles(ages, n=100) if len(ages) > 1 else [nan] * 99
            p50, p99 = percentiles[49], percentiles[98]
            print(f"{name:<20} {since:>6.0f} {until:>6.0f} {p50:>6.2f} {p99:>6.2f} {len(ages):>6}")
    for number in range(arguments.windows):
        since, until = number * width, (number + 1) * width
        most = max(used for at, used in memory if since <= at < until)
        print(f"{'follower, MB':<20} {since:>6.0f} {until:>6.0f} {most:>6.0f}")


class Seen(threading.Thread):
    """Asks again and again how old the newest message is.

    Attributes:
        ages: when it was asked, in seconds since the first message was sent, and the answer.
    """

    def __init__(self, target: Target, query: str) -> None:
        super().__init__(daemon=True)
        self.ages: list[tuple[float, float]] = []
        self._target, self._query = target, query
        self._ends = threading.Event()

    def watch(self, began: float) -> None:
        self._began = began
        self.start()

    def stop(self) -> None:
        self._ends.set()
        self.join()

    def run(self) -> None:
        with closing(self._target.connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._ends.wait(0.2):
                at = time.monotonic() - self._began
                cursor.execute(self._query)
                age = float(cursor.fetchone()[0])
                spent = time.monotonic() - self._began - at  # it is seen when the answer is there
                if at > WARM_UP:
                    self.ages.append((at, age + spent))


def _memory(process: int) -> float:
    """MB of a process that are its own, and in memory."""
    with Path(f"/proc/{process}/smaps_rollup").open() as lines:
        sizes = {line.split()[0]: int(line.split()[1]) for line in list(lines)[1:]}
    return (sizes["Rss:"] - sizes["Shared_Clean:"] - sizes["Shared_Dirty:"]) / 1024


def _count(target: Target, table: str) -> int:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*) from {table}")  # noqa: S608
        return cursor.fetchone()[0]


def _produce(broker: Broker, topic: str, messages: Iterable[bytes]) -> int:
    """Send them, in turn to each partition; how many."""
    from confluent_kafka import Producer

    options = {"linger.ms": 50, "queue.buffering.max.messages": 500_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": broker.address, **options})
    number = 0
    for message in messages:
        producer.produce(topic, message, partition=number % PARTITIONS)
        number += 1
        while len(producer) > 400_000:
            producer.poll(0.1)
    producer.flush(120)
    return number


def _consumer(url: str) -> tuple[Any, Any]:
    import confluent_kafka

    address, topic = url.removeprefix("kafka://").split("/")
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "bench", "log_level": 0}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
    return confluent_kafka, consumer


def _consume(url: str, rows: int) -> None:
    _, consumer = _consumer(url)
    while rows > 0:
        rows -= len(consumer.consume(10_000, 1.0))


def _land_with_dlt(url: str, rows: int) -> None:
    import dlt
    from dlt.destinations import postgres

    @dlt.resource(name="messages")
    def messages() -> Iterator[list[dict]]:
        _, consumer = _consumer(url)
        left = rows
        while left > 0:
            batch = [message for message in consumer.consume(3_000, 1.0) if not message.error()]
            left -= len(batch)
            yield [
                {
                    "_kafka": {
                        "partition": message.partition(),
                        "topic": message.topic(),
                        "offset": message.offset(),
                        "ts": message.timestamp()[1],
                    },
                    "data": message.value().decode(errors="replace"),
                }
                for message in batch
            ]

    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "bench_stream",
            destination=postgres(credentials=load_target().url),
            dataset_name="bench",
            pipelines_dir=folder,
        )
        pipeline.run(messages())


def _check(target: Target, rows: int) -> None:
    """All of them are there, once."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select (select count(*) from raw_transactions.transactions)"
            " + (select count(*) from raw_transactions.rejects),"
            " (select sum(lines_read) from raw_transactions.files)"
        )
        found = cursor.fetchone()
    if found != (rows, rows):
        sys.exit(json.dumps([int(number) for number in found]))


if __name__ == "__main__":
    main()
