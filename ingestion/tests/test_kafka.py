"""Transactions from Kafka, against a real broker: each message once, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from ingestion import kafka_settings
from ingestion.cli import marquee
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport
from ingestion.sample.transactions import generate
from ingestion.sources import transactions
from ingestion.sources.transactions import stream
from ingestion.sources.transactions.inputs.kafka import Gone, TopicReader, look_up
from ingestion.sources.transactions.landing import replay
from ingestion.sources.transactions.mapping.choose import find_mapping
from ingestion.sources.transactions.stream import ingest_topic
from ingestion.tests.brokers import Broker
from ingestion.tests.conftest import query_of
from ingestion.warehouse.target import Target

GOOD = {
    "transaction_id": "a1",
    "event_ts": "2024-05-01T10:00:00Z",
    "user_id": "u1",
    "amount": 12.5,
    "status": "APPROVED",
    "currency": "USD",
}
LEDGER = (
    "select sum(lines_read), sum(rows_landed), sum(rows_rejected),"
    " sum(last_line - first_line + 1) from files"
)
DEADLINE = 60  # seconds
MINE = """\
columns:
  transaction_id: id
  event_ts: {from: created, unit: seconds}
  user_id: customer
  amount: {from: amount, decimal: "."}
  currency: currency
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as started:
        yield started


@pytest.fixture
def topic(broker: Broker) -> str:
    """The URL of a topic of its own, with three partitions."""
    name = f"t{uuid.uuid4().hex[:10]}"
    broker.create(name, 3)
    return broker.url(name)


@pytest.fixture
def query(database: Target) -> Callable[[str], list[tuple]]:
    return query_of(database)


@pytest.fixture
def land(topic: str, database: Target) -> Callable[..., LoadReport]:
    def run(**options: Any) -> LoadReport:
        return ingest_topic(topic, database, **options)

    return run


@pytest.fixture
def send(topic: str) -> Callable[..., None]:
    """Produce values: bytes, None, or what becomes JSON."""
    server, name = topic.removeprefix("kafka://").split("/")
    producer = Producer({"bootstrap.servers": server, "linger.ms": 5, "log_level": 0})

    def run(*values: Any, partition: int | None = None, **options: Any) -> None:
        for value in values:
            data = value if value is None or isinstance(value, bytes) else json.dumps(value)
            where = {} if partition is None else {"partition": partition}
            producer.produce(name, data, **where, **options)
        assert producer.flush(20) == 0

    return run


def good(**fields: Any) -> dict[str, Any]:
    return GOOD | fields


def test_messages_land_once(land, send, query, tmp_path):
    counts = generate(3_000, 5, tmp_path / "made.jsonl")
    lines = (tmp_path / "made.jsonl").read_bytes().splitlines()
    send(*lines[:2_000])
    first = land()
    assert land().rows == {"transactions": 0, "files": 0}
    send(*lines[2_000:])
    second = land()
    assert first.rows["transactions"] + second.rows["transactions"] == counts["landed"]
    assert first.rejected + second.rejected == counts["rejected"]
    assert query(LEDGER) == [(3_000, counts["landed"], counts["rejected"], 3_000)]
    lines_of = "select _file_checksum, _file_line from {}"
    both = f"{lines_of.format('transactions')} union all {lines_of.format('rejects')}"
    assert query(f"select count(*), count(distinct both_of) from ({both}) as both_of") == [
        (3_000, 3_000)
    ]
    assert query(
        "select count(*) from _dlt_loads where load_id not in (select _dlt_load_id from files)"
    ) == [(0,)]


