"""What PostgreSQL refuses is told with the right that is missing; a server that went, with why."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from psycopg2 import sql

from ingestion.cli import explain
from ingestion.errors import UserError
from ingestion.pipeline import refusals
from ingestion.sources import brands
from ingestion.tests.conftest import execute, unused_port
from ingestion.tests.test_server import scratch_server, wait_for
from ingestion.warehouse import state
from ingestion.warehouse.target import Target


@pytest.fixture
def guest(database: Target) -> Iterator[Target]:
    """A login that owns nothing in a database where others own something."""
    name = f"guest_{database.dbname}"
    for statement in (
        "create role {} login password 'x'",
        "create schema theirs",
        "create table public.theirs as select 1 as one",
        "grant usage on schema public to {}",
    ):
        execute(database, sql.SQL(statement).format(sql.Identifier(name)))
    yield replace(database, user=name, password="x")
    for statement in ("drop owned by {} cascade", "drop role {}"):
        execute(database, sql.SQL(statement).format(sql.Identifier(name)))


@pytest.mark.parametrize(
    "statement",
    [
        "create schema mine",
        "create table theirs.mine (one int)",
        "select * from public.theirs",
        "drop table public.theirs",
        "alter table public.theirs add column two int",
        "drop schema theirs",
    ],
)
def test_the_right_that_is_missing_is_named_and_helps(
    guest: Target, database: Target, statement: str
) -> None:
    with closing(guest.connect()) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege) as caught:
            cursor.execute(statement)
        said = explain(caught.value)
    assert said.count("\n") == 1
    command = re.search(r"superuser: (.*;)$", said)[1]
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(command)
        connection.commit()
    with closing(guest.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_load_is_told_too(guest: Target, database: Target, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("ingestion.pipeline.STATE_DIR", tmp_path)
    execute(database, sql.SQL("create schema raw_brands"))
    with pytest.raises(Exception, match="permission denied") as caught:
        brands.ingest_brands(None, guest)
    said = explain(caught.value)
    assert f"on schema raw_brands to {guest.user};" in said.splitlines()[1]


@pytest.mark.parametrize(
    ("how", "told"),
    [("stop", "was stopped"), ("kill", "was killed meanwhile"), ("process", "signal 9")],
)
def test_a_server_that_went_away_is_told_with_why(
    how: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    with scratch_server() as server:
        monkeypatch.setattr(state, "STATE_DIR", server.home)
        server.start(unused_port())
        connection = server.target.connect()
        if how == "stop":
            server.stop()
        elif how == "kill":
            os.kill(server.pid, signal.SIGKILL)
            wait_for(lambda: not server.running)
        else:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            wait_for(lambda: "signal 9" in server.log.read_text())
        with pytest.raises(psycopg2.Error) as caught:
            connection.cursor().execute("select 1")
        assert told in explain(caught.value)
        with pytest.raises(UserError, match=told), refusals("brands"):
            raise caught.value


def test_a_full_disk_is_told_from_the_servers_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    with scratch_server() as server:
        monkeypatch.setattr(state, "STATE_DIR", server.home)
        server.start(unused_port())
        lost = psycopg2.OperationalError("server closed the connection unexpectedly")
        assert "went away" in explain(lost)
        with closing(server.target.connect()) as connection, connection.cursor() as cursor:
            # as a server whose WAL finds no room: it says so in its log, to nobody else
            cursor.execute("do $$ begin raise log 'No space left on device'; end $$")
        assert "disk of the embedded PostgreSQL is full" in explain(lost)
