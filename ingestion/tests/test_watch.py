"""``marquee ingest watch``: what comes into a folder lands once, whatever happens meanwhile.

Every case is a real process, a real PostgreSQL, a server that speaks S3 or one of HTTP.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fsspec
import psutil
import pytest

from ingestion.sample.transactions import generate
from ingestion.tests import test_transactions
from ingestion.tests.built import BIN, Built
from ingestion.tests.test_interrupts import started
from ingestion.warehouse.target import Target

TIMEOUT_SECONDS = 90
SEED = 11
QUICK = ("--every", "0.2", "--settle", "1")


@pytest.fixture
def warehouse(database: Target, tmp_path: Path) -> Built:
    built = Built(database, tmp_path)
    built.write_profile()
    return built


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def line() -> str:
    """A good line, another one each time."""
    return test_transactions.line(transaction_id=str(uuid.uuid4()))


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def watching(warehouse: Built, *args: str | Path) -> Iterator:
    with started([BIN / "marquee", "ingest", "watch", *args], warehouse.environment) as process:
        yield process
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGTERM)
        process.out, process.err = process.communicate(timeout=20)


def landed(warehouse: Built) -> list[tuple]:
    """Each file that landed: its name, rows, rejects."""
    if warehouse.one("select to_regclass('raw_transactions.files')") is None:
        return []
    return warehouse.rows(
        "select split_part(_file_name, '/', -1), rows_landed, rows_rejected"
        " from raw_transactions.files order by _dlt_load_id, 1"
    )


def count(warehouse: Built) -> int:
    return warehouse.one("select count(*) from raw_transactions.transactions")


def calls(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_what_comes_lands_once_and_the_command_is_called(warehouse, inbox, tmp_path):
    told = tmp_path / "told"
    args = (inbox, *QUICK, "--then", f"echo built >> {told}")
    with watching(warehouse, *args) as process:
        (inbox / "first.jsonl").write_text(line() + "\n")
        until(lambda: calls(told) == 1)
        with (inbox / "slow.jsonl").open("w") as slow:  # for longer than a file has to settle
            for _ in range(6):
                slow.write(line() + "\n")
                slow.flush()
                time.sleep(0.4)
                assert len(landed(warehouse)) == 1
        until(lambda: calls(told) == 2)
        assert landed(warehouse)[1:] == [("slow.jsonl", 6, 0)]
        (inbox / ".hidden.jsonl").write_text(line())
        (inbox / "next.csv").write_text(
            "transaction_id,event_ts,user_id,amount\n" + f"{uuid.uuid4()},2026-01-01T10:00,7,5.10\n"
        )
        until(lambda: calls(told) == 3)
        (inbox / "copy.csv").write_bytes((inbox / "next.csv").read_bytes())
        time.sleep(2.5)
    assert process.returncode == 128 + signal.SIGTERM
    assert process.err == "Stopped. What has landed stays; the next watch goes on from there.\n"
    assert landed(warehouse)[1:] == [("slow.jsonl", 6, 0), ("next.csv", 1, 0)]
    assert "copy.csv has landed before as" in process.out
    assert calls(told) == 3

    again = warehouse.marquee("ingest", "watch", *map(str, args), "--once")
    assert "has landed before" not in again.stdout, "files that are known are not read again"
    for memory in (tmp_path / "state").rglob("watch/*.json"):
        memory.unlink()
    again = warehouse.marquee("ingest", "watch", *map(str, args), "--once")
    assert again.stdout.count("has landed before") == 4, "and without memory none lands twice"
    assert count(warehouse) == 8
    assert calls(told) == 3


def test_a_refused_file_is_tried_again_only_when_it_has_changed(warehouse, inbox, tmp_path):
    told = tmp_path / "told"
    bad, good = inbox / "bad.jsonl", inbox / "good.jsonl"
    with watching(warehouse, inbox, *QUICK, "--then", f"echo built >> {told}") as process:
        bad.write_text("nonsense\n" * 3)
        time.sleep(4)
        good.write_text(f"{line()}\nnonsense\n{line()}\n")
        until(lambda: calls(told) == 1)
        time.sleep(1)
    assert process.out.count("Refused: ") == 1
    assert "3 of 3 lines cannot land" in process.out
    assert landed(warehouse) == [("good.jsonl", 2, 1)]

    command = ("ingest", "watch", str(inbox), "--once", "--settle", "0.5")
    again = warehouse.marquee(*command)
    assert "Refused" not in again.stdout
    assert "1 files stay refused until they change." in again.stdout
    good.write_text(line() + "\n")
    changed = warehouse.marquee(*command, check=False)
    assert changed.returncode == 1
    assert "has changed since it landed" in changed.stderr
    bad.write_text(line() + "\n")
    assert "1 files, 1 rows, 0 rejects have landed" in warehouse.marquee(*command).stdout
    replaced = warehouse.marquee(*command, "--replace")  # what is asked otherwise is looked at anew
    assert "good.jsonl replaces what landed from there before" in replaced.stdout
    assert [name for name, *_ in landed(warehouse)] == ["good.jsonl", "bad.jsonl", "good.jsonl"]


def test_killed_at_any_moment_nothing_is_lost_or_lands_twice(warehouse, inbox, tmp_path):
    chance, told = random.Random(SEED), tmp_path / "told"
    lines = 0
    for at in range(3):
        for part in range(2):
            counts = generate(4_000, 10 * at + part, inbox / f"{at}-{part}.jsonl")
            lines += counts["lines"]
        command = [BIN / "marquee", "ingest", "watch", inbox, "--every", "0.1", "--settle", "0.1"]
        with started([*command, "--then", f"echo >> {told}"], warehouse.environment) as process:
            with suppress(TimeoutError):
                time.sleep(1 + 4 * chance.random())
            process.kill()
    warehouse.marquee("ingest", "watch", str(inbox), "--once", "--settle", "0.1")
    files = landed(warehouse)
    assert sorted(name for name, *_ in files) == sorted(path.name for path in inbox.iterdir())
    assert sum(rows + rejects for _, rows, rejects in files) == lines
    assert count(warehouse) == sum(rows for _, rows, _ in files)


def test_who_was_not_told_is_told_by_the_next_watch(warehouse, inbox, tmp_path):
    told = tmp_path / "told"
    (inbox / "a.jsonl").write_text(line() + "\n")
    once = ("ingest", "watch", str(inbox), "--once", "--settle", "0.1", "--then")
    killed = warehouse.marquee(*once, f"echo >> {told}; kill -9 $PPID", check=False)
    assert killed.returncode == -signal.SIGKILL
    failed = warehouse.marquee(*once, f"echo >> {told}; exit 3", check=False)
    assert failed.returncode == 1
    assert "The command of --then ended with code 3." in failed.stderr
    passing = warehouse.marquee(*once, f"echo >> {told}; exit 75", check=False)
    assert passing.returncode == 75
    warehouse.marquee(*once, f"echo >> {told}")
    warehouse.marquee(*once, f"echo >> {told}")
    assert calls(told) == 4, "the last one has no news"
    assert count(warehouse) == 1


class Hook(BaseHTTPRequestHandler):
    """Refuses what it gets at first, then takes it."""

    got: list[dict]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.got.append(body)
        self.send_response(503 if len(self.got) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict]]]:
    Hook.got = []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hooks/s3cret", Hook.got
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_what_landed_and_what_was_refused(warehouse, inbox, hook):
    url, got = hook
    warehouse.variables["MARQUEE_WEBHOOK"] = url
    (inbox / "a.jsonl").write_text(f"{line()}\nnonsense\n")
    once = ("ingest", "watch", str(inbox), "--once", "--settle", "0.1")
    failed = warehouse.marquee(*once, check=False)
    assert failed.returncode == 75
    assert failed.stderr.startswith("Error: The webhook answered 503.")
    (inbox / "b.jsonl").write_text("nonsense\n")
    refused = warehouse.marquee(*once, check=False)
    assert refused.returncode == 1
    assert "s3cret" not in failed.stdout + failed.stderr + refused.stdout + refused.stderr
    place = str((inbox / "b.jsonl").resolve())
    assert [
        {name: body[name] for name in ("event", "files", "rows", "rejected")} for body in got
    ] == [{"event": "landed", "files": 1, "rows": 1, "rejected": 1}] * 2
    assert got[0]["refused"] == {}
    assert list(got[1]["refused"]) == [place]
    assert "not JSON" in got[1]["refused"][place]


def test_objects_of_a_store_land_as_they_come(warehouse, monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        store.mkdir("bucket")
        with watching(warehouse, "s3://bucket/in/", *QUICK) as process:
            store.pipe("bucket/in/dt=2026-01-01/a.jsonl", (line() + "\n").encode())
            until(lambda: len(landed(warehouse)) == 1)
            store.pipe("bucket/in/b.jsonl", (line() + "\n").encode())
            store.pipe("bucket/elsewhere.jsonl", (line() + "\n").encode())
            until(lambda: len(landed(warehouse)) == 2)
            time.sleep(1)
        assert [name for name, *_ in landed(warehouse)] == ["a.jsonl", "b.jsonl"]
        assert process.out.count("have landed") == 2
        store.pipe("bucket/in/b.jsonl", (line() + "\n").encode())
        warehouse.marquee("ingest", "watch", "s3://bucket/in/", "--once", "--replace")
        assert len(landed(warehouse)) == 3
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["kafka://localhost/topic"], "Folders and prefixes of stores are watched."),
        (["/nowhere/at/all"], "There is no folder /nowhere/at/all."),
        ([".", "--webhook", "ftp://x/s3cret"], "The webhook is no http:// or https:// URL."),
    ],
)
def test_what_cannot_be_watched_is_said_before_anything_starts(warehouse, args, said):
    done = warehouse.marquee("ingest", "watch", *args, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {said}")
    assert "s3cret" not in done.stderr


def test_a_watch_outlives_another_load(warehouse, inbox):
    from ingestion.pipeline import one_at_a_time

    os.environ.pop("MARQUEE_WEBHOOK", None)
    with watching(warehouse, inbox, *QUICK) as process:
        with one_at_a_time("transactions", warehouse.target):
            (inbox / "a.jsonl").write_text(line() + "\n")
            time.sleep(5)
            assert process.poll() is None
        until(lambda: len(landed(warehouse)) == 1)
    assert process.out.count("Waiting.") == 1


def test_a_command_that_runs_ends_with_the_watch(warehouse, inbox, tmp_path):
    (inbox / "a.jsonl").write_text(line() + "\n")
    pids = tmp_path / "pids"
    command = f"sleep 120 & echo $! > {pids}; echo $$ >> {pids}; wait"
    with watching(warehouse, inbox, *QUICK, "--then", command):
        until(lambda: calls(pids) == 2)
    for pid in map(int, pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