CASES = (  # value, options of the message, what the row or the reject has
    (good(), {}, "a1"),
    (good(), {"key": b"\xff\x00", "headers": [("trace", b"\xff")]}, "a1"),
    (good(note="new in this release"), {}, '{"note": "new in this release"}'),
    (json.dumps(good(), indent=2).encode(), {}, "a1"),
    (json.dumps(good(merchant="two\nlines")).encode(), {}, "two\nlines"),
    (good(merchant="x" * 900_000), {}, "x" * 900_000),
    ({"schema": {"type": "struct"}, "payload": good()}, {}, "a1"),
    ({"before": None, "after": good(), "op": "c", "ts_ms": 1}, {}, "a1"),
    ({"before": None, "after": good(), "op": "r", "source": {"snapshot": "true"}}, {}, "a1"),
    ({"before": good(amount=1), "after": good(), "op": "u"}, {}, "12.5"),
    ({"before": good(), "after": None, "op": "d"}, {}, "deleted"),
    (None, {"key": b"a1"}, "deleted"),
    (b"", {}, "not_json"),
    (b"  \n ", {}, "not_json"),
    (b"\x00\x00\x00\x00\x07Obj", {}, "not_json"),
    (b'{"transaction_id": "\xff"}', {}, "not_utf8"),
    (b'{"a": 1}\n{"a": 2}', {}, "not_json"),
    ([good()], {}, "not_object"),
    ("text", {}, "not_object"),
    ({"transaction_id": "a1"}, {}, "missing_field"),
    (good(amount="1.2.3"), {}, "bad_amount"),
    (good(amount="1,000"), {}, "ambiguous_amount"),
    (good(event_ts="yesterday"), {}, "bad_timestamp"),
    (good(merchant="\u0000"), {}, "bad_text"),
)


def test_each_kind_of_message_has_its_rule(land, send, query):
    """It lands, or is rejected with topic, partition, offset and reason; its neighbours land."""
    for value, options, _ in CASES:
        send(value, partition=1, **options)
        send(good(transaction_id="neighbour"), partition=1)
    land()
    assert query("select count(*) from transactions where transaction_id = 'neighbour'") == [
        (len(CASES),)
    ]
    for number, (_, _, expected) in enumerate(CASES):
        found = query(
            "select transaction_id, coalesce(merchant, ''), trim_scale(amount)::text,"
            " coalesce(extra_fields::text, ''), _file_name from transactions"
            f" where _file_line = {2 * number} union all"
            " select reason_code, reason, raw_text, '', _file_name from rejects"
            f" where _file_line = {2 * number}"
        )
        assert len(found) == 1
        assert expected in found[0]
        assert found[0][4].endswith("/1")


def test_a_reject_is_corrected_as_one_of_a_file(land, send, query, database, tmp_path):
    send(good(), good(amount="1,000", transaction_id="a2"), partition=2)
    land()
    from ingestion.rejects import open_rejects

    (reject,) = open_rejects(database, "transactions")
    assert (reject.line, reject.reason_code) == (1, "ambiguous_amount")
    file = tmp_path / "rejects.txt"
    assert replay.export([reject], file) == 1
    file.write_text(file.read_text().replace("1,000", "1000"))
    report = replay.replay(replay.corrected(file), database)
    assert report.rows["transactions"] == 1
    assert query(
        "select amount::int, _file_line from transactions where transaction_id = 'a2'"
    ) == [(1000, 1)]
    assert list(open_rejects(database, "transactions")) == []
    send(good(transaction_id="a3"), partition=2)
    assert land().rows["transactions"] == 1  # from where the messages ended, not the correction


def test_a_mapping_stays_that_of_its_topic(land, send, query, tmp_path):
    mine = {"id": "m1", "created": 1714557600, "amount": 1250, "currency": "usd", "customer": "c1"}
    send(mine | {"object": "charge"}, partition=0)
    with pytest.raises(UserError, match=r"cannot land.*\n.*--mapping"):
        land()
    assert query("select count(*) from files") == [(0,)]
    path = tmp_path / "mine.yml"
    path.write_text(MINE)
    land(mapping=find_mapping(str(path)))
    send(mine | {"id": "m2"}, partition=0)
    land()
    assert query("select transaction_id from transactions order by 1") == [("m1",), ("m2",)]
    assert query("select distinct mapping from files") == [("mine",)]


def test_a_topic_that_was_made_anew_is_a_choice(broker, topic, land, send, query):
    from confluent_kafka.admin import AdminClient

    name = topic.rsplit("/", 1)[1]
    send(good(), partition=0)
    land()
    client = AdminClient({"bootstrap.servers": broker.address})
    client.delete_topics([name])[name].result()
    with pytest.raises(UserError, match=f"There is no topic {name}"):
        land()
    broker.create(name, 3)
    send(good(transaction_id="new"), good(transaction_id="new2"), partition=0)
    with pytest.raises(Gone, match=r"made anew.*\n.*--offset-reset earliest"):
        land()
    assert query("select count(*) from transactions") == [(1,)]
    assert land(offset_reset="earliest").rows["transactions"] == 2
    assert land().rows["transactions"] == 0


