"""Parquet: its rows as columns of text or, one by one, as typed rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.errors import UserError
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.contract import Refused
from ingestion.sources.transactions.formats.chunk import Left, Record
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import texts
from ingestion.sources.transactions.inputs.source_file import SourceFile
from ingestion.sources.transactions.mapping.rules import Rules
from ingestion.sources.transactions.settings import MANDATORY

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_YEARS = (-62_135_596_800, 253_402_300_800)  # 1 to 9999, in seconds since 1970


class ParquetChunk:
    """Rows of Parquet; piece n is row n of the batch, and rows are numbered like lines."""

    def __init__(self, rows: pa.Table, before: int, rules: Rules) -> None:
        self.first, self.last = before + 1, before + rows.num_rows
        self._rows, self._rules = rows, rules
        layout = rules.names.layout(rows.column_names)
        found = {name: rows.column(at) for at, name in enumerate(layout) if name is not None}
        self._values = pa.table({name: _as_text(column) for name, column in found.items()})
        self._numbers = [name for name, column in found.items() if _is_number(column.type)]
        self._not_utf8: dict[int, str] = {}  # row: the column
        for name, column in zip(self._values.column_names, self._values.columns, strict=True):
            self._not_utf8 |= dict.fromkeys(_not_utf8(column), name)
        kept = rules.names.kept
        self._unknown = [at for at, name in enumerate(layout) if name is None or name in kept]

    def pieces(self) -> np.ndarray:
        return np.arange(self._rows.num_rows)

    def texts(self, left: Left, _: list[Shape]) -> Iterator[pa.Table]:
        """The values of all rows; where there are unknown columns, Python writes their JSON."""
        if self._unknown:
            return
        values = self._values.append_column("n", pa.array(left.pieces))
        if self._not_utf8:
            values = values.take(np.setdiff1d(left.pieces, list(self._not_utf8)))
        for name in self._values.column_names:
            if name not in self._numbers:
                nul = pc.match_substring(values[name], "\0")
                values = values.filter(pc.invert(pc.fill_null(nul, False)))
            elif name in self._rules.ids:
                whole = pc.match_substring_regex(values[name], f"^{contract.WHOLE}$")
                values = values.filter(pc.fill_null(whole, True))
        fields = {name: values[name] for name in self._values.column_names}
        yield texts(values["n"], fields, self._rules, self._numbers)

    def fields(self, at: int) -> Record | None:
        if at in self._not_utf8:
            raise Refused("not_utf8", self._not_utf8[at])
        fields = self._values.slice(at, 1).to_pylist()[0]
        for name in self._numbers:
            # a time of the contract is text, whatever its column is
            if fields[name] is not None and name in (*self._rules.ids, *self._rules.amounts):
                fields[name] = contract.Number(fields[name])
        return fields, self._extra(at)

    def raw(self, at: int) -> bytes:
        values = (_spelt_out(column.slice(at, 1)) for column in self._rows.columns)
        pairs = zip(self._rows.column_names, values, strict=True)
        return f"{{{', '.join(f'{_json(name)}: {_json(value)}' for name, value in pairs)}}}".encode(
            errors="backslashreplace"
        )

    def _extra(self, at: int) -> list[tuple[str, Any]]:
        """The unknown columns' names and values, as JSON knows them; a name can be there twice."""
        found = []
        for number in self._unknown:
            name = self._rows.column_names[number]
            try:
                value = _value(self._rows.column(number).slice(at, 1))
            except UnicodeDecodeError:
                raise Refused("not_utf8", name) from None
            if value is not None:
                # times, decimals and the like become text
                plain = json.loads(
                    _json(value), object_pairs_hook=contract.Object, parse_constant=str
                )
                found.append((name, plain))
        return found


