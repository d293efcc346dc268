"""What programs read of a command: its exit code, its lines as JSON, its one document."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import psycopg2
import pytest
import requests

from ingestion.errors import PassingError, UserError, is_passing
from ingestion.tests.built import Built
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.tests.test_evidence import HELD, RUN, file_of, line
from ingestion.tests.test_torture import Site, outcome
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

SHAPE = {"time", "level", "event", "run_id", "logger", "message"}


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with copy_of(built, target, tmp_path_factory.mktemp("faults"), kind=Site) as copy:
        yield copy


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[Site, Server]]:
    """A warehouse on a server that a test stops; for marquee it is a user's own."""
    home = reachable_folder()
    server = Server(home / "server")
    server.start(unused_port())
    site = Site(server.target, tmp_path)
    site.write_profile()
    site.marquee("deps")
    try:
        yield site, server
    finally:
        server.delete()
        shutil.rmtree(home)


def documents(text: str) -> list[dict]:
    return [json.loads(each) for each in text.splitlines()]


def test_a_stopped_server_passes(away: tuple[Site, Server], tmp_path: Path):
    site, server = away
    site.marquee("ingest", "brands")
    server.stop()
    file = str(file_of(tmp_path, line()))
    for command in (
        ("ingest", "brands"),
        ("ingest", "transactions", file),
        ("ingest", "tmdb"),
        ("rejects",),
        ("run",),
        ("export", "marts", "--to", str(tmp_path / "out")),
        ("dbt", "run", "--select", "dim_genre"),
        ("dbt", "source", "freshness"),
    ):
        done = site.marquee(*command, check=False)
        assert done.returncode == 75, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    done = site.marquee("run", "--json", check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["exit_code"]) == (75, "failed", 75)
    assert found["error"] in done.stderr
    assert [(step["step"], step["status"]) for step in found["steps"]] == [
        ("Start PostgreSQL", "failed")
    ]


def test_a_server_that_is_killed_meanwhile_passes(away: tuple[Site, Server], tmp_path: Path):
    site, server = away
    file = str(file_of(tmp_path, line()))
    site.marquee("ingest", "transactions", file)
    site.marquee("ingest", "brands")
    site.dbt("seed", "--select", "transaction_statuses")
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "lock table raw_transactions.files, seeds.transaction_statuses in access exclusive mode"
        )
        load = site.start("marquee", "ingest", "transactions", str(file_of(tmp_path, line())))
        site.wait_until_held(load)
        build = site.start("marquee", "dbt", "seed", "--select", "transaction_statuses")
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        while site.one(waiting) < 2:
            assert build.poll() is None, outcome(build)
        assert server.pid
        postmaster = psutil.Process(server.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        said = [outcome(load), outcome(build)]
        assert (load.returncode, build.returncode) == (75, 75), said


def test_busy_passes(site: Site, tmp_path: Path):
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"lock table {HELD} in access exclusive mode")
        cursor.execute("lock table raw_transactions.files in share mode")  # others may read it
        load = site.start("marquee", "ingest", "transactions", str(file_of(tmp_path, line())))
        site.wait_until_held(load)
        other = site.marquee("ingest", "transactions", str(file_of(tmp_path, line())), check=False)
        build = site.start(*RUN)
        begun = "select count(*) from staging.build_lease"
        while not site.one(begun):
            assert build.poll() is None, outcome(build)
        second = site.marquee("dbt", *RUN[1:], check=False)
        run = site.marquee("run", "--json", check=False)
        connection.rollback()
        said = outcome(load), outcome(build)
    assert (load.returncode, build.returncode) == (0, 0), said
    assert (other.returncode, second.returncode) == (75, 75), (other.stderr, second.stdout)
    assert "Another load of transactions is running" in other.stderr
    assert "Another dbt run has been running" in second.stdout + second.stderr
    found = json.loads(run.stdout)
    assert (run.returncode, found["exit_code"]) == (75, 75)
    assert "running" in found["error"]


def test_what_does_not_pass_is_one_and_misuse_is_two(site: Site, tmp_path: Path):
    broken = file_of(tmp_path, "not a line", "nor this")
    wrong = Site(replace(site.target, dbname="nowhere"), tmp_path / "wrong")
    wrong.folder.mkdir()
    wrong.write_profile()
    for place, command, code in (
        (site, ("ingest", "transactions", str(broken)), 1),
        (site, ("ingest", "transactions", "/nowhere.csv"), 1),
        (wrong, ("ingest", "brands"), 1),
        (site, ("ingest", "transactions"), 2),
        (site, ("ingest", "brands", "--nothing"), 2),
        (site, ("--log-format", "xml", "ingest", "brands"), 2),
        (site, ("dbt", "run", "--select", "dim_genre", "--vars", "{transactions_max_amount: "), 2),
    ):
        done = place.marquee(*command, check=False)
        assert done.returncode == code, (command, done.stdout, done.stderr)
    site.execute("alter table marts.dim_city rename to aside; create sequence marts.dim_city")
    try:
        assert site.marquee("dbt", "run", "--select", "dim_city", check=False).returncode == 1
    finally:
        site.execute("drop sequence marts.dim_city; alter table marts.aside rename to dim_city")


