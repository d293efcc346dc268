"""``marquee lineage``: the page of lineage by column."""

from __future__ import annotations

import click

from ingestion.dbt_runner import target_path
from ingestion.errors import UserError
from ingestion.lineage import COLIBRI, write_page
from ingestion.terminal import echo


@click.command()
def lineage() -> None:
    """Write the page of lineage by column, from the last dbt build.

    `make lineage` installs what it needs, and runs this.
    """
    if not COLIBRI.exists():
        raise UserError("dbt-colibri is not installed here.\nInstall it: make lineage")
    echo(write_page(target_path()))
