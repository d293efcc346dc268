"""How many requests a key may send, over all processes of a server: token buckets in shared memory.

Two processes that change a bucket in the same microsecond may count one request instead of two:
no lock is worth that.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from serving.api.keys import Key

SLOTS = 4096
BURST = 2  # seconds' worth of requests that may come at once
_SLOT = struct.Struct("dd")  # tokens, and the time of their count


class Rates:
    """Buckets of keys.

    Args:
        path: the file that all processes share; made by ``make``.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._slots = mmap.mmap(file.fileno(), 0)

    @staticmethod
    def make(path: Path) -> None:
        path.write_bytes(bytes(_SLOT.size * SLOTS))

    def take(self, key: Key) -> float:
        """Count a request; returns 0 if it may pass, or seconds until one may."""
        if not key.rate:
            return 0.0
        place = key.number % SLOTS * _SLOT.size
        tokens, counted = _SLOT.unpack_from(self._slots, place)
        now = time.monotonic()  # the same clock in all processes of a machine
        most = float(key.rate * BURST)
        tokens = min(most, tokens + (now - counted) * key.rate) if counted else most
        if tokens < 1:
            _SLOT.pack_into(self._slots, place, tokens, now)
            return (1 - tokens) / key.rate
        _SLOT.pack_into(self._slots, place, tokens - 1, now)
        return 0.0
