"""The quick way through JSON Lines: lines that one program wrote differ in their values only.

Split at its quotes, a line of flat JSON without escapes is a row in which the parts that are no
values (names, colons, commas, braces) are the same in every line. One line that Python has found
good says what they are. Each other line with the very same parts is good JSON with the same
fields, none twice, and its values stand there as they were written, down to the last digit. So
this is stricter than a JSON parser, and several times faster; the rest is left to Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import ANY_FILE
from ingestion.sources.transactions.formats.lines import Block, columns, texts
from ingestion.sources.transactions.mapping.rules import Rules

WHOLE = "^-?(0|[1-9][0-9]{0,39})$"
NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Value:
    """Where a value is: its field, its column, and for a number what is around it there.

    ``wanted`` is the name by which a field is wanted, if it is. True, false and null (``constant``)
    have no column: they belong to the shape.
    """

    name: str
    wanted: str | None
    column: int = -1
    is_number: bool = False
    before: str = ""
    after: str = ""
    constant: str = ""


@dataclass(frozen=True)
class Shape:
    """What the lines of one program have in common.

    Attributes:
        width: columns of a line split at its quotes.
        fixed: (column, text) of all that is no value.
        values: where the values are, in the line's order.
    """

    width: int
    fixed: tuple[tuple[int, str], ...]
    values: tuple[Value, ...]

    @classmethod
    def of(cls, line: bytes, rules: Rules) -> Shape | None:
        """The shape of a line; None for lines that are not good, not flat, or have escapes."""
        try:
            if rules.row(*contract.fields_of_json(line, rules.names), ANY_FILE) is None:
                return None
            text = line.decode().rstrip("\r\n")
            pairs = contract.DECODER.decode(text)
            layout = rules.names.layout([name for name, _ in pairs])
        except contract.Refused:
            return None
        parts = text.split('"')
        if "\\" in text or any(isinstance(value, list) for _, value in pairs):
            return None
        values, column = [], 1
        for wanted, (name, value) in zip(layout, pairs, strict=True):
            if isinstance(value, contract.Number):
                before, _, after = parts[column + 1].partition(value)
                values.append(Value(name, wanted, column + 1, True, before, after))
                column += 2
            elif isinstance(value, str):
                values.append(Value(name, wanted, column + 2))
                column += 4
            else:
                if value is not None or wanted is None or wanted in rules.names.kept:
                    values.append(Value(name, wanted, constant=contract.to_json(value)))
                column += 2
        taken = {value.column for value in values}
        fixed = tuple((at, part) for at, part in enumerate(parts) if at not in taken)
        return cls(len(parts), fixed, tuple(values))

    def texts(self, block: Block, lines: np.ndarray, rules: Rules) -> pa.Table:
        """The values of those lines (0-based) that have this shape, for ``contract.typed_by``."""
        lines = np.setdiff1d(lines, np.union1d(block.odd, block.escaped), assume_unique=True)
        names = [str(at) for at in range(self.width)]
        table = columns(block, lines, names, '"', quoted=False)
        same = [pc.equal(table[at], text) for at, text in self.fixed]
        for value in self.values:
            if value.is_number:
                same.append(pc.starts_with(table[value.column], value.before))
                same.append(pc.ends_with(table[value.column], value.after))
        table = _only(table, same)

        found: dict[Value, pa.ChunkedArray | str] = {}
        for value in self.values:
            if value.constant:
                found[value] = value.constant
                continue
            column = table[value.column]
            if value.is_number:
                stop = -len(value.after) or None
                column = pc.utf8_slice_codeunits(column, len(value.before), stop)
            found[value] = column
        kept = rules.names.kept
        extra = [value for value in self.values if value.wanted is None or value.wanted in kept]
        fields: dict[str, pa.Array | pa.ChunkedArray] = {
            value.wanted: pa.repeat(value.constant, table.num_rows)
            if value.constant
            else found[value]
            for value in self.values
            if value.wanted and value.constant != "null"
        }
        numbers = [value for value in self.values if value.is_number]
        good = [
            pc.match_substring_regex(found[value], WHOLE if value.wanted in rules.ids else NUMBER)
            for value in numbers
            if value.wanted not in rules.amounts
        ]
        fields["extra_fields"] = _json_of(extra, found, table.num_rows)
        wanted = [value.wanted for value in numbers if value.wanted]
        return _only(texts(table["n"], fields, rules, wanted), good)


def _only(table: pa.Table, conditions: list[pa.ChunkedArray]) -> pa.Table:
    """The rows that meet all conditions."""
    if not conditions:
        return table
    mask = reduce(pc.and_, conditions)
    return table if pc.all(mask).as_py() else table.filter(mask)


def _json_of(values: list[Value], found: dict[Value, pa.ChunkedArray | str], rows: int) -> pa.Array:
    """JSON objects of the unknown fields, as ``contract.to_json`` writes them; null for none."""
    if not values:
        return pa.nulls(rows, pa.string())
    pieces: list = ["{"]
    for value in values:
        quote = "" if value.is_number or value.constant else '"'
        pieces += [f'"{value.name}": {quote}', found[value], f"{quote}, "]
    pieces[-1] = pieces[-1].removesuffix(", ") + "}"
    joined = pc.binary_join_element_wise(*pieces, "")
    return pa.repeat(joined, rows) if isinstance(joined, pa.Scalar) else joined
