"""Dumps: what comes back is what was there; what was cut short never does."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import psutil
import pytest
from psycopg2 import sql

from ingestion.errors import UserError
from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import execute, reachable_folder, unused_port
from ingestion.tests.other_servers import installed_server
from ingestion.tests.test_inputs import aws, bucket, s3_server  # noqa: F401 - fixtures
from ingestion.warehouse.backup import clients
from ingestion.warehouse.backup.catalog import find
from ingestion.warehouse.backup.dump import dump
from ingestion.warehouse.backup.restore import restore
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

TABLE = "create table thing as select g as id, md5(g::text) as word from generate_series(1, {}) g"
DIGEST = "select md5(string_agg(t::text, '|' order by t::text)) from {} as t"
OWN = """
    create role analyst login in role marquee_reporter;
    alter role analyst set search_path to marts, "My own";
    create extension pg_trgm schema public;
    create schema "My own" authorization marquee_transformer;
    create view "My own".mine as select user_id, amount from raw_transactions.transactions;
    alter view "My own".mine owner to marquee_transformer;
    create index words on raw_transactions.transactions using gin (merchant public.gin_trgm_ops);
    grant usage on schema "My own" to analyst;
    grant select on "My own".mine to analyst;
    create schema marts authorization marquee_transformer;
    create table marts.seen (n int);
    alter table marts.seen owner to marquee_transformer;
    grant usage on schema marts to marquee_reporter;
    grant select on marts.seen to marquee_reporter;
    alter database marquee set work_mem to '70MB';
    comment on database marquee is 'it''s ours';