def test_what_cannot_be_reached_is_an_error_in_two_lines(database, monkeypatch):
    monkeypatch.setattr("ingestion.sources.transactions.inputs.kafka.ANSWER_SECONDS", 2.0)
    monkeypatch.setenv("SOURCES__TRANSACTIONS__KAFKA__SASL__PASSWORD", "hush-hush")
    with pytest.raises(UserError, match=r"No Kafka broker answers at 127\.0\.0\.1:1:") as caught:
        ingest_topic("kafka://127.0.0.1:1/t", database)
    assert len(caught.value.message.splitlines()) == 2
    monkeypatch.setenv("SOURCES__TRANSACTIONS__KAFKA__SECURITY__PROTOCOL", "nonsense")
    with pytest.raises(UserError, match=r"security\.protocol") as caught:
        ingest_topic("kafka://127.0.0.1:1/t", database)
    assert "hush" not in str(caught.value)


def test_a_server_of_the_list_that_is_down_does_not_matter(topic, database, send):
    send(good(), partition=0)
    address = topic.replace("kafka://", "kafka://127.0.0.1:1,")
    assert ingest_topic(address, database).rows["transactions"] == 1
    assert ingest_topic(topic, database).rows["transactions"] == 0  # the same, by another address


def test_latest_skips_nothing_of_a_partition_that_was_empty(land, send, query):
    send(good(), partition=0)
    land()
    send(good(transaction_id="first of partition 1"), partition=1)
    assert land(offset_reset="latest").rows["transactions"] == 1
    assert query("select count(*) from files") == [(2,)]


class Again:
    """A consumer that gives all messages twice, and those of another partition between them."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self._given = consumer, []

    def consume(self, *arguments: Any) -> list[Any]:
        new = [each for each in self._consumer.consume(*arguments) if each.error() is None]
        self._given += new
        return new + self._given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_a_message_that_is_given_again_is_not_read_again(topic, send):
    for part in range(2):
        send(*(good(transaction_id=f"{part}-{number}") for number in range(50)), partition=part)
    address = kafka_settings.parse(topic)
    reader = TopicReader(look_up(address, {}), {}, "again", None)
    with closing(reader):
        reader._consumer = Again(reader._consumer)
        reader.hold({0: 10, 1: 0})
        found: list[tuple[int, int]] = []
        deadline = time.monotonic() + DEADLINE
        while len(found) < 90 and time.monotonic() < deadline:
            messages = reader.read(1_000, 0.5)
            found += zip(messages.partitions.tolist(), messages.offsets.tolist(), strict=True)
            assert len(messages.values) == len(messages.offsets)
        reader.hold({0: 50})  # partition 1 is somebody else's, and still in hand
        assert not len(reader.read(1_000, 0.5))
    assert sorted(found) == [(0, at) for at in range(10, 50)] + [(1, at) for at in range(50)]


def test_two_that_hold_one_partition_land_it_once(topic, database, send, query, monkeypatch):
    """Whatever becomes of the locks: a batch lands only where the ledger ends."""
    monkeypatch.setattr(stream, "LOCK", "select true from (select {place}) as place")
    monkeypatch.setenv("SOURCES__TRANSACTIONS__BATCH_ROWS", "20")
    send(*(good(transaction_id=f"t{number}") for number in range(100)), partition=0)
    said: list[str] = []
    runs: list[int] = []

    def meanwhile(landed: int) -> None:
        if landed and not runs:
            runs.append(ingest_topic(topic, database).rows["transactions"])

    end = time.monotonic() + 15
    ingest_topic(
        topic,
        database,
        follow=True,
        say=said.append,
        after_batch=meanwhile,
        stop=lambda: time.monotonic() > end or any("Another process" in line for line in said),
    )
    assert runs[0] > 0
    assert any("Another process has landed messages" in line for line in said), said
    assert query("select count(*), count(distinct _file_line) from transactions") == [(100, 100)]
    assert ingest_topic(topic, database).rows["transactions"] == 0


def test_what_is_for_topics_is_refused_for_files(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(good()))
    for option in (["--follow"], ["--build-every", "5"], ["--offset-reset", "latest"]):
        arguments = ["ingest", "transactions", str(tmp_path / "x.jsonl"), *option]
        done = CliRunner().invoke(marquee, arguments)
        assert done.exit_code == 1
        assert f"{option[0]}" in done.output
        assert "are for topics" in done.output


# Processes


class Follower:
    """``marquee ingest transactions kafka://... --follow`` in a process of its own."""

    def __init__(self, topic: str, target: Target, log: Path) -> None:
        self.log = log
        environment = os.environ | target.libpq_env()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingestion", "ingest", "transactions", topic, "--follow"],
            env=environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def follow(topic: str, database: Target, tmp_path: Path) -> Iterator[Callable[[], Follower]]:
    started: list[Follower] = []

    def run() -> Follower:
        started.append(Follower(topic, database, tmp_path / f"log{len(started)}"))
        return started[-1]

    yield run
    for follower in started:
        if follower.process.poll() is None:
            follower.end(signal.SIGKILL)


