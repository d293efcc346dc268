"""Loader, transformer, reporter: what each may do, by real logins, after rebuilds of all kinds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg2
import pytest
from psycopg2 import sql

from bi.superset import database
from bi.superset.service import LIMITS, sqlalchemy_url
from ingestion.errors import UserError
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute, reachable_folder, unused_port
from ingestion.warehouse.access import load_target
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.profiles import write_profiles
from ingestion.warehouse.roles import built_schemas, landing_schemas
from ingestion.warehouse.target import ROLES, Target, project

SECRET = "a secret of the tests"
BUILDS = {("ops", "mart_builds")}  # when marts were built, which their readers may see
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
            execute(self.admin.target, statement)
            login = replace(self.admin.target, user=name, password=SECRET)
            setattr(self, role, self._at(login, role))

    def dbt(self, *args: str) -> None:
        """dbt as the transformer."""
        self.transformer.dbt(*args, "--vars", self.vars)

    def drop_roles(self) -> None:
        for name in self.names.values():
            for statement in ("drop owned by {} cascade", "drop role {}"):
                execute(self.admin.target, sql.SQL(statement).format(sql.Identifier(name)))


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
    execute(server, statement)
    folder = tmp_path_factory.mktemp("roles")
    one = Warehouse(replace(built.target, dbname=name.string), folder)
    try:
        one.make_roles()
        one.let_in()
        yield one
    finally:
        one.drop_roles()
        execute(server, sql.SQL("drop database {} with (force)").format(name))


def test_the_reporter_reads_marts_only(warehouse: Warehouse):
    marts = relations(warehouse.admin, "marts")
    assert len(marts) >= 18
    assert readable(warehouse.reporter) == marts | BUILDS


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
    tables = (
        "select relname, pg_get_userbyid(relowner) from pg_class"
        " where relnamespace = to_regnamespace('marts') and relkind in ('r', 'v')"
    )
    rebuilt = {(name, warehouse.names["transformer"]) for _, name in marts}

    warehouse.dbt("run", "--select", "marts")
    assert readable(warehouse.reporter) == marts | BUILDS
    assert set(warehouse.admin.rows(tables)) == rebuilt

    warehouse.dbt("run", "--select", "marts", "--full-refresh")
    assert readable(warehouse.reporter) == marts | BUILDS

    warehouse.transformer.execute("drop schema marts cascade")
    warehouse.dbt("build")
    assert readable(warehouse.reporter) == marts | BUILDS

    # the administrator builds, too; making the roles again hands that over, too
    warehouse.admin.dbt("run", "--select", "dim_city", "--vars", warehouse.vars)
    assert readable(warehouse.reporter) == marts | BUILDS
    warehouse.make_roles()
    assert set(warehouse.admin.rows(tables)) == rebuilt


def test_a_grant_that_was_taken_away_stays_away_until_the_next_build(warehouse: Warehouse):
    """What makes the marts readable is the build, not something that was there before."""
    name = sql.Identifier(warehouse.names["reporter"])
    for statement in (
        "revoke all on all tables in schema marts from {}",
        "revoke all on schema marts from {}",
    ):
        execute(warehouse.transformer.target, sql.SQL(statement).format(name))
    assert readable(warehouse.reporter) == BUILDS
    warehouse.dbt("run", "--select", "dim_city", "fct_transactions")
    rebuilt = {("marts", "dim_city"), ("marts", "fct_transactions")}
    assert readable(warehouse.reporter) == rebuilt | BUILDS
    warehouse.make_roles()
    assert readable(warehouse.reporter) == relations(warehouse.admin, "marts") | BUILDS


@pytest.fixture
def owned(database: Target) -> Iterator[Target]:
    """An empty database whose owner is no superuser but may make roles, as with hosted servers."""
    user = sql.Identifier(f"owner_{database.dbname}")
    make = sql.SQL("create role {} login createrole password {}")
    execute(database, make.format(user, sql.Literal(SECRET)))
    give = sql.SQL("alter database {} owner to {}")
    execute(database, give.format(sql.Identifier(database.dbname), user))
    try:
        yield replace(database, user=user.string, password=SECRET)
    finally:
        give_back = give.format(sql.Identifier(database.dbname), sql.Identifier(database.user))
        execute(database, give_back)
        execute(database, sql.SQL("drop owned by {} cascade").format(user))
        execute(database, sql.SQL("drop role {}").format(user))


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
        # what each of them did stands in one place
        ops = relations(warehouse.admin, "ops")
        assert len(ops) == 8
        assert warehouse.loader.rows(
            "select command, status from ops.invocations order by started_at desc limit 2"
        ) == [("ingest tmdb", "succeeded"), ("ingest releases", "succeeded")]
        assert readable(warehouse.transformer) == raw | ops
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.transformer.execute("delete from raw_transactions.transactions")
        warehouse.dbt("seed")
        warehouse.dbt("run", "--select", "+daily_transactions")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            warehouse.loader.execute("delete from marts.daily_transactions")
        staging = relations(warehouse.admin, "raw_tmdb_staging")
        assert readable(warehouse.loader) == raw | ops | staging
        marts = relations(warehouse.admin, "marts")
        assert ("marts", "daily_transactions") in marts
        assert readable(warehouse.reporter) == marts | BUILDS
        # the one who made the roles goes on as before
        file.write_text(line(1) + line(2) + line(3))
        warehouse.admin.marquee("ingest", "transactions", str(file))
        warehouse.admin.dbt("run", "--select", "+fct_transactions", "--vars", warehouse.vars)
        assert warehouse.reporter.one("select count(*) from marts.fct_transactions") == 3
    finally:
        admin, warehouse.admin = warehouse.admin, Built(database, tmp_path)
        warehouse.drop_roles()
        warehouse.admin = admin


def test_without_roles_a_build_grants_nothing_and_passes(built: Built, tmp_path: Path):
    nobody = json.dumps({"reporter_role": f"nobody_{uuid.uuid4().hex[:8]}"})
    place = ("--target-path", str(tmp_path))  # other tests read what the warehouse's build left
    built.dbt("run", "--select", "dim_city", "--vars", nobody, *place)


def test_a_login_that_may_not_make_roles_is_told(database: Target, tmp_path: Path):
    user = sql.Identifier(f"plain_{database.dbname}")
    make = sql.SQL("create role {} login password {}").format(user, sql.Literal(SECRET))
    execute(database, make)
    try:
        one = Built(replace(database, user=user.string, password=SECRET), tmp_path)
        one.write_profile()
        done = one.marquee("db", "roles", check=False)
        assert done.returncode == 1
        assert f"alter role {user.string} createrole" in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    finally:
        execute(database, sql.SQL("drop role {}").format(user))


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


# The reporter's bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "create temporary table mine (a int)",
        "set temp_file_limit = -1",
        "alter role current_user set temp_file_limit = -1",
        "alter role current_user connection limit -1",
        "lock table raw_transactions.transactions in access share mode",
        "lock table raw_transactions._load_lock in exclusive mode",
        "lock table marts.dim_city in share mode",
    ],
)
def test_the_reporters_bounds_hold(warehouse: Warehouse, statement: str):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        warehouse.reporter.execute(statement)


def test_the_reporter_begins_with_limits(warehouse: Warehouse):
    """The project's variable says them, and they are renewed with the roles."""
    limits = project()["vars"]["reporter_limits"]
    connections = "select rolconnlimit from pg_roles where rolname = current_user"
    for name in set(limits) - {"connections"}:
        assert warehouse.reporter.one(f"show {name}") == str(limits[name]), name
    assert warehouse.reporter.one(connections) == limits["connections"]
    place = warehouse.admin.target.dbname
    for own in ("", f"in database {place} "):
        warehouse.reporter.execute(f"alter role current_user {own}set statement_timeout = 0")
    warehouse.reporter.execute("alter role current_user reset all")
    assert warehouse.reporter.one("show temp_file_limit") == limits["temp_file_limit"]
    assert warehouse.reporter.one("show statement_timeout") == "0"
    warehouse.make_roles()
    assert warehouse.reporter.one("show statement_timeout") == limits["statement_timeout"]