"""
# Whatever a restore must bring back, as rows to compare.
FACTS = (
    "select rolname, rolcanlogin, rolconnlimit from pg_roles order by 1",
    "select member::regrole::text, roleid::regrole::text from pg_auth_members order by 1, 2",
    "select datname, datdba::regrole::text, (select array_agg(a::text order by a::text) from"
    " unnest(datacl) a), datcollate, datlocprovider, shobj_description(oid, 'pg_database')"
    " from pg_database where datname = 'marquee'",
    "select setrole::regrole::text, datname, setconfig from pg_db_role_setting"
    " left join pg_database d on d.oid = setdatabase"
    " where setdatabase = 0 or datname = current_database() order by 1, 2",
    "select n.nspname, relname, relkind, relowner::regrole::text,"
    " (select array_agg(a::text order by a::text) from unnest(relacl) a)"
    " from pg_class c join pg_namespace n on n.oid = relnamespace"
    " where n.nspname !~ '^pg_(toast|catalog)|^information' order by 1, 2",
    "select nspname, nspowner::regrole::text,"
    " (select array_agg(a::text order by a::text) from unnest(nspacl) a)"
    " from pg_namespace where nspname !~ '^pg_toast' order by 1",
    "select extname, extversion, extnamespace::regnamespace::text from pg_extension order by 1",
    "select pg_get_viewdef('\"My own\".mine'::regclass)",
    "select lanname, lanacl::text from pg_language order by 1",
    "select count(*) from pg_proc where proacl is not null and pronamespace = 11",
    "select defaclrole::regrole::text, defaclacl::text from pg_default_acl order by 1, 2",
)


def hashes(warehouse: Built) -> dict[str, str]:
    """A digest of every table."""
    tables = warehouse.rows(
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname !~ '^pg_' and schemaname <> 'information_schema' order by 1"
    )
    return {name: warehouse.one(DIGEST.format(name)) for (name,) in tables}


def facts(warehouse: Built) -> list[list[tuple]]:
    return [warehouse.rows(query) for query in FACTS]


@contextmanager
def embedded(folder: Path | None = None) -> Iterator[Built]:
    """An embedded server, as commands make it, with no data yet; in memory where there is room."""
    folder = folder or reachable_folder()
    warehouse, server = Built(None, folder), Server(folder / "state")
    try:
        warehouse.marquee("db", "start", "--port", str(unused_port()))
        warehouse.target = server.target
        yield warehouse
    finally:
        server.delete()
        shutil.rmtree(folder)


def land(warehouse: Built, rows: int, seed: int = 1) -> None:
    """Land made-up transactions."""
    file = warehouse.folder / f"t{seed}.jsonl"
    made = ("--rows", str(rows), "--seed", str(seed), "--out", str(file))
    warehouse.marquee("generate", "transactions", *made)
    warehouse.marquee("ingest", "transactions", str(file))


def follow(line: str, warehouse: Built) -> None:
    """Run a command that a program told the user to run."""
    command, *args = shlex.split(line)
    assert command == "marquee"
    warehouse.marquee(*args)


def told(output: str, label: str) -> str:
    found = re.search(rf"^{label}:? (.*)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_all_comes_back_on_the_embedded_server_and_the_way_back_works(tmp_path: Path) -> None:
    with embedded() as warehouse:
        land(warehouse, 2000)
        warehouse.execute(OWN)
        before, known = hashes(warehouse), facts(warehouse)
        said = warehouse.marquee("db", "backup", str(tmp_path / "to here")).stdout
        assert Path(said.splitlines()[0]).is_dir()
        warehouse.execute("drop schema marts cascade")
        land(warehouse, 500, seed=2)
        after = hashes(warehouse)
        assert after != before

        refused = warehouse.marquee("db", "restore", str(tmp_path / "to here"), check=False)
        assert refused.returncode == 1
        assert re.search(r"has data.*\n.*--force", refused.stderr)
        assert hashes(warehouse) == after

        said = warehouse.marquee("db", "restore", str(tmp_path / "to here"), "--force").stdout
        assert hashes(warehouse) == before
        assert facts(warehouse) == known
        reporter = replace(warehouse, target=Server(warehouse.folder / "state").login("reporter"))
        assert reporter.rows("select * from marts.seen") == []
        beside = re.search(r"database (marquee_before_\w+)\.", said)[1]
        other = replace(warehouse, target=replace(warehouse.target, dbname=beside))
        assert hashes(other) == after
        # a load goes on from what is there, not from what it did meanwhile
        warehouse.marquee("ingest", "transactions", str(warehouse.folder / "t2.jsonl"))
        assert hashes(warehouse) != before

        follow(told(said, "To go back"), warehouse)
        assert hashes(warehouse) == after
        assert Server(warehouse.folder / "state").target.password not in said


def test_another_machine_has_the_warehouse_and_its_roles(tmp_path: Path) -> None:
    with embedded() as first:
        land(first, 500)
        first.execute(OWN)
        before, known = hashes(first), facts(first)
        first.marquee("db", "backup", str(tmp_path))
    with embedded() as second:
        said = second.marquee("db", "restore", str(tmp_path)).stdout
        assert "analyst was made, and has no password" in said
        assert "before" not in said
        assert hashes(second) == before
        assert facts(second) == known
        assert second.rows("select datname from pg_database where datname like 'marquee%'") == [
            ("marquee",)
        ]


@pytest.fixture
def filled(database: Target) -> Target:
    execute(database, sql.SQL(TABLE.format(20_000)))
    return database


def words(target: Target) -> str:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(DIGEST.format("thing"))
        return cursor.fetchone()[0]


def databases(target: Target) -> list[str]:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select datname from pg_database where datname like %s", (f"{target.dbname}%",)
        )
        return [name for (name,) in cursor.fetchall() if name.startswith(target.dbname)]


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def truncate(path: Path, to: float) -> None:
    os.truncate(path, int(path.stat().st_size * to))


CUTS: dict[str, Callable[[Path], object]] = {
    "a byte of the dump": lambda folder: flip(folder / "database.dump"),
    "the last byte of the dump": lambda folder: flip(folder / "database.dump", 0.999999),
    "a shorter dump": lambda folder: truncate(folder / "database.dump", 0.9),
    "an empty dump": lambda folder: truncate(folder / "database.dump", 0),
    "a dump that grew": lambda folder: (folder / "database.dump").open("ab").write(b"x"),
    "no dump": lambda folder: (folder / "database.dump").unlink(),
    "a byte of the manifest": lambda folder: flip(folder / "manifest.json"),
    "a shorter manifest": lambda folder: truncate(folder / "manifest.json", 0.9),
    "an empty manifest": lambda folder: truncate(folder / "manifest.json", 0),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_backup_that_was_cut_short_is_never_restored(
    cut: str, filled: Target, tmp_path: Path
) -> None:
    good = dump(filled, str(tmp_path))
    time.sleep(1.1)  # names sort by the second
    bad = Path(dump(filled, str(tmp_path)).place)
    CUTS[cut](bad)
    execute(filled, sql.SQL("insert into thing values (0, 'since')"))
    before = words(filled)
    with pytest.raises(UserError) as refused:
        restore(filled, find(str(bad)), force=True)
    assert refused.value.message.count("\n") == 1
    assert bad.name in refused.value.message
    if cut == "no manifest":  # it never was whole: the one before it is the newest
        assert find(str(tmp_path)).name == Path(good.place).name
    else:
        with pytest.raises(UserError, match=good.place):
            restore(filled, find(str(tmp_path)), force=True)
    assert words(filled) == before
    assert databases(filled) == [filled.dbname]
    restore(filled, find(good.place), force=True)
    assert words(filled) != before


@pytest.fixture
def warehouse(filled: Target, tmp_path: Path) -> Built:
    built = Built(filled, tmp_path / "files")
    built.folder.mkdir(mode=0o700)
    built.write_profile()
    return built


@contextmanager
def held(warehouse: Built, to: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A backup that has begun to write and does not get on, and its pg_dump."""
    with closing(warehouse.target.connect()) as connection, connection.cursor() as cursor:
        # pg_dump locks all tables at once and then copies: this one lets it wait in between
        cursor.execute("lock table thing in access exclusive mode")
        process = subprocess.Popen(
            [BIN / "marquee", "db", "backup", str(to)],
            cwd=PROJECT_DIR,
            env=warehouse.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while not warehouse.one(
                "select count(*) from pg_locks where relation = 'thing'::regclass and not granted"
            ):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
            yield process, psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("end", ["marquee killed", "pg_dump killed", "interrupted"])
def test_a_backup_that_dies_leaves_the_last_good_one(
    end: str, warehouse: Built, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    warehouse.marquee("db", "backup", str(to))
    good = find(str(to))
    with held(warehouse, to) as (process, (pg_dump,)):
        assert len(list(to.glob("dump-*"))) == 2
        if end == "marquee killed":
            process.kill()
            process.wait()
            pg_dump.kill()
        elif end == "pg_dump killed":
            pg_dump.kill()
            _, said = process.communicate()
            assert process.returncode == 1
            assert "pg_dump could not finish: signal 9" in said
            assert len(list(to.glob("dump-*"))) == 1
        else:
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM
            assert len(list(to.glob("dump-*"))) == 1
            psutil.wait_procs([pg_dump], timeout=20)
            assert not pg_dump.is_running()
    assert find(str(to)).name == good.name
    warehouse.marquee("db", "restore", str(to), "--force")
    warehouse.marquee("db", "backup", str(to))
    assert len(list(to.glob("dump-*"))) == 2  # the unfinished one has gone
    # the password of one that was killed goes with the next one
    assert not list(Path(tempfile.gettempdir()).glob(f"marquee-login-{process.pid}-*"))


def test_the_password_is_nowhere_to_be_seen(warehouse: Built, tmp_path: Path) -> None:
    secret = warehouse.target.password
    with held(warehouse, tmp_path / "to") as (process, (pg_dump,)):
        for one in (psutil.Process(process.pid), pg_dump):
            assert secret not in repr(one.cmdline())
            assert secret not in repr(one.environ())
        files = [Path(pg_dump.environ()["PGPASSFILE"])]
        assert secret in files[0].read_text()
        assert files[0].stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate())
    assert not files[0].exists()
    said += warehouse.marquee("db", "backup", str(tmp_path / "to")).stdout
    said += warehouse.marquee("db", "restore", str(tmp_path / "to"), "--force").stdout
    made = [path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()]
    assert secret not in said
    assert not [content for content in made if secret.encode() in content]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "to").glob("*/*"))