def until(condition: Callable[[], bool], *followers: Follower) -> None:
    last = time.monotonic() + DEADLINE
    while not condition():
        logs = [follower.log.read_text() for follower in followers]
        assert time.monotonic() < last, logs
        time.sleep(0.1)


def count_of(query: Callable, what: str = "count(distinct (_file_checksum, _file_line))") -> int:
    try:
        return query(f"select {what} from transactions")[0][0]
    except Exception:
        return 0


def test_following_lands_what_comes_and_leaves_room_for_files(  # noqa: PLR0917
    follow, send, query, database, topic, tmp_path
):
    follower = follow()
    send(*(good(transaction_id=f"a{n}") for n in range(50)))
    until(lambda: count_of(query) == 50, follower)
    (tmp_path / "file.jsonl").write_text(json.dumps(good(transaction_id="of a file")))
    transactions.ingest([tmp_path / "file.jsonl"], database)
    with pytest.raises(UserError, match="is being landed by another process"):
        ingest_topic(topic, database)
    send(good(transaction_id="b0", is_fraud=True))
    send(*(good(transaction_id=f"b{n}") for n in range(1, 50)))
    until(lambda: count_of(query) == 101, follower)
    assert "the field 'is_fraud' beyond the contract" in follower.log.read_text()
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        # an upgrade: nothing of the follower's is open between two batches
        cursor.execute("set lock_timeout = '5s'; alter table raw_transactions.files add x int")
    began = time.monotonic()
    assert follower.end(signal.SIGINT) == 130
    assert time.monotonic() - began < 6
    assert ingest_topic(topic, database).rows["transactions"] == 0


def test_several_processes_share_a_topic_and_one_is_killed(follow, send, query):
    """Another takes over its partitions from where the warehouse says."""
    one, two = follow(), follow()
    total = 0
    for killed in (None, one, None, two):
        if killed:
            killed.end(signal.SIGKILL)
            follow()
        for _ in range(5):
            send(*(good(transaction_id=f"s{total + n}") for n in range(40)))
            total += 40
            time.sleep(0.2)
    until(lambda: count_of(query) == total, one, two)
    assert count_of(query, "count(*)") == total
    assert query("select count(distinct transaction_id) from transactions") == [(total,)]
    assert query("select load_id from _dlt_loads group by 1 having count(*) > 1") == []


def test_killed_in_the_middle_nothing_is_lost_or_doubled(follow, send, query, monkeypatch):
    monkeypatch.setenv("SOURCES__TRANSACTIONS__BATCH_ROWS", "100")
    total = 0
    for wait in (1.2, 1.6, 2.0, 2.4):
        follower = follow()
        for _ in range(5):
            send(*(good(transaction_id=f"k{total + n}") for n in range(500)))
            total += 500
        time.sleep(wait)
        follower.end(signal.SIGKILL)
    last = follow()
    until(lambda: count_of(query) == total, last)
    assert count_of(query, "count(*)") == total
    assert query(LEDGER) == [(total, total, 0, total)]
