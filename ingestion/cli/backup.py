"""``marquee db backup`` and ``marquee db restore``."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ingestion.cli.options import refuse_without_warehouse, target_option
from ingestion.pipeline import working_dir
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.machine import size_text
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target

if TYPE_CHECKING:
    from ingestion.warehouse.backup.catalog import Found


@click.command()
@click.argument("to")
@click.option(
    "--keep", type=click.IntRange(min=1), metavar="N", help="Remove all there but the N newest."
)
@target_option
def backup(to: str, keep: int | None, target_name: str | None) -> None:
    """Write a dump of the warehouse's database to TO, a folder or an s3:// URL.

    Each backup is a folder of its own below TO. One that is cut short or damaged is never restored.
    """
    from ingestion.warehouse.backup.dump import dump

    refuse_without_warehouse()
    begun = time.monotonic()
    made = dump(_owner(access.ready(target_name)), to, keep)
    echo(f"{made.place}\n{size_text(made.size)}, {time.monotonic() - begun:.1f} s")
    for name in made.removed:
        echo(f"Removed {name}")


@click.command()
@click.argument("place", metavar="FROM")
@click.option("--force", is_flag=True, help="Also where the warehouse has data: they stay beside.")
@target_option
def restore(place: str, force: bool, target_name: str | None) -> None:
    """Have a backup be the warehouse: the newest in FROM, or the one that FROM names.

    What the warehouse has is never overwritten: it stays beside, and you are told its name.
    """
    from ingestion.warehouse.backup import catalog

    found = catalog.find(place)
    begun = time.monotonic()
    _restore_dump(found, access.ready(target_name), force=force)
    echo(f"{time.monotonic() - begun:.1f} s")


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
