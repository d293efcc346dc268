"""Sends made-up lines at a rate. When a line is due follows from the start and its number alone."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import inf

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sample.live import Block, live, planned
from ingestion.sample.sinks import Sink, open_sink
from ingestion.terminal import echo, printable

TICK = 0.02  # seconds between two looks at what is due
FLUSH_SECONDS = 4.0  # after an interrupt; interrupts.TIMEOUT_SECONDS is a little more
PATIENCE_SECONDS = 300.0  # at the end; as long as Kafka's client tries to deliver a message
STOPPED = "Interrupted: no more lines are sent."


@dataclass
class _Sending:
    """What is sent, and how far it is."""

    sink: Sink
    blocks: Iterator[Block]
    rate: float
    rows: float
    sent: int = 0
    began: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        of = None if self.rows == inf else self.rows
        with task(f"Sending to {self.sink.name}", of, "lines") as advance:
            for block in self.blocks:
                first = 0
                while first < len(block.lines) and not self.is_over():
                    last = min(first + self._due(), len(block.lines))
                    if last == first:
                        self.stop.wait(self._pause())
                        continue
                    self.sink.write(block, first, last)
                    self.sent += last - first
                    advance(last - first)
                    first = last
                if self.is_over():
                    return

    def is_over(self) -> bool:
        return self.stop.is_set() or self.sink.is_gone or self.sent >= self.rows

    def _due(self) -> int:
        """How many lines are due and not sent; few at a time, so that an interrupt is heard."""
        passed = time.monotonic() - self.began
        due = inf if self.rate == inf else int(passed * self.rate) + 1
        return int(min(due, self.rows, self.sent + 1000)) - self.sent

    def _pause(self) -> float:
        """Seconds until the next line is due, or until the next look."""
        return max(self.began + self.sent / self.rate - time.monotonic(), TICK)

    def summary(self) -> str:
        seconds = time.monotonic() - self.began
        verb = "acknowledged by" if self.sink.name.startswith("kafka:") else "written to"
        text = (
            f"{self.sink.done:,} lines {verb} {self.sink.name}"
            f" in {seconds:,.1f} s, {self.sink.done / max(seconds, 1e-9):,.0f}/s"
        )
        if missing := self.sink.sent - self.sink.done:
            text += f"\n{missing:,} lines were sent and not acknowledged"
        return text

    def give_back(self, descriptor: int) -> None:
        """After an interrupt, in another thread: let the last lines go through, and say so."""
        if self.stop.is_set():  # asked once more
            return
        self.stop.set()
        self.ended.wait(FLUSH_SECONDS)
        os.write(descriptor, f"{printable(self.summary())}\n".encode())


def send(
    to: str,
    rows: int | None,
    seed: int | None,
    *,
    rate: float | None = None,
    start: datetime | None = None,
) -> None:
    """Send lines until ``rows`` are sent, or without an end.

    Args:
        to: a path, ``-``, or a URL of ``kafka://``.
        rows: how many lines.
        seed: of the lines; a new one, unless given.
        rate: lines a second, whose events happen as they are sent; None for the lines of a file of
            ``rows`` lines, as fast as they are taken.
        start: event time of the first line, with a rate; now, unless given.

    Raises:
        UserError: nothing can be sent there, or not all of it was taken.
    """
    if seed is None:
        seed = random.SystemRandom().getrandbits(31)
        echo(f"Seed {seed}", err=True)
    sink = open_sink(to)
    is_piped = to == "-"
    if rate is None:
        blocks = planned(rows or 0, seed)
    else:
        next(live(seed, rate, datetime.now(timezone.utc)))  # libraries load now, not when it counts
        blocks = live(seed, rate, start or datetime.now(timezone.utc))
    sending = _Sending(sink, blocks, rate or inf, rows or inf)
    said = os.dup(2 if is_piped else 1)
    with interrupts.giving_back(lambda: sending.give_back(said), said=STOPPED):
        try:
            sending.run()
        finally:
            sink.end(FLUSH_SECONDS if sending.stop.is_set() else PATIENCE_SECONDS)
            sending.ended.set()
    sys.stdout.flush()
    echo(sending.summary(), err=is_piped)
    if sink.sent > sink.done:
        raise UserError(f"{sink.name} has not acknowledged all lines.\nSend them again.")
