"""What a role plants in what it owns runs with its own rights only, whoever works beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg2
import pytest

from ingestion.sample.transactions import generate
from ingestion.tests.built import Built
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

NOWHERE = Target("dev", "127.0.0.1", 1, "nobody", "", "nothing", "dev")
DAILY_TMDB = ("ingest", "tmdb", "--max-movies", "5")

# Tries what only a superuser may do, and says in the server's log who ran it.
TRAP = """
begin
    raise log 'TRAP of {planter} ran as %', current_user;
    begin alter role {planter} superuser; exception when others then null; end;
    begin create role escaped superuser; exception when others then null; end;
    begin
        copy (select 1) to program 'touch {file}';
    exception when others then null;
    end;
    begin
        perform pg_read_file('postgresql.conf');
        raise log 'TRAP of {planter} read a file';
    exception when others then null;
    end;
"""
FUNCTIONS = """
    create function {schema}.trap() returns integer language plpgsql as
        $f$ {trap} return 1; end $f$;
    create function {schema}.trap_row() returns trigger language plpgsql as
        $f$ {trap} return null; end $f$;
    create function {schema}.trap_text(text) returns text language plpgsql immutable as
        $f$ {trap} return $1; end $f$;
    create function {schema}.trap_definer() returns integer language plpgsql security definer as
        $f$ {trap} return 1; end $f$;
"""
# What runs where somebody writes to a table.
ON_WRITE = (
    "create trigger trap after insert or update or delete on {table}"
    " execute function {schema}.trap_row()",
    "create rule trap as on insert to {table} do also select {schema}.trap_definer()",
    "alter table {table} add column trapped integer default {schema}.trap()",
    "create event trigger trap on ddl_command_end execute function {schema}.trap_row()",
    "alter table {table} owner to marquee",
    "alter function {schema}.trap_definer() owner to marquee",
)
# What runs where somebody reads a table.
ON_READ = (
    "create index trapped on {table} ({schema}.trap_text('x'))",
    "create materialized view {schema}.trap_kept as select {schema}.trap() with no data",
    "create view {schema}.trap_view as select {schema}.trap() as trapped",
    "create table {schema}.trap_secured (a text)",
    "alter table {schema}.trap_secured enable row level security",
    "create policy trap on {schema}.trap_secured using ({schema}.trap() = 1)",
    "create type {schema}.trap_type as (a text)",
    "create function {schema}.trap_cast({schema}.trap_type) returns text language plpgsql as"
    " $f$ {trap} return ''; end $f$",
    "create cast ({schema}.trap_type as text) with function {schema}.trap_cast as implicit",
)
# What runs where somebody names a function or an operator without its schema.
BY_NAME = (
    "create function {place}.trap_equals(name, text) returns boolean language plpgsql as"
    " $f$ {trap} return true; end $f$",
    "create operator {place}.= (leftarg = name, rightarg = text, function = {place}.trap_equals)",
    "create operator {place}.<> (leftarg = name, rightarg = text, function = {place}.trap_equals)",
    "create function {place}.trap_same(varchar, varchar) returns boolean language plpgsql as"
    " $f$ {trap} return true; end $f$",
    "create operator {place}.= (leftarg = varchar, rightarg = varchar,"
    " function = {place}.trap_same)",
    "create function {place}.starts_with(varchar, text) returns boolean language plpgsql as"
    " $f$ {trap} return true; end $f$",
    "create function {place}.format(text, name) returns text language plpgsql as"
    " $f$ {trap} return ''; end $f$",
    "create function {place}.count(varchar) returns bigint language plpgsql as"
    " $f$ {trap} return 0; end $f$",
)
NAMES = ("public", "marquee", "marquee_loader", "marquee_reporter", "marquee_superset")


@dataclass
class Site(Built):
    """A warehouse on an embedded server of its own."""

    server: Server | None = None

    def login(self, role: str) -> Built:
        """To work as a role beside the commands."""
        return replace(self, target=self.server.login(role))

    def plant(self, role: str, statements: tuple[str, ...], **names: str) -> list[str]:
        """Run each statement as a role; returns those that the server took."""
        one, taken = self.login(role), []
        planter = one.target.user
        trap = TRAP.format(planter=planter, file=self.folder / f"escaped-{role}")
        for statement in statements:
            try:
                one.execute(statement.format(trap=trap, **names))
                taken.append(statement)
            except psycopg2.Error:
                pass  # what cannot be planted cannot run
        return taken

    def ran(self) -> set[tuple[str, str]]:
        """Whose traps have run, and as whom."""
        log = self.server.log.read_text(errors="replace")
        assert not re.search(r"LOG:  TRAP of \w+ read a file", log)
        return set(re.findall(r"LOG:  TRAP of (\w+) ran as (\w+)", log))

    def superusers(self) -> set[str]:
        return {name for (name,) in self.rows("select rolname from pg_roles where rolsuper")}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Raw tables with a little in them, made by the commands."""
    folder = reachable_folder()
    one = Site(NOWHERE, folder, server=Server(folder / "state"))
    try:
        one.marquee("db", "start", "--port", str(unused_port()))
        generate(50, 1, folder / "first.jsonl")
        one.marquee("ingest", "transactions", str(folder / "first.jsonl"))
        one.marquee("ingest", "brands")
        one.marquee("ingest", "releases")
        one.marquee(*DAILY_TMDB)
        one.marquee("db", "roles")
        one.target = one.server.target
        yield one
    finally:
        one.server.delete()
        shutil.rmtree(folder)


