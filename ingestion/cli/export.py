"""``marquee export``: marts and raw tables for other engines."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ingestion.cli.options import lake_of, refuse_without_warehouse, target_option
from ingestion.errors import UserError
from ingestion.places import place
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access
from ingestion.warehouse.target import marts_schema, read_copy_place
from serving.export import FORMATS, export_marts
from serving.export.place import LATEST, MANIFEST
from serving.export.raw import copy_raw, write_raw

LAKE = "lake"  # as a place


@click.group()
def export() -> None:
    """Write marts as files, or copy raw tables, for other engines."""


@export.command()
@click.option(
    "--to",
    required=True,
    metavar="PLACE",
    help="Folder, URL (file: s3: gs: az: hdfs:), or lake: Iceberg tables, see docs/lake.md.",
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
    """Write all marts, or a selection, as Parquet or CSV, or as Iceberg tables of the lake.

    All marts come from one snapshot of the database. Facts are partitioned by month, in Hive's
    layout. PLACE/manifest.json names the last complete export, with columns, rows and checksums.

    --excel puts an apostrophe before texts that begin with = + - @, so that a spreadsheet does not
    run them as formulas, and marks the files as UTF-8.

    Tables of the lake take the place of those that the last export put there, all at once.
    """
    if to == LAKE:
        _marts_into_lake(kind, target_name, schema, select, excel=excel)
        return
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
    to_place = None if to == LAKE else read_copy_place(to)  # before a server is started
    refuse_without_warehouse()
    started = time.monotonic()
    if to_place is None:
        _, lake = lake_of(target_name)
        from serving.export.to_lake import raw_to_lake

        _say(raw_to_lake(lake), started, lake.location.url)
        return
    if isinstance(to_place, Path):
        rows = copy_raw(access.ready(target_name), to_place)
    else:
        rows = write_raw(access.ready(target_name), to_place)
    _say(rows, started, to_place)
    echo(f"Build on it: dbt build --target {to}")


def _marts_into_lake(
    kind: str, target_name: str | None, schema: str | None, select: tuple[str, ...], *, excel: bool
) -> None:
    if excel or kind != "parquet":
        raise UserError(
            "Tables of the lake are Iceberg's, whose files are Parquet.\n"
            "Leave out --format and --excel, or name another place."
        )
    if Path(LAKE, MANIFEST).exists():
        raise UserError(
            "--to lake is the lake, and a folder of that name here has an export.\n"
            "To write into that: --to ./lake. To write into the lake, call this from elsewhere."
        )
    refuse_without_warehouse()
    started = time.monotonic()
    _, lake = lake_of(target_name)
    from serving.export.to_lake import marts_to_lake

    reader = access.ready(target_name)
    rows = marts_to_lake(reader, lake, schema or marts_schema(reader), select)
    _say(rows, started, lake.location.url)


def _say(rows: dict[str, int], started: float, place: object) -> None:
    """How many rows each table has, and where all are."""
    for name, count in rows.items():
        echo(f"{one_line(name):<44} {count:>12,} rows")
    echo(f"{sum(rows.values()):,} rows in {time.monotonic() - started:.1f} s: {place}")
