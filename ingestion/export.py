"""The marts as files that other engines read as they are: Parquet or CSV, on disk or in a store.

Below the place that is exported to::

    manifest.json                                          the last whole export: put last
    latest -> 20240131T120000Z-1f2e3d                      the same, on disks only
    20240131T120000Z-1f2e3d/dim_city/part-0.parquet
    20240131T120000Z-1f2e3d/fct_transactions/event_month=2024-01-01/part-0.parquet

Each export is a folder of its own, so that one that is killed harms nothing: the manifest and
``latest`` still name the one before. That one goes when the next export begins.

A mart that is no dimension and has ``date_key`` or ``date_day`` is partitioned by the month of its
first date column. The partition column is an additional one, so no column loses its type to a
folder name; days would make too many small files.
"""

from __future__ import annotations

import codecs
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingestion import interrupts, progress
from ingestion.errors import UserError, install_command, told
from ingestion.places import as_name, place
from ingestion.terminal import one_line
from ingestion.warehouse.target import Target

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection
    from fsspec import AbstractFileSystem

FORMATS = ("parquet", "csv")
MANIFEST = "manifest.json"
LATEST = "latest"
MADE_BY = "marquee export marts"
STAMP = "%Y%m%dT%H%M%SZ"
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
ABANDONED = timedelta(days=1)  # in a store, an unfinished export may be one that is under way
FIRST_DAY, MICROSECONDS = -3_000_000, 86_400_000_000  # PostgreSQL begins in 4713 BC
BATCH_BYTES = 4 * 1024**2
ROW_GROUP, GROUP_BYTES = 131_072, 64 * 1024**2  # rows, or less of them when they are wide
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # what Hive calls the partition of null
# PostgreSQL's types that Arrow has, too; all others are exported as text
PLAIN = re.compile(
    r"(smallint|integer|bigint|real|double precision|boolean|date|text|character varying.*"
    r"|timestamp.*)"
)
# what a spreadsheet computes, after blanks too; wide signs are the same to it
FORMULA = r"^[\s\pZ]*[=+\-@＝＋－＠]|^[\t\r\n]"  # noqa: RUF001
HEADER_FORMULA = FORMULA.replace(r"\pZ", "")
NUMBER = r"^-?[0-9]+([.,][0-9]+)?$"
DECIMAL = re.compile(r"numeric\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Column:
    """A column of a mart: its name, PostgreSQL's type, whether it may be null, what it means."""

    name: str
    type: str
    nullable: bool
    description: str | None


@dataclass
class Mart:
    """One mart, and what was written of it.

    Attributes:
        name: the table or view.
        description: what it holds, as the models say.
        columns: of the table; the partition column is not among them.
        partition: column added for the folders, and the date column whose month it is.
        rows: written.
        files: path below the place, rows, bytes and sha256 of each.
    """

    name: str
    description: str | None
    columns: list[Column]
    partition: dict[str, str] | None = None
    rows: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [column.name.lower() for column in self.columns]  # readers often ignore case
        dates = [column.name for column in self.columns if column.type == "date"]
        if dates and {"date_key", "date_day"} & set(names) and not self.name.startswith("dim_"):
            name = re.sub("_(date|day)$", "", dates[0]) + "_month"
            while name.lower() in names:
                name += "_"
            self.partition = {"column": name, "type": "date", "month_of": dates[0]}


def export_marts(
    target: Target,
    schema: str,
    to: str,
    kind: str = "parquet",
    select: Sequence[str] = (),
    *,
    excel: bool = False,
) -> dict:
    """Write marts as files, all of one moment: one snapshot of the database.

    Rows are streamed; memory does not grow with a table. Tables are locked as `pg_dump` does: a
    rebuild waits until the export has finished.

    Args:
        target: the warehouse, logged in as anyone who reads marts.
        schema: where they are.
        to: a folder, or a URL of a store (``s3://bucket/prefix``); made when absent.
        kind: ``parquet`` or ``csv``.
        select: names or patterns (``fct_*``) of marts; all when empty.
        excel: CSV that a spreadsheet opens: marked as UTF-8, and no text is a formula.

    Returns:
        The manifest, as written.

    Raises:
        UserError: there are no such marts, or the place cannot be written to. The last export
            stays as it was.
    """
    if excel and kind != "csv":
        raise UserError("Files for spreadsheets are CSV.\nAdd: --format csv")
    from adbc_driver_postgresql import dbapi

    target.connect().close()  # says what is wrong in plain words
    with dbapi.connect(target.uri) as connection:
        names = _chosen(_marts(connection, schema), schema, target, select)
        place = _Place(to)
        with place.alone():
            place.tidy()
            moment = _begin_snapshot(connection, schema, names)
            version = f"{moment:{STAMP}}-{secrets.token_hex(3)}"
            try:
                marts = []
                with (
                    interrupts.giving_back(partial(place.give_back, version)),
                    progress.task("Exporting", unit="marts") as advance,
                ):
                    advance(0, total=len(names))
                    for name in names:
                        mart = _describe(connection, schema, name)
                        _write(connection, schema, mart, _Version(place, version, kind, excel))
                        marts.append(mart)
                        advance(1)
                manifest = {
                    "made_by": MADE_BY,
                    "version": version,
                    "format": kind,
                    "excel": excel,
                    "snapshot_at": moment.isoformat(),
                    "schema": schema,
                    "marts": [asdict(mart) for mart in marts],
                }
                place.publish(version, manifest)
            except BaseException:
                place.remove(version)
                raise
    return manifest


# The warehouse ------------------------------------------------------------------------------------


def _rows(connection: Connection, query: str, *values: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def _marts(connection: Connection, schema: str) -> dict[str, str]:
    """Name and kind (of pg_class) of what this login can read in the schema."""
    found = _rows(
        connection,
        "select relname::text, relkind::text from pg_class"
        " inner join pg_namespace on pg_namespace.oid = relnamespace"
        " where nspname = $1 and relkind in ('r', 'p', 'v', 'm')"
        " and has_schema_privilege(relnamespace, 'usage')"
        " and has_table_privilege(pg_class.oid, 'select') order by relname",
        schema,
    )
    connection.commit()
    return dict(found)


def _chosen(
    there: dict[str, str], schema: str, target: Target, select: Sequence[str]
) -> dict[str, str]:
    if not there:
        raise UserError(
            f"{target.user} finds no marts in the schema {schema} of {target.dbname}.\n"
            "Build them with `marquee run` or `dbt build`, or name their schema with --schema."
        )
    chosen = set() if select else set(there)
    for pattern in select:
        found = {name for name in there if name == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not found:
            names = ", ".join(map(_shown, there))
            raise UserError(f"There is no mart {_shown(pattern)}.\nThere are: {names}")
        chosen |= found
    return {name: kind for name, kind in there.items() if name in chosen}


def _shown(name: str) -> str:
    """A name of the database within a message."""
    return one_line(name, None)


def _begin_snapshot(connection: Connection, schema: str, marts: dict[str, str]) -> datetime:
    """Fix what all later queries see; no mart that is locked can be rebuilt meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        # the reporter's are for people's queries; an export takes as long as its place is slow
        cursor.execute("set local statement_timeout = 0")
        cursor.execute("set local idle_in_transaction_session_timeout = 0")
        lockable = [_quoted(schema, name) for name, kind in marts.items() if kind != "m"]
        if lockable:
            cursor.execute(f"lock table {', '.join(lockable)} in access share mode")
    now = _rows(connection, "select now()")[0][0]
    return now.astimezone(timezone.utc)


def _describe(connection: Connection, schema: str, name: str) -> Mart:
    columns = _rows(
        connection,
        "select attname::text, format_type(atttypid, atttypmod), not attnotnull,"
        " col_description(attrelid, attnum), obj_description(attrelid, 'pg_class')"
        " from pg_attribute where attrelid = to_regclass($1)"
        " and attnum > 0 and not attisdropped order by attnum",
        _quoted(schema, name),
    )
    return Mart(name, columns[0][4] if columns else None, [Column(*row[:4]) for row in columns])


def _query(schema: str, mart: Mart) -> str:
    """All rows, the months of a partitioned mart one after the other."""
    selected = [
        _quoted(column.name)
        if PLAIN.fullmatch(column.type) or _decimal(column)
        else f"cast({_quoted(column.name)} as text) as {_quoted(column.name)}"
        for column in mart.columns
    ]
    ordered = ""
    if mart.partition:
        day = _quoted(mart.partition["month_of"])
        # no reader knows months of years that have not four digits: those rows have none
        known = f"{day} between '0001-01-01' and '9999-12-31'"
        selected.append(f"case when {known} then cast(date_trunc('month', {day}) as date) end")
        # by its place: a long name is cut, and is that of another column then
        ordered = f" order by {len(selected)} nulls last"
    return f"select {', '.join(selected)} from {_quoted(schema, mart.name)}{ordered}"  # noqa: S608


def _batches(connection: Connection, query: str) -> Iterator[pa.RecordBatch]:
    """The result, a few megabytes at a time; one without rows if there are none."""
    from adbc_driver_postgresql import StatementOptions

    size = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES)}
    try:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**size)
            cursor.execute(query)
            reader = cursor.fetch_record_batch()
            none = True
            for batch in reader:
                if batch.num_rows:
                    yield batch
                    none = False
            if none:
                yield _no_rows(reader.schema)
    except (connection.Error, OSError) as error:
        first = told(error).partition("ERROR:")
        first = (first[2] or first[0]).strip()
        raise UserError(f"The warehouse stopped answering: {first}\nRun this again.") from error


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    types = [getattr(field.type, "storage_type", field.type) for field in schema]
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in types], schema.names)


def _decimal(column: Column) -> tuple[int, int] | None:
    """Precision and scale, if Arrow's decimals have room for them."""
    if found := DECIMAL.fullmatch(column.type):
        precision, scale = int(found[1]), int(found[2])
        return (precision, scale) if precision <= 38 and scale <= precision else None
    return None


def _quoted(*names: str) -> str:
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


# The files ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Version:
    """One export: its place, its folder there, its format, and whether spreadsheets open it."""

    place: _Place
    name: str
    kind: str
    excel: bool

    def path(self, mart: Mart, month: date | None) -> str:
        """Where the rows of a month go, or all rows of a mart that is not partitioned."""
        folders = [self.name, as_name(mart.name)]
        if mart.partition:
            folders.append(f"{as_name(mart.partition['column'])}={month or NULL_PARTITION}")
        return "/".join([*folders, f"part-0.{self.kind}"])


def _write(connection: Connection, schema: str, mart: Mart, version: _Version) -> None:
    """Write all rows of a mart, one file for each month or one in all."""
    part: _Part | None = None
    try:
        for whole in _batches(connection, _query(schema, mart)):
            for month, rows in _by_month(whole, mart):
                path, batch = version.path(mart, month), _typed(rows, mart)
                batch = _without_formulas(batch, mart) if version.excel else batch
                if part is None or part.path != path:
                    _finish(part, mart)
                    part = _Part(version, path, batch.schema)
                part.write(batch)
        _finish(part, mart)
        part = None
    finally:
        if part:
            part.abandon()


def _finish(part: _Part | None, mart: Mart) -> None:
    if part:
        mart.files.append(part.close())
        mart.rows += part.rows


def _by_month(batch: pa.RecordBatch, mart: Mart) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Slices of one month each; the rows come in order of months."""
    import pyarrow.compute as pc

    if not mart.partition or not batch.num_rows:
        yield None, batch
        return
    at = 0
    for found in pc.value_counts(batch.column(batch.num_columns - 1)).to_pylist():
        yield found["values"], batch.slice(at, found["counts"])
        at += found["counts"]


def _typed(batch: pa.RecordBatch, mart: Mart) -> pa.RecordBatch:
    """The mart's columns without the driver's own notes; decimals as such, not as text."""
    import pyarrow as pa

    arrays, fields = [], []
    for column, array in zip(mart.columns, batch.columns, strict=False):
        values = array
        if decimal := _decimal(column):
            plain = array.storage if isinstance(array, pa.ExtensionArray) else array
            try:
                values = plain.cast(pa.decimal128(*decimal))
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"A value of {_shown(f'{mart.name}.{column.name}')} is no decimal: {error}\n"
                    "Mend the mart (NaN and infinity have no place in files), then export again."
                ) from error
        _refuse_infinity(values, f"{mart.name}.{column.name}")
        arrays.append(values)
        fields.append(pa.field(column.name, values.type, nullable=column.nullable))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _without_formulas(batch: pa.RecordBatch, mart: Mart) -> pa.RecordBatch:
    """The same, where a text that a spreadsheet would compute begins with an apostrophe.

    Numbers stay numbers, those that are exported as text included.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = []
    for column, array in zip(mart.columns, batch.columns, strict=True):
        values = array
        if pa.types.is_string(array.type) and not column.type.startswith("numeric"):
            risky = pc.and_not(
                pc.match_substring_regex(array, FORMULA), pc.match_substring_regex(array, NUMBER)
            )
            values = pc.if_else(risky, pc.binary_join_element_wise("'", array, ""), array)
        arrays.append(values)
    fields = [
        field.with_name(f"'{field.name}") if re.match(HEADER_FORMULA, field.name) else field
        for field in batch.schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _refuse_infinity(values: pa.Array, name: str) -> None:
    """PostgreSQL's infinite days and times come as ones long before its first real ones.

    Raises:
        UserError: there is one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date32(values.type):
        number, first = pa.int32(), FIRST_DAY
    elif pa.types.is_timestamp(values.type):
        number, first = pa.int64(), FIRST_DAY * MICROSECONDS
    else:
        return
    earliest = pc.min(values.cast(number)).as_py()
    if earliest is not None and earliest < first:
        raise UserError(
            f"A value of {_shown(name)} is infinite.\n"
            "Mend the mart (NaN and infinity have no place in files), then export again."
        )


class _Part:
    """One file that is being written, by Arrow's writer of its format."""

    def __init__(self, version: _Version, path: str, schema: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._waiting: list[pa.RecordBatch] = []
        self._schema = schema
        self._sink = _Sink(version.place, path)
        if version.kind == "parquet":
            import pyarrow.parquet as pq

            self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        else:
            from pyarrow import csv

            if version.excel:
                self._sink.write(codecs.BOM_UTF8)
            # RFC 4180: ends of lines, quotes doubled; null is nothing, an empty text is ""
            options = csv.WriteOptions(eol="\r\n", quoting_header="needed")
            self._writer = csv.CSVWriter(self._sink, schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; they are written when there are enough for a row group."""
        self.rows += batch.num_rows
        self._waiting.append(batch)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= ROW_GROUP or sum(waiting.nbytes for waiting in self._waiting) >= GROUP_BYTES:
            self._pass_on()

    def close(self) -> dict[str, Any]:
        """Finish the file; what the manifest says of it."""
        self._pass_on()
        self._writer.close()
        size, checksum = self._sink.finish()
        return {"path": self.path, "rows": self.rows, "bytes": size, "sha256": checksum}

    def abandon(self) -> None:
        """Let go of the file after a failure; what is in it does not matter any more."""
        self._sink.abandon()

    def _pass_on(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []


class _Sink:
    """What Arrow writes to: counts and hashes the bytes on their way."""

    closed = False  # Arrow asks

    def __init__(self, place: _Place, path: str) -> None:
        self._place, self._bytes, self._sha = place, 0, hashlib.sha256()
        with place.told():
            self._file: IO[bytes] | None = place.open(path)

    def write(self, data: Any) -> int:
        """Take bytes, or a buffer of Arrow's."""
        if self._file:  # else abandoned: Arrow's writers still write an end when they go
            with self._place.told():
                self._file.write(data)
            self._sha.update(data)
            self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Arrow asks for it."""

    def tell(self) -> int:
        """Bytes written; Arrow asks for it."""
        return self._bytes

    def finish(self) -> tuple[int, str]:
        """Close the file; bytes and sha-256 of it."""
        with self._place.told():
            self._place.close(self._file)
        self._file = None
        return self._bytes, self._sha.hexdigest()

    def abandon(self) -> None:
        """Close the file, whatever happened to it."""
        file, self._file = self._file, None
        if file:
            self._place.abandon(file)


class _Place:
    """Where the files go: a folder on a disk, or a prefix in a store."""

    def __init__(self, to: str) -> None:
        found, self._ended = place(to), False
        self.local = isinstance(found, Path)
        if isinstance(found, Path):
            self.root, protocol = str(found.absolute()), "file"
            self.name = str(found)
        else:
            protocol, path = found
            self.root = path.rstrip("/")
            self.name = f"{protocol}://{self.root}"
        with self.told():
            self._store = _store(protocol)

    # Reading and writing

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other exports to the same folder out; a store has no locks."""
        if not self.local:
            yield
            return
        with self.told():
            Path(self.root).mkdir(parents=True, exist_ok=True)
            lock = Path(self.root, ".lock").open("w")  # noqa: SIM115
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another export to {self.name} is running.\nWait until it has finished."
                ) from error
            yield

    def open(self, path: str) -> IO[bytes]:
        """A new file, to be closed by ``close`` or ``abandon``."""
        if self._ended:
            raise UserError("The export was interrupted.\nRun this again.")
        full = f"{self.root}/{path}"
        if self.local:
            Path(full).parent.mkdir(parents=True, exist_ok=True)
            return Path(full).open("wb")
        return self._store.open(full, "wb")

    def close(self, file: IO[bytes]) -> None:
        """Have it on the disk, or in the store, before anything names it."""
        if self.local:
            file.flush()
            os.fsync(file.fileno())
        file.close()

    def abandon(self, file: IO[bytes]) -> None:
        """Close it, whatever happened to it."""
        with suppress(Exception):
            # what has been sent of it to a store is discarded there
            file.close() if self.local else file.discard()

    def publish(self, version: str, manifest: dict) -> None:
        """Make an export the last one: from here on readers find it."""
        text = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
        with self.told():
            self._put(f"{version}/{MANIFEST}", text)
            self._put(MANIFEST, text)
            self._point_at(version)

    def _put(self, path: str, content: bytes) -> None:
        """Write a small file, all or nothing."""
        full = f"{self.root}/{path}"
        if not self.local:
            self._store.pipe_file(full, content)
            return
        with self.open(f"{path}.new") as file:
            file.write(content)
            self.close(file)
        Path(f"{full}.new").replace(full)

    def _point_at(self, version: str) -> None:
        if self.local:
            fresh = Path(self.root, f".{LATEST}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(version)
            fresh.replace(Path(self.root, LATEST))

    # What is there

    def tidy(self) -> None:
        """Remove what earlier exports left: all but the last whole one.

        Raises:
            UserError: the folder is not one of exports.
        """
        with self.told():
            manifest = self._last()
            if manifest:
                self._point_at(manifest["version"])
            for version in self._versions():
                if version == (manifest or {}).get("version"):
                    continue
                begun = datetime.strptime(version.partition("-")[0], STAMP)
                age = datetime.now(timezone.utc) - begun.replace(tzinfo=timezone.utc)
                whole = self._store.exists(f"{self.root}/{version}/{MANIFEST}")
                if self.local or whole or age > ABANDONED:
                    self.remove(version)

    def remove(self, version: str) -> None:
        """Remove an export, as far as possible."""
        with suppress(Exception):  # the next export tries again
            self._store.rm(f"{self.root}/{version}", recursive=True)

    def give_back(self, version: str) -> None:
        """Remove an export that was interrupted, and let nothing more be written of it."""
        self._ended = True
        for _ in range(3):  # a file may just have been opened
            self.remove(version)
            time.sleep(0.1)

    def _last(self) -> dict | None:
        """The manifest of the last whole export."""
        try:
            found = json.loads(self._store.cat_file(f"{self.root}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        known = isinstance(found, dict) and found.get("made_by") == MADE_BY
        if not known or not VERSION.fullmatch(str(found.get("version"))):
            raise UserError(
                f"{self.name} has a {MANIFEST} of something else.\nExport to another place."
            )
        return found

    def _versions(self) -> list[str]:
        try:
            names = self._store.ls(self.root, detail=False)
        except FileNotFoundError:
            return []
        found = (name.rstrip("/").rpartition("/")[2] for name in names)
        return [name for name in found if VERSION.fullmatch(name)]

    @contextmanager
    def told(self) -> Iterator[None]:
        """What goes wrong when writing, in two lines, whichever library raises it."""
        from ingestion.sources.transactions.inputs import _brief

        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                what, remedy = "the disk is full", "Free some space there"
            elif self.local:
                what = getattr(error, "strerror", None) or _brief(error)
                remedy = "Choose a folder that you may write to"
            else:
                what, remedy = _brief(error), "Check bucket, credentials and endpoint"
            raise UserError(
                f"{self.name} cannot be exported to: {what}.\n"
                f"{remedy}, and run this again; the last export is untouched."
            ) from error


def _store(protocol: str) -> AbstractFileSystem:
    import fsspec

    from ingestion.sources.transactions.inputs import STORES

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UserError(
            f"Writing to {protocol}:// needs the package {STORES[protocol]}.\n"
            f"Install it: {install_command(protocol)}"
        ) from error
    return kind(use_listings_cache=False, skip_instance_cache=True)
