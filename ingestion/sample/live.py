"""Lines to send: those of a made-up file, or a stream without an end whose events happen now.

A stream is blocks of lines, each a plan of its own with the shares of a file. What is late,
repeated or changed follows within its block. A line is due at a moment that its number and the rate
say, and that is its event's time; of a late line it is the moment at which it was due on time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ingestion.sample.plan import DAY, SPAN, Plan, Shares

if TYPE_CHECKING:
    import numpy as np

BLOCK = 10_000  # lines planned at a time: a few hundredths of a second
CALENDAR = date(2024, 1, 1), date(2024, 1, 30)  # late lines and repeats reach a tenth of it
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Block(NamedTuple):
    """Lines that follow each other.

    Attributes:
        keys: the transaction that each line is of.
        lines: JSON with a line end; some are broken.
    """

    keys: list[str]
    lines: list[bytes]


class LivePlan(Plan):
    """A plan whose events happen when their lines are due."""

    def __init__(self, seed: int, due: np.ndarray) -> None:
        """Plan as many lines as there are moments in ``due``, milliseconds since 1970 in UTC."""
        super().__init__(len(due), seed, *CALENDAR, Shares())
        first = int(due[0]) // DAY
        self.start = EPOCH.date() + timedelta(first)
        self.days = int(due[-1]) // DAY - first + 1
        self.time = (due - first * DAY)[self._lines_on_time()]
        self._name_days()

    def _lines_on_time(self) -> np.ndarray:
        """Of each event, the line at which it is on time: its first, or one before, if it is late.

        In the order of time, a late event's line comes behind that of the next event, which is on
        time.
        """
        np = self.np
        line = np.empty(len(self.time), np.int64)
        line[self.order[::-1]] = np.arange(len(self.order))[::-1]  # the first of several stays
        by_time = np.argsort(self.time[: self.events], kind="stable")
        own = line[by_time]
        earliest = np.minimum.accumulate(own[::-1])[::-1]
        line[by_time] = np.where(own > earliest, np.maximum(earliest - 1, 0), own)
        return line


def live(seed: int, rate: float, start: datetime) -> Iterator[Block]:
    """The stream of a seed, without an end.

    Args:
        seed: the same seed, rate and start give the same lines.
        rate: lines a second.
        start: when the first line is due.
    """
    import numpy as np

    first = (start - EPOCH) / timedelta(milliseconds=1)
    for number in count():
        lines = np.arange(number * BLOCK, (number + 1) * BLOCK)
        due = np.floor(first + lines * (1000 / rate)).astype(np.int64)
        # words of their own, apart from those of files: a seed of a file has no such high bits
        yield _block(LivePlan((seed + 1 << 64) + number, due), 0, BLOCK)


def planned(rows: int, seed: int) -> Iterator[Block]:
    """The lines of the file that the same arguments make."""
    plan = Plan(rows, seed, *SPAN, Shares())
    for first in range(0, rows, BLOCK):
        yield _block(plan, first, min(first + BLOCK, rows))


def _block(plan: Plan, first: int, last: int) -> Block:
    lines = bytes(plan.lines(first, last)).splitlines(keepends=True)
    return Block(plan.keys(first, last), lines)
