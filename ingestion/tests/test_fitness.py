"""What cannot be the warehouse is refused before anything lands; text arrives as it was sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg2 import sql

from ingestion import doctor
from ingestion.errors import UserError
from ingestion.sources import brands, transactions
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute, unused_port
from ingestion.tests.test_server import scratch_server
from ingestion.warehouse.fitness import refuse_unfit
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.programs import client
from ingestion.warehouse.target import Target

ID = "0d3b7a52-5d0c-4a37-8f0e-3f1f3f6f0c11"
LINE = {"event_ts": "2026-01-01T00:00:00Z", "user_id": "1", "amount": 1, "merchant": "Café Ω"}


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def foreign(request: pytest.FixtureRequest, target: Target) -> Iterator[Target]:
    """A database in another encoding."""
    name = f"test_{request.param.lower()}"
    create = "create database {} encoding %s locale_provider libc locale 'C' template template0"
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql.SQL(create).format(sql.Identifier(name)), (request.param,))
    try:
        yield replace(target, dbname=name)
    finally:
        for one in (name, f"{name}_utf8"):
            drop = sql.SQL("drop database if exists {} with (force)")
            execute(target, drop.format(sql.Identifier(one)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"transaction_id": ID, **LINE}, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.pipeline.STATE_DIR", tmp_path / "state")


def schemas(target: Target) -> list[str]:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select nspname from pg_namespace where nspname like 'raw%'")
        return [name for (name,) in cursor]


def landed(target: Target) -> str:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select merchant from raw_transactions.transactions")
        return cursor.fetchone()[0]


def test_another_encoding_is_refused_and_the_remedy_works(foreign: Target, file: Path) -> None:
    for land in (
        lambda: transactions.ingest([file], foreign),
        lambda: brands.ingest_brands(None, foreign),
        lambda: brands.ingest_releases(None, foreign),
    ):
        with pytest.raises(UserError, match=r"cannot hold every letter.\n.*createdb -h") as caught:
            land()
        assert caught.value.message.count("\n") == 1
    assert schemas(foreign) == []
    checked = {check.name: check for check in doctor.checks(lambda: foreign)}["server"]
    assert (checked.ok, "createdb" in checked.remedy) == (False, True)

    command = re.search(r"createdb .*", caught.value.message)[0].split()
    done = subprocess.run(
        [str(client("createdb")), *command[1:]],
        env={"PGPASSWORD": foreign.password},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    better = replace(foreign, dbname=command[-1])
    transactions.ingest([file], better)
    assert landed(better) == LINE["merchant"]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252"])
def test_text_is_sent_as_utf8_whatever_the_environment_says(
    encoding: str, database: Target, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    transactions.ingest([file], database)
    assert landed(database) == LINE["merchant"]


def test_the_command_refuses_in_two_lines(foreign: Target, file: Path, tmp_path: Path) -> None:
    (tmp_path / "profiles.yml").write_text((PROJECT_DIR / "profiles.yml.example").read_text())
    environment = os.environ | foreign.libpq_env() | {"DBT_PROFILES_DIR": str(tmp_path)}
    environment |= {"MARQUEE_STATE_DIR": str(tmp_path / "state")}
    for command in (["run"], ["ingest", "transactions", str(file)], ["ingest", "tmdb"]):
        done = subprocess.run(
            [sys.executable, "-m", "ingestion", *command],
            cwd=PROJECT_DIR,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert re.fullmatch(r"Error: Nothing can land .*\n.*createdb .*\n", done.stderr), (
            done.stderr
        )
    assert schemas(foreign) == []


def test_dbt_alone_refuses_it_too(foreign: Target, tmp_path: Path) -> None:
    """Before it makes anything: texts are normalised in UTF8 only."""
    warehouse = Built(foreign, tmp_path)
    warehouse.write_profile()
    done = warehouse.dbt("build", "--select", "dim_date", check=False)
    assert done.returncode
    encoding = foreign.dbname.removeprefix("test_").upper()
    assert f"is in {encoding}, which cannot hold every letter" in done.stdout
    assert f"createdb -E UTF8 -T template0 {foreign.dbname}_utf8" in done.stdout
    # but for the schema of what is selected, which dbt makes before any hook
    assert warehouse.rows("select 1 from pg_tables where schemaname = 'marts'") == []


def test_a_database_that_can_only_be_read_is_refused(database: Target, file: Path) -> None:
    alter = sql.SQL("alter database {} set default_transaction_read_only = on")
    execute(database, alter.format(sql.Identifier(database.dbname)))
    with pytest.raises(UserError, match=r"default_transaction_read_only is on"):
        transactions.ingest([file], database)


def test_a_standby_is_refused() -> None:
    """A server that follows another one and answers questions meanwhile."""
    with scratch_server() as standby:
        standby.init(unused_port())
        (standby.data / "standby.signal").touch()
        with (standby.data / "postgresql.conf").open("a") as configuration:
            configuration.write("hot_standby = on\nprimary_conninfo = 'host=127.0.0.1 port=1'\n")
            configuration.write(
                "wal_level = replica\nmax_wal_senders = 10\nmax_connections = 100\n"
            )
        standby.start()
        with (
            closing(standby.target.connect()) as connection,
            pytest.raises(UserError, match="standby"),
        ):
            refuse_unfit(connection, standby.target)
