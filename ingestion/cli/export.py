"""``marquee export``: marts and raw tables for other engines."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ingestion.cli.options import lake_of, refuse_without_warehouse, target_option
from ingestion.places import place
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access
from ingestion.warehouse.target import marts_schema, read_copy_place
from serving.export import FORMATS, export_marts
from serving.export.place import LATEST, MANIFEST
from serving.export.raw import copy_raw, write_raw


@click.group()
def export() -> None:
    """Write marts as files, or copy raw tables, for other engines."""


@export.command()
@click.option(
    "--to", required=True, metavar="PLACE", help="Folder, file:// URL, or s3:// gs:// az:// URL."
)
@click.option("--format", "kind", type=click.Choice(FORMATS), default="parquet", show_default=True)
@click.option("--excel", is_flag=True, help="CSV for a spreadsheet: texts cannot run as formulas.")
@click.option(
    "--select", multiple=True, metavar="NAME", help="Only this mart; patterns such as fct_* work."
)
@click.option("--schema", help="Schema of the marts, if you changed generate_schema_name.")
@target_option
def marts(  # noqa: PLR0917 - click gives them by name
    to: str,
    kind: str,
    excel: bool,
    select: tuple[str, ...],
    schema: str | None,
    target_name: str | None,
) -> None:
    """Write all marts, or a selection, as Parquet or CSV.

    All marts come from one snapshot of the database. Facts are partitioned by month, in Hive's
    layout. PLACE/manifest.json names the last complete export, with columns, rows and checksums.

    --excel puts an apostrophe before texts that begin with = + - @, so that a spreadsheet does not
    run them as formulas, and marks the files as UTF-8.
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


@export.command()
@click.option(
    "--to",
    default="duckdb",
    show_default=True,
    metavar="TARGET",
    help="Target that gets them; or lake: Iceberg tables, see docs/lake.md.",
)
@target_option
def raw(to: str, target_name: str | None) -> None:
    """Copy all raw tables for a target of another engine, or into the lake.

    A target of type duckdb gets them in its file, one of type spark as Parquet, where its profile
    says. The models are built there by: dbt build --target NAME. Tables that an earlier copy put
    there are replaced; models that were built there stay. All tables come from one snapshot of the
    warehouse.

    The lake gets all but transactions, which land there by: marquee ingest ... --to lake
    """
    to_place = None if to == "lake" else read_copy_place(to)  # before a server is started
    refuse_without_warehouse()
    started = time.monotonic()
    if to_place is None:
        rows, to_place = _into_lake(target_name)
    elif isinstance(to_place, Path):
        rows = copy_raw(access.ready(target_name), to_place)
    else:
        rows = write_raw(access.ready(target_name), to_place)
    for name, count in rows.items():
        echo(f"{one_line(name):<44} {count:>12,} rows")
    seconds = time.monotonic() - started
    echo(f"{sum(rows.values()):,} rows in {seconds:.1f} s: {to_place}")
    if to != "lake":
        echo(f"Build on it: dbt build --target {to}")


def _into_lake(target_name: str | None) -> tuple[dict[str, int], str]:
    """Rows of each table, and where they are."""
    source, lake = lake_of(target_name)
    from serving.export.to_lake import copy_to_lake

    return copy_to_lake(source, lake), lake.location.url
