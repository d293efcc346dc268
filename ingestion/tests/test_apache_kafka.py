"""Transactions from Apache Kafka itself, which ``make test-kafka`` starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from ingestion.sources.transactions.inputs.kafka import Gone
from ingestion.sources.transactions.stream import ingest_topic
from ingestion.tests.brokers import ApacheKafka
from ingestion.tests.conftest import query_of
from ingestion.tests.test_kafka import Follower, count_of, good, until
from ingestion.warehouse.target import Target

pytestmark = pytest.mark.skipif(
    not os.environ.get("MARQUEE_KAFKA"), reason="make test-kafka starts Apache Kafka"
)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("there is no Java runtime, or no Maven")
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def make_topic(kafka: ApacheKafka) -> Callable[..., str]:
    def run(partitions: int = 1, **config: Any) -> str:
        name = f"t{uuid.uuid4().hex[:10]}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        client = AdminClient({"bootstrap.servers": kafka.address})
        client.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result()
        return name

    return run


@pytest.fixture
def query(database: Target) -> Callable[[str], list[tuple]]:
    return query_of(database)


def producer_of(kafka: ApacheKafka, **options: Any) -> Producer:
    return Producer({"bootstrap.servers": kafka.address, "linger.ms": 5, **options})


def produce(producer: Producer, topic: str, *ids: str, **options: Any) -> None:
    for name in ids:
        producer.produce(topic, json.dumps(good(transaction_id=name)), **options)
    assert producer.flush(30) == 0


def test_transactions_that_were_aborted_do_not_land(kafka, make_topic, database, query):
    topic = make_topic()
    producer = producer_of(kafka, **{"transactional.id": topic})
    producer.init_transactions(20)
    for name, commit in (("a", True), ("b", False), ("c", True), ("d", False)):
        producer.begin_transaction()
        produce(producer, topic, f"{name}1", f"{name}2")
        (producer.commit_transaction if commit else producer.abort_transaction)(20)
    report = ingest_topic(kafka.url(topic), database)
    assert report.rows["transactions"] == 4
    ids = [name for (name,) in query("select transaction_id from transactions order by 1")]
    assert ids == ["a1", "a2", "c1", "c2"]
    # one that is open is not there yet; what lies behind it waits, and lands once
    producer.begin_transaction()
    produce(producer, topic, "e1")
    produce(producer_of(kafka), topic, "f1")
    assert ingest_topic(kafka.url(topic), database).rows["transactions"] == 0
    producer.commit_transaction(20)
    assert ingest_topic(kafka.url(topic), database).rows["transactions"] == 2
    assert ingest_topic(kafka.url(topic), database).rows["transactions"] == 0


def test_offsets_that_compaction_took_are_no_loss(kafka, make_topic, database, query):
    topic = make_topic(
        cleanup_policy="compact",
        segment_ms=100,
        min_cleanable_dirty_ratio=0.01,
        delete_retention_ms=1,
    )
    producer = producer_of(kafka)
    for number in range(60):
        produce(producer, topic, f"v{number}", key="same")
        if number % 20 == 19:
            time.sleep(0.3)
    ingest_topic(kafka.url(topic), database)
    deadline = time.monotonic() + 40
    left = 60
    while left >= 40 and time.monotonic() < deadline:  # until the cleaner has been there
        produce(producer, topic, "x", key="other")
        time.sleep(1)
        left = _count(kafka, topic)
    ingest_topic(kafka.url(topic), database)
    assert left < 40
    (total, distinct) = query("select count(*), count(distinct _file_line) from transactions")[0]
    assert total == distinct
    assert query(
        "select count(*) from files as one join files as two on two.first_line > one.first_line"
        " and two.first_line <= one.last_line"
    ) == [(0,)]


def _count(kafka: ApacheKafka, topic: str) -> int:
    """How many messages are left in a topic with one partition."""
    client = Consumer(
        {
            "bootstrap.servers": kafka.address,
            "group.id": "count",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    count = 0
    while (message := client.poll(10)) is not None and not message.error():
        count += 1
    client.close()
    return count


def test_what_retention_dropped_is_a_choice(kafka, make_topic, database, query):
    topic = make_topic()
    producer = producer_of(kafka)
    produce(producer, topic, *(f"a{n}" for n in range(10)))
    ingest_topic(kafka.url(topic), database)
    produce(producer, topic, *(f"b{n}" for n in range(10)))
    client = AdminClient({"bootstrap.servers": kafka.address})
    for deleted in client.delete_records([TopicPartition(topic, 0, 15)]).values():
        deleted.result()
    with pytest.raises(Gone, match=r"goes on from offset 10.*15 to 19(.|\n)*--offset-reset"):
        ingest_topic(kafka.url(topic), database)
    assert query("select count(*) from transactions") == [(10,)]
    report = ingest_topic(kafka.url(topic), database, offset_reset="earliest")
    assert report.rows["transactions"] == 5
    assert "is read on from its earliest offset: 10 is not there" in " ".join(report.notes)


def test_a_reset_of_one_partition_doubles_nothing_of_another(kafka, make_topic, database, query):
    topic = make_topic(2)
    producer = producer_of(kafka)
    for part in (0, 1):
        produce(producer, topic, *(f"a{part}{n}" for n in range(10)), partition=part)
    ingest_topic(kafka.url(topic), database)
    for part in (0, 1):
        produce(producer, topic, *(f"b{part}{n}" for n in range(5_000)), partition=part)
    client = AdminClient({"bootstrap.servers": kafka.address})
    for deleted in client.delete_records([TopicPartition(topic, 0, 4_000)]).values():
        deleted.result()
    report = ingest_topic(kafka.url(topic), database, offset_reset="earliest")
    assert report.rows["transactions"] == 1_010 + 5_000
    assert query(
        "select count(*), count(distinct (_file_checksum, _file_line)) from transactions"
    ) == [(6_030, 6_030)]


def test_a_new_partition_of_a_followed_topic_is_read(kafka, make_topic, database, query, tmp_path):
    topic = make_topic(1)
    produce(producer_of(kafka), topic, "a1")
    follower = Follower(kafka.url(topic), database, tmp_path / "log")
    until(lambda: count_of(query) == 1, follower)
    client = AdminClient({"bootstrap.servers": kafka.address})
    client.create_partitions([NewPartitions(topic, 3)])[topic].result()
    time.sleep(1)
    produce(producer_of(kafka), topic, "n1", "n2", partition=2)
    until(lambda: count_of(query) == 3, follower)
    follower.end(signal.SIGTERM)


def test_a_topic_made_anew_is_seen_while_it_is_followed(
    kafka, make_topic, database, query, tmp_path
):
    topic = make_topic()
    produce(producer_of(kafka), topic, "a1", "a2")
    follower = Follower(kafka.url(topic), database, tmp_path / "log")
    until(lambda: count_of(query) == 2, follower)
    client = AdminClient({"bootstrap.servers": kafka.address})
    client.delete_topics([topic])[topic].result()
    time.sleep(1)
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    produce(producer_of(kafka), topic, "n1", "n2", "n3", "n4")
    assert follower.process.wait(60) == 1
    said = follower.log.read_text()
    assert "made anew" in said or "There is no topic" in said
    assert "--offset-reset earliest" in said or "There is no topic" in said
    assert count_of(query) == 2


def test_a_broker_that_is_killed_is_waited_for(kafka, make_topic, database, query, tmp_path):
    """What it has acknowledged lands once, whatever came between."""
    topic = make_topic(3)
    follower = Follower(kafka.url(topic), database, tmp_path / "log")
    producer = producer_of(kafka, **{"enable.idempotence": True})
    produce(producer, topic, "first")
    until(lambda: count_of(query) == 1, follower)
    total = 1
    for _ in range(3):
        produce(producer, topic, *(f"k{total + n}" for n in range(300)))
        total += 300
        time.sleep(0.3)
        kafka.kill()
        kafka.start()
    produce(producer, topic, "last")
    until(lambda: count_of(query) == total + 1, follower)
    assert count_of(query, "count(*)") == total + 1
    assert follower.end(signal.SIGTERM) == 143
    assert Path(follower.log).read_text().count("Traceback") == 0


def test_processes_come_and_go(kafka, make_topic, database, query, tmp_path):
    topic = make_topic(6)
    producer = producer_of(kafka)
    followers: list[Follower] = []
    total = 0
    for number in range(6):
        followers.append(Follower(kafka.url(topic), database, tmp_path / f"log{number}"))
        for _ in range(4):
            produce(producer, topic, *(f"p{total + n}" for n in range(100)))
            total += 100
            time.sleep(0.2)
        if number % 2:
            followers.pop(0).end(signal.SIGKILL)
            followers.pop(0).end(signal.SIGINT)
    followers.append(Follower(kafka.url(topic), database, tmp_path / "last"))
    until(lambda: count_of(query) == total, *followers)
    assert count_of(query, "count(*)") == total
    for follower in followers:
        follower.end(signal.SIGKILL)
