"""``marquee db backup`` and ``marquee db restore``."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingestion.cli.options import refuse_without_warehouse, target_option
from ingestion.errors import UserError
from ingestion.pipeline import working_dir
from ingestion.places import on_disk
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access, server_settings
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.machine import size_text
from ingestion.warehouse.profiles import profiles_login
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target, profiles_path

if TYPE_CHECKING:
    from ingestion.warehouse.backup.catalog import Found


class _Time(click.ParamType):
    """A moment, as ISO 8601 writes it; in UTC where it has no offset."""

    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            found = datetime.fromisoformat(
                value.strip().replace("Z", "+00:00").replace("z", "+00:00")
            )
        except ValueError:
            self.fail(f"{value!r} is no time. Write it as 2024-01-31T12:00:00Z.", param, ctx)
        found = found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found
        if found > datetime.now(timezone.utc):
            self.fail(f"{found:%Y-%m-%d %H:%M:%S} UTC has not come yet.", param, ctx)
        return found.astimezone(timezone.utc)


@click.command()
@click.argument("to", required=False)
@click.option(
    "--keep", type=click.IntRange(min=1), metavar="N", help="Remove all there but the N newest."
)
@target_option
def backup(to: str | None, keep: int | None, target_name: str | None) -> None:
    """Write a dump of the warehouse's database to TO, a folder or an s3:// URL.

    Without TO, make a base backup of the embedded server in its archive (marquee db start
    --archive); with --keep, WAL that none of the kept ones needs is removed, too.

    Each backup is a folder of its own. One that is cut short or damaged is never restored.
    """
    from ingestion.warehouse.backup import archive
    from ingestion.warehouse.backup.dump import dump

    refuse_without_warehouse()
    begun, target = time.monotonic(), access.ready(target_name)
    if to is None and not is_embedded(target):
        raise UserError("Base backups are of the embedded server.\nGive a place for a dump.")
    made = dump(_owner(target), to, keep) if to else archive.base_backup(Server(), keep)
    echo(f"{made.place}\n{size_text(made.size)}, {time.monotonic() - begun:.1f} s")
    for name in made.removed:
        echo(f"Removed {name}")


@click.command()
@click.argument("place", metavar="FROM")
@click.option(
    "--to", type=_Time(), metavar="TIME", help="From an archive: as it was then; UTC, or an offset."
)
@click.option("--force", is_flag=True, help="Also where the warehouse has data: they stay beside.")
@target_option
def restore(place: str, to: datetime | None, force: bool, target_name: str | None) -> None:
    """Have a backup be the warehouse: the newest in FROM, or the one that FROM names.

    What the warehouse has is never overwritten: it stays beside, and you are told its name and the
    way back.
    """
    from ingestion.warehouse.backup import catalog

    begun = time.monotonic()
    if (Path(place) / "PG_VERSION").exists():
        _go_back(Path(place), target_name, force=force)
    else:
        found = catalog.find(place)
        if found.kind == "dump":
            if to:
                raise UserError(
                    f"{found.name} is a dump, of one moment.\n"
                    "--to goes with an archive: marquee db start --archive PLACE"
                )
            _restore_dump(found, access.ready(target_name), force=force)
        else:
            _recover(found, to, target_name, force=force)
    echo(f"{time.monotonic() - begun:.1f} s")


@click.command()
@click.option("--programs", metavar="FOLDER", help="Where the older version's programs are.")
def upgrade(programs: str | None) -> None:
    """Bring the embedded server's data to the PostgreSQL version of the programs here.

    Data are copied; the old ones stay beside until you remove them. Without --programs, the older
    version's programs are looked for on this machine, and installed beside the data if need be.
    """
    from ingestion.warehouse.backup import archive
    from ingestion.warehouse.backup.upgrade import upgrade as upgrade_data

    server, begun = _embedded(None), time.monotonic()
    if not server.initialised:
        raise UserError("There is no embedded server yet.\nMake it with: marquee db start")
    folder = on_disk(programs, "The folder of programs") if programs else None
    done = upgrade_data(server, folder)
    access.open_to_roles(server, again=True)
    echo(f"The data are of PostgreSQL {done.new} now, in {server.data}")
    for name in done.left_out:
        echo(f"PostgreSQL {done.new} has no setting {name}: it is commented out.")
    echo(f"Those of PostgreSQL {done.old} are as they were, in {done.beside}")
    gone = [done.beside, *server.data.parent.glob(f"programs-{done.old}")]
    echo(f"To remove them: rm -r {' '.join(shlex.quote(str(folder)) for folder in gone)}")
    if server_settings.archive(server.data):
        echo(archive.base_backup(server).place)
    echo(f"{time.monotonic() - begun:.1f} s")


def _embedded(target_name: str | None) -> Server:
    server = access.chosen(target_name)
    if not server:
        raise UserError(
            "An archive is of the embedded server, and the profile names another one.\n"
            "Restore a dump there, or let the profile name the embedded server."
        )
    return server


def _recover(found: Found, to: datetime | None, target_name: str | None, *, force: bool) -> None:
    from ingestion.warehouse.backup import archive, recovery

    server, begun = _embedded(target_name), time.monotonic()
    login = profiles_login(profiles_path())
    if not server.initialised:
        server.start(login=login)
    elif not force:
        server.start()
    only = None if found.newest else found.name
    done = recovery.recover(server, found.place, to, only, force=force)
    _open(server)
    for line in done.skipped:
        echo(line)
    echo(f"{server.target.place} is as of its transaction of {done.until}, from {done.base}")
    if done.beside:
        _say_beside(done.beside)
    echo(f"It is open after {time.monotonic() - begun:.1f} s.")
    if server_settings.archive(server.data):
        echo(f"The first base backup since: {archive.base_backup(server).place}")


def _go_back(folder: Path, target_name: str | None, *, force: bool) -> None:
    from ingestion.warehouse.backup import recovery

    server = _embedded(target_name)
    beside = recovery.go_back(server, folder, force=force)
    _open(server)
    echo(f"The data are those of {server.data}.")
    _say_beside(beside)


def _open(server: Server) -> None:
    """The roles' passwords are those that are noted here, and dlt goes on from what is there."""
    access.open_to_roles(server, again=True)
    forget_loads(server.target)