def test_the_loader_lands_no_code(site: Site):
    """It has no language to write any in, so that whoever reads raw tables runs nothing of it."""
    names = {"schema": "raw_brands", "table": "raw_brands.brands"}
    taken = site.plant("loader", tuple(FUNCTIONS.split(";\n")[:-1]), **names)
    assert taken == []
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        site.login("loader").execute("do $$ begin null; end $$")


@pytest.fixture
def landed_code(site: Site) -> Iterator[None]:
    """The loader has planted functions, as it could where an earlier version made the roles."""
    site.execute("grant usage on language plpgsql to marquee_loader")
    yield
    site.execute("revoke usage on language plpgsql from marquee_loader")


READ_AS_THE_TRANSFORMER = {
    "raw_brands.brands": "alter table {table} rename to kept; create view {table} as"
    " select * from {schema}.kept where {schema}.trap() = 1",
    "raw_brands.files": "alter table {table} enable row level security;"
    " create policy trap on {table} using ({schema}.trap() = 1)",
    "raw_brands.brand_releases": "create index trapped on {table} (brand)"
    " where {schema}.trap_text('x') = 'x'",
    "raw_transactions.transactions": "create domain {schema}.trapped as text"
    " check ({schema}.trap_text(value) = value);"
    " alter table {table} alter column city type {schema}.trapped",
}


@pytest.mark.usefixtures("landed_code")
def test_dbt_refuses_raw_tables_that_call_code_of_the_loader(site: Site):
    for schema in ("raw_brands", "raw_transactions"):
        assert site.plant("loader", (FUNCTIONS,), schema=schema)
    before = site.ran()
    for table, statements in READ_AS_THE_TRANSFORMER.items():
        schema = table.split(".")[0]
        give = "; grant select on {table} to marquee_transformer"
        statement = (statements + give).format(schema=schema, table=table)
        site.login("loader").execute(statement)
    try:
        done = site.dbt("run", "--select", "staging", check=False)
        assert done.returncode
        assert set(re.findall(r"(\S+) calls code of marquee_loader", done.stdout)) == set(
            READ_AS_THE_TRANSFORMER
        )
        assert {who for _, who in site.ran() - before} <= {"marquee_loader"}
    finally:
        for statement in HEAL.split(";"):
            site.execute(statement)


HEAL = """
    drop view raw_brands.brands;
    alter table raw_brands.kept rename to brands;
    alter table raw_brands.files disable row level security;
    drop index raw_brands.trapped;
    alter table raw_transactions.transactions alter column city type text;
    drop domain raw_transactions.trapped;
    drop function raw_brands.trap() cascade;
    drop function raw_brands.trap_row(), raw_brands.trap_text(text), raw_brands.trap_definer();
    drop function raw_transactions.trap(), raw_transactions.trap_row(),
        raw_transactions.trap_text(text), raw_transactions.trap_definer()
"""


@pytest.mark.usefixtures("landed_code")
def test_daily_work_beside_planted_code_gives_nobody_more_rights(site: Site):
    """Loader and transformer plant all that they may; then every command is run."""
    members = "select roleid, member from pg_auth_members"
    before = site.rows(members)
    planted = []
    for table in ("transactions.transactions", "transactions.files", "brands.brands"):
        names = {"schema": f"raw_{table.split('.')[0]}", "table": f"raw_{table}"}
        site.plant("loader", (FUNCTIONS,), **names)
        planted += site.plant("loader", ON_WRITE, **names)
    for schema in ("marts", "seeds", "staging", "snapshots", "intermediate", "test_failures"):
        make = (f"create schema if not exists {schema}", f"create table {schema}.t (a text)")
        names = {"schema": schema, "table": f"{schema}.t"}
        planted += site.plant("transformer", (*make, FUNCTIONS, *ON_WRITE, *ON_READ), **names)
    for place in NAMES:
        make = ("create schema {place}", "grant all on schema {place} to public")
        for role in ("loader", "transformer"):
            planted += site.plant(role, (*make, *BY_NAME), place=place)
    refused = {ON_WRITE[3], ON_WRITE[4], ON_WRITE[5]}
    assert {*ON_WRITE, *ON_READ, *BY_NAME} - set(planted) == refused

    more, out = site.folder / "more.jsonl", str(site.folder / "out")
    generate(50, 2, more)
    for command in (
        ("ingest", "transactions", str(more)),
        ("ingest", "brands"),
        ("ingest", "releases"),
        DAILY_TMDB,
        ("rejects",),
        ("rejects", "replay"),
        ("run",),
        ("db", "roles"),
        ("db", "status"),
        ("db", "psql", "-c", "select trapped from marts.trap_view"),
        ("export", "marts", "--to", out, "--select", "dim_*", "--select", "trap_view"),
        ("doctor",),
        ("db", "stop"),
        ("db", "start"),
    ):
        site.marquee(*command)
    site.command("python", "-c", SUPERSET)
    site.dbt("run", "--select", "stg_brands__brands")

    assert site.superusers() == {"marquee"}
    assert site.rows(members) == before
    assert not list(site.folder.glob("escaped-*"))
    assert site.ran() == {
        ("marquee_loader", "marquee_loader"),
        ("marquee_transformer", "marquee_transformer"),
    }


SUPERSET = """
from bi.superset.service import Superset
from ingestion.warehouse import access
place = Superset(access.ready())
place.make_database()
with place.reader().connect() as connection, connection.cursor() as cursor:
    cursor.execute("select count(*) from marts.dim_city")
"""
