"""A file as blocks of whole lines, and blocks as columns of text."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ingestion.errors import UserError
from ingestion.sources.transactions.encoding import BOM, as_utf8
from ingestion.sources.transactions.mapping.rules import Rules
from ingestion.sources.transactions.settings import CHUNK_BYTES, MAX_LINE_BYTES

NUL, LF, CR, QUOTE, BACKSLASH, SPACE, DEL = b'\0\n\r"\\ \x7f'
NUMBERS = b"numbers"  # metadata of a table of texts: its columns of numbers, parted by NUL

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made up to ``depth`` ahead in a thread of their own."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item


class Readable(Protocol):
    """What gives bytes: a file, a stream out of gzip."""

    def read(self, size: int = -1, /) -> bytes: ...


class Stream:
    """The first ``size`` bytes of a file: ``hash`` and ``done`` are of what has been read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.hash = hashlib.sha256()
        self.done = 0
        self._file, self._size = file, size

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self.done
        data = self._file.read(left if size < 0 else min(size, left))
        self.hash.update(data)
        self.done += len(data)
        return data


class Block:
    """Whole lines of a file.

    Attributes:
        data: their bytes, line ends included.
        first: 1-based number of the first line.
        starts, ends: where each line starts and ends in ``data``.
    """

    def __init__(self, data: bytes, first: int) -> None:
        self.data, self.first = data, first
        self._bytes = np.frombuffer(data, np.uint8)
        self.ends = np.flatnonzero(self._bytes == LF) + 1
        if not data.endswith(b"\n"):
            self.ends = np.append(self.ends, len(data))
        self.starts = np.concatenate([[0], self.ends[:-1]])

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def last(self) -> int:
        """1-based number of the last line."""
        return self.first + len(self) - 1

    def line(self, at: int) -> bytes:
        """One line, 0-based within the block, with its end."""
        return self.data[self.starts[at] : self.ends[at]]

    def text(self, lines: np.ndarray) -> bytes:
        """The bytes of some lines."""
        if len(lines) == len(self):
            return self.data
        pairs = zip(self.starts[lines].tolist(), self.ends[lines].tolist(), strict=True)
        return b"".join([self.data[start:end] for start, end in pairs])

    def as_utf8(self) -> Block:
        """The same lines, each in UTF-8 (see ``as_utf8``)."""
        wrong = set() if self.data.isascii() else set(self._lines_at(self._not_utf8()).tolist())
        if not wrong:
            return self
        lines = (self.line(at) for at in range(len(self)))
        texts = [as_utf8(line) if at in wrong else line for at, line in enumerate(lines)]
        return Block(b"".join(texts), self.first)

    @cached_property
    def odd(self) -> np.ndarray:
        """The lines (0-based) that are not UTF-8, or hold a NUL, a lone CR, a byte order mark."""
        found = self._controls[np.isin(self._bytes[self._controls], (NUL, CR))]
        if not self.data.isascii():
            marks = [mark.start() for mark in re.finditer(BOM, self.data)]
            found = np.concatenate([found, marks, self._not_utf8()]).astype(np.int64)
        return self._lines_at(found)

    @cached_property
    def escaped(self) -> np.ndarray:
        """The lines (0-based) with a backslash or a control character."""
        found = [self._controls]
        if b"\\" in self.data:
            found.append(np.flatnonzero(self._bytes == BACKSLASH))
        return self._lines_at(np.concatenate(found))

    @cached_property
    def _controls(self) -> np.ndarray:
        """Where control characters are, line ends aside."""
        found = np.flatnonzero((self._bytes < SPACE) & (self._bytes != LF))
        before_lf = self._bytes[np.minimum(found + 1, len(self._bytes) - 1)] == LF
        return found[~((self._bytes[found] == CR) & before_lf)]

    def _lines_at(self, positions: np.ndarray | list[int]) -> np.ndarray:
        """The lines (0-based) that hold some positions in ``data``."""
        return np.unique(np.searchsorted(self.ends, positions, side="right"))

    def _not_utf8(self) -> list[int]:
        """A position in each line that is not UTF-8."""
        try:
            self.data.decode()
        except UnicodeDecodeError:
            pass
        else:
            return []
        positions = []
        for at in self._lines_at(np.flatnonzero(self._bytes > DEL)).tolist():
            try:
                self.line(at).decode()  # not from here on: the error would copy all of it
            except UnicodeDecodeError as error:
                positions.append(int(self.starts[at]) + error.start)
        return positions


