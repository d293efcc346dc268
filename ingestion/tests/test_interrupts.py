"""Ctrl-C and `kill` at any moment: one line, an end within seconds, nothing left, and it goes on.

Every case is a real process and a real server. The moments come from a seed; a longer run is
``MARQUEE_INTERRUPT_ROUNDS=30 .venv/bin/pytest ingestion/tests/test_interrupts.py``.
"""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ingestion import INTERRUPTED
from ingestion.tests.built import BIN, Built
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

ROUNDS = int(os.environ.get("MARQUEE_INTERRUPT_ROUNDS") or 4)
PATIENCE = 120  # seconds in which a busy machine does what takes one
KINDS = (signal.SIGINT, signal.SIGTERM)
OURS = (
    "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)
LINES = 150_000


@pytest.fixture
def empty(database: Target, tmp_path: Path) -> Built:
    """An empty database and its profile."""
    warehouse = Built(database, tmp_path)
    warehouse.write_profile()
    return warehouse


@contextmanager
def started(command: list[str | Path], env: dict[str, str]):
    """A program in a session of its own, which hears of signals whatever runs the tests."""

    def hear() -> None:
        for kind in KINDS:
            signal.signal(kind, signal.SIG_DFL)

    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=PROJECT_DIR,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear,  # noqa: PLW1509 - no threads here
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_watched(process: subprocess.Popen) -> bool:
    """Whether Python has got as far as the program's own code: it never catches SIGTERM itself."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def until(reached: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(
    warehouse: Built,
    *args: str,
    after: float | Callable[[], object] = 0.0,
    kind: signal.Signals = signal.SIGINT,
) -> bool:
    """Send a command a signal some seconds after it began, or once something is reached.

    Returns:
        Whether it came in time; all that is to hold of an interrupted command does.
    """
    with started([BIN / "marquee", *args], warehouse.environment) as process:
        if Path("/proc/self/status").exists():
            until(lambda: is_watched(process), process)
        if callable(after):
            until(after, process)
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(after)
        process.send_signal(kind)
        out, err = process.communicate(timeout=PATIENCE)
        if process.returncode == 0:  # it had ended
            return False
        if process.returncode == -kind and not err:  # all was done, and Python shutting down
            return False
        assert process.returncode == 128 + kind, (process.returncode, out, err)
        said = [line for line in err.splitlines() if not line.startswith("  ")]  # progress
        assert said == [INTERRUPTED], err
        assert "Traceback" not in out
        assert_no_process(process.pid)
        assert_no_session(warehouse)
        return True


def assert_no_process(session: int) -> None:
    """Nothing of a session goes on; helpers of multiprocessing end by themselves, a bit later."""
    deadline = time.monotonic() + 15
    while left := [p for p in psutil.process_iter() if _lives(p, session)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _lives(process: psutil.Process, session: int) -> bool:
    try:
        zombie = process.status() == psutil.STATUS_ZOMBIE  # init has not looked yet
        return not zombie and os.getsid(process.pid) == session
    except (OSError, psutil.NoSuchProcess):
        return False


def assert_no_session(warehouse: Built) -> None:
    deadline = time.monotonic() + PATIENCE
    while left := warehouse.rows(f"select pid, state, query from pg_stat_activity where {OURS}"):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def moments(longest: float, seed: int) -> list[tuple[float, signal.Signals]]:
    """So many seconds, spread over the time that a command takes, and the signals in turn."""
    chance = random.Random(seed)
    step = longest / ROUNDS
    return [(step * at + chance.uniform(0, step), KINDS[at % len(KINDS)]) for at in range(ROUNDS)]


def waits(warehouse: Built, pattern: str) -> Callable[[], object]:
    """Whether a query of that kind waits for a lock."""
    return lambda: warehouse.one(
        f"select count(*) from pg_stat_activity where {OURS} and query ~* '{pattern}'"
        " and wait_event_type = 'Lock'"
    )


def test_run_at_any_moment(empty: Built) -> None:
    """From nothing to the summary, however often it is broken off."""
    counts = {"raw_transactions.transactions": 99_500, "raw_brands.brands": 45}
    came = [
        interrupt(empty, *debug, "run", after=after, kind=kind)
        for (after, kind), debug in zip(moments(20, 1), [["--debug"], []] * ROUNDS, strict=False)
    ]
    assert came.count(True) >= ROUNDS // 2
    assert "passed" in empty.run()
    found = empty.row_counts()
    assert {name: found[name] for name in counts} == counts
    assert found["marts.fct_transactions"] > 90_000


@pytest.mark.parametrize(
    ("command", "table", "seconds"),
    [
        (["ingest", "transactions", "{file}"], "raw_transactions.transactions", 2),
        (["ingest", "tmdb"], "raw_tmdb.movies", 5),
        (["ingest", "brands"], "raw_brands.brands", 2),
    ],
    ids=["transactions", "tmdb", "brands"],
)
def test_a_load_at_any_moment(
    empty: Built, tmp_path: Path, command: list[str], table: str, seconds: float
) -> None:
    file = tmp_path / "made.jsonl"
    generate = ("generate", "transactions", "--rows", str(LINES), "--out", str(file))
    for after, kind in moments(1, 2):
        interrupt(empty, *generate, after=after, kind=kind)
        assert list(tmp_path.glob("*.part")) == []
    empty.marquee(*generate)
    command = [part.format(file=file) for part in command]
    for after, kind in moments(seconds, 3):
        interrupt(empty, *command, after=after, kind=kind)
    empty.marquee(*command)
    found = empty.one(f"select count(*) from {table}")
    if "transactions" in command:
        found += empty.one("select count(*) from raw_transactions.rejects")
        assert found == LINES
    else:
        assert found == (1_221 if "tmdb" in command else 45)


def test_an_export_at_any_moment(empty: Built, tmp_path: Path) -> None:
    empty.execute(
        "create schema marts; create table marts.fct_many as select g as id, 1 as date_key,"
        " date '2020-01-01' + g % 900 as day, repeat(md5(g::text), 4) as text"
        " from generate_series(1, 400000) as g"
    )
    place = tmp_path / "out"
    for after, kind in moments(2.5, 4):
        interrupt(empty, "export", "marts", "--to", str(place), after=after, kind=kind)
        whole = [path for path in place.glob("2*") if (path / "manifest.json").exists()]
        assert list(place.glob("2*")) == whole  # what is not whole is gone
    empty.marquee("export", "marts", "--to", str(place))
    assert (place / "latest" / "manifest.json").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("command", "query"),
    [
        (["rejects"], "rejects"),
        (["ingest", "transactions", "more.jsonl"], "transactions"),
        (["export", "marts", "--to", "out"], "lock table"),
        (["run"], "brands"),
    ],
    ids=["rejects", "ingest", "export", "run"],
)
def test_a_command_that_waits_for_the_server(
    empty: Built, tmp_path: Path, command: list[str], query: str, kind: signal.Signals
) -> None:
    """A query that waits is no step of Python's: no exception would ever come up in it."""
    for name, seed in (("first", "1"), ("more", "2")):
        file = str(tmp_path / f"{name}.jsonl")
        empty.marquee("generate", "transactions", "--rows", "2000", "--seed", seed, "--out", file)
    empty.marquee("ingest", "transactions", str(tmp_path / "first.jsonl"))
    empty.marquee("ingest", "brands")
    empty.execute("create schema marts; create table marts.dim_thing as select 1 as id")
    command = [str(tmp_path / part) if part in ("more.jsonl", "out") else part for part in command]
    with closing(empty.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "lock table raw_transactions.transactions, raw_transactions.rejects,"
            " raw_brands.brands, raw_brands.rejects, marts.dim_thing"
        )
        cursor.execute("select pg_backend_pid()")
        (locker,) = cursor.fetchone()
        with started([BIN / "marquee", *command], empty.environment) as process:
            until(waits(empty, query), process)
            process.send_signal(kind)
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 128 + kind
            assert err.splitlines() == [INTERRUPTED]
        deadline = time.monotonic() + PATIENCE
        while empty.one(f"select count(*) from pg_stat_activity where {OURS} and pid <> {locker}"):
            assert time.monotonic() < deadline  # its queries ended, though the lock is still held
            time.sleep(0.05)


def test_a_build_whose_queries_take_long(built: Built) -> None:
    """dbt's threads each wait for their own query."""
    with closing(built.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("lock table raw_tmdb.movies")
        with started([BIN / "marquee", "--debug", "run"], built.environment) as process:
            until(waits(built, "movies"), process)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 130
            assert INTERRUPTED in err
            assert "Traceback" not in err
    assert_no_session(built)


def test_a_scratch_server_goes_with_its_command(empty: Built) -> None:
    with started([BIN / "marquee", "scratch", "sleep", "1000"], empty.environment) as process:
        asleep = []

        def sleeps() -> bool:
            seen = psutil.process_iter(["ppid", "name"])  # with None for one that has just ended
            wanted = {"ppid": process.pid, "name": "sleep"}
            asleep[:] = [p for p in seen if p.info == wanted]
            return bool(asleep)

        until(sleeps, process)
        folder = asleep[0].environ()["MARQUEE_STATE_DIR"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert err.splitlines() == [INTERRUPTED]
    assert not asleep[0].is_running()
    assert not Path(folder).exists()
    assert [p for p in psutil.process_iter(["cmdline"]) if folder in str(p.info["cmdline"])] == []


SLOW = """
import threading, time
from ingestion import interrupts
interrupts.TIMEOUT_SECONDS = 1000
interrupts.watch()
with interrupts.giving_back(lambda: time.sleep(1000)):
    print("watched", flush=True)
    threading.Event().wait()
"""


def test_a_second_interrupt_ends_at_once(empty: Built) -> None:
    with started([sys.executable, "-c", SLOW], empty.environment) as process:
        assert process.stdout.readline() == "watched\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == f"{INTERRUPTED}\n"
        time.sleep(1)  # the same signal again at once would be an echo of the first
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


FAILING = """
import os, signal, threading, time
from ingestion import cli, interrupts
from ingestion.__main__ import main
cancelled, failed = threading.Event(), threading.Event()
def give_back():
    cancelled.set()
    failed.wait(1)
    os.write(out, b"interrupted\\n")
def command():
    try:
        with interrupts.giving_back(give_back):
            while signal.getsignal(signal.SIGTERM) is not interrupts._wait:
                time.sleep(0.01)
            os.write(out, b"begun\\n")
            cancelled.wait()
            raise RuntimeError("the query was cancelled")
    finally:
        os.write(out, b"failed\\n")
        failed.set()
out, cli.main = os.dup(1), command
main()
"""


def test_what_an_interrupt_cancels_does_not_count_as_failed(empty: Built) -> None:
    with started([sys.executable, "-c", FAILING], empty.environment) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
    assert set(said.splitlines()) == {"interrupted"}


def test_a_prompt_leaves_the_terminal_as_it_was(empty: Built) -> None:
    """Python's own prompt sets a terminal to take keys one by one."""
    (empty.folder / "profiles.yml").unlink()
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [BIN / "marquee", "db", "reset"],
        cwd=PROJECT_DIR,
        env=empty.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    said = b""
    while b"Drop everything" not in said:
        said += os.read(ours, 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    while INTERRUPTED.encode() not in said:
        said += os.read(ours, 1000)
    assert termios.tcgetattr(theirs) == before
    assert not (empty.folder / "state" / "pgdata").exists()


def test_an_interrupt_that_the_caller_ignores_stays_ignored(empty: Built) -> None:
    """As behind `&` in a shell, and with `nohup`."""
    script = 'trap \'\' INT; exec "$0" generate transactions --rows 400000 --out "$1"'
    file = empty.folder / "made.jsonl"
    with started(["sh", "-c", script, BIN / "marquee", file], empty.environment) as process:
        until(lambda: list(empty.folder.glob("*.part")), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=4 * PATIENCE)
        assert process.returncode == 0
    assert file.exists()
