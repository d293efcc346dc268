"""How fast TMDB may be asked: its rate, and the pauses that it asks for."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


class TokenBucket:
    """Hands out permissions to start a request, to any number of threads.

    It holds one permission at most and makes a new one somewhat slower than ``rate`` allows: a
    server that counts strictly sees no second with more, though threads wake late and in bunches.
    """

    def __init__(self, rate: float) -> None:
        self._every = 1 / (0.96 * rate) if rate > 0 else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take one permission; return the seconds until it holds."""
        with self._lock:
            now = time.monotonic()
            holds = max(self._next, now)
            self._next = holds + self._every
            return holds - now

    def pause(self, seconds: float) -> None:
        """Give none out for so long: the server has asked for it."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def seconds_to_wait(value: str | None) -> float | None:
    """Seconds that a Retry-After header (a number of them, or a date: RFC 9110) asks to wait."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=timezone.utc)
        seconds = (then - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