def test_locks_of_the_others_stop_no_load(warehouse: Warehouse, tmp_path: Path, line):
    """Who may only read takes every lock that it can get, and a load goes on."""
    file = tmp_path / "a.jsonl"
    file.write_text(line(77))
    with closing(warehouse.reporter.target.connect()) as reporter, reporter.cursor() as cursor:
        for name in ("transactions", "brands", "tmdb", "roles"):
            cursor.execute("select pg_advisory_lock(hashtext(%s)::bigint)", (f"marquee:{name}",))
        with closing(warehouse.transformer.target.connect()) as other, other.cursor() as reading:
            reading.execute("lock table raw_transactions._load_lock in access share mode")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                reading.execute("lock table raw_transactions._load_lock in exclusive mode")
            reading.connection.rollback()
            reading.execute("lock table raw_transactions._load_lock in access share mode")
            warehouse.loader.marquee("ingest", "transactions", str(file))
            warehouse.make_roles()


def test_who_may_not_land_is_told(warehouse: Warehouse, tmp_path: Path, line):
    file = tmp_path / "b.jsonl"
    file.write_text(line(78))
    for one in (warehouse.transformer, warehouse.reporter):
        done = one.marquee("ingest", "transactions", str(file), check=False)
        assert done.returncode == 1
        assert f"{one.target.user} may not land transactions in this warehouse" in done.stderr
        assert len(done.stderr.splitlines()) == 2


