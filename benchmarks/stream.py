"""How fast messages of a Kafka topic land, and how soon they are seen: ``make bench-stream``.

All ways read the same topic of a broker on this machine, each in a process of its own. Processor
time is that of the process, librdkafka's threads included, and not that of broker and PostgreSQL.

- ``consume``: confluent-kafka's ``consume``, whose messages are counted and thrown away: the limit.
- ``marquee``: ``marquee ingest transactions kafka://...`` into a fresh database: contract, rejects,
  ledger, COPY.
- ``dlt``: a dlt resource over the same consumer, with dlt's defaults, as dlt's own Kafka source is
  made: a dict for each message. It gets a tenth of the messages.

Then a producer sends 1,000 messages a second while ``--follow --build-every`` runs on a built
warehouse, and somebody asks five times a second how many are there: in the raw table and in
the fact. How long ago the last one seen was sent is its latency.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ingestion.tests.brokers import Broker
from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target

MARQUEE = [sys.executable, "-m", "ingestion"]
TENTH = 10
PARTITIONS = 3
SEEN = {
    "raw": "raw_transactions.transactions",
    "fct_transactions": "marts.fct_transactions",
}


class Run(NamedTuple):
    """Seconds of wall and of processor time, and the peak of memory in MB."""

    seconds: float
    cpu: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="messages")
    parser.add_argument("--rate", type=float, default=1_000.0, help="messages a second, then")
    parser.add_argument("--seconds", type=int, default=60, help="for so long; 0: not at all")
    parser.add_argument("--side", choices=("consume", "dlt"), help="what this process is")
    parser.add_argument("--url", help="the topic")
    arguments = parser.parse_args()
    if arguments.side == "consume":
        _consume(arguments.url, arguments.rows)
    elif arguments.side == "dlt":
        _land_with_dlt(arguments.url, arguments.rows)
    else:
        with Broker() as broker, tempfile.TemporaryDirectory() as folder:
            _throughput(broker, Path(folder), arguments.rows)
            if arguments.seconds:
                _latency(broker, Path(folder), arguments.rate, arguments.seconds)


def _throughput(broker: Broker, folder: Path, rows: int) -> None:
    server = load_target()
    url = broker.url("bench")
    broker.create("bench", PARTITIONS)
    made = folder / "made.jsonl"
    generate = ["generate", "transactions", "--rows", str(rows), "--seed", "42", "--out", str(made)]
    subprocess.run([*MARQUEE, *generate], check=True, stdout=subprocess.DEVNULL)
    _produce(broker, "bench", made)
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
        with _database(server, f"bench_{name}") as target:
            run = _run(command, target)
            if name == "marquee":
                _check(target, rows)
        cpu = run.cpu * share
        limit = limit or cpu
        rate = rows / (run.seconds * share)
        print(
            f"{name:<10} {run.seconds * share:>9.1f} {cpu:>9.1f} {rate:>12,.0f}"
            f" {limit / cpu:>11.3f} {run.memory:>6.0f}"
        )


def _latency(broker: Broker, folder: Path, rate: float, seconds: int) -> None:
    target = load_target()
    broker.create("live", PARTITIONS)
    subprocess.run([*MARQUEE, "run"], check=True, stdout=subprocess.DEVNULL)
    before = {name: _count(target, table) for name, table in SEEN.items()}
    follow = ["ingest", "transactions", broker.url("live"), "--follow", "--build-every", "5"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*MARQUEE, *follow], stdout=log, stderr=log) as follower,
    ):
        time.sleep(5)
        sending = ["generate", "transactions", "--rate", str(rate)]
        sending += ["--rows", str(int(rate * seconds)), "--to", broker.url("live")]
        began = time.monotonic()
        with subprocess.Popen([*MARQUEE, *sending], stdout=subprocess.DEVNULL) as producer:
            seen = _watch(target, producer, before, began, rate)
        follower.send_signal(signal.SIGTERM)
    print(f"\n{rate:,.0f} messages a second for {seconds} s; latency in seconds")
    print(f"{'until seen in':<20} {'p50':>6} {'p99':>6} {'asked':>6}")
    for name, found in seen.items():
        ages = statistics.quantiles(found, n=100)
        print(f"{name:<20} {ages[49]:>6.2f} {ages[98]:>6.2f} {len(found):>6}")


def _watch(
    target: Target,
    producer: subprocess.Popen,
    before: dict[str, int],
    began: float,
    rate: float,
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in SEEN}
    while producer.poll() is None:
        for name, table in SEEN.items():
            count = _count(target, table) - before[name]
            if count > rate:  # all have begun
                found[name].append(time.monotonic() - began - count / rate)
        time.sleep(0.2)
    return found


def _count(target: Target, table: str) -> int:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*) from {table}")  # noqa: S608
        return cursor.fetchone()[0]


def _produce(broker: Broker, topic: str, file: Path) -> None:
    from confluent_kafka import Producer

    options = {"linger.ms": 50, "queue.buffering.max.messages": 500_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": broker.address, **options})
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            producer.produce(topic, line.rstrip(b"\n"), partition=number % PARTITIONS)
            while len(producer) > 400_000:
                producer.poll(0.1)
    producer.flush(120)


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


def _run(command: list[str], target: Target) -> Run:
    began = time.monotonic()
    with subprocess.Popen(
        command, env=os.environ | target.libpq_env(), stdout=subprocess.DEVNULL
    ) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(time.monotonic() - began, cpu, usage.ru_maxrss / 1024)


@contextmanager
def _database(server: Target, name: str) -> Iterator[Target]:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"create database {name} template template0")
        try:
            yield replace(server, dbname=name)
        finally:
            cursor.execute(f"drop database {name} with (force)")


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
