"""Messages of a Kafka topic, from where the warehouse's ledger says, one consumer a partition.

Positions are never the broker's: a partition is read on from the last offset in the ledger, which
is committed together with the rows. What the broker is told is for displays of lag.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ingestion import kafka_settings
from ingestion.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from ingestion.kafka_settings import Address

ANSWER_SECONDS = 10.0  # that a broker has to answer
WAKE_SECONDS = 0.1  # until it is seen that a topic has ended, or a command is to
BATCH_BYTES = 32 << 20  # of messages in memory at a time, about
MOST_AT_ONCE = 10_000  # messages asked of librdkafka at a time
_DEFAULTS = {
    "queued.max.messages.kbytes": "32768",
    "fetch.wait.max.ms": "100",  # until the end of a partition is known
    "log_level": "0",
}


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

    @property
    def whole(self) -> str:
        """The topic by the cluster that it is in, whatever the address."""
        return f"kafka://{self.cluster}/{self.address.topic}"

    def place(self, partition: int) -> str:
        """The partition in the ledger."""
        return f"{self.whole}/{partition}"

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
    with _said(kafka, address, heard):
        client = _admin(address, settings, lambda error: heard.append(error.str()))
        cluster = client.describe_cluster(request_timeout=ANSWER_SECONDS).result().cluster_id
        found = _described(kafka, client, address)
    return Topic(address, cluster or address.bootstrap, _id_of(found), _partitions_of(found))


def _described(kafka: ModuleType, client: Any, address: Address) -> Any:
    """What brokers say of a topic; other than metadata, it makes none that is not there."""
    asked = client.describe_topics(
        kafka.TopicCollection([address.topic]), request_timeout=ANSWER_SECONDS
    )
    return asked[address.topic].result()


def _id_of(described: Any) -> str:
    """The id of a topic; empty if it has none, which is so with brokers before Kafka 2.8."""
    text = str(described.topic_id)
    return "" if set(text) <= {"A", "="} else text


def _partitions_of(described: Any) -> tuple[int, ...]:
    return tuple(sorted(each.id for each in described.partitions))


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
        topic: which one, as it is now.
        settings: of librdkafka.
        group: what the broker calls us, for displays of lag; nobody joins it.
        reset: where to go on if an offset is not there: ``earliest``, ``latest``; None: raise.

    Attributes:
        topic: as it was when it was last looked at.
        next: by partition held, the offset that is read next.
        error: what the brokers said last of being out of reach, or None.
        notes: sentences about partitions that were read on from elsewhere.
    """

    def __init__(
        self, topic: Topic, settings: dict[str, str], group: str, reset: str | None = None
    ) -> None:
        self.topic = topic
        self.next: dict[int, int] = {}
        self.error: str | None = None
        self.notes: list[str] = []
        self._kafka = kafka_settings.library()
        self._reset = reset
        self._mean_bytes = 1_000.0
        self._at_end: set[int] = set()
        self._is_moved = False
        self._follows: dict[int, int] = {}  # by partition held, the lowest offset that is new
        own: dict[str, Any] = {
            "bootstrap.servers": topic.address.bootstrap,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "error_cb": self._hear,
        }
        with _said(self._kafka, topic.address):
            self._admin = _admin(topic.address, settings, self._hear)
            self._consumer = self._kafka.Consumer(
                {**_DEFAULTS, "group.id": group, **settings, **own}, logger=_silent()
            )

    def hold(self, positions: dict[int, int]) -> None:
        """Read these partitions from these offsets on, and no other."""
        self.next, self._at_end = dict(positions), set()
        self._follows = {number: max(offset, 0) for number, offset in positions.items()}
        self._consumer.assign([self._at(*position) for position in positions.items()])

    def read(self, rows: int, seconds: float) -> Messages:
        """What comes until there are so many messages, or the first has waited for so long.

        Raises:
            Gone: offsets that the ledger goes on from are not there.
            UserError: the brokers refuse.
        """
        found = Messages()
        parts: list[np.ndarray] = []
        offsets: list[np.ndarray] = []
        size, end = 0, time.monotonic() + seconds
        while len(found) < rows and size < BATCH_BYTES and (left := end - time.monotonic()) > 0:
            some = min(MOST_AT_ONCE, rows - len(found), int(BATCH_BYTES / self._mean_bytes) + 1)
            messages = self._consume(some, left)
            if self._is_moved:  # all partitions are read from their positions again
                found, parts, offsets, size = Messages(), [], [], 0
                self._is_moved = False
                continue
            if not messages:
                if found or self.is_at_end:
                    break
                continue
            if not found:
                found.arrived = time.monotonic()
                end = min(end, found.arrived + seconds)
            values = [message.value() for message in messages]
            count = len(messages)
            where = np.fromiter((m.partition() for m in messages), np.int64, count)
            at = np.fromiter((m.offset() for m in messages), np.int64, count)
            new_ones = self._new_ones(where, at)
            found.values += (
                values
                if new_ones.all()
                else [value for value, is_new in zip(values, new_ones, strict=True) if is_new]
            )
            parts.append(where[new_ones])
            offsets.append(at[new_ones])
            new = sum(map(len, filter(None, values[:100]))) * count // min(count, 100)  # about
            self._mean_bytes = max(1.0, (self._mean_bytes + new / count) / 2)
            size += new
        if parts:
            found.partitions, found.offsets = np.concatenate(parts), np.concatenate(offsets)
        return found

    @property
    def is_at_end(self) -> bool:
        """Whether all that was there has been read."""
        return self._at_end >= set(self.next)

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
            lag += max(0, high - max(0, offset))
        return lag

    def close(self) -> None:
        self._consumer.close()

    def _consume(self, count: int, seconds: float) -> list[Any]:
        messages = self._consumer.consume(count, min(seconds, WAKE_SECONDS))
        failed = [message for message in messages if message.error() is not None]
        good = [each for each in messages if each.error() is None] if failed else messages
        if self._at_end:  # before it is seen where this call came to an end
            self._at_end.difference_update({message.partition() for message in good})
        for message in failed:
            error = message.error()
            if error.code() == self._kafka.KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            elif error.code() == self._kafka.KafkaError._AUTO_OFFSET_RESET:
                self._go_on_elsewhere(message.partition())
            elif not error.retriable():
                raise UserError(
                    f"{self.topic.name(max(message.partition(), 0))} cannot be read:"
                    f" {error.str()}.\nCorrect that, and run this again."
                )
        if good:
            self.error = None
        return good

    def _new_ones(self, parts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Which messages are of partitions held and come after all that came before.

        librdkafka gives messages again after a broker has died, and may have some in hand of a
        partition that is another process's by now.
        """
        new = np.zeros(len(parts), bool)
        for number in map(int, np.unique(parts)):
            if number in self._follows:
                here = parts == number
                least = np.maximum.accumulate(
                    np.concatenate(([self._follows[number]], offsets[here] + 1))
                )
                new[here] = offsets[here] >= least[:-1]
                self._follows[number] = int(least[-1])
        return new

    def _go_on_elsewhere(self, partition: int) -> None:
        """
        Raises:
            Gone: nobody said where.
        """
        low, high = self.watermarks(partition)
        wanted = self.next[partition]
        if self._reset is None:
            raise Gone(
                f"{self.topic.name(partition)}: the ledger goes on from offset {wanted:,}, and"
                f" there are {low:,} to {high - 1:,}: retention has dropped some, or brokers lost"
                " them.\nGo on without them: --offset-reset earliest (from the oldest there is)"
                " or latest (with what comes from now on)."
            )
        self.notes.append(
            f"{self.topic.name(partition)} is read on from its {self._reset} offset: {wanted:,} is"
            " not there."
        )
        start = low if self._reset == "earliest" else high
        self.hold({**self.next, partition: start})
        self._is_moved = True

    def beginning(self, partition: int, reset: str | None = None) -> int:
        """Where a partition is read from that has not landed: its beginning; its end if told so."""
        if reset == "latest":
            return self.watermarks(partition)[1]
        return int(self._kafka.OFFSET_BEGINNING)

    def look_again(self) -> None:
        """See whether the topic is still the same, and which partitions it has now.

        Raises:
            Gone: the topic was made anew.
            UserError: it is not there any more, or no broker answers.
        """
        with _said(self._kafka, self.topic.address):
            now = _described(self._kafka, self._admin, self.topic.address)
        if _id_of(now) != self.topic.id:
            raise Gone(
                f"{self.topic.address.topic} was deleted and made anew while it was read. What was"
                " read last has not landed.\nLand the new one with --offset-reset earliest (all of"
                " it) or latest (what comes from now on)."
            )
        self.topic = replace(self.topic, partitions=_partitions_of(now))

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
            f"{address.topic} at {address.bootstrap} cannot be read: {reason.rstrip('.')}.\n"
            "Check the settings in [sources.transactions.kafka]."
        ) from error


def _silent() -> logging.Logger:
    """librdkafka's own log repeats what callbacks say."""
    logger = logging.getLogger("marquee.kafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
