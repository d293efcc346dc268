"""Where made-up lines are sent: a file that grows, standard output, a topic of Kafka."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ingestion import kafka_settings
from ingestion.errors import UserError, error_line
from ingestion.places import on_disk
from ingestion.sample.live import Block

ANSWER_SECONDS = 5.0  # in which a broker says that it is there
WAIT_SECONDS = 0.1  # between two looks at whether there is room for more messages
# As few requests as a second of latency allows; the user's settings win
PRODUCER = {"linger.ms": "20", "compression.type": "lz4", "client.id": "marquee"}


class Sink(Protocol):
    """What takes lines.

    Attributes:
        name: how the user calls it.
        sent: lines that were given to it.
        done: lines of those that are safely there.
        is_gone: nobody reads any more, and that is no error.
    """

    name: str
    sent: int
    done: int
    is_gone: bool

    def write(self, block: Block, first: int, last: int) -> None:
        """Send these lines of a block."""

    def end(self, seconds: float) -> None:
        """Wait for what is under way, for so long at most."""


def open_sink(to: str) -> Sink:
    """The sink that a user names: a path, ``-``, or a URL of ``kafka://``.

    Raises:
        UserError: it cannot be written to.
    """
    if to == "-":
        return Descriptor(os.dup(1), "standard output")
    if kafka_settings.is_kafka(to):
        return Topic(to)
    path = on_disk(to, "What is sent")
    if path.name.endswith(".gz"):
        raise UserError(
            f"{path} would be packed, which lines that go on cannot be.\nLeave off .gz."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = Descriptor(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666), str(path))
    except OSError as error:
        raise _unwritable(path, error) from error
    sink.end_line()
    return sink


def _unwritable(what: Path | str, error: OSError) -> UserError:
    why = error.strerror or error_line(error)
    return UserError(f"{what} cannot be written: {why}.\nGive another file.")


class Descriptor:
    """A file or a pipe. Lines are written whole, and what is there already stays."""

    def __init__(self, number: int, name: str) -> None:
        self.name, self.sent, self.done, self.is_gone = name, 0, 0, False
        self._number = number
        self._is_file = stat.S_ISREG(os.fstat(number).st_mode)

    def end_line(self) -> None:
        """End the last line that is there, if it has no end."""
        size = os.fstat(self._number).st_size if self._is_file else 0
        if size and os.pread(self._number, 1, size - 1) != b"\n":
            os.write(self._number, b"\n")

    def write(self, block: Block, first: int, last: int) -> None:
        size = os.fstat(self._number).st_size
        text = memoryview(b"".join(block.lines[first:last]))
        try:
            while text:
                text = text[os.write(self._number, text) :]
        except BrokenPipeError:
            self.is_gone = True
            return
        except OSError as error:
            if self._is_file:  # a disk that is full takes half a line
                with suppress(OSError):
                    os.ftruncate(self._number, size)
            if error.errno == errno.ENOSPC:
                raise
            raise _unwritable(self.name, error) from error
        self.done += last - first
        self.sent = self.done

    def end(self, seconds: float) -> None:
        """Nothing is under way."""


class Topic:
    """A topic of Kafka. Each message is acknowledged by all replicas, once and in order."""

    def __init__(self, url: str) -> None:
        address = kafka_settings.parse(url)
        self.name = f"kafka://{address.bootstrap}/{address.topic}"
        self.sent, self.done, self.is_gone = 0, 0, False
        self._topic, self._error, self._refused = address.topic, "", ""
        self._kafka = kafka_settings.library()
        own = {"bootstrap.servers": address.bootstrap, "enable.idempotence": "true"}
        settings: dict[str, Any] = PRODUCER | kafka_settings.settings() | own
        try:
            self._producer = self._kafka.Producer(
                settings | {"error_cb": self._heard}, **_silent(settings)
            )
        except self._kafka.KafkaException as error:
            raise UserError(
                f"Kafka's client does not take the settings: {_said(error)}.\n"
                "Correct [sources.transactions.kafka] in .dlt/config.toml and .dlt/secrets.toml."
            ) from error
        self._ask()

    def _ask(self) -> None:
        """Look whether the cluster is there, before the first line is due."""
        try:
            self._producer.list_topics(self._topic, ANSWER_SECONDS)
        except self._kafka.KafkaException as error:
            self._producer.poll(0)
            raise UserError(
                f"{self.name} does not answer: {self._error or _said(error)}.\n"
                "Check server and port, and [sources.transactions.kafka] in dlt's files."
            ) from error

    def _heard(self, error: Any) -> None:
        self._error = str(error.str()).rstrip(".")

    def _acknowledged(self, error: Any, _: Any) -> None:
        if error is None:
            self.done += 1
        else:
            self._refused = self._refused or str(error.str()).rstrip(".")

    def write(self, block: Block, first: int, last: int) -> None:
        for key, line in zip(block.keys[first:last], block.lines[first:last], strict=True):
            while not self._took(key, line[:-1]):
                self._producer.poll(WAIT_SECONDS)
        self._producer.poll(0)
        if self._refused:
            raise UserError(
                f"{self.name} does not take messages: {self._refused}.\n"
                f"It has acknowledged {self.done:,} of {self.sent:,}. Does the topic exist, and"
                " may this user write to it?"
            )

    def _took(self, key: str, value: bytes) -> bool:
        """Hand over one message; False while the client's memory is full."""
        try:
            self._producer.produce(self._topic, value, key, on_delivery=self._acknowledged)
        except BufferError:
            return False
        except self._kafka.KafkaException as error:
            self._refused = self._refused or _said(error)
        self.sent += 1
        return True

    def end(self, seconds: float) -> None:
        last = time.monotonic() + seconds
        while self._producer.flush(WAIT_SECONDS) and time.monotonic() < last:
            pass


def _said(error: Exception) -> str:
    """What the client says, in one line, without its codes."""
    given = error.args[0] if error.args else error
    said = given.str() if hasattr(given, "str") else str(given)
    return (str(said).splitlines() or [type(error).__name__])[0].rstrip(".")


def _silent(settings: dict[str, Any]) -> dict[str, Any]:
    """Whom the client's log goes to: nobody, unless the user asks for it by ``debug``."""
    if "debug" in settings:
        return {}
    logger = logging.Logger("kafka")
    logger.addHandler(logging.NullHandler())
    return {"logger": logger}