class Odd(BaseHTTPRequestHandler):
    """Answers with the code that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def raised(call) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def hidden(error: BaseException) -> None:
    """What readers of others' databases do: their errors may hold a password."""
    told = UserError("It cannot be read.\nCheck it.")
    told.__context__ = error
    raise told from None


def s3(port: int) -> None:
    import s3fs

    options = {"connect_timeout": 1, "retries": {"max_attempts": 1}}
    store = s3fs.S3FileSystem(
        key="a", secret="b", endpoint_url=f"http://127.0.0.1:{port}", config_kwargs=options
    )
    store.ls("bucket")


def test_errors_of_networks_pass_and_others_do_not(http: str, target: Target):
    port = unused_port()
    passing = {
        "http": lambda: requests.get(f"http://127.0.0.1:{port}", timeout=1),
        "429": lambda: requests.get(f"{http}/429", timeout=5).raise_for_status(),
        "503": lambda: requests.get(f"{http}/503", timeout=5).raise_for_status(),
        "socket": lambda: socket.create_connection(("127.0.0.1", port)),
        "postgres": lambda: psycopg2.connect(host="127.0.0.1", port=port),
        "s3": lambda: s3(port),
    }
    for name, call in passing.items():
        error = raised(call)
        assert is_passing(error), (name, error)
        with pytest.raises(UserError) as told:
            hidden(error)
        assert told.value.exit_code == 75, name
    staying = {
        "404": lambda: requests.get(f"{http}/404", timeout=5).raise_for_status(),
        "401": lambda: requests.get(f"{http}/401", timeout=5).raise_for_status(),
        "file": lambda: Path("/nowhere").read_text(),
        "password": lambda: replace(target, password="wrong", user="nobody").connect(),
        "database": lambda: replace(target, dbname="connection refused").connect(),
    }
    for name, call in staying.items():
        error = raised(call)
        assert not is_passing(error), (name, error)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert not is_passing(full)
    assert PassingError("Busy.\nWait.").exit_code == 75


def test_states_of_postgres_pass(site: Site):
    for state in ("55P03", "40001", "40P01", "57P01", "53300"):
        text = f"do $$ begin raise exception 'x' using errcode = '{state}'; end $$"
        assert is_passing(raised(lambda text=text: site.execute(text))), state
    for state in ("22012", "42501", "23505", "57014", "53100"):
        text = f"do $$ begin raise exception 'lock timeout' using errcode = '{state}'; end $$"
        error = raised(lambda text=text: site.execute(text))
        assert not is_passing(error), state


def test_every_line_is_json_in_one_shape(site: Site, tmp_path: Path):
    site.variables |= {
        "MARQUEE_RUN_ID": "nightly-7",
        "RUNTIME__LOG_LEVEL": "INFO",
        "MARQUEE_LOG_FORMAT": "json",
    }
    file = file_of(tmp_path, line(), '{"amount": "\x1b[31m"}')
    try:
        done = [
            site.marquee("--log-format", "json", "ingest", "tmdb", "--max-movies", "3"),
            site.marquee("ingest", "transactions", str(file)),
            site.marquee("dbt", "test", "--select", "dim_genre"),
            site.marquee("ingest", "transactions", "/nowhere", check=False),
            site.marquee("ingest", "transactions", check=False),
            site.marquee("doctor", check=False),
        ]
    finally:
        site.variables.clear()
    lines = [each for one in done for each in documents(one.stdout + one.stderr)]
    assert all(each.keys() >= SHAPE for each in lines)
    assert {each["run_id"] for each in lines} == {"nightly-7"}
    assert {each["logger"] for each in lines} >= {"marquee", "dbt", "dlt"}
    assert {each["level"] for each in lines} <= {"debug", "info", "warning", "error"}
    landed = [each for each in lines if each["event"] == "landed"]
    assert {"source": "transactions", "table": "transactions", "rows": 1}.items() <= (
        next(each for each in landed if each["table"] == "transactions").items()
    )
    results = [each for each in lines if each["event"] == "LogTestResult"]
    assert results
    assert all(each["node"].startswith("test.marquee.") for each in results)
    failed = [each for each in lines if each["event"] == "failed"]
    assert [each["exit_code"] for each in failed] == [1]
    assert all(each["time"].endswith("Z") for each in lines)


def test_a_run_is_one_document(built: Built):
    done = built.marquee("run", "--json")
    found = json.loads(done.stdout)
    assert (found["status"], found["exit_code"], found["error"]) == ("succeeded", 0, None)
    assert len(found["steps"]) == 9
    assert all(step["status"] == "succeeded" for step in found["steps"])
    assert found["rows_landed"]["raw_transactions.transactions"] == 0
    assert "tests passed" in found["built"]
    assert {rule["reason"] for rule in found["transactions_marked"]} >= {"unknown_status"}
    assert built.rows(
        f"select status from ops.invocations where run_id = '{found['run_id']}' and command = 'run'"
    ) == [("succeeded",)]
    assert "Built " in done.stderr
