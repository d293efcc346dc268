"""Messages of a stream as typed rows: each one is a record, whatever bytes it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.sources.transactions import contract
from ingestion.sources.transactions.formats.chunk import Left, Record
from ingestion.sources.transactions.formats.json_lines import JsonChunk
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import Block
from ingestion.sources.transactions.formats.reader import Reader
from ingestion.sources.transactions.mapping.rules import Rules

EMPTY = "the message is empty"
TOMBSTONE = "the message has a key and no value (a tombstone)"


def typed(
    values: Sequence[bytes | None], reader: Reader, rules: Rules
) -> tuple[pa.Table, pa.Table, int]:
    """Type messages.

    Args:
        values: their values; None for a tombstone.
        reader: remembers what messages look like from one call to the next.
        rules: how they are read.

    Returns:
        Rows and rejects, whose ``_file_line`` is the index among the values; and the number of
        messages that the mapping leaves out.
    """
    lines = [value for value in values if value]
    if len(lines) == len(values):  # as nearly always
        whole = _PlainMessages(lines, rules)
        if len(whole.block) == len(lines):
            batch = reader.batch(whole, 0, rules)
            return batch.rows, batch.rejects, batch.skipped
    plain = [at for at, value in enumerate(values) if value and b"\n" not in value]
    other = [at for at, value in enumerate(values) if not value or b"\n" in value]
    rows, rejects, skipped = [], [], 0
    for chunk, places in (
        (_PlainMessages([values[at] or b"" for at in plain], rules), plain),
        (_OtherMessages([values[at] for at in other], rules), other),
    ):
        if places:
            batch = reader.batch(chunk, 0, rules)
            rows.append(_at(batch.rows, places))
            rejects.append(_at(batch.rejects, places))
            skipped += batch.skipped
    return pa.concat_tables(rows), pa.concat_tables(rejects), skipped


def _at(table: pa.Table, places: list[int]) -> pa.Table:
    """A table whose lines count within a chunk, with the places of these in all of them."""
    column = table.schema.get_field_index("_file_line")
    lines = pc.take(pa.array(places, pa.int64()), table["_file_line"].combine_chunks())
    return table.set_column(column, table.schema.field(column), lines)


class _PlainMessages(JsonChunk):
    """Messages that are a line each."""

    def __init__(self, values: Sequence[bytes], rules: Rules) -> None:
        data = b"\n".join([*values, b""])
        super().__init__(Block(data, 0), rules)

    def fields(self, at: int) -> Record | None:
        return super().fields(at) or _refuse_empty()

    def raw(self, at: int) -> bytes:
        return super().raw(at)[:-1]


class _OtherMessages:
    """Messages with line ends in them, and those without a value: a few, for Python."""

    def __init__(self, values: Sequence[bytes | None], rules: Rules) -> None:
        self.first, self.last = 0, len(values) - 1
        self._values, self._rules = values, rules

    def pieces(self) -> np.ndarray:
        return np.arange(len(self._values))

    def texts(self, left: Left, shapes: list[Shape]) -> Iterator[pa.Table]:  # noqa: ARG002
        return iter(())

    def fields(self, at: int) -> Record | None:
        value = self._values[at]
        if value is None:
            raise contract.Refused("deleted", TOMBSTONE)
        if not value.strip():
            return _refuse_empty()
        return contract.fields_of_json(value, self._rules.names)

    def raw(self, at: int) -> bytes:
        return self._values[at] or b""


def _refuse_empty() -> Record | None:
    raise contract.Refused("not_json", EMPTY)
