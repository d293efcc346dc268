"""What several commands share: an option, and the warehouse that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ingestion.errors import UserError
from ingestion.terminal import echo, one_line

if TYPE_CHECKING:
    from ingestion.lake.destination import Lake
    from ingestion.pipeline import LoadReport
    from ingestion.sources.transactions.landing.load import Destination
    from ingestion.warehouse.target import Target

target_option = click.option("--target", "target_name", help="Target of the profile, as in dbt.")
to_option = click.option(
    "--to",
    type=click.Choice(["warehouse", "lake"]),
    default="warehouse",
    show_default=True,
    help="lake: Iceberg tables on a disk or in a store, see docs/lake.md.",
)


def loader_target(name: str | None) -> Target:
    """The target to land in. Starts the embedded server if it is the target and is not running."""
    from ingestion.warehouse import roles

    return roles.acting_as("loader", recorded_target(name))


def landing_target(source: str, name: str | None) -> Target:
    """The same for a source of the user's own, whose schema is made where the loader may not."""
    from ingestion.warehouse import roles

    return roles.open_landing(source, recorded_target(name))


def destination(to: str, name: str | None) -> tuple[Target, Destination | None]:
    """The target of a landing, and where its rows go if that is not the target's raw tables.

    Raises:
        UserError: there is no lake without its packages, or what is set is no place for it.
    """
    return lake_of(name) if to == "lake" else (loader_target(name), None)


def lake_of(name: str | None) -> tuple[Target, Lake]:
    """The target to land in, and its lake.

    Raises:
        UserError: there is no lake without its packages, or what is set is no place for it.
    """
    from ingestion.lake import settings

    settings.need_libraries()
    place = settings.location()
    from ingestion.lake.destination import Lake

    target = landing_target(settings.NAME, name)
    return target, Lake(target, place)


def recorded_target(name: str | None) -> Target:
    """The profile's target, ready; from now on the command leaves evidence there, if it does."""
    from ingestion.evidence import recorder
    from ingestion.warehouse import access

    target = access.ready(name)
    if command := recorder.current():
        command.open(target)
    return target


def refuse_without_warehouse() -> None:
    """Refuse to make a warehouse for a command that needs one with data in it.

    Raises:
        UserError: there is no warehouse.
    """
    from ingestion.warehouse import access

    if access.none_yet():
        raise UserError("There is no warehouse yet.\nMake one with: marquee run")


def print_notes(report: LoadReport) -> None:
    """Print what a load has to say; texts of others may be in it."""
    for note in report.notes:
        echo(one_line(note, None))
