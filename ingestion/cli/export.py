"""``marquee export``: the marts for other engines."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ingestion.cli.options import refuse_without_warehouse, target_option
from ingestion.places import place
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access
from ingestion.warehouse.target import marts_schema
from serving.export import FORMATS, export_marts
from serving.export.place import LATEST, MANIFEST


@click.group()
def export() -> None:
    """Write what was built as files, for other engines."""


@export.command()
@click.option(
    "--to", required=True, metavar="PLACE", help="Folder, file:// URL, or s3:// gs:// az:// URL."
)
@click.option("--format", "kind", type=click.Choice(FORMATS), default="parquet", show_default=True)
@click.option("--excel", is_flag=True, help="CSV for a spreadsheet: no text of it is a formula.")
@click.option("--select", multiple=True, metavar="NAME", help="Only this mart; fct_* works, too.")
@click.option("--schema", help="Where the marts are, if generate_schema_name is not ours.")
@target_option
def marts(  # noqa: PLR0917 - click gives them by name
    to: str,
    kind: str,
    excel: bool,
    select: tuple[str, ...],
    schema: str | None,
    target_name: str | None,
) -> None:
    """Write every mart, or a selection, as Parquet or CSV.

    Facts are partitioned by month, in Hive's layout. All of it is of one moment. An export is whole
    or not there: PLACE/manifest.json names the last one, with columns, rows and checksums.

    With --excel, texts that begin with = + - @ have an apostrophe before them, so that a
    spreadsheet does not compute them, and files are marked as UTF-8.
    """
    place(to)  # before a server is started for nothing
    refuse_without_warehouse()
    started = time.monotonic()
    target = access.ready(target_name)
    schema = schema or marts_schema(target)
    manifest = export_marts(target, schema, to, kind, select, excel=excel)
    size = 0
    for mart in manifest["marts"]:
        size += sum(file["bytes"] for file in mart["files"])
        named = f"{one_line(mart['name']):<34}"
        echo(f"{named} {mart['rows']:>12,} rows {len(mart['files']):>5} files")
    found = place(to)
    to = str(found) if isinstance(found, Path) else to.rstrip("/")
    echo(f"{size / 1e6:,.1f} MB in {time.monotonic() - started:.1f} s: {to}/{MANIFEST}")
    folder = manifest["version"] if isinstance(found, tuple) else LATEST
    echo(f"Read it from {to}/{folder}/")