def test_no_role_is_led_astray_by_a_schema_of_its_name(warehouse: Warehouse):
    """The transformer makes any schema, so none is looked into unasked."""
    for role in ("loader", "transformer"):
        assert getattr(warehouse, role).one("select current_schemas(false)::text") == "{public}"
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            getattr(warehouse, role).execute("create table public.mine (a int)")


# The embedded server -----------------------------------------------------------------------------


class Embedded:
    """An embedded server of its own, and the commands that work on it."""

    def __init__(self) -> None:
        self.folder = reachable_folder()
        self.server = Server(self.folder / "state")
        self.server.start(unused_port())
        self.profiles = self.folder / "profiles.yml"
        self.commands = Built(self.server.target, self.folder)

    def as_(self, role: str) -> Built:
        return Built(self.server.login(role), self.folder)


def test_the_embedded_server_knows_the_schemas_that_dbt_knows(built: Built):
    manifest = json.loads((built.target_path / "manifest.json").read_text())
    sources = {source["schema"] for source in manifest["sources"].values()} - {"ops"}
    kinds = {"model", "seed", "snapshot", "test"}
    nodes = {n["schema"] for n in manifest["nodes"].values() if n["resource_type"] in kinds}
    assert set(landing_schemas()) == sources
    assert set(built_schemas(replace(built.target, name="dev"))) == nodes


@pytest.fixture(scope="module")
def embedded() -> Iterator[Embedded]:
    one = Embedded()
    try:
        yield one
    finally:
        one.server.delete()
        shutil.rmtree(one.folder)


def test_a_warehouse_of_one_superuser_is_carried_over(embedded: Embedded, tmp_path: Path, line):
    """As earlier versions made it: the superuser landed, built, and stands in profiles.yml."""
    from ingestion.sources import transactions

    file = tmp_path / "old.jsonl"
    file.write_text(line(1))
    transactions.ingest([file], embedded.server.target)
    superuser = embedded.as_("admin")
    superuser.execute(
        "create schema marts; create table marts.old as select 1 as a;"
        "create schema analysis; create table analysis.mine (id serial, a int);"
        "create view analysis.seen as select * from analysis.mine;"
        "create table public.loose (a int); create sequence public.counted"
    )
    write_profiles(embedded.server, embedded.profiles)
    edited = embedded.profiles.read_text().replace("threads: 4", "threads: 2 # mine")
    embedded.profiles.write_text(edited)
    assert "env_var('PGUSER', 'marquee')" in edited

    file.write_text(line(1) + line(2))
    embedded.commands.marquee("ingest", "transactions", str(file))
    owners = dict(
        superuser.rows(
            "select oid::regclass::text, pg_get_userbyid(relowner) from pg_class"
            " where relkind in ('r', 'v', 'S') and relnamespace >= 16384 or relname in"
            " ('loose', 'counted')"
        )
    )
    loader = {name for name, owner in owners.items() if owner == "marquee_loader"}
    assert {name for name in owners if name.startswith("raw_")} == loader
    assert set(owners.values()) == {"marquee_loader", "marquee_transformer"}
    assert embedded.as_("loader").one("select count(*) from raw_transactions.transactions") == 2

    now = embedded.profiles.read_text()
    login = embedded.server.login("transformer")
    assert "threads: 2 # mine" in now
    assert load_target(profiles=embedded.profiles).place == login.place
    assert load_target(profiles=embedded.profiles).password == login.password
    # what was the user's own is worked with as before
    embedded.commands.marquee("db", "psql", "-c", "insert into analysis.mine (a) values (1)")
    embedded.commands.marquee("db", "psql", "-c", "drop table marts.old; table analysis.seen")


