"""The raw tables of transactions, declared once.

dlt makes them from ``COLUMNS``. The schemas of what readers give and of what COPY writes follow
from the same columns, for files and for rejects that are replayed alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.sources.transactions import settings

if TYPE_CHECKING:
    import pyarrow as pa
    from dlt.extract import DltSource

_TEXT = {"data_type": "text"}
_MUST = {"nullable": False}
_OF_A_LOAD = {  # which file and which load a row is of
    "_file_name": _TEXT | _MUST,
    "_file_checksum": _TEXT | _MUST,
    "_dlt_load_id": _TEXT | _MUST,
}
_LINE = {"_file_line": {"data_type": "bigint"} | _MUST}
COLUMNS: dict[str, Any] = {
    "transactions": {
        "transaction_id": _TEXT | _MUST,
        "event_ts": {"data_type": "timestamp"} | _MUST,
        "user_id": _TEXT | _MUST,
        "amount": {"data_type": "decimal", "precision": 18, "scale": 4} | _MUST,
        **dict.fromkeys(settings.TEXT_FIELDS, _TEXT),
        "extra_fields": {"data_type": "json"},
        **_LINE,
        **_OF_A_LOAD,
    },
    "rejects": {
        "raw_text": _TEXT | _MUST,
        "reason_code": _TEXT | _MUST,
        "reason": _TEXT | _MUST,
        **_LINE,
        **_OF_A_LOAD,
    },
    "files": {
        "path": _TEXT | _MUST,
        **dict.fromkeys(
            ("bytes", "first_line", "last_line", "lines_read", "rows_landed", "rows_rejected"),
            {"data_type": "bigint"} | _MUST,
        ),
        "is_replacement": {"data_type": "bool"} | _MUST,
        "seconds": {"data_type": "double"} | _MUST,
        "landed_at": {"data_type": "timestamp"} | _MUST,
        "etag": _TEXT,  # of an object in a store: which version of it landed
        "cursor_value": _TEXT,  # of a table in a database: up to where it has been read
        "header": _TEXT,  # of CSV: its rejects cannot be read without it
        "mapping": _TEXT,  # its name; none for the contract's own columns
        "mapping_checksum": _TEXT,
        "mapping_document": _TEXT,  # as JSON: its rejects cannot be read without it
        "replay_of": _TEXT,  # the load whose rejects these lines were, see `marquee rejects replay`
        **_OF_A_LOAD,
    },
}


def row_schema(table: str) -> pa.Schema:
    """The columns that a reader fills, those of the load left out; any of them may be null."""
    import pyarrow as pa

    return pa.schema([(f.name, f.type) for f in raw_schema(table) if f.name not in _OF_A_LOAD])


@cache
def raw_schema(table: str) -> pa.Schema:
    """The columns of a raw table, as COPY writes them."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, _arrow_type(hints), nullable=hints.get("nullable", True))
            for name, hints in COLUMNS[table].items()
        ]
    )


def _arrow_type(hints: dict[str, Any]) -> pa.DataType:
    import pyarrow as pa

    if hints["data_type"] == "decimal":
        return pa.decimal128(hints["precision"], hints["scale"])
    return {
        "bigint": pa.int64(),
        "bool": pa.bool_(),
        "double": pa.float64(),
        "json": pa.string(),
        "text": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
    }[hints["data_type"]]


def transactions_source(folder: Path) -> DltSource:
    """The dlt source, which makes the tables: three resources without a row.

    Columns and types are declared here and nowhere inferred. The rows go into the tables by COPY
    (see ``landing``), under the load that dlt has opened and closes.

    Args:
        folder: where to write the empty files that dlt loads.
    """
    import dlt

    def nothing(table: str) -> Iterator[Any]:
        path = folder / f"{table}.csv"
        path.write_text(",".join(COLUMNS[table]) + "\n")
        yield dlt.mark.with_file_import(str(path), "csv", 0)

    @dlt.source(name="transactions")
    def source() -> Iterator[Any]:
        for table, columns in COLUMNS.items():
            yield dlt.resource(
                nothing(table),
                name=table,
                # dlt writes names into them, and some share one here
                columns={name: copy(hints) for name, hints in columns.items()},
                write_disposition="append",
                file_format="parquet",  # for dlt, that is ADBC, which writes json and not jsonb
            )

    return source()
