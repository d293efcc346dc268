"""The tables of types in docs/databases.md, line by line, on a real MariaDB and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

pytest.importorskip("sqlalchemy", reason="make test-databases installs it")

from ingestion.databases.asked import Asked, TableAsked
from ingestion.sources import databases
from ingestion.tests import mariadb
from ingestion.tests.conftest import execute
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

_CELL = re.compile(r"`((?:[^`])*)`|``")


@dataclass(frozen=True)
class Line:
    """A line of a table: a type and a value of it, and what it lands as, or why it does not."""

    kind: str
    value: str
    lands_as: str
    there: str


def lines(part: str, columns: int) -> list[Line]:
    text = (PROJECT_DIR / "docs/databases.md").read_text("utf-8")
    section = text.split(f"### {part}\n")[1].split("\n## ")[0].split("\n### ")[0]
    found = []
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        if row.startswith("| `") and len(cells) == columns:
            plain = [cell.split("` (")[0].strip("`") for cell in cells]
            found.append(Line(*plain[:2], plain[2] if columns == 4 else "", plain[-1]))
    return found


def numbered(found: list[Line]) -> list[Any]:
    return [
        pytest.param(number, line, id=ascii(f"{line.kind} {line.value}")[1:50])
        for number, line in enumerate(found, 1)
    ]


MARIADB, POSTGRESQL = "MariaDB and MySQL", "PostgreSQL"


@dataclass
class Landed:
    """What a warehouse holds of the tables ``good`` and ``bad``."""

    target: Target
    notes: list[str]

    def rows(self, query: str) -> list[tuple]:
        with closing(self.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_shop; set timezone to 'UTC'")
            cursor.execute(query)
            return cursor.fetchall()

    def assert_good(self, number: int, line: Line) -> None:
        (kind,) = self.rows(
            "select format_type(atttypid, atttypmod) from pg_attribute"
            f" where attrelid = 'raw_shop.good'::regclass and attname = 'c{number}'"
        )[0]
        assert kind == line.lands_as
        assert self.rows(f"select c{number}::text from good where id = 1") == [(line.there,)]
        assert self.rows(f"select c{number} from good where id = 2") == [(None,)]

    def assert_bad(self, number: int, line: Line) -> None:
        assert self.rows(f"select id from bad where id = {number}") == []
        found = self.rows(
            "select column_name, reason, row_text ->> 'id' from _ingest_rejects"
            f" where table_name = 'bad' and row_text ->> 'id' = '{number}'"
        )
        assert [(column, row) for column, _, row in found] == [(f"c{number}", str(number))]
        assert line.there in found[0][1]
        landed = self.rows("select id from bad order by id")
        assert landed == [(0,)]  # the rows beside them


def statements(part: str) -> list[str]:
    """Tables of all lines: a row with their values and one of nulls; a row for each bad value."""
    good, bad = lines(part, 4), lines(part, 3)
    assert len(good) > 30
    assert len(bad) > 4
    null = " null" if part == MARIADB else ""
    made = []
    for name, table in (("good", good), ("bad", bad)):
        columns = (
            f"c{at} {line.kind.removesuffix(' null')}{null}" for at, line in enumerate(table, 1)
        )
        made.append(f"create table {name} (id bigint primary key, {', '.join(columns)})")
    made.append(f"insert into good values (1, {', '.join(line.value for line in good)})")
    made.append("insert into good (id) values (2)")
    made.append("insert into bad (id) values (0)")
    made += (
        f"insert into bad (id, c{at}) values ({at}, {line.value})" for at, line in enumerate(bad, 1)
    )
    return made


def land(url: str, target: Target, folder: Path) -> Landed:
    from ingestion.pipeline import make_pipeline

    pipeline = make_pipeline("shop", target, folder, replace_strategy="insert-from-staging")
    tables = TableAsked("good"), TableAsked("bad")
    report = databases.ingest(Asked(url, "shop", None, tables), target, pipeline)
    return Landed(target, report.notes)


@pytest.fixture(scope="module")
def warehouses(target: Target) -> Iterator[list[Target]]:
    names = [sql.Identifier(f"test_types_{at}") for at in range(3)]
    for name in names:
        execute(target, sql.SQL("create database {} template template0").format(name))
    yield [replace(target, dbname=name.string) for name in names]
    for name in names:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture(scope="module")
def from_mariadb(warehouses: list[Target], tmp_path_factory: Any) -> Iterator[Landed]:
    if why := mariadb.missing():
        pytest.skip(why)
    with mariadb.running() as server:
        server.execute(*statements(MARIADB))
        yield land(server.url, warehouses[0], tmp_path_factory.mktemp("dlt"))


@pytest.fixture(scope="module")
def from_postgresql(warehouses: list[Target], tmp_path_factory: Any) -> Landed:
    shop = warehouses[1]
    with (
        closing(shop.connect(timezone="Europe/Paris")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("create type mood as enum ('sad', 'happy')")
        cursor.execute("create domain positive as numeric(9,3) check (value > 0)")
        cursor.execute("create domain flag as boolean")
        for statement in statements(POSTGRESQL):
            cursor.execute(statement)
        connection.commit()
    return land(shop.url, warehouses[2], tmp_path_factory.mktemp("dlt"))


@pytest.mark.parametrize(("number", "line"), numbered(lines(MARIADB, 4)))
def test_a_type_of_mariadb_arrives(number: int, line: Line, from_mariadb: Landed) -> None:
    from_mariadb.assert_good(number, line)


@pytest.mark.parametrize(("number", "line"), numbered(lines(POSTGRESQL, 4)))
def test_a_type_of_postgresql_arrives(number: int, line: Line, from_postgresql: Landed) -> None:
    from_postgresql.assert_good(number, line)


@pytest.mark.parametrize(("number", "line"), numbered(lines(MARIADB, 3)))
def test_a_bad_value_of_mariadb_costs_its_row(
    number: int, line: Line, from_mariadb: Landed
) -> None:
    from_mariadb.assert_bad(number, line)


@pytest.mark.parametrize(("number", "line"), numbered(lines(POSTGRESQL, 3)))
def test_a_bad_value_of_postgresql_costs_its_row(
    number: int, line: Line, from_postgresql: Landed
) -> None:
    from_postgresql.assert_bad(number, line)
