"""``marquee airflow``: Airflow with the DAG of ``orchestration``, on this machine."""

from __future__ import annotations

import click

from ingestion.cli.options import target_option
from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse import access
from ingestion.warehouse.machine import port_taken
from orchestration.service import HOST, PORT, Airflow


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1024, 65535))
@target_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def airflow(port: int, target_name: str | None, command: tuple[str, ...]) -> None:
    """Serve Airflow on 127.0.0.1, with the DAG marquee; the first time, set Airflow up.

    With COMMAND, run that command of Airflow's own over the same set-up, such as `marquee airflow
    dags test marquee 2026-01-31`.
    """
    place = Airflow(access.ready(target_name), port)
    if command:
        place.become(command)
    running = port_taken(port)
    if running and not place.answers():
        raise UserError(
            f"Port {port} is used by another program.\n"
            f"Choose another one: make airflow PORT={port + 1}"
        )
    if running:
        echo(f"Airflow is running already: http://{HOST}:{port}")
        return
    if place.prepare():
        echo(f"Log in as admin, password {place.state['password']}")
    else:
        echo(f"Log in as admin; the password is in {place.state_file}")
    echo(f"http://{HOST}:{port}/dags/marquee   Switch the DAG on there to have it run every night.")
    echo("Ctrl-C stops all of it.")
    place.serve()