def _say_beside(folder: Path) -> None:
    quoted = shlex.quote(str(folder))
    echo(f"What it had before is in {folder}")
    echo(f"To go back: marquee db restore {quoted} --force")
    echo(f"To remove it: rm -r {quoted}")


def _restore_dump(found: Found, target: Target, *, force: bool) -> None:
    from ingestion.warehouse.backup import catalog
    from ingestion.warehouse.backup.restore import restore as restore_dump

    done = restore_dump(_owner(target), found, force=force)
    forget_loads(target)
    if is_embedded(target):
        access.open_to_roles(Server(), again=True)
    echo(f"{target.place} is as of {catalog.age_text(done.made_at)}: {found.name}")
    if done.beside:
        admin = " --role admin" if is_embedded(target) else ""
        psql = f"marquee db psql{admin} postgres"
        name, beside = target.dbname, done.beside
        echo(f"What it had before is in the database {beside}.")
        echo(
            f'To go back: {psql} -c \'alter database "{name}" rename to "{name}_restored"\''
            f' -c \'alter database "{beside}" rename to "{name}"\''
        )
        echo(f"To remove it: {psql} -c 'drop database \"{beside}\"'")
    for role in done.locked_out:
        echo(f"The role {role} was made, and has no password yet: backups have none.")
    for statement in done.left_out:
        echo(f"Left out, for it takes a superuser: {one_line(statement)}")


def forget_loads(target: Target) -> None:
    """Drop what dlt notes beside a warehouse: it would take rows for landed that are gone now."""
    shutil.rmtree(working_dir(target), ignore_errors=True)


def _owner(target: Target) -> Target:
    """Who reads and makes all: the superuser of the embedded server, else the profile's login."""
    if not is_embedded(target):
        return target
    return replace(Server().target, dbname=target.dbname, name=target.name)
