"""``marquee superset``: Superset over the marts, with the dashboards below ``bi/superset``."""

from __future__ import annotations

import os

import click

from bi.superset.assets import FOLDER
from bi.superset.service import HOST, PORT, Superset, answers
from ingestion.cli.options import target_option
from ingestion.errors import UserError
from ingestion.places import on_disk
from ingestion.terminal import echo
from ingestion.warehouse import access
from ingestion.warehouse.machine import port_taken


@click.group(invoke_without_command=True)
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1024, 65535))
@click.option("--host", default=HOST, show_default=True, help="0.0.0.0 in a container.")
@target_option
@click.pass_context
def superset(context: click.Context, port: int, host: str, target_name: str | None) -> None:
    """Serve the dashboards on 127.0.0.1; the first time, set Superset up.

    The password of the user admin and Superset's secret key are made up, unless
    MARQUEE_SUPERSET_PASSWORD and MARQUEE_SUPERSET_SECRET_KEY say them.
    """
    if context.invoked_subcommand:
        return
    place = Superset(access.ready(target_name))
    address = f"http://{HOST}:{port}"
    password = place.prepare()
    if password:
        echo(f"Log in as admin, password {password}\nIt is printed this once.")
    if place.reader() == place.target:
        echo(
            f"Superset reads as {place.target.user}. To have it read as the reporter, set"
            " MARQUEE_REPORTER_PASSWORD."
        )
    running = port_taken(port)
    if running and not answers(address):
        raise UserError(
            f"Port {port} is used by another program.\n"
            f"Choose another one: make superset PORT={port + 1}"
        )
    for dashboard in place.dashboards():
        echo(
            f"{dashboard['dashboard_title']:<14} {address}/superset/dashboard/{dashboard['slug']}/"
        )
    if running:
        echo("Superset is running already.")
        return
    echo("Ctrl-C stops it.")
    place.serve(port, host)


@superset.command()
@click.option("--to", metavar="FOLDER", help="Another folder.")
@target_option
def export(to: str | None, target_name: str | None) -> None:
    """Write dashboards that were edited in Superset back to bi/superset."""
    folder = on_disk(to, "The folder of dashboards") if to else FOLDER
    changed = Superset(access.ready(target_name)).export(folder)
    for path in changed:
        echo(os.path.relpath(folder / path) if folder == FOLDER else folder / path)
    echo(f"{len(changed)} files changed.")


@superset.command()
@target_option
def password(target_name: str | None) -> None:
    """Give the user admin a new password, and print it."""
    echo(Superset(access.ready(target_name)).new_password())
