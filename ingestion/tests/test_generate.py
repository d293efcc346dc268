"""``marquee generate transactions --to``: seeded lines at a rate, into files, pipes and topics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import pytest

from ingestion.sample.live import BLOCK, live
from ingestion.sample.transactions import generate
from ingestion.tests.brokers import Broker, broker  # noqa: F401
from ingestion.tests.built import BIN
from ingestion.tests.test_interrupts import PATIENCE, started, until

START = datetime(2026, 2, 28, 23, 59, 58, tzinfo=timezone.utc)
COMMAND = (BIN / "marquee", "generate", "transactions")


def made(*args: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [str(part) for part in (*COMMAND, *args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def rows_of(lines: list[bytes]) -> Iterator[tuple[int, dict]]:
    """Lines that are whole: their numbers and what they say."""
    for number, line in enumerate(lines):
        try:
            yield number, json.loads(line)
        except ValueError:
            assert line.startswith(b'{"transaction_id": "')


def test_a_stream_is_made_of_its_seed_rate_and_start() -> None:
    def stream(seed: int, rate: float = 1000, start: datetime = START) -> list:
        return list(islice(live(seed, rate, start), 2))

    assert stream(7) == stream(7)
    assert stream(7)[0] != stream(7)[1]
    keys = [{key for block in stream(seed) for key in block.keys} for seed in (7, 8)]
    assert not keys[0] & keys[1]
    # another time changes the times alone
    moved = stream(7, rate=3, start=START + timedelta(days=400))
    assert [block.keys for block in moved] == [block.keys for block in stream(7)]
    assert moved != stream(7)


def test_events_happen_when_their_lines_are_due() -> None:
    rate = 500
    blocks = list(islice(live(1, rate, START), 2))
    lines = [line for block in blocks for line in block.lines]
    keys = [key for block in blocks for key in block.keys]
    assert len(lines) == 2 * BLOCK
    assert all(line.endswith(b"}\n") or line.count(b"\n") == 1 for line in lines)
    latest, late, moments, seen = START, 0, {}, Counter(lines)
    for number, row in rows_of(lines):
        if not isinstance(row.get("transaction_id"), str) or not row["transaction_id"]:
            continue
        assert row["transaction_id"] == keys[number]
        try:
            at = datetime.fromisoformat(str(row["event_ts"]).replace("Z", "+00:00"))
        except (KeyError, ValueError):
            continue
        if at.tzinfo is None or at.year == 2999:
            continue
        due = START + timedelta(milliseconds=number * 1000 // rate)
        assert at <= due
        if at == due:
            latest = max(latest, at)
        elif seen[lines[number]] == 1:
            late += 1
            assert at < latest
        moments.setdefault(row["transaction_id"], []).append((row["status"], at))
    end = START + timedelta(seconds=2 * BLOCK / rate)
    assert end - timedelta(seconds=0.2) < latest < end
    # shares of a file: late rows, repeats, changed statuses
    assert 0.015 < late / len(lines) < 0.025
    assert 0.004 < sum(count - 1 for count in seen.values()) / len(lines) < 0.006
    changes = Counter(
        f"{first[0]} {last[0]}"
        for first, *_, last in (moment for moment in moments.values() if len(moment) > 1)
        if first[0] != last[0] and first[1] < last[1]
    )
    assert changes["PENDING APPROVED"] > 300
    assert changes["APPROVED REFUNDED"] > 150


def test_lines_at_a_rate_go_behind_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "new" / "stream.jsonl"
    file.parent.mkdir()
    file.write_bytes(b'{"cut')
    for seed in (1, 2):
        done = made("--rate", 5000, "--rows", 700, "--seed", seed, "--to", file)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("700 lines written to ")
    lines = file.read_bytes().splitlines(keepends=True)
    assert lines[0] == b'{"cut\n'
    assert len(lines) == 1401
    now = datetime.now(timezone.utc)
    times = [
        datetime.fromisoformat(row["event_ts"].replace("Z", "+00:00"))
        for _, row in rows_of(lines[1:])
        if re.fullmatch(r"20[0-9-]{8}T.*(Z|\d\d:\d\d)", str(row.get("event_ts")))
        and "T25" not in row["event_ts"]
    ]
    assert len(times) > 1300
    assert all(now - timedelta(minutes=10) < at <= now for at in times)


def test_the_same_start_gives_the_same_bytes_and_fewer_rows_their_beginning() -> None:
    once, twice = (
        made(
            *("--rate", 4000, "--rows", rows, "--seed", 0, "--to", "-"),
            *("--start", "2026-03-01T12:00:00"),
        )
        for rows in (1500, 300)
    )
    assert once.stdout.startswith(twice.stdout)
    assert len(twice.stdout.splitlines()) == 300
    assert "300 lines written to standard output" in twice.stderr
    assert '"2026-03-01T12:00:00.000' in once.stdout


def test_without_a_rate_the_lines_are_those_of_the_file(tmp_path: Path) -> None:
    generate(12_345, 5, tmp_path / "whole.jsonl")
    done = made("--rows", 12_345, "--seed", 5, "--to", tmp_path / "sent.jsonl")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sent.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_whole_lines_and_says_how_many(
    tmp_path: Path, kind: signal.Signals
) -> None:
    file = tmp_path / "stream.jsonl"
    command = [*COMMAND, "--rate", "3000", "--to", file]
    with started(command, dict(os.environ)) as process:
        until(lambda: file.exists() and file.stat().st_size > 300_000, process)
        process.send_signal(kind)
        out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + kind
    assert "Interrupted: no more lines are sent." in said
    written = file.read_bytes()
    assert written.endswith(b"\n")
    assert f"{written.count(bytes([10])):,} lines written to" in out
    assert out.count("lines") == 1


def test_a_reader_that_goes_away_ends_it() -> None:
    command = " ".join(map(str, (*COMMAND, "--rate 2000 --seed 1 --to -")))
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -3; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "--out FILE"),
        (["--out", "a.jsonl", "--to", "b.jsonl"], 2, "--out FILE"),
        (["--out", "a.jsonl", "--rate", 5], 2, "go with --to"),
        (["--to", "a.jsonl", "--start", "2026-01-01"], 2, "goes with --rate"),
        (["--to", "a.jsonl", "--rate", 0], 2, "--rate"),
        (["--to", "a.jsonl.gz", "--rate", 5], 1, "Leave off .gz"),
        (["--to", "/proc/none/a.jsonl", "--rate", 5], 1, "cannot be written"),
        (["--to", "s3://bucket/a.jsonl", "--rate", 5], 1, "Give a path"),
        (["--to", "kafka://127.0.0.1:1", "--rate", 5], 1, "names no topic"),
        (["--to", "kafka://u:Kk9SecretZz7@h/t", "--rate", 5], 1, "without credentials"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, args: list[object], code: int, said: str
) -> None:
    done = made(*args, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Kk9SecretZz7" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_topic_gets_every_line_under_its_transaction(broker: Broker) -> None:  # noqa: F811
    broker.create("payments", partitions=3)
    done = made("--rate", 5000, "--rows", 4000, "--seed", 9, "--to", broker.url("payments"))
    assert done.returncode == 0, done.stderr
    assert "4,000 lines acknowledged by kafka://127.0.0.1:" in done.stdout
    assert broker.count("payments") == 4000
    read = list(broker.read("payments", 4000))
    block = next(live(9, 5000, START))
    assert Counter(key.decode() for _, _, key, _ in read) == Counter(block.keys[:4000])
    assert len({key for _, _, key, _ in read}) == len({(part, key) for part, _, key, _ in read})
    for _, _, key, value in read:
        assert b"\n" not in value
        if b'"status": "PENDING"' in value and value.endswith(b"}"):
            row = json.loads(value)
            if isinstance(row.get("transaction_id"), str) and row["transaction_id"]:
                assert row["transaction_id"].encode() == key


def test_an_interrupt_waits_for_what_the_topic_acknowledges(broker: Broker) -> None:  # noqa: F811
    broker.create("payments")
    command = [*COMMAND, "--rate", "3000", "--to", broker.url("payments")]
    with started(command, dict(os.environ)) as process:
        until(lambda: list(broker.read("payments", 500)), process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"{broker.count('payments'):,} lines acknowledged by" in out
    assert "not acknowledged" not in out


def test_a_broker_that_is_lost_is_said_with_what_it_had_acknowledged() -> None:
    with Broker() as lost:
        lost.create("payments")
        command = [*COMMAND, "--rate", "3000", "--to", lost.url("payments")]
        with started(command, dict(os.environ)) as process:
            until(lambda: list(lost.read("payments", 500)), process)
            lost.kill()
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(timeout=1)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert re.search(r"[\d,]+ lines acknowledged by", out)
    assert re.search(r"[\d,]+ lines were sent and not acknowledged", out)


def test_a_cluster_that_is_not_there_is_said() -> None:
    with Broker() as gone:
        url = gone.url("t")
    done = made("--rate", 5, "--to", url)
    said = done.stderr
    assert done.returncode == 1
    assert "does not answer" in said
    assert "Connection refused" in said
    assert "Traceback" not in said


def test_settings_that_kafka_does_not_know_are_said_without_their_values(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text(
        '[sources.transactions.kafka]\n"sasl.pasword" = "Kk9SecretZz7"\n'
    )
    done = made(
        "--to", "kafka://127.0.0.1:1/t", env=os.environ | {"DLT_PROJECT_DIR": str(tmp_path)}
    )
    said = done.stderr
    assert done.returncode == 1
    assert "sasl.pasword" in said
    assert ".dlt/secrets.toml" in said
    assert "Kk9SecretZz7" not in said + done.stdout


def test_the_package_that_is_missing_is_named_with_the_way_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "confluent_kafka.py").write_text("raise ImportError('not here')\n")
    done = made("--to", "kafka://127.0.0.1/t", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "needs the package confluent-kafka" in done.stderr
    assert "'.[kafka]'" in done.stderr
