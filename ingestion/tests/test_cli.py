"""What goes wrong is said in a line or two with what to do, and leaves nothing in the way."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from click.testing import CliRunner

from ingestion import dbt_runner
from ingestion.cli import explain, marquee
from ingestion.errors import UserError, error_line
from ingestion.sources.tmdb.standin import StandIn
from ingestion.tests.built import Built
from ingestion.tests.conftest import unused_port
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target


@pytest.fixture
def empty(database: Target, tmp_path: Path) -> Built:
    """An empty database and its profile."""
    warehouse = Built(database, tmp_path)
    warehouse.write_profile()
    return warehouse


def _said(done: subprocess.CompletedProcess, exit_code: int = 1) -> str:
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    message = done.stderr.strip()
    assert message.startswith("Error: ")
    assert len(message.splitlines()) <= 3, message
    return message


def _nobody_there(empty: Built) -> Built:
    return replace(empty, target=replace(empty.target, port=unused_port()))


def _wrong_password(empty: Built) -> Built:
    return replace(empty, target=replace(empty.target, password="wrong"))


def _no_database(empty: Built) -> Built:
    return replace(empty, target=replace(empty.target, dbname="nowhere"))


@pytest.mark.parametrize(
    ("change", "exit_code", "expected"),
    [
        (_nobody_there, 75, ["Connection refused", "marquee db start"]),
        (_wrong_password, 1, ["password authentication failed", "profiles.yml"]),
        (_no_database, 1, ['database "nowhere" does not exist', "createdb"]),
    ],
    ids=["no server", "wrong password", "no database"],
)
def test_a_server_that_cannot_be_used(
    empty: Built, change: Callable[[Built], Built], exit_code: int, expected: list[str]
):
    broken = change(empty)
    broken.write_profile()
    for command in (["run"], ["ingest", "brands"]):
        said = _said(broken.marquee(*command, check=False), exit_code)
        assert all(part in said for part in expected), said

    empty.write_profile()
    assert "45 rows" in empty.marquee("ingest", "brands").stdout


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("marquee: [", "cannot be read"),
        ("marquee: {target: dev, outputs: {}}", "'dev'"),
        ("marquee: {target: dev, outputs: {dev: {type: duckdb}}}", "duckdb"),
        ("marquee: {target: dev, outputs: {dev: {type: postgres, host: h}}}", "'port'"),
        ("marquee: {target: \"{{ env_var('GONE') }}\", outputs: {}}", "GONE"),
    ],
)
def test_a_profile_that_cannot_be_read(empty: Built, profile: str, expected: str):
    (empty.folder / "profiles.yml").write_text(profile)
    assert expected in _said(empty.marquee("ingest", "brands", check=False))


@pytest.mark.parametrize("source", ["brands", "releases", "transactions"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no"),
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(range(256)) * 8, ""),
        (b"<!doctype html>\n<title>Sign in</title>\n", ""),
    ],
    ids=["missing", "empty", "binary", "a web page"],
)
def test_a_file_that_is_none(empty: Built, source: str, content: bytes | None, expected: str):
    file = empty.folder / "given.csv"
    if content is not None:
        file.write_bytes(content)
    said = _said(empty.marquee("ingest", source, str(file), check=False))
    assert expected in said
    assert "given.csv" in said

    counts = empty.row_counts()
    assert not any(counts.values()), counts  # nothing of it has landed


@pytest.fixture
def strict() -> Iterator[StandIn]:
    with StandIn.of_sample(token="the-right-one") as server:
        yield server


def test_tmdb_that_answers_401(empty: Built, strict: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMDB_API_TOKEN", "marker-of-a-wrong-token")
    monkeypatch.setenv("SOURCES__TMDB__BASE_URL", strict.base_url)
    done = empty.marquee("ingest", "tmdb", check=False)
    said = _said(done)
    assert "TMDB_API_TOKEN" in said
    assert "marker" not in said + done.stdout
    assert len(strict.requests) == 1  # it stopped at once

    monkeypatch.setenv("TMDB_API_TOKEN", "the-right-one")
    monkeypatch.setenv("SOURCES__TMDB__REQUESTS_PER_SECOND", "0")
    empty.marquee("ingest", "tmdb", "--max-movies", "30")
    assert empty.one("select count(*) from raw_tmdb.movies") == 30


def test_a_taken_port(empty: Built):
    embedded = Server(empty.folder / "state")
    embedded.init(unused_port())
    (empty.folder / "profiles.yml").unlink()
    try:
        with socket.socket() as other:
            other.bind(("127.0.0.1", embedded.target.port))
            other.listen()
            said = _said(empty.marquee("run", check=False))
        assert f"Port {embedded.target.port}" in said
        assert "--port" in said
        assert "45 rows" in empty.marquee("ingest", "brands").stdout
    finally:
        embedded.delete()


def test_a_full_disk(empty: Built):
    """The state folder is a tiny disk: a load without room leaves nothing, and lands later."""
    state = empty.folder / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        file = empty.folder / "big.jsonl"
        empty.marquee("generate", "transactions", "--rows", "3000", "--out", str(file))
        said = _said(empty.marquee("ingest", "transactions", str(file), check=False))
        assert "full" in said or "No space" in said
        assert not any(empty.row_counts().values())

        subprocess.run(["mount", "-o", "remount,size=40m", str(state)], check=True)
        empty.marquee("ingest", "transactions", str(file))
        lines = "select sum(lines_read) from raw_transactions.files"
        assert empty.one(lines) == 3_000
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_debug_shows_where(empty: Built):
    done = empty.marquee("--debug", "ingest", "brands", "nowhere.csv", check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["marquee", "python -m ingestion"])
def test_help_lists_the_commands(empty: Built, command: str):
    said = empty.command(*command.split(), "--help").stdout
    for name in ("db", "ingest", "generate", "run", "doctor", "deps"):
        assert f"\n  {name} " in said


def _raise(error: BaseException) -> None:
    raise error


def _raised(error: BaseException) -> BaseException:
    try:
        _raise(error)
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        *(StopIteration(), RuntimeError(), RuntimeError(" \n "), KeyError(), MemoryError()),
        *(psycopg2.OperationalError(), psycopg2.errors.InsufficientPrivilege(), OSError()),
    ],
    ids=repr,
)
def test_an_error_without_a_word_is_told_all_the_same(error: BaseException):
    """What it is and where it came up: no colon with nothing behind it."""
    first, second = explain(_raised(error)).splitlines()
    assert f"{type(error).__name__} without a word, in _raise (test_cli.py, line" in first
    assert second
    assert error_line(type(error)()) == f"{type(error).__name__} without a word"


def test_an_error_says_its_first_line_that_is_not_empty():
    assert explain(ValueError("\n\n  so it is\nnot")).startswith("ValueError: so it is\n")


def test_dbt_that_stops_without_a_word(empty: Built, monkeypatch: pytest.MonkeyPatch):
    import dbt.cli.main

    class Stops:
        def __init__(self, **_: object) -> None:
            pass

        def invoke(self, _: list[str]) -> dbt.cli.main.dbtRunnerResult:
            return dbt.cli.main.dbtRunnerResult(success=False, exception=_raised(StopIteration()))

    monkeypatch.setattr(dbt.cli.main, "dbtRunner", Stops)
    with pytest.raises(UserError, match="dbt build stopped: StopIteration without a word, in"):
        dbt_runner.dbt("build", empty.target, label="Building")


def test_an_environment_of_an_earlier_version_is_told_to_be_renewed(monkeypatch):
    """It has not all packages, as after a `git pull` without make."""
    for name in ["serving", *(name for name in sys.modules if name.startswith("serving."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ingestion.cli.export", raising=False)
    done = CliRunner().invoke(marquee, ["export", "marts", "--to", "anywhere"])
    assert done.exit_code == 1
    assert done.output.endswith("earlier version.\nRenew it: make setup\n")
