"""``marquee export``: the marts for other engines."""

from __future__ import annotations

import time

import click

from ingestion import server, warehouse
from ingestion.errors import UserError
from ingestion.export import FORMATS, LATEST, MANIFEST, export_marts
from ingestion.terminal import echo


@click.group()
def export() -> None:
    """Write what was built as files, for other engines."""


@export.command()
@click.option("--to", required=True, metavar="PLACE", help="Folder, or s3:// gs:// az:// URL.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="parquet", show_default=True)
@click.option("--select", multiple=True, metavar="NAME", help="Only this mart; fct_* works, too.")
@click.option("--schema", help="Where the marts are, if generate_schema_name is not ours.")
@click.option("--target", "name", help="Target of the profile, as in dbt.")
def marts(to: str, kind: str, select: tuple[str, ...], schema: str | None, name: str | None):
    """Write every mart, or a selection, as Parquet or CSV.

    Facts are partitioned by month, in Hive's layout. All of it is of one moment. An export is whole
    or not there: PLACE/manifest.json names the last one, with columns, rows and checksums.
    """
    if server.none_yet():
        raise UserError("There is no warehouse yet.\nMake one with: marquee run")
    started = time.monotonic()
    target = server.ready(name)
    manifest = export_marts(target, schema or warehouse.marts_schema(target), to, kind, select)
    size = 0
    for mart in manifest["marts"]:
        size += sum(file["bytes"] for file in mart["files"])
        echo(f"{mart['name']:<34} {mart['rows']:>12,} rows {len(mart['files']):>5} files")
    place = to.rstrip("/")
    echo(f"{size / 1e6:,.1f} MB in {time.monotonic() - started:.1f} s: {place}/{MANIFEST}")
    folder = manifest["version"] if "://" in to else LATEST
    echo(f"Read it from {place}/{folder}/")
