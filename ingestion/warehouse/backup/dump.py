"""A dump of the warehouse's database, of any PostgreSQL, written whole or not at all."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ingestion.errors import UserError
from ingestion.warehouse.backup.catalog import CHUNK, Backups, new_name
from ingestion.warehouse.backup.clients import client_for, logged_in
from ingestion.warehouse.programs import error_line
from ingestion.warehouse.target import Target

GLOBALS = Path(__file__).with_name("globals.sql")
FILE = "database.dump"
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    Attributes:
        place: its address.
        size: in bytes.
        removed: names of older ones that went.
    """

    place: str
    size: int
    removed: list[str]


def dump(target: Target, to: str, keep: int | None = None) -> Made:
    """Write a dump of a database; it is read as of one moment.

    Args:
        target: the database, logged in as who may read all of it.
        to: a folder, or a URL of a store; made when absent.
        keep: only so many of the dumps there stay.

    Raises:
        UserError: it cannot be read or written; older backups are as they were.
    """
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("show server_version_num")
        release = int(cursor.fetchone()[0])
        facts = _facts(cursor)
    program = client_for("pg_dump", release // 10000)
    place, name = Backups(to), new_name("dump")
    about = {"kind": "dump", "release": release, "database": target.dbname, **facts}
    with place.locked():
        with place.making(name):
            written = place.write(f"{name}/{FILE}", _dumped(program, target))
            place.publish(name, about | {"files": {FILE: written}})
        with place.as_user_error():
            removed = place.prune("dump", keep)
    return Made(f"{place.name}/{name}", written["bytes"], removed)


def _facts(cursor: Any) -> dict[str, Any]:
    """What pg_dump leaves out: roles, and how the database was made."""
    cursor.execute(GLOBALS.read_text("utf-8"))
    statements = [list(row) for row in cursor.fetchall()]
    cursor.execute(
        "select to_jsonb(pg_database) || jsonb_build_object("
        "'encoding', pg_encoding_to_char(encoding))"
        " from pg_database where datname = current_database()"
    )
    made = cursor.fetchone()[0]
    options = {
        "encoding": made["encoding"],
        "lc_collate": made["datcollate"],
        "lc_ctype": made["datctype"],
    }
    provider = PROVIDERS[made.get("datlocprovider", "c")]
    locale = made.get("datlocale") or made.get("daticulocale")
    if provider != "libc":
        options |= {"locale_provider": provider, f"{provider}_locale": locale}
    return {"globals": statements, "options": options}


def _dumped(program: str, target: Target) -> Iterator[bytes]:
    """What pg_dump writes.

    Raises:
        UserError: it did not get to its end.
    """
    with logged_in(target) as env, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [program, "--format=custom", "--no-password"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        with process:
            yield from iter(partial(cast(IO[bytes], process.stdout).read, CHUNK), b"")
        code = process.returncode
        if code:
            said.seek(0)
            why = error_line(said.read().decode(errors="replace"))
            raise UserError(
                f"pg_dump could not finish: {why if code > 0 else f'signal {-code}'}\n"
                "Nothing is written. Where a build was at work on that table, run this again."
            )
