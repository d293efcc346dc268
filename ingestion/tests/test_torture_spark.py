"""Spark killed at any moment: after one more build, every mart is PostgreSQL's, nothing doubled.

Executors and the whole server are killed as by ``kill -9``, in full builds and in steps, at moments
from a seed. By ``make torture-spark ROUNDS=20 SEED=7``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime, timezone

import psutil
import pytest

from ingestion.tests.built import BIN
from ingestion.tests.test_dbt_commands import NO_TESTS
from ingestion.tests.test_incremental import Arrivals
from ingestion.tests.test_spark import Engines, engines, server  # noqa: F401 - fixtures
from ingestion.warehouse.paths import PROJECT_DIR
from serving.spark.server import Server

ROUNDS = int(os.environ.get("MARQUEE_TORTURE_ROUNDS") or 0)
SEED = int(os.environ.get("MARQUEE_TORTURE_SEED") or random.SystemRandom().randrange(10**6))
LONGEST_WAIT = 120  # seconds until a kill, at most
ARRIVING = (*NO_TESTS, "--select", "source:transactions+")  # all that new transactions change

pytestmark = pytest.mark.skipif(
    not (ROUNDS and os.environ.get("MARQUEE_SPARK_TESTS")), reason="long: make torture-spark"
)


def executors_of(running: Server) -> list[psutil.Process]:
    """Those that run; one that was killed before may still be listed."""
    found = []
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill(running: Server, what: str, chance: random.Random) -> None:
    """Kill one executor at once; or the server, which is started anew."""
    if what == "executor":
        chance.choice(executors_of(running)).kill()
        return
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
    running.stop()
    running.start()  # dbt's session is gone with the old one


def test_a_build_after_a_kill_holds_the_same(engines: Engines):  # noqa: F811
    chance = random.Random(SEED)
    engines.step()
    arrivals = Arrivals(engines.postgres.target, chance, datetime.now(timezone.utc))
    history: list[str] = [f"seed {SEED}"]
    print(
        f"\nseed {SEED}\n{'round':>5} {'killed':<9} {'after s':>7} {'build':<5} {'ended':<9} next s"
    )
    for number in range(1, ROUNDS + 1):
        history.append(arrivals.batch())
        engines.postgres.dbt("build", *ARRIVING)
        engines.postgres.marquee("export", "raw", "--to", "spark")
        what = chance.choice(("executor", "server"))
        full = chance.random() < 0.3
        options = ("--full-refresh", "--exclude", "resource_type:snapshot") if full else ()
        build = subprocess.Popen(
            [BIN / "dbt", "build", *ARRIVING, *options],
            cwd=PROJECT_DIR,
            env=engines.spark.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        began = time.monotonic()
        wait = chance.uniform(5, LONGEST_WAIT)
        while build.poll() is None and time.monotonic() < began + wait:
            time.sleep(0.1)
        after, was_over = time.monotonic() - began, build.poll() is not None
        kill(engines.server, what, chance)
        code = build.wait(1800)
        ended = "before" if was_over else "in error" if code else "well"
        began = time.monotonic()
        engines.spark.dbt("build", *ARRIVING)
        line = f"{number:>5} {what:<9} {after:>7.1f} {'full' if full else 'step':<5} {ended:<9}"
        history.append(f"{line} {time.monotonic() - began:>6.1f}")
        print(history[-1], flush=True)
        assert engines.differences() == {}, history
