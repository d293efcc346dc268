"""The marts as the warehouse describes them, and their rows."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ingestion.errors import UserError, error_line
from ingestion.terminal import one_line
from ingestion.warehouse.target import Target

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection

BATCH_BYTES = 4 * 1024**2


# PostgreSQL's types that Arrow has, too; all others are exported as text
PLAIN = re.compile(
    r"(smallint|integer|bigint|real|double precision|boolean|date|text|character varying.*"
    r"|timestamp.*)"
)

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


def _rows(connection: Connection, query: str, *values: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def schemas_in(connection: Connection) -> list[str]:
    """Names of the schemas that this login may look into."""
    found = _rows(
        connection,
        "select nspname::text from pg_namespace where has_schema_privilege(oid, 'usage')"
        " order by nspname",
    )
    connection.commit()
    return [name for (name,) in found]


def marts_in(connection: Connection, schema: str) -> dict[str, str]:
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


def chosen(
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
            names = ", ".join(map(shown, there))
            raise UserError(f"There is no mart {shown(pattern)}.\nThere are: {names}")
        chosen |= found
    return {name: kind for name, kind in there.items() if name in chosen}


def shown(name: str) -> str:
    """A name of the database within a message."""
    return one_line(name, None)


def begin_snapshot(connection: Connection, relations: dict[str, dict[str, str]]) -> datetime:
    """Fix what all later queries see; no mart that is locked can be rebuilt meanwhile.

    Args:
        connection: nothing has been asked in its transaction.
        relations: what will be read, by schema: name and kind, as ``marts_in`` gives them.
    """
    with connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        # the reporter's are for people's queries; an export takes as long as its place is slow
        cursor.execute("set local statement_timeout = 0")
        cursor.execute("set local idle_in_transaction_session_timeout = 0")
        lockable = [
            quoted(schema, name)
            for schema, names in relations.items()
            for name, kind in names.items()
            if kind != "m"
        ]
        if lockable:
            cursor.execute(f"lock table {', '.join(lockable)} in access share mode")
    now = _rows(connection, "select now()")[0][0]
    return now.astimezone(timezone.utc)


def describe(connection: Connection, schema: str, name: str) -> Mart:
    columns = _rows(
        connection,
        "select attname::text, format_type(atttypid, atttypmod), not attnotnull,"
        " col_description(attrelid, attnum), obj_description(attrelid, 'pg_class')"
        " from pg_attribute where attrelid = to_regclass($1)"
        " and attnum > 0 and not attisdropped order by attnum",
        quoted(schema, name),
    )
    return Mart(name, columns[0][4] if columns else None, [Column(*row[:4]) for row in columns])


def query_of(schema: str, mart: Mart) -> str:
    """All rows, the months of a partitioned mart one after the other."""
    selected = [
        quoted(column.name)
        if PLAIN.fullmatch(column.type) or decimal_of(column)
        else f"cast({quoted(column.name)} as text) as {quoted(column.name)}"
        for column in mart.columns
    ]
    ordered = ""
    if mart.partition:
        day = quoted(mart.partition["month_of"])
        # no reader knows months of years that have not four digits: those rows have none
        known = f"{day} between '0001-01-01' and '9999-12-31'"
        selected.append(f"case when {known} then cast(date_trunc('month', {day}) as date) end")
        # by its place: a long name is cut, and is that of another column then
        ordered = f" order by {len(selected)} nulls last"
    return f"select {', '.join(selected)} from {quoted(schema, mart.name)}{ordered}"  # noqa: S608


def batches(connection: Connection, query: str) -> Iterator[pa.RecordBatch]:
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
        before, _, after = error_line(error).partition("ERROR:")
        first = (after or before).strip()
        raise UserError(f"The warehouse stopped answering: {first}\nRun this again.") from error


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    types = [getattr(field.type, "storage_type", field.type) for field in schema]
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in types], schema.names)


def decimal_of(column: Column) -> tuple[int, int] | None:
    """Precision and scale, if Arrow's decimals have room for them."""
    if found := DECIMAL.fullmatch(column.type):
        precision, scale = int(found[1]), int(found[2])
        return (precision, scale) if precision <= 38 and scale <= precision else None
    return None


def quoted(*names: str) -> str:
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)