def _value(one: pa.ChunkedArray) -> Any:
    """The value in a column of one row; as text where Python has no such value (the year 20000).

    Raises:
        UnicodeDecodeError: there is text in it that is not UTF-8.
    """
    try:
        return one[0].as_py()
    except UnicodeDecodeError:
        raise
    except (ArithmeticError, LookupError, ValueError):
        if pa.types.is_timestamp(one.type):
            return _as_text(one)[0].as_py()
        if pa.types.is_temporal(one.type):
            return f"{pc.cast(one, f'int{one.type.bit_width}')[0]} {one.type}"
        return _drawn(one)


def _spelt_out(one: pa.ChunkedArray) -> Any:
    """The same; bytes that are not UTF-8 are written as ``\\x``, two digits."""
    try:
        return _value(one)
    except UnicodeDecodeError:
        try:
            return pc.cast(_as_text(one), pa.binary())[0].as_py().decode(errors="backslashreplace")
        except pa.ArrowException:
            return _drawn(one)


def _drawn(one: pa.ChunkedArray) -> str:
    """A struct or a list as Arrow shows it, whole."""
    text = one.chunk(0).to_string(
        window=1 << 30, container_window=1 << 30, skip_new_lines=True, element_size_limit=1 << 30
    )
    return text.replace("\n", " ")


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _is_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _check_parquet(file: SourceFile, schema: pa.Schema) -> None:
    rules = file.rules
    rules.check(schema.names, file.name)
    for at, wanted in enumerate(rules.names.layout(schema.names)):
        if wanted is None:
            continue
        name, kind = schema.names[at], schema.field(at).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_null(kind):  # what is written of a column without a value
            continue
        is_time = pa.types.is_timestamp(kind) or (rules.mapping and pa.types.is_date(kind))
        may_be = (_is_number(kind) or is_time) and (rules.mapping or wanted in MANDATORY)
        if not _is_text(kind) and not (may_be or (rules.mapping and pa.types.is_boolean(kind))):
            raise UserError(
                f"{file.name}: the column {name} is {kind}, which cannot be read.\n"
                "Store it as text."
            )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def parquet_rows(file: SourceFile) -> Iterator[tuple[pa.Table, int]]:
    """The rows of a file in stretches, each with the number of all of them.

    Raises:
        UserError: it cannot be read, or not to its end.
        OSError: the disk does not give it.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as source:
            _check_parquet(file, source.schema_arrow)
            for found in source.iter_batches(batch_size=65_536):
                yield pa.Table.from_batches([found]), source.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise
        # pyarrow's own OSError, of a page that is damaged
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{file.name} is not a whole Parquet file: {reason}.\nCopy it again."
        ) from error


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column's values as text; times in UTC, and cut off where finer than a microsecond.

    Times outside the years 1 to 9999 are spelt out as numbers, so that they are refused. (Arrow
    lets some of them wrap, whether it casts them to another unit or to text.)
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, kind.value_type), kind.value_type
    if not pa.types.is_timestamp(kind):
        return pc.cast(column, pa.string())
    if kind.unit == "ns":  # all within these years, and the cut is exact in text only
        text = pc.cast(pc.cast(column, pa.timestamp("ns", kind.tz and "UTC")), pa.string())
        return pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    numbers = pc.cast(column, pa.int64())
    first, end = (at * _PER_SECOND[kind.unit] for at in _YEARS)
    good = pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, end))
    text = pc.cast(
        pc.cast(pc.if_else(good, numbers, None), pa.timestamp(kind.unit, kind.tz and "UTC")),
        pa.string(),
    )
    if text.null_count == column.null_count:
        return text
    number = pc.binary_join_element_wise(pc.cast(numbers, pa.string()), str(kind), " ")
    return pc.if_else(good, text, number)


def _not_utf8(column: pa.ChunkedArray) -> list[int]:
    """The rows of a column of text that are not UTF-8: Parquet does not check."""
    data = pc.cast(column, pa.binary())
    try:
        pc.cast(data, pa.string())
    except pa.ArrowInvalid:
        return [at for at, value in enumerate(data.to_pylist()) if not _is_utf8(value)]
    return []


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