def blocks(
    data: Readable,
    name: str,
    landed_bytes: int = 0,
    landed_lines: int = 0,
) -> Iterator[Block]:
    """The lines after the landed ones, in blocks of about ``CHUNK_BYTES``.

    Args:
        data: the file from its beginning.
        name: the file as it was given, for messages.
        landed_bytes: bytes to leave out; where a line of them goes on, it is read again, whole.
        landed_lines: lines in these bytes.

    Raises:
        UserError: a line is beyond ``MAX_LINE_BYTES``.
    """
    first, rest = landed_lines + 1, b""
    while landed_bytes:
        piece = data.read(min(CHUNK_BYTES, landed_bytes))
        landed_bytes -= len(piece)
        rest += piece
        rest = rest[rest.rfind(b"\n") + 1 :]
    if rest:
        new = data.read(CHUNK_BYTES)
        goes_on = not new.startswith((b"\n", b"\r\n"))
        first -= goes_on
        rest = rest + new if goes_on else new[new.find(b"\n") + 1 :]
    while new := data.read(CHUNK_BYTES):
        rest = rest + new if rest else new
        end = rest.rfind(b"\n") + 1
        if end:
            block = Block(rest[:end].removeprefix(BOM) if first == 1 else rest[:end], first)
            yield block
            first, rest = block.last + 1, rest[end:]
        elif len(rest) > MAX_LINE_BYTES:
            raise UserError(
                f"{name}: line {first:,} is longer than {MAX_LINE_BYTES >> 20} MiB.\n"
                "Give one transaction a line (for a JSON array: jq -c '.[]')."
            )
    if rest:
        yield Block(rest.removeprefix(BOM) if first == 1 else rest, first)


def columns(
    block: Block, lines: np.ndarray, names: list[str], delimiter: str, *, quoted: bool
) -> pa.Table:
    """Lines taken apart at a delimiter: columns of text, and ``n``, the number of each line.

    Lines with another number of columns are left out.

    Args:
        block: where they are.
        lines: which ones, 0-based; UTF-8, no carriage returns but at their ends.
        names: of the columns.
        delimiter: one character.
        quoted: whether values may be in quotes, as in CSV.
    """
    longest = int((block.ends - block.starts).max())
    other = []

    def leave_out(row: pyarrow.csv.InvalidRow) -> str:
        other.append(row.number - 1)
        return "skip"

    # an empty file is an error to pyarrow
    data = block.text(lines) if len(lines) else b"\n"
    table = pyarrow.csv.read_csv(
        pa.py_buffer(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=max(4 << 20, 2 * longest), column_names=names
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            escape_char=False,
            newlines_in_values=False,
            ignore_empty_lines=False,
            invalid_row_handler=leave_out,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), check_utf8=False
        ),
    )
    if table.num_rows + len(other) != len(lines):  # a quote left open: pyarrow counts otherwise
        table, lines, other = table.slice(0, 0), lines[:0], []
    return table.append_column("n", pa.array(np.delete(lines, other), pa.int64()))


def texts(
    n: pa.Array | pa.ChunkedArray,
    values: dict[str, pa.Array | pa.ChunkedArray],
    rules: Rules,
    numbers: Iterable[str] = (),
) -> pa.Table:
    """A table for ``contract.typed_by``: each line's number, its values as text, null for none.

    Args:
        n: numbers of the lines.
        values: by name, ``extra_fields`` among them.
        rules: what is wanted; a name that is not among the values is null in all lines, and so
            are words for no value.
        numbers: which values were numbers, so that no mark of theirs parts thousands.
    """
    nothing = pa.nulls(len(n), pa.string())
    columns = {
        name: _or_null(values[name], rules.nulls) if name in values else nothing
        for name in rules.names.wanted
    }
    columns["extra_fields"] = values.get("extra_fields", nothing)
    return pa.table({"n": n, **columns}, metadata={NUMBERS: "\0".join(numbers)})


def _or_null(column: pa.ChunkedArray, nulls: tuple[str, ...]) -> pa.ChunkedArray:
    """A column without the texts that stand for no value; most have none as short as these."""
    longest = max(map(len, nulls))
    is_short = pc.less_equal(pc.binary_length(column), longest)
    if not pc.any(is_short).as_py():
        return column
    found = pc.is_in(column, pa.array(nulls, column.type))
    return pc.if_else(found, None, column) if pc.any(found).as_py() else column


def numbers_of(table: pa.Table) -> frozenset[str]:
    """The columns of such a table that were numbers."""
    return frozenset(filter(None, table.schema.metadata[NUMBERS].decode().split("\0")))
