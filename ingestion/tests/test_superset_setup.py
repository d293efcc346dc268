"""What `marquee superset` does before Superset itself: logins, its database, its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bi.superset import service
from bi.superset.database import DATABASE
from bi.superset.service import Superset
from ingestion.errors import UserError
from ingestion.warehouse.target import Target


@pytest.fixture
def place(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Superset]:
    """Superset to be, over a server of the user's own, with its state in a temporary folder."""
    monkeypatch.setattr(service, "STATE_DIR", tmp_path)
    monkeypatch.delenv("MARQUEE_REPORTER_PASSWORD", raising=False)
    yield Superset(target)
    execute(target, f"drop database if exists {DATABASE} with (force)")


def execute(target: Target, statement: str):
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def test_the_reporters_password_is_asked_for_once(place: Superset, monkeypatch):
    assert place.reader() == place.target  # nobody said it
    monkeypatch.setenv("MARQUEE_REPORTER_PASSWORD", "from the user")
    expected = replace(place.target, user="marquee_reporter", password="from the user")
    assert place.reader() == expected
    monkeypatch.delenv("MARQUEE_REPORTER_PASSWORD")
    assert place.reader() == expected
    assert place.state_file.stat().st_mode & 0o777 == 0o600


def test_its_database_and_its_key_are_made_once(place: Superset):
    place.make_database()
    key = place.state["secret_key"]
    place.make_database()
    assert place.state["secret_key"] == key
    assert place.state_file.stat().st_mode & 0o777 == 0o600
    may = f"select has_database_privilege('pg_monitor', '{DATABASE}', 'connect')"
    assert execute(place.target, may) is False  # nor may the reporter


def test_a_superset_whose_key_is_not_here_is_left_alone(place: Superset):
    place.make_database()
    execute(place.metadata, "create table ab_user (id integer)")
    place.state_file.unlink()
    with pytest.raises(UserError, match="secret key is not in") as refused:
        place.make_database()
    assert len(refused.value.message.splitlines()) <= 3
    assert execute(place.metadata, "select count(*) from ab_user") == 0


def test_a_key_that_the_environment_says_needs_no_state(place: Superset, monkeypatch):
    """As in a container, whose volume may be empty each time."""
    monkeypatch.setenv("MARQUEE_SUPERSET_SECRET_KEY", "from the user")
    place.make_database()
    execute(place.metadata, "create table ab_user (id integer)")
    place.make_database()
    assert place._env()["MARQUEE_SUPERSET_SECRET_KEY"] == "from the user"
    assert not place.state_file.exists()


def test_a_login_that_may_not_make_databases_is_told_what_to_do(place: Superset):
    execute(place.target, "create role humble login password 'humble'")
    try:
        humble = Superset(replace(place.target, user="humble", password="humble"))
        with pytest.raises(UserError, match="create database superset owner humble"):
            humble.make_database()
    finally:
        execute(place.target, "drop role humble")


def test_without_superset_it_says_how_to_get_it(place: Superset, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "ENVIRONMENT", tmp_path)
    with pytest.raises(UserError, match="make superset"):
        place.prepare()


def test_before_the_first_build_it_says_what_is_missing(place: Superset, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setattr(service, "ENVIRONMENT", tmp_path)
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="make run"):
        place.prepare()


def test_before_the_set_up_there_is_nothing_to_export_nor_to_log_in_to(place: Superset):
    for ask in (place.export, place.new_password):
        with pytest.raises(UserError, match="has not been set up yet"):
            ask()
