"""What is said while a stream is followed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from ingestion.pipeline import LoadReport
from ingestion.sources.transactions.inputs.kafka import TopicReader


class Progress:
    """A line every so often: rate, lag, rejects."""

    EVERY, IDLE = 10.0, 60.0  # seconds; where nothing comes

    def __init__(self, say: Callable[[str], None], report: LoadReport, reader: TopicReader) -> None:
        self._say, self._report, self._reader = say, report, reader
        self._since, self._messages, self._rejected = time.monotonic(), 0, report.rejected
        self._parts: set[int] | None = None

    def tell(self, messages: int) -> None:
        self._messages += messages
        if set(self._reader.next) != self._parts:
            self._parts = set(self._reader.next)
            these = ", ".join(map(str, sorted(self._parts))) or "none"
            self._say(f"{self._now()}  partitions of this process: {these}")
        seconds = time.monotonic() - self._since
        if seconds < (self.EVERY if self._messages else self.IDLE):
            return
        rejected = self._report.rejected - self._rejected
        away = f"  {self._reader.error.rpartition(': ')[2][:60]}" if self._reader.error else ""
        self._say(
            f"{self._now()}  {self._messages / seconds:>9,.0f} messages/s"
            f"  lag {self._reader.lag():>9,}  rejected {rejected:>7,}"
            f"  landed in all {self._report.rows['transactions']:>12,}{away}"
        )
        self._since, self._messages, self._rejected = time.monotonic(), 0, self._report.rejected

    def _now(self) -> str:
        return f"{datetime.now():%H:%M:%S}"
