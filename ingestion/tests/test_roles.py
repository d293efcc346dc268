"""Loader, transformer, reporter: what each may do, by real logins, after rebuilds of all kinds."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg2
import pytest
from psycopg2 import sql

from ingestion.tests.built import Built
from ingestion.tests.conftest import _execute
from ingestion.warehouse import ROLES, Target

SECRET = "a secret of the tests"
RELATIONS = (
    "select schemaname, tablename from pg_tables union all"
    " select schemaname, viewname from pg_views"
)


class Warehouse:
    """A database with roles of its own names, and a way to act as each of them."""

    def __init__(self, admin: Target, folder: Path) -> None:
        self.names = {role: f"test_{role}_{uuid.uuid4().hex[:8]}" for role in ROLES}
        self.vars = json.dumps({f"{role}_role": name for role, name in self.names.items()})
        self.folder = folder
        self.admin = self._at(admin, "admin")

    def _at(self, target: Target, name: str) -> Built:
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True)
        one = Built(target, folder)
        one.write_profile()
        return one

    def make_roles(self) -> None:
        self.admin.dbt("run-operation", "make_roles", "--vars", self.vars)

    def let_in(self) -> None:
        """Give every role a password, as an administrator would."""
        for role, name in self.names.items():
            statement = sql.SQL("alter role {} login password {}")
            statement = statement.format(sql.Identifier(name), sql.Literal(SECRET))
            _execute(self.admin.target, statement)
            login = replace(self.admin.target, user=name, password=SECRET)
            setattr(self, role, self._at(login, role))

    def dbt(self, *args: str) -> None:
        """dbt as the transformer."""
        self.transformer.dbt(*args, "--vars", self.vars)

    def drop_roles(self) -> None:
        for name in self.names.values():
            for statement in ("drop owned by {} cascade", "drop role {}"):
                _execute(self.admin.target, sql.SQL(statement).format(sql.Identifier(name)))


def readable(one: Built) -> set[tuple[str, str]]:
    """Every relation of the database that a login can read, found by reading it."""
    found = set()
    for schema, table in one.rows(f"select * from ({RELATIONS}) as r where schemaname !~ '^pg_'"):
        if schema != "information_schema":
            try:
                one.rows(f'select * from "{schema}"."{table}" limit 1')
                found.add((schema, table))
            except psycopg2.errors.InsufficientPrivilege:
                pass
    return found


def relations(one: Built, *schemas: str) -> set[tuple[str, str]]:
    return {row for row in one.rows(RELATIONS) if row[0] in schemas}


@pytest.fixture(scope="module")
def warehouse(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A copy of the built database, with roles made when all of it stood already."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    template = sql.Identifier(built.target.dbname)
    statement = sql.SQL("create database {} template {}").format(name, template)
    server = replace(built.target, dbname="postgres")
    _execute(server, statement)
    folder = tmp_path_factory.mktemp("roles")
    one = Warehouse(replace(built.target, dbname=name.string), folder)
    try:
        one.make_roles()
        one.let_in()
        yield one
    finally:
        one.drop_roles()
        _execute(server, sql.SQL("drop database {} with (force)").format(name))


def test_the_reporter_reads_marts_only(warehouse: Warehouse):
    marts = relations(warehouse.admin, "marts")
    assert len(marts) >= 18
    assert readable(warehouse.reporter) == marts


@pytest.mark.parametrize(
    "statement",
    [
        "insert into marts.dim_city select * from marts.dim_city",
        "drop table marts.dim_city",
        "create table marts.mine (a int)",
        "create schema mine",
    ],
)
def test_the_reporter_changes_nothing(warehouse: Warehouse, statement: str):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        warehouse.reporter.execute(statement)


def test_the_reporter_exports_every_mart_as_it_is(warehouse: Warehouse, tmp_path: Path):
    warehouse.reporter.marquee("export", "marts", "--to", str(tmp_path / "out"))
    exported = tmp_path / "out" / "latest"
    marts = relations(warehouse.admin, "marts")
    assert {path.name for path in exported.iterdir() if path.is_dir()} == {
        name for _, name in marts
    }
    for schema, name in marts:
        listed = warehouse.reporter.rows(
            "select attname from pg_attribute where attnum > 0 and not attisdropped"
            f" and attrelid = '{schema}.{name}'::regclass order by attnum"
        )
        columns = ", ".join(f'"{column}"' for (column,) in listed)
        files = f"read_parquet('{exported}/{name}/**/*.parquet', hive_partitioning = true)"
        found = duckdb.sql(f"select {columns} from {files}").fetchall()
        expected = warehouse.reporter.rows(f"select {columns} from {schema}.{name}")
        assert Counter(found) == Counter(expected), name


def test_rebuilds_of_every_kind_keep_the_marts_readable(warehouse: Warehouse):
    """The transformer does them all: it owns what was built before there were roles."""
    marts = relations(warehouse.admin, "marts")
    tables = "select tablename, tableowner from pg_tables where schemaname = 'marts'"
    rebuilt = {(name, warehouse.names["transformer"]) for _, name in marts}

    warehouse.dbt("run", "--select", "marts")
    assert readable(warehouse.reporter) == marts
    assert set(warehouse.admin.rows(tables)) == rebuilt

    warehouse.dbt("run", "--select", "marts", "--full-refresh")
    assert readable(warehouse.reporter) == marts

    warehouse.transformer.execute("drop schema marts cascade")
    warehouse.dbt("build")
    assert readable(warehouse.reporter) == marts

    # the administrator builds, too; making the roles again hands that over, too
    warehouse.admin.dbt("run", "--select", "dim_city", "--vars", warehouse.vars)
    assert readable(warehouse.reporter) == marts
    warehouse.make_roles()
    assert set(warehouse.admin.rows(tables)) == rebuilt


def test_a_grant_that_was_taken_away_stays_away_until_the_next_build(warehouse: Warehouse):
    """What makes the marts readable is the build, not something that was there before."""
    name = sql.Identifier(warehouse.names["reporter"])
    for statement in (
        "revoke all on all tables in schema marts from {}",
        "revoke all on schema marts from {}",
    ):
        _execute(warehouse.transformer.target, sql.SQL(statement).format(name))
    assert readable(warehouse.reporter) == set()
    warehouse.dbt("run", "--select", "dim_city", "fct_transactions")
    assert readable(warehouse.reporter) == {("marts", "dim_city"), ("marts", "fct_transactions")}
    warehouse.make_roles()
    assert readable(warehouse.reporter) == relations(warehouse.admin, "marts")


@pytest.fixture
def owned(database: Target) -> Iterator[Target]:
    """An empty database whose owner is no superuser but may make roles, as with hosted servers."""
    user = sql.Identifier(f"owner_{database.dbname}")
    make = sql.SQL("create role {} login createrole password {}")
    _execute(database, make.format(user, sql.Literal(SECRET)))
    give = sql.SQL("alter database {} owner to {}")
    _execute(database, give.format(sql.Identifier(database.dbname), user))
    try:
        yield replace(database, user=user.string, password=SECRET)
    finally:
        give_back = give.format(sql.Identifier(database.dbname), sql.Identifier(database.user))
        _execute(database, give_back)
        _execute(database, sql.SQL("drop owned by {} cascade").format(user))
        _execute(database, sql.SQL("drop role {}").format(user))


@pytest.fixture
def line() -> Callable[[int], str]:
    def make(user: int) -> str:
        return (
            json.dumps(
                {
                    "transaction_id": f"0b9f3c1e-5a4d-4c3b-9f2e-{user:012}",
                    "event_ts": "2024-03-01T12:00:00Z",
                    "user_id": user,
                    "amount": 12.5,
                }
            )
            + "\n"
        )

    return make


def test_each_does_its_part_on_a_server_of_ones_own(owned, database, tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text(line(1))
    warehouse = Warehouse(owned, tmp_path / "w")
    try:
        # what one login landed before there were roles is handed over
        warehouse.admin.marquee("ingest", "transactions", str(file))
        warehouse.make_roles()
        warehouse.make_roles()
        warehouse.let_in()

        file.write_text(line(1) + line(2))
        warehouse.loader.marquee("ingest", "transactions", str(file))
        warehouse.loader.marquee("ingest", "brands")
        warehouse.loader.marquee("ingest", "releases")
        warehouse.loader.marquee("ingest", "tmdb", "--max-movies", "20")
        assert warehouse.loader.one("select count(*) from raw_transactions.transactions") == 2
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.loader.execute("create schema mine")
        assert warehouse.loader.marquee("doctor", check=False).returncode == 0

        raw = relations(warehouse.admin, "raw_transactions", "raw_brands", "raw_tmdb")
        assert readable(warehouse.transformer) == raw
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.transformer.execute("delete from raw_transactions.transactions")
        warehouse.dbt("seed")
        warehouse.dbt("run", "--select", "+daily_transactions")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.loader.execute("delete from marts.daily_transactions")
        assert readable(warehouse.loader) == raw | relations(warehouse.admin, "raw_tmdb_staging")
        marts = relations(warehouse.admin, "marts")
        assert ("marts", "daily_transactions") in marts
        assert readable(warehouse.reporter) == marts
        # the one who made the roles goes on as before
        file.write_text(line(1) + line(2) + line(3))
        warehouse.admin.marquee("ingest", "transactions", str(file))
        warehouse.admin.dbt("run", "--select", "+fct_transactions", "--vars", warehouse.vars)
        assert warehouse.reporter.one("select count(*) from marts.fct_transactions") == 3
    finally:
        admin, warehouse.admin = warehouse.admin, Built(database, tmp_path)
        warehouse.drop_roles()
        warehouse.admin = admin


def test_without_roles_a_build_grants_nothing_and_passes(built: Built):
    nobody = json.dumps({"reporter_role": f"nobody_{uuid.uuid4().hex[:8]}"})
    built.dbt("run", "--select", "dim_city", "--vars", nobody)


def test_a_login_that_may_not_make_roles_is_told(database: Target, tmp_path: Path):
    user = sql.Identifier(f"plain_{database.dbname}")
    make = sql.SQL("create role {} login password {}").format(user, sql.Literal(SECRET))
    _execute(database, make)
    try:
        one = Built(replace(database, user=user.string, password=SECRET), tmp_path)
        one.write_profile()
        done = one.marquee("db", "roles", check=False)
        assert done.returncode == 1
        assert f"alter role {user.string} createrole" in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    finally:
        _execute(database, sql.SQL("drop role {}").format(user))


def test_elsewhere_the_password_is_not_ours_to_know(database, tmp_path, monkeypatch):
    one = Built(database, tmp_path)
    one.write_profile()
    done = one.marquee("db", "url", "--role", "reporter", check=False)
    assert done.returncode == 1
    assert "alter role marquee_reporter login password" in done.stderr
    monkeypatch.setenv("MARQUEE_REPORTER_PASSWORD", "told")
    done = one.marquee("db", "url", "--role", "reporter")
    assert done.stdout.startswith("postgresql://marquee_reporter:told@")


def test_the_embedded_server_lets_the_roles_in(tmp_path: Path):
    """Made with it, kept for their owner only, printed on request only, the same after a reset."""
    script = """
        set -e
        marquee db url --role reporter && exit 1
        marquee db roles && marquee db roles
        for role in loader transformer reporter; do
            url=$(marquee db url --role $role)
            echo $url $(python -c "import psycopg2, sys; c = psycopg2.connect(sys.argv[1])\
.cursor(); c.execute('select current_user, rolsuper from pg_roles where rolname = current_user');\
 print(*c.fetchone())" "$url")
        done
        stat -c %a $MARQUEE_STATE_DIR/server.json
        marquee db reset --yes
        marquee db url --role reporter
    """
    nowhere = Target("dev", "127.0.0.1", 1, "nobody", "", "nothing", "dev")
    done = Built(nowhere, tmp_path).command("marquee", "scratch", "sh", "-c", script)
    said = done.stdout.splitlines()
    urls = [line.split() for line in said if line.startswith("postgresql://")]
    again = urls.pop()
    assert again[0].split("@")[0] == urls[2][0].split("@")[0]  # BI tools may keep it over a reset
    assert [url[1:] for url in urls] == [[f"marquee_{role}", "False"] for role in ROLES]
    passwords = {url[0].split(":")[2].split("@")[0] for url in urls}
    assert len(passwords) == 3
    assert all(len(password) == 32 for password in passwords)
    printed = "\n".join(line for line in said if not line.startswith("postgresql://"))
    assert not any(password in printed + done.stderr for password in passwords)
    assert "600" in said
    assert done.stderr.count("Make the roles with: marquee db roles") == 1
