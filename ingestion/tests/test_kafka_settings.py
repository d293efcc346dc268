"""Where a topic is and how it is reached: URLs of kafka://, dlt's places, and the tests' broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingestion import kafka_settings
from ingestion.errors import UserError
from ingestion.kafka_settings import Address, parse
from ingestion.tests.brokers import Broker, broker  # noqa: F401

ASK = "import json; from ingestion import kafka_settings as k; print(json.dumps(k.settings()))"


@pytest.mark.parametrize(
    ("url", "bootstrap", "topic"),
    [
        ("kafka://broker/card-payments", "broker:9092", "card-payments"),
        ("KAFKA://broker.example.com:19092/a.b_c", "broker.example.com:19092", "a.b_c"),
        ("kafka://one:1,two,three:3/t", "one:1,two:9092,three:3", "t"),
        ("kafka://[::1]:9093,[fe80::1]/t", "[::1]:9093,[fe80::1]:9092", "t"),
        ("kafka://127.0.0.1/" + "t" * 249, "127.0.0.1:9092", "t" * 249),
    ],
)
def test_a_url_names_servers_and_a_topic(url: str, bootstrap: str, topic: str) -> None:
    assert parse(url) == Address(bootstrap, topic)
    assert kafka_settings.is_kafka(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://broker", "names no topic"),
        ("kafka://broker/", "names no topic"),
        ("kafka:///topic", "names no server"),
        ("kafka:/broker/topic", "no URL of a Kafka topic"),
        ("kafka:broker/topic", "no URL of a Kafka topic"),
        ("broker:9092/topic", "no URL of a Kafka topic"),
        ("kafka://broker:0/t", "no server"),
        ("kafka://broker:70000/t", "no server"),
        ("kafka://broker:/t", "no server"),
        ("kafka://broker:nine/t", "no server"),
        ("kafka://one,,two/t", "no server"),
        ("kafka://one two/t", "no server"),
        ("kafka://::1/t", "no server"),
        ("kafka://broker/a/b", "no name of a topic"),
        ("kafka://broker/topic/", "no name of a topic"),
        ("kafka://broker/pay*", "no name of a topic"),
        ("kafka://broker/..", "no name of a topic"),
        ("kafka://broker/" + "t" * 250, "no name of a topic"),
        ("kafka://broker/tôpic", "no name of a topic"),
    ],
)
def test_what_names_no_topic_is_refused(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        parse(url)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    "url",
    [
        "kafka://user:Kk9SecretZz7@broker/topic",
        "kafka://Kk9SecretZz7@broker:9092/topic",
        "kafka://broker/topic?sasl.password=Kk9SecretZz7",
        "kafka:/user:Kk9SecretZz7@broker/topic",
        "user:Kk9SecretZz7@broker/topic",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match="without credentials") as refused:
        parse(url)
    assert "Kk9SecretZz7" not in str(refused.value)


def settings_of(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"DLT_PROJECT_DIR": str(folder)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_come_from_dlts_places(tmp_path: Path) -> None:
    places = tmp_path / ".dlt"
    places.mkdir()
    assert json.loads(settings_of(tmp_path).stdout) == {}
    (places / "config.toml").write_text(
        "[sources.transactions.kafka]\n"
        '"security.protocol" = "SASL_SSL"\n"enable.idempotence" = true\n"linger.ms" = 5\n'
        '"sasl.username" = "nobody"\n"ssl.curves.list" = ["X25519", "P-256"]\n'
        'fetch.wait.max.ms = 10\n"client.id" = "file"\n'
    )
    (places / "secrets.toml").write_text(
        '[sources.transactions.kafka]\n"sasl.password" = "p@ss"\n"sasl.username" = "somebody"\n'
    )
    done = settings_of(tmp_path, SOURCES__TRANSACTIONS__KAFKA__CLIENT__ID="variable")
    assert json.loads(done.stdout) == {
        "security.protocol": "SASL_SSL",
        "enable.idempotence": "true",
        "linger.ms": "5",
        "sasl.username": "somebody",
        "sasl.password": "p@ss",
        "ssl.curves.list": "X25519,P-256",
        "fetch.wait.max.ms": "10",
        "client.id": "variable",
    }


def test_a_file_that_is_no_toml_is_said_without_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text('"sasl.password" = Kk9SecretZz7\n')
    done = settings_of(tmp_path)
    assert done.returncode == 1
    assert "UserError: The settings of Kafka cannot be read" in done.stderr
    assert "Kk9SecretZz7" not in done.stdout + done.stderr


def test_the_broker_of_the_tests_keeps_what_it_acknowledged(broker: Broker) -> None:  # noqa: F811
    from confluent_kafka import Producer

    broker.create("topic", partitions=2)
    client = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True})
    for number in range(100):
        client.produce("topic", f"value {number}".encode(), f"key {number}".encode())
    assert client.flush(20) == 0
    read = list(broker.read("topic", 100))
    assert sorted(value for *_, value in read) == sorted(b"value %d" % n for n in range(100))
    assert {part for part, *_ in read} == {0, 1}
    process = broker.process
    broker.kill()
    assert process is not None
    assert process.returncode is not None
