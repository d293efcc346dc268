"""``marquee lake`` looks after what landed with ``--to lake``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ingestion.cli.options import lake_of, refuse_without_warehouse, target_option
from ingestion.errors import UserError
from ingestion.evidence.recorder import recorded
from ingestion.terminal import echo, one_line

if TYPE_CHECKING:
    from ingestion.lake.destination import Lake
    from ingestion.warehouse.target import Target


@click.group()
def lake() -> None:
    """Look after the lake, where `marquee ingest ... --to lake` lands."""


@lake.command("tables")
@target_option
def lake_tables(target_name: str | None) -> None:
    """Say what is in the lake, and where other engines find each table."""
    from ingestion.lake.upkeep import states

    found = states(*_lake(target_name))
    if not found:
        echo("The lake has no tables. Land some: marquee ingest transactions FILE --to lake")
    for name, state in found.items():
        counts = f"{state.rows:>12,} rows {state.files:>7,} files {state.snapshots:>5,} versions"
        echo(f"{name:<32} {counts}  {state.metadata}", event="table", facts={"table": name})


@lake.command("rejects")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@target_option
def lake_rejects(target_name: str | None, *, limit: int) -> None:
    """Print how many lines of the lake's files could not land, by reason, and the first of them.

    To correct one, correct its file and land that with --replace.
    """
    from ingestion.lake.upkeep import rejects

    found = rejects(*_lake(target_name))
    if not found.num_rows:
        echo("The lake has no rejects.")
        return
    for count in found.column("reason_code").value_counts().to_pylist():
        echo(f"{count['counts']:>12,} {count['values']}")
    for row in found.slice(0, limit).to_pylist():
        why = f"{row['reason_code']}: {one_line(row['reason'], None)}"
        echo(f"{one_line(row['_file_name'])}:{row['_file_line']}  {why}")
        echo(f"    {one_line(row['raw_text'])}")
    if found.num_rows > limit:
        echo(f"There are more: --limit {limit * 10}")


@lake.command("compact")
@target_option
@recorded("lake compact")
def lake_compact(target_name: str | None) -> None:
    """Join small data files, which many small loads leave; rows stay as they are."""
    from ingestion.lake.upkeep import compact

    for name, done in compact(*_lake(target_name)).items():
        echo(f"{name:<32} {done.before:>7,} files, now {done.after:,}", event="compacted")


@lake.command("expire")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="Versions that are younger stay readable.",
)
@target_option
@recorded("lake expire")
def lake_expire(target_name: str | None, *, older_than: float) -> None:
    """Remove old versions of the tables, and files that no version has."""
    from ingestion.lake.upkeep import expire

    for name, done in expire(*_lake(target_name), older_than).items():
        echo(f"{name:<32} {done.removed:>7,} files removed", event="expired")


@lake.command("forget")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--all", "everything", is_flag=True, help="All tables, and what has landed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_option
@recorded("lake forget")
def lake_forget(
    tables: tuple[str, ...], target_name: str | None, *, everything: bool, yes: bool
) -> None:
    """Take copies, such as marts.dim_city, out of the catalogue; their files stay.

    With --all the lake begins anew, at the same place or another: the ledger forgets what has
    landed, too, so it may land again.
    """
    from ingestion.lake.upkeep import forget

    if everything == bool(tables):
        raise UserError("Name copies that the catalogue shall forget, or say --all.")
    lake = _lake(target_name)
    if everything and not yes:
        click.confirm("Forget all tables of the lake, and what has landed there?", abort=True)
    for name, url in forget(*lake, tables).items():
        echo(f"{name:<32} is forgotten; it was at {url}", event="forgotten")


def _lake(target_name: str | None) -> tuple[Target, Lake]:
    refuse_without_warehouse()
    return lake_of(target_name)