def test_a_profile_whose_user_was_written_by_hand_works_and_is_named(embedded: Embedded):
    embedded.commands.marquee("db", "start")
    kept = embedded.profiles.read_text()
    admin = embedded.server.target
    own = re.sub("password: .*", f"password: {admin.password}", kept)
    own = re.sub("user: .*", "user: marquee", own)
    embedded.profiles.write_text(own)
    try:
        done = embedded.commands.marquee("ingest", "brands")
        assert "logs in as the superuser marquee" in done.stderr
        assert "marquee db url --role transformer" in done.stderr
        assert embedded.profiles.read_text() == own
        brands = "select pg_get_userbyid(relowner) from pg_class where relname = 'brands'"
        assert embedded.as_("admin").one(brands) == "marquee_loader"
        said = embedded.commands.marquee("doctor", check=False).stdout
        assert "marquee, the superuser, runs whatever a role plants" in said
    finally:
        embedded.profiles.write_text(kept)


@pytest.mark.parametrize(
    "statement",
    [
        "select lo_create(0)",
        "select lo_from_bytea(0, 'a')",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_xact_lock_shared(1, 2)",
        "do $$ begin end $$",
    ],
)
def test_the_reporter_gets_nothing_else_of_the_embedded_server(embedded: Embedded, statement: str):
    embedded.commands.marquee("db", "start")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        embedded.as_("reporter").execute(statement)


def test_psql_and_url_log_in_as_the_profile_or_as_asked(embedded: Embedded):
    embedded.commands.marquee("db", "start")
    ask = ("-At", "-c", "select current_user")
    for option, expected in {
        (): "marquee_transformer",
        ("--role", "loader"): "marquee_loader",
        ("--role", "reporter"): "marquee_reporter",
        ("--role", "admin"): "marquee",
    }.items():
        assert embedded.commands.marquee("db", "psql", *option, *ask).stdout.strip() == expected
        url = embedded.commands.marquee("db", "url", *option).stdout
        assert url.startswith(f"postgresql://{expected}:")


def test_supersets_database_is_its_own_and_an_old_one_is_handed_over(embedded: Embedded):
    embedded.commands.marquee("db", "start")
    superuser = embedded.as_("admin")
    with closing(superuser.target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("create database superset")
    old = Built(replace(superuser.target, dbname=database.DATABASE), embedded.folder)
    old.execute(
        "create type kind as enum ('a'); create table ab_user (id serial, of kind);"
        " create sequence ab_user_id; create view ab_seen as select * from ab_user"
    )
    own = Built(database.make(embedded.server), embedded.folder)
    own.execute("alter table ab_user add column more int; alter type kind add value 'b'")
    assert own.target.user == database.ROLE
    assert own.one("select rolsuper from pg_roles where rolname = current_user") is False
    owners = "select distinct pg_get_userbyid(relowner) from pg_class where relname ~ '^ab_'"
    assert own.rows(owners) == [(database.ROLE,)]
    assert database.make(embedded.server) == own.target
    for role in ROLES:
        elsewhere = replace(embedded.server.login(role), dbname=database.DATABASE)
        with pytest.raises(UserError, match="permission denied for database"):
            elsewhere.connect()
    with pytest.raises(UserError, match="permission denied for database"):
        replace(own.target, dbname="marquee").connect()


def test_a_query_of_superset_ends_when_its_client_has_gone(embedded: Embedded):
    embedded.commands.marquee("db", "start")
    settings = LIMITS | {"statement_timeout": "0"}
    url = sqlalchemy_url(embedded.server.login("reporter"), settings).replace("+psycopg2", "")
    ask = "import psycopg2, sys; psycopg2.connect(sys.argv[1]).cursor().execute(sys.argv[2])"
    query = "select pg_sleep(3600)"
    client = subprocess.Popen([sys.executable, "-c", ask, url, query])
    admin = embedded.as_("admin")
    running = f"select count(*) from pg_stat_activity where query = '{query}' and state = 'active'"
    try:
        _until(lambda: admin.one(running) == 1)
        assert client.poll() is None
    finally:
        client.kill()
        client.wait()
    _until(lambda: admin.one(running) == 0)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