def test_a_full_disk_keeps_the_last_good_one(warehouse: Built, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        warehouse.marquee("db", "backup", str(disk))
        good = find(str(disk))
        warehouse.execute(TABLE.replace("thing", "more").format(200_000))
        full = warehouse.marquee("db", "backup", str(disk), check=False)
        assert full.returncode == 1
        assert re.search(r"the disk is full.\n.*last backup is untouched", full.stderr)
        assert [path.name for path in disk.glob("dump-*")] == [good.name]
        warehouse.marquee("db", "restore", str(disk), "--force")
        assert warehouse.one("select to_regclass('more')") is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_only_the_newest_are_kept(filled: Target, tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        made.append(Path(dump(filled, str(tmp_path)).place).name)
        time.sleep(1.1)
    unfinished = tmp_path / "dump-20200101T000000Z-abcdef"
    unfinished.mkdir()
    (tmp_path / "mine").mkdir()
    done = dump(filled, str(tmp_path), keep=2)
    assert done.removed == made[:2]
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == [made[2], Path(done.place).name, "mine"]


def test_a_restore_that_fails_or_dies_changes_nothing(warehouse: Built, tmp_path: Path) -> None:
    """Also where pg_restore has done nearly all of it."""
    target = warehouse.target
    execute(target, sql.SQL("create function broken() returns int language sql as 'select 1'"))
    place = Path(dump(target, str(tmp_path / "to")).place)
    before = words(target)
    reply = json.loads((place / "manifest.json").read_text())
    assert reply["files"]["database.dump"]["bytes"] == (place / "database.dump").stat().st_size
    process = subprocess.Popen(
        [BIN / "marquee", "db", "restore", str(place), "--force"],
        cwd=PROJECT_DIR,
        env=warehouse.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and len(databases(target)) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert words(target) == before
    restore(target, find(str(place)), force=True)
    assert not [name for name in databases(target) if "restoring" in name]
    assert words(target) == before
    for name in set(databases(target)) - {target.dbname}:
        execute(replace(target, dbname="postgres"), sql.SQL(f"drop database {name}"))


def test_a_store_has_backups_as_a_disk_has(filled: Target, bucket) -> None:  # noqa: F811
    to = f"{bucket.url}/nightly"
    good = dump(filled, to)
    before = words(filled)
    time.sleep(1.1)
    bad = dump(filled, to)
    execute(filled, sql.SQL("insert into thing values (0, 'since')"))
    key = bad.place.partition(bucket.url)[2].lstrip("/")
    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    content = store.cat_file(f"{bad.place}/database.dump")
    bucket.put(f"{key}/database.dump", content[:-1] + b"x")
    with pytest.raises(UserError, match=good.place):
        restore(filled, find(to), force=True)
    bucket.delete(f"{key}/manifest.json")
    done = restore(filled, find(to), force=True)
    assert words(filled) == before
    execute(replace(filled, dbname="postgres"), sql.SQL(f"drop database {done.beside}"))


def test_a_server_of_the_users_own_with_a_login_that_is_no_superuser(tmp_path: Path) -> None:
    """Of another version, and with signs in names and password that others take for theirs."""
    with installed_server() as admin:
        execute(admin, sql.SQL("create role \"o'wner\" login createdb createrole password 'p:\\w'"))
        execute(admin, sql.SQL("create role reader"))
        execute(admin, sql.SQL('create database "my ""ware=house" owner "o\'wner"'))
        mine = replace(admin, user="o'wner", password="p:\\w", dbname='my "ware=house')
        execute(mine, sql.SQL(TABLE.format(1000)))
        execute(mine, sql.SQL("grant select on thing to reader"))
        before = words(mine)
        place = dump(mine, str(tmp_path)).place
        execute(mine, sql.SQL("drop table thing; create table other (n int)"))
        done = restore(mine, find(place), force=True)
        assert words(mine) == before
        assert done.left_out == []
        with closing(mine.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select has_table_privilege('reader', 'thing', 'select')")
            assert cursor.fetchone() == (True,)
        execute(admin, sql.SQL('alter role "o\'wner" nocreatedb'))
        with pytest.raises(UserError, match=r"this login may not.\n.*createdb"):
            restore(mine, find(place), force=True)
        assert words(mine) == before


def test_the_embedded_warehouse_moves_to_a_server_of_the_users_own(tmp_path: Path) -> None:
    """Refused where that is older, as PostgreSQL does not go back."""
    with installed_server() as admin, embedded() as warehouse:
        warehouse.execute("create table public.thing as select 1 as id, 'a' as word")
        warehouse.marquee("db", "backup", str(tmp_path))
        with pytest.raises(UserError, match=r"of PostgreSQL 18, and the server is \d+.*older"):
            restore(replace(admin, dbname="w"), find(str(tmp_path)))
        # no table: minor releases may note of its columns what an earlier one does not know
        execute(admin, sql.SQL("create function seven() returns int language sql as 'select 7'"))
        older = dump(admin, str(tmp_path / "older"))
        newer = replace(warehouse.target, dbname="newer")
        assert restore(newer, find(older.place)).beside is None
        assert Built(newer, tmp_path).one("select seven()") == 7


def test_programs_that_are_too_old_are_named() -> None:
    with pytest.raises(UserError, match=r"server is PostgreSQL 99.*\n.*PostgreSQL 99 or newer"):
        clients.client_for("pg_dump", 99)


@pytest.mark.parametrize("given", ["nowhere", "file"])
def test_a_place_without_backups_says_so(given: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"There is no backup in .*\n.*marquee db backup"):
        find(str(tmp_path / given))
