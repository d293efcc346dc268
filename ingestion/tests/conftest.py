"""A real PostgreSQL for the tests, and an environment without the developer's own settings.

By default the server is an embedded one in a temporary folder, made and removed by the session.
``MARQUEE_TEST_URL=postgresql://user:password@host:port/dbname`` takes another one, whose user must
be allowed to create databases.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from psycopg2 import sql

from ingestion.tests.built import Built
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

os.environ.pop("PYTHONUNBUFFERED", None)  # programs started here buffer as they do for users
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)

FOREIGN = ("PG", "DBT_", "TMDB_")  # beginnings of variables that would lead tests elsewhere


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    if "PYTEST_XDIST_WORKER" in os.environ:  # several use the checkout at once
        monkeypatch.setenv("DBT_TARGET_PATH", str(home / "target"))
        monkeypatch.setenv("DBT_LOG_PATH", str(home / "logs"))


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """A PostgreSQL server for this session of tests."""
    if url := os.environ.get("MARQUEE_TEST_URL"):
        parts = urlsplit(url)
        yield Target(
            name="test",
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            dbname=unquote(parts.path.lstrip("/")) or "postgres",
            schema="dev",
        )
        return
    home = reachable_folder()
    server = Server(home / "server")
    try:
        server.start(unused_port())
        yield server.target
    finally:
        server.delete()
        shutil.rmtree(home)


@pytest.fixture
def database(target: Target) -> Iterator[Target]:
    """A fresh, empty database on the session's server, dropped afterwards whoever is connected."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    execute(target, sql.SQL("create database {} template template0").format(name))
    try:
        yield replace(target, dbname=name.string)
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


def reachable_folder() -> Path:
    """A temporary folder that PostgreSQL's user can enter too when the tests run as root.

    In memory where there is room, which makes throw-away servers several times quicker.
    """
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.exists() and shutil.disk_usage(memory).free > 2 * 1024**3
    place = memory if roomy else Path(tempfile.gettempdir())
    remove_left(place)
    folder = Path(tempfile.mkdtemp(prefix=f"marquee-test-{os.getpid()}-", dir=place))
    folder.chmod(0o711)
    return folder


def remove_left(place: Path) -> None:
    """Remove the servers of tests that were killed: each holds about a gigabyte of memory."""
    for folder in place.glob("marquee-test-*-*"):
        try:
            os.kill(int(folder.name.split("-")[2]), 0)
        except ProcessLookupError:
            with suppress(Exception):  # another process removes it, too
                Server(folder / "server").delete()
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, PermissionError):
            pass  # of somebody else


def unused_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, away from where real servers begin."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def execute(target: Target, statement: sql.Composable) -> None:
    connection = target.connect()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def query_of(database: Target) -> Callable[[str], list[tuple]]:
    """Asks a database about raw transactions."""

    def run(text: str) -> list[tuple]:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_transactions; set timezone to 'UTC'")
            cursor.execute(text)
            return cursor.fetchall()

    return run


@pytest.fixture(scope="session")
def built(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """A database that ``marquee run`` has filled once, on the session's server."""
    name = sql.Identifier("test_built")
    execute(target, sql.SQL("create database {} template template0").format(name))
    folder = tmp_path_factory.mktemp("built")
    folder.chmod(0o700)
    warehouse = Built(replace(target, dbname=name.string), folder)
    try:
        warehouse.write_profile()
        warehouse.first_run = warehouse.run()
        yield warehouse
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))
