"""Figures of the API for Prometheus, summed over all its processes.

prometheus-client keeps them in files of PROMETHEUS_MULTIPROC_DIR, which ``service`` makes before
any process imports this. A change of such a file costs microseconds, so what every request
changes is gathered and added a few times a second.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

ADDED_EVERY = 0.25  # seconds
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
REQUESTS = Counter(
    "marquee_api_requests", "Requests, by path and status.", ["path", "mart", "status"]
)
SECONDS = Histogram(
    "marquee_api_request_duration_seconds",
    "Time to the last byte of an answer.",
    ["path"],
    buckets=BUCKETS,
)
HITS = Counter("marquee_api_cache_hits", "Requests answered from the cache.")
MISSES = Counter("marquee_api_cache_misses", "Requests that were not in the cache.")
REDIS_HITS = Counter("marquee_api_redis_hits", "Requests whose answer Redis had.")
REDIS_MISSES = Counter(
    "marquee_api_redis_misses", "Requests whose answer Redis had not, or not in time."
)
REDIS_ERRORS = Counter(
    "marquee_api_redis_errors", "Commands that Redis refused or did not answer in time."
)
REDIS_CONNECTED = Gauge(
    "marquee_api_redis_connected",
    "Processes that share answers in Redis now.",
    multiprocess_mode="livesum",
)
COALESCED = Counter("marquee_api_coalesced", "Requests that waited for the query of an equal one.")
QUERIES = Counter("marquee_api_queries", "Queries sent to the warehouse.")
QUEUE = Gauge(
    "marquee_api_queue", "Requests that wait for a connection.", multiprocess_mode="livesum"
)
CACHE_BYTES = Gauge(
    "marquee_api_cache_bytes", "Bytes that the caches hold.", multiprocess_mode="livesum"
)
CONNECTED = Gauge(
    "marquee_api_warehouse_connected",
    "Processes that follow the builds of the warehouse.",
    multiprocess_mode="livesum",
)
BUILT_AT = Gauge(
    "marquee_api_mart_build_timestamp_seconds",
    "When a mart was built, as far as this API knows.",
    ["mart"],
    multiprocess_mode="livemax",
)


class Gathered:
    """What this process has counted since it was last added to its files."""

    def __init__(self) -> None:
        self._counts: Tally[Counter] = Tally()
        self._each: list[tuple[str, str, int, float]] = []

    def count(self, counter: Counter) -> None:
        """Count for a request that is not answered yet."""
        self._counts[counter] += 1

    def answered(self, path: str, mart: str, status: int, seconds: float) -> None:
        """Count a request that is answered; other processes read of it within `ADDED_EVERY`."""
        if not self._each:
            asyncio.get_running_loop().call_later(ADDED_EVERY, self.add)
        self._each.append((path, mart, status, seconds))

    def add(self) -> None:
        """Add them to the files."""
        each, counts = self._each, self._counts
        self._each, self._counts = [], Tally()
        for counter, count in counts.items():
            counter.inc(count)
        for labels, count in Tally(one[:3] for one in each).items():
            REQUESTS.labels(*labels).inc(count)
        for path in {one[0] for one in each}:
            took = [one[3] for one in each if one[0] == path]
            histogram = SECONDS.labels(path)
            # it has no method that takes many at once
            histogram._sum.inc(sum(took))
            for place, count in Tally(bisect_left(BUCKETS, one) for one in took).items():
                histogram._buckets[place].inc(count)


GATHERED = Gathered()


def text() -> bytes:
    """All figures in Prometheus' text format."""
    GATHERED.add()
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if not _is_alive(int(pid)):
            multiprocess.mark_process_dead(int(pid), str(folder))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    return generate_latest(registry)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
