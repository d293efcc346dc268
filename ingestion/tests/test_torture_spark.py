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
    children = psutil.Process(running.process.pid).children(recursive=True)
    return [p for p in children if "CoarseGrainedExecutorBackend" in " ".join(p.cmdline())]


def kill(running: Server, what: str) -> int:
    """Kill one executor or the server at once; the process id."""
    if what == "executor":
        victim = random.Random(SEED).choice(executors_of(running))
        victim.kill()
        return victim.pid
    pid = running.process.pid
    os.killpg(pid, signal.SIGKILL)
    running.process.wait()
    return pid


def test_a_build_after_a_kill_holds_the_same(engines: Engines):  # noqa: F811
    chance = random.Random(SEED)
    engines.step()
    arrivals = Arrivals(engines.postgres.target, chance, datetime.now(timezone.utc))
    history: list[str] = [f"seed {SEED}"]
    for number in range(ROUNDS):
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
        deadline = time.monotonic() + chance.uniform(5, LONGEST_WAIT)
        while build.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        ended = build.poll() is not None
        pid = kill(engines.server, what)
        if what == "server":
            engines.server.stop()
            engines.server.start()  # dbt's session is gone with the old one
        code = build.wait(1800)
        history.append(f"round {number}: {what} {pid} killed, full {full}, over {ended}: {code}")
        print(history[-1], flush=True)
        engines.spark.dbt("build", *ARRIVING)
        assert engines.differences() == {}, history
