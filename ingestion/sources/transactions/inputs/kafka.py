"""Messages of a Kafka topic, from where the warehouse's ledger says, one consumer a partition.

Positions are never the broker's: a partition is read on from the last offset in the ledger, which
is committed together with the rows. What the broker is told is for displays of lag.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ingestion import kafka_settings
from ingestion.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from ingestion.kafka_settings import Address

ANSWER_SECONDS = 10.0  # that a broker has to answer
BATCH_BYTES = 32 << 20  # of messages in memory at a time, about
MOST_AT_ONCE = 10_000  # messages asked of librdkafka at a time
_MEGABYTES = {"queued.max.messages.kbytes": "32768"}


class Gone(UserError):
    """Messages that the ledger counts on are not there, or others are in their place."""


@dataclass(frozen=True)
class Topic:
    """A topic as the broker has it.

    Attributes:
        address: where it is.
        cluster: id of the cluster, so that it is known by whatever address.
        id: of the topic, another one when it was deleted and made anew; empty if brokers say none.
        partitions: their numbers.
    """

    address: Address
    cluster: str
    id: str
    partitions: tuple[int, ...]

    def place(self, partition: int) -> str:
        """The partition in the ledger."""
        return f"kafka://{self.cluster}/{self.address.topic}/{partition}"

    def name(self, partition: int) -> str:
        """The partition as it was given."""
        return f"kafka://{self.address.bootstrap}/{self.address.topic}/{partition}"

    def checksum(self, partition: int) -> str:
        """Of the partition's identity: its messages are told apart by this and their offsets."""
        whole = f"{self.place(partition)} {self.id}"
        return hashlib.sha256(whole.encode()).hexdigest()


@dataclass
class Messages:
    """Messages in the order in which they came.

    Attributes:
        values: bytes; None for a tombstone.
        partitions, offsets: of each.
        arrived: when the first of them did, by ``time.monotonic``.
    """

    values: list[bytes | None] = field(default_factory=list)
    partitions: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    arrived: float = 0.0

    def __len__(self) -> int:
        return len(self.values)


def look_up(address: Address, settings: dict[str, str]) -> Topic:
    """The topic as it is now.

    Raises:
        UserError: no broker answers, or there is no such topic.
    """
    kafka = kafka_settings.library()
    heard: list[str] = []
    client = _admin(address, settings, lambda error: heard.append(error.str()))
    with _said(kafka, address, heard):
        metadata = client.list_topics(address.topic, timeout=ANSWER_SECONDS)
        found = metadata.topics[address.topic]
        if found.error:
            raise kafka.KafkaException(found.error)
        its_id = topic_id(kafka, client, address)
    cluster = metadata.cluster_id or address.bootstrap
    return Topic(address, cluster, its_id, tuple(sorted(found.partitions)))


def topic_id(kafka: ModuleType, client: Any, address: Address) -> str:
    """The id of a topic; empty if it has none, which is so with brokers before Kafka 2.8."""
    asked = client.describe_topics(
        kafka.TopicCollection([address.topic]), request_timeout=ANSWER_SECONDS
    )
    text = str(asked[address.topic].result().topic_id)
    return "" if set(text) <= {"A", "="} else text


def _admin(address: Address, settings: dict[str, str], hear: Callable[[Any], None]) -> Any:
    from confluent_kafka.admin import AdminClient

    own: dict[str, Any] = {
        "bootstrap.servers": address.bootstrap,
        "log_level": 0,
        "error_cb": hear,
    }
    return AdminClient({**settings, **own}, logger=_silent())


