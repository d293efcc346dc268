"""What keeps a lake quick and small: joins small files, removes old versions and left-overs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from sqlalchemy import text

from ingestion.errors import UserError
from ingestion.lake.catalogue import Catalogue
from ingestion.lake.destination import Lake
from ingestion.lake.load import write_rows
from ingestion.lake.settings import NAME, NAMESPACE, RAW, SCHEMA, SMALL_BYTES
from ingestion.lake.storage import Files
from ingestion.pipeline import LoadReport, one_at_a_time
from ingestion.progress import task
from ingestion.warehouse.target import Target

JOINED_BYTES = 2 * SMALL_BYTES  # of small files that become one


@dataclass
class Done:
    """What was done to a table.

    Attributes:
        before, after: data files that count.
        removed: files that were removed from the place.
    """

    before: int = 0
    after: int = 0
    removed: int = 0


@dataclass
class State:
    """What a table has.

    Attributes:
        rows, files: of its current version.
        snapshots: versions that can be read.
        metadata: the URL by which other engines can register it.
    """

    rows: int
    files: int
    snapshots: int
    metadata: str = field(repr=False)


def states(target: Target, lake: Lake) -> dict[str, State]:
    """What each table has, by its name in the catalogue."""
    found = {}
    for table in _there(target, lake):
        snapshot = table.current_snapshot()
        summary = snapshot.summary if snapshot else None
        found[_name(table)] = State(
            int((summary and summary["total-records"]) or 0),
            int((summary and summary["total-data-files"]) or 0),
            len(table.metadata.snapshots),
            table.metadata_location,
        )
    return found


def rejects(target: Target, lake: Lake) -> pa.Table:
    """Lines that could not land, in the order of reason_code, _file_name, _file_line.

    Besides these, the columns reason and raw_text.
    """
    order = ("reason_code", "_file_name", "_file_line")
    columns = (*order, "reason", "raw_text")
    for table in _there(target, lake):
        if table.name() == (NAMESPACE, "rejects"):
            found = table.scan(selected_fields=columns).to_arrow().select(columns)
            return found.sort_by([(name, "ascending") for name in order])
    return pa.table({name: [] for name in columns})


def compact(target: Target, lake: Lake) -> dict[str, Done]:
    """Join small data files of the same partition; rows and earlier versions stay as they are.

    Raises:
        UserError: a load is under way.
    """
    with one_at_a_time(NAME, target), closing(_open(target, lake)) as catalogue:
        return {_name(table): _compact(table) for table in catalogue.there()}


def expire(target: Target, lake: Lake, days: float) -> dict[str, Done]:
    """Remove versions older than some days, and files that old which no version has.

    The version that counts always stays, and so do files as they came.

    Raises:
        UserError: a load is under way.
    """
    before = datetime.now(timezone.utc) - timedelta(days=days)
    with one_at_a_time(NAME, target), closing(_open(target, lake)) as catalogue:
        files = Files(lake.location)
        done = {}
        for table in catalogue.there():
            if any(one.timestamp_ms < before.timestamp() * 1000 for one in table.snapshots()):
                table.maintenance.expire_snapshots().older_than(before).commit()
            used = set(_used(table.refresh()))
            folder = table.location().removeprefix(lake.location.of(""))
            unused = [
                url
                for url, written in files.below(folder)
                if url not in used and written < before.timestamp()
            ]
            for url in unused:
                files.remove(url)
            done[_name(table)] = Done(removed=len(unused))
        halves = [
            url
            for url, written in files.below(RAW)
            if url.endswith(".part") and written < before.timestamp()
        ]
        for url in halves:
            files.remove(url)
        return done


def forget(target: Target, lake: Lake, names: Sequence[str] = ()) -> dict[str, str]:
    """Take tables out of the catalogue; their files stay.

    Args:
        names: of copies, with the schema. Without any, all tables are forgotten, and with them
            what the ledger says has landed: the lake begins anew.

    Returns:
        Where the metadata of each table is, by its name.

    Raises:
        UserError: there is no such copy, or a load is under way.
    """
    with one_at_a_time(NAME, target), closing(_open(target, lake)) as catalogue:
        there = {".".join(name): (name, url) for name, url in catalogue.entries().items()}
        copies = [name for name, (known, _) in there.items() if known[0] != NAMESPACE]
        if unknown := [name for name in names if name not in copies]:
            raise UserError(
                f"There is no copy {unknown[0]} in the lake.\n"
                f"There are: {', '.join(copies) or 'none'}"
                + " (tables of transactions go with their ledger: --all)"
                * (unknown[0] in there)
            )
        chosen = names or list(there)
        with catalogue.together() as connection:
            catalogue.forget(there[name][0] for name in chosen)
            if not names:
                for table in ("files", "_dlt_loads"):
                    connection.execute(text(f"delete from {SCHEMA}.{table}"))  # noqa: S608 - ours
        return {name: there[name][1] for name in chosen}


def _name(table: Table) -> str:
    """As in the catalogue: with its namespace."""
    return ".".join(table.name())


def _there(target: Target, lake: Lake) -> list[Table]:
    """The tables of a lake; none before anything has landed, and nothing is made."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select to_regclass('{SCHEMA}.iceberg_tables') is not null")
        if not cursor.fetchone()[0]:
            return []
    with closing(Catalogue(target, lake.location)) as catalogue:
        return catalogue.there()


def _open(target: Target, lake: Lake) -> Catalogue:
    lake.settle(LoadReport(NAME))
    return Catalogue(target, lake.location)


def _compact(table: Table) -> Done:
    files = [planned.file for planned in table.scan().plan_files()]
    groups = list(_groups(files))
    new: list[DataFile] = []
    with task(f"Joining files of {table.name()[-1]}", total=len(groups), unit="groups") as advance:
        for group in groups:
            rows = pa.concat_tables([_read(table, file) for file in group])
            new += write_rows(table.io, table.metadata, rows)
            advance(1)
    if groups:
        with table.transaction() as change, change.update_snapshot().overwrite() as step:
            for group in groups:
                for file in group:
                    step.delete_data_file(file)
            for file in new:
                step.append_data_file(file)
    return Done(len(files), len(files) - sum(map(len, groups)) + len(new))


def _groups(files: list[DataFile]) -> Iterator[list[DataFile]]:
    """Small files that become one: of one partition, and not too many bytes."""
    by_partition: dict[tuple, list[DataFile]] = {}
    for file in sorted(files, key=lambda file: file.file_path):
        if file.file_size_in_bytes < SMALL_BYTES:
            values = tuple(file.partition[at] for at in range(len(file.partition)))
            by_partition.setdefault((file.spec_id, *values), []).append(file)
    for small in by_partition.values():
        group: list[DataFile] = []
        for file in small:
            if sum(one.file_size_in_bytes for one in group) >= JOINED_BYTES:
                yield group
                group = []
            group.append(file)
        if len(group) > 1:
            yield group


def _read(table: Table, file: DataFile) -> pa.Table:
    """The rows of a data file; columns that came later are null in it."""
    schema = table.schema().as_arrow()
    with table.io.new_input(file.file_path).open() as source:
        rows = pq.read_table(source, partitioning=None)
    there = set(rows.column_names)
    columns = [
        rows[one.name].cast(one.type) if one.name in there else pa.nulls(rows.num_rows, one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _used(table: Table) -> Iterator[str]:
    """Every file that some version of a table has."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    seen: set[str] = set()
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path