class TopicReader:
    """Reads the partitions of a topic that this process holds.

    Args:
        topic: which one.
        settings: of librdkafka.
        group: name of the group, in which processes share partitions.
        take: is asked for a partition with its lowest and highest offset, and says where to go on;
            None where another process holds it.
        give_up: is told the partitions that go to another process.

    Attributes:
        next: by partition held, the offset that is read next.
        error: what the brokers said last of being out of reach, or None.
    """

    def __init__(
        self,
        topic: Topic,
        settings: dict[str, str],
        group: str,
        take: Callable[[int], int | None],
        give_up: Callable[[Iterable[int]], None],
    ) -> None:
        self.topic = topic
        self.next: dict[int, int] = {}
        self.error: str | None = None
        self._kafka = kafka_settings.library()
        self._take, self._give_up = take, give_up
        self._refused: list[int] = []
        self._assigned_anew = False
        self._mean_bytes = 1_000.0
        self._ends: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._failure: BaseException | None = None
        self._admin = _admin(topic.address, settings, self._hear)
        self._consumer = self._kafka.Consumer(
            {
                **_MEGABYTES,
                "group.id": group,
                "log_level": 0,
                **settings,
                "bootstrap.servers": topic.address.bootstrap,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "error_cb": self._hear,
            },
            logger=_silent(),
        )

    def read_all(self) -> None:
        """Take every partition, whoever is in the group.

        Raises:
            UserError: another process holds one of them.
        """
        self._assign(self.topic.partitions)
        if self._refused:
            raise UserError(
                f"{self.topic.name(self._refused[0])} is being landed by another process.\n"
                "Wait until it has ended, or stop it."
            )

    def share(self) -> None:
        """Take the partitions that the group leaves to this process, now and later."""
        self._consumer.subscribe(
            [self.topic.address.topic],
            on_assign=lambda _, parts: self._guarded(self._assign, parts),
            on_revoke=lambda _, parts: self._guarded(self._revoke, parts),
            on_lost=lambda _, parts: self._guarded(self._revoke, parts),
        )

    def read(self, rows: int, seconds: float) -> Messages:
        """What comes until there are so many messages, or the first has waited for so long.

        Raises:
            Gone: offsets that the ledger goes on from are not there.
            UserError: the brokers refuse.
        """
        found = Messages()
        parts: list[np.ndarray] = []
        size, end = 0, time.monotonic() + seconds
        while len(found) < rows and size < BATCH_BYTES and (left := end - time.monotonic()) > 0:
            some = min(MOST_AT_ONCE, rows - len(found), int(BATCH_BYTES / self._mean_bytes) + 1)
            messages = self._consume(some, left)
            if self._assigned_anew:
                # what came in the same call may be of before: all of it is read again
                self._assigned_anew = False
                found, parts, size = Messages(), [], 0
                self._go_back()
                continue
            if not messages:
                if found or self.is_at_end:
                    break
                continue
            if not found:
                found.arrived = time.monotonic()
                end = min(end, found.arrived + seconds)
            values = [message.value() for message in messages]
            found.values += values
            parts.append(np.array([(m.partition(), m.offset()) for m in messages], np.int64))
            new = sum(len(value) for value in values if value)
            self._mean_bytes = max(1.0, (self._mean_bytes + new / len(values)) / 2)
            size += new
        if parts:
            found.partitions, found.offsets = np.concatenate(parts).T
        return found

    @property
    def is_at_end(self) -> bool:
        """Whether all that was there has been read."""
        return bool(self.next) and self._at_end >= set(self.next) and not self._refused

    def landed(self, after: dict[int, int]) -> None:
        """Messages have been committed in the warehouse; ``after`` them comes this offset."""
        self.next |= after
        positions = [self._at(partition, offset) for partition, offset in after.items()]
        self._consumer.commit(offsets=positions, asynchronous=True)

    def lag(self) -> int:
        """How many messages, about, are there and not read."""
        lag = 0
        for partition, offset in self.next.items():
            _, high = self._consumer.get_watermark_offsets(self._at(partition), cached=True)
            lag += max(0, high - offset)
        return lag

    def close(self) -> None:
        self._consumer.close()

    def retry(self) -> None:
        """Ask again for partitions that another process still held."""
        if self._refused:
            self._assign([*self.next, *self._refused])
            self._assigned_anew = False

    def _consume(self, count: int, seconds: float) -> list[Any]:
        good = []
        for message in self._consumer.consume(count, min(seconds, 0.5)):
            error = message.error()
            if error is None:
                good.append(message)
                self._at_end.discard(message.partition())
            elif error.code() == self._kafka.KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            elif error.code() == self._kafka.KafkaError._AUTO_OFFSET_RESET:
                raise Gone(
                    f"{self.topic.name(message.partition())}: offset"
                    f" {self.next.get(message.partition(), 0):,} is not there."
                )
            elif not error.retriable():
                raise UserError(
                    f"{self.topic.name(max(message.partition(), 0))} cannot be read:"
                    f" {error.str()}.\nCorrect that, and run this again."
                )
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure
        if good:
            self.error = None
        return good

    def _guarded(self, call: Callable[[list[int]], None], parts: list[Any]) -> None:
        """librdkafka's callbacks lose what is raised in them."""
        try:
            call([part.partition for part in parts])
        except BaseException as error:
            self._failure = self._failure or error

    def _assign(self, partitions: Iterable[int]) -> None:
        held: dict[int, int] = {}
        self._refused = []
        for partition in partitions:
            position = self.next.get(partition)
            position = self._take(partition) if position is None else position
            if position is None:
                self._refused.append(partition)
            else:
                held[partition] = position
        self.next, self._at_end, self._assigned_anew = held, set(), True
        self._consumer.assign([self._at(*position) for position in held.items()])

    def _revoke(self, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        self.next = {part: at for part, at in self.next.items() if part not in gone}
        self._refused = [part for part in self._refused if part not in gone]
        self._assigned_anew = True
        self._give_up(gone)

    def _go_back(self) -> None:
        self._at_end.clear()
        if self.next:
            self._consumer.assign([self._at(*position) for position in self.next.items()])

    def beginning(self, partition: int, reset: str | None = None) -> int:
        """Where a partition is read from that has not landed: its beginning, or where told."""
        if reset == "latest":
            return self.watermarks(partition)[1]
        return int(self._kafka.OFFSET_BEGINNING)

    def check_identity(self) -> None:
        """
        Raises:
            Gone: the topic was deleted since this reader was made, and perhaps made anew.
        """
        with _said(self._kafka, self.topic.address):
            now = topic_id(self._kafka, self._admin, self.topic.address)
        if now != self.topic.id:
            raise Gone(
                f"{self.topic.address.topic} was deleted and made anew while it was read. What was"
                " read last has not landed.\nLand the new one with --offset-reset earliest (all of"
                " it) or latest (what comes from now on)."
            )

    def watermarks(self, partition: int) -> tuple[int, int]:
        """The lowest offset that is there, and the one after the highest."""
        with _said(self._kafka, self.topic.address):
            low, high = self._consumer.get_watermark_offsets(
                self._at(partition), timeout=ANSWER_SECONDS
            )
        return low, high

    def _at(self, partition: int, *offset: int) -> Any:
        return self._kafka.TopicPartition(self.topic.address.topic, partition, *offset)

    def _hear(self, error: Any) -> None:
        self.error = error.str()


@contextmanager
def _said(kafka: ModuleType, address: Address, heard: list[str] | None = None) -> Iterator[None]:
    """Say in two lines what the brokers refuse.

    Raises:
        UserError: that.
    """
    codes = kafka.KafkaError
    try:
        yield
    except kafka.KafkaException as error:
        code, reason = error.args[0].code(), error.args[0].str()
        if code == codes.UNKNOWN_TOPIC_OR_PART:
            raise UserError(
                f"There is no topic {address.topic} at {address.bootstrap}.\nCheck its name."
            ) from error
        if code in (codes._TRANSPORT, codes._TIMED_OUT, codes._ALL_BROKERS_DOWN):
            why = (heard or [reason])[-1]
            raise kafka_settings.Unreachable(
                f"No Kafka broker answers at {address.bootstrap}: {why}.\n"
                "Check the address and the settings in [sources.transactions.kafka]."
            ) from error
        raise UserError(
            f"{address.bootstrap} refuses to show {address.topic}: {reason}.\n"
            "Check the settings in [sources.transactions.kafka]."
        ) from error


def _silent() -> logging.Logger:
    """librdkafka's own log repeats what callbacks say."""
    logger = logging.getLogger("marquee.kafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
