"""Files of transactions as typed Arrow rows, and the lines that cannot land with the reason.

What is read is a stream of bytes, so where it comes from does not matter to the rest. A block of
whole lines is taken apart by column and typed by DuckDB; the few lines left over are judged one
by one in Python (see ``contract``). Memory is a few times ``settings.CHUNK_BYTES`` whatever the
size of the file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.errors import UserError
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import (
    ANY_FILE,
    NO_FILE,
    Decimals,
    depends_on_file,
    marks_in,
    marks_of,
)
from ingestion.sources.transactions.contract import Refused
from ingestion.sources.transactions.lines import (
    ARE_NUMBERS,
    BOM,
    Block,
    Readable,
    Stream,
    ahead,
    as_utf8,
    blocks,
    columns,
    texts,
)
from ingestion.sources.transactions.records import Records, is_transaction, values_of
from ingestion.sources.transactions.settings import (
    CHUNK_BYTES,
    FIELDS,
    MANDATORY,
    MAX_LINE_BYTES,
    MAX_RECORD_BYTES,
    TEXT_FIELDS,
)
from ingestion.sources.transactions.shapes import Shape
from ingestion.texts import trim

ROWS = contract.row_schema().append(pa.field("_file_line", pa.int64()))
REJECTS = pa.schema(
    [
        ("raw_text", pa.string()),
        ("reason_code", pa.string()),
        ("reason", pa.string()),
        ("_file_line", pa.int64()),
    ]
)
FEW = 200  # lines that Python reads sooner than a query is planned
SHAPES = 8  # kept from block to block
_HEADER_BYTES = 1 << 20
_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
}
_QUOTED = re.compile(r'"[^"]*"')
_LONE_CR = re.compile(r"\r(?!\n)")
_MACINTOSH = (
    "{} has Macintosh line ends (CR alone){}.\n"
    "Save it with LF or CRLF line ends, in Excel as CSV UTF-8."
)
_ESCAPED = r'["\\\x00-\x1f]'  # what JSON writes with a backslash

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_YEARS = (-62_135_596_800, 253_402_300_800)  # 1 to 9999, in seconds since 1970

csv.field_size_limit(MAX_LINE_BYTES)


@dataclass(frozen=True)
class SourceFile:
    """A file to read, and from where.

    Attributes:
        name: the file as it was given.
        path: where it is.
        bytes: its size; what is appended meanwhile is left for the next time.
        checksum: sha-256 of these bytes, hexadecimal.
        form: ``jsonl``, ``csv`` or ``parquet``.
        gzipped: whether it is packed.
        landed_bytes: leading bytes that have landed before.
        landed_lines: lines in these bytes.
        place: where it is as the ledger has it: an absolute path, a URL.
        etag: what an object store calls this version of it.
        header: the first line of CSV.
    """

    name: str
    path: Path
    bytes: int
    checksum: str
    form: str
    gzipped: bool = False
    landed_bytes: int = 0
    landed_lines: int = 0
    place: str = ""
    etag: str | None = None
    header: str | None = None


class Batch(NamedTuple):
    """A stretch of a file. Blank lines and a CSV header are in neither table.

    Attributes:
        rows: typed rows, with schema ``ROWS``.
        rejects: what cannot land, with schema ``REJECTS``.
        first_line, last_line: 1-based numbers of the first and the last line seen.
        done: bytes of the file read by now.
    """

    rows: pa.Table
    rejects: pa.Table
    first_line: int
    last_line: int
    done: int


def probe(path: Path, prefix: int = 0) -> tuple[int, str, str | None]:
    """Size and checksum of a file, and the checksum of its first ``prefix`` bytes (None: shorter).

    Raises:
        OSError: it cannot be read.
    """
    whole, size, at_prefix = hashlib.sha256(), 0, None
    with path.open("rb") as file:
        while data := file.read(min(CHUNK_BYTES, prefix - size) if size < prefix else CHUNK_BYTES):
            whole.update(data)
            size += len(data)
            if size == prefix:
                at_prefix = whole.hexdigest()
    return size, whole.hexdigest(), at_prefix


def form_of(path: Path, name: str = "") -> tuple[str, bool]:
    """What a file is (``jsonl``, ``csv``, ``parquet``), and whether it is gzipped.

    Its first bytes say so, or its name, or its first line.

    Args:
        path: where it is.
        name: the file as it was given, if it is a copy.

    Raises:
        OSError: it cannot be read.
        UserError: it is UTF-16, packed in another way, or CSV with Macintosh line ends.
    """
    name = name or path.name
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name} is UTF-16.\nSave it as UTF-8.")
    for magic, kind in _PACKED.items():
        if start.startswith(magic):
            raise UserError(f"{name} is {kind}.\nUnpack it, or pack it with gzip.")
    if start[:4] == b"PAR1":
        return "parquet", False
    gzipped = start[:2] == b"\x1f\x8b"
    base = name.lower().removesuffix(".gz")
    if base.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl", gzipped
    first = header_of(path, gzipped=gzipped) or ""
    start = first.lstrip().lower()
    is_csv = MANDATORY[0] in start and start[0] not in "{["
    if not is_csv and not base.endswith((".csv", ".tsv", ".txt")):
        return "jsonl", gzipped
    if _LONE_CR.search(_QUOTED.sub("", first)):
        raise UserError(_MACINTOSH.format(name, ""))
    return "csv", gzipped


def header_of(path: Path, *, gzipped: bool) -> str | None:
    """The first line of a file as text that can be stored; None when it cannot be had.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            data = gzip.GzipFile(fileobj=raw) if gzipped else raw
            return _readable(as_utf8(data.readline(_HEADER_BYTES).removeprefix(BOM)))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None


class Reader:
    """Reads files, and remembers from block to block what their lines look like.

    Args:
        threads: cores that DuckDB may use; None for all.
    """

    def __init__(self, threads: int | None = None) -> None:
        import duckdb

        self._duckdb = duckdb.connect(config={"threads": threads} if threads else {})
        self._duckdb.execute("set timezone = 'UTC'")
        self._shapes: list[Shape] = []

    def close(self) -> None:
        self._duckdb.close()

    def read(self, file: SourceFile) -> Iterator[Batch]:
        """The file in batches, from the first line that has not landed yet.

        Raises:
            UserError: the file as a whole cannot be read (a broken archive, no header, no line
                ends), or it was changed meanwhile.
        """
        decimals = Decimals(lambda: _marks(file))
        try:
            if file.form == "parquet":
                yield from self._read_parquet(file, decimals)
                return
            with file.path.open("rb") as raw:
                stream = Stream(raw, file.bytes)
                for chunk in ahead(_chunks(file, stream)):
                    yield self._batch(chunk, stream.done, decimals)
            if stream.hash.hexdigest() != file.checksum:
                raise UserError(f"{file.name} was changed while it was read.\nRun this again.")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{file.name} is not a whole gzip file: {error}\nCopy it again."
            ) from error
        except OSError as error:
            raise UserError(f"{file.name} cannot be read: {error}\nRun this again.") from error

    def _read_parquet(self, file: SourceFile, decimals: Decimals) -> Iterator[Batch]:
        line = 0
        for rows, rows_in_all in _parquet_rows(file):
            chunk = _ParquetChunk(rows, line)
            line += rows.num_rows
            yield self._batch(chunk, file.bytes * line // rows_in_all, decimals)
        if probe(file.path)[1] != file.checksum:
            raise UserError(f"{file.name} was changed while it was read.\nRun this again.")

    def _batch(self, chunk: _Chunk, done: int, decimals: Decimals = NO_FILE) -> Batch:
        """Type a chunk: SQL takes what is beyond doubt, Python judges what is left."""
        tables, left = [], _Left(chunk.pieces())
        if len(left.pieces) >= FEW:
            for texts in chunk.texts(left, self._shapes):
                typed = self._typed(texts, decimals)
                left.pieces = np.setdiff1d(left.pieces, typed["n"].to_numpy(), assume_unique=True)
                numbers = pc.add(pc.cast(typed["n"], pa.int64()), chunk.first)
                table = typed.drop_columns("n").append_column("_file_line", numbers)
                tables.append(table.cast(ROWS))

        rows: list[tuple] = []
        refused: list[tuple] = []
        for at in left.pieces.tolist():
            try:
                row = chunk.row(at, decimals)
                if row is not None:
                    rows.append((*row, chunk.first + at))
            except Refused as refusal:
                raw = _readable(chunk.raw(at))
                refused.append((raw, refusal.code, refusal.reason, chunk.first + at))
        tables.append(_table(rows, ROWS))
        return Batch(
            rows=pa.concat_tables(tables),
            rejects=_table(refused, REJECTS),
            first_line=chunk.first,
            last_line=chunk.last,
            done=done,
        )

    def _typed(self, texts: pa.Table, decimals: Decimals) -> pa.Table:
        """``n`` and the typed rows of the texts whose values are beyond doubt.

        Where many amounts are not plain numbers, the file is asked how it writes them.
        """
        are_numbers = texts.schema.metadata == ARE_NUMBERS
        typed = self._query(texts, contract.typed_by(decimals, are_numbers=are_numbers))
        if are_numbers or decimals.is_known or texts.num_rows - typed.num_rows < FEW:
            return typed
        is_left = pc.invert(pc.is_in(texts["n"], typed["n"].combine_chunks()))
        amounts = texts["amount"].filter(is_left).drop_null().to_pylist()
        if sum(depends_on_file(trim(amount)) for amount in amounts) >= FEW and decimals.mark:
            return self._query(texts, contract.typed_by(decimals, are_numbers=False))
        return typed

    def _query(self, texts: pa.Table, query: str) -> pa.Table:
        parts = pa.Table.from_batches(
            texts.combine_chunks().to_batches(max_chunksize=16_384), texts.schema
        )
        self._duckdb.register("texts", parts)
        typed = self._duckdb.sql(query).to_arrow_table()
        in_doubt = typed["event_ts"].null_count
        return typed.filter(pc.is_valid(typed["event_ts"])) if in_doubt else typed


@dataclass
class _Left:
    """The pieces of a chunk that nobody has taken yet."""

    pieces: np.ndarray


class _JsonChunk:
    """Lines of JSON; piece n is line n of the block."""

    def __init__(self, block: Block) -> None:
        self.block, self.first, self.last = block, block.first, block.last

    def pieces(self) -> np.ndarray:
        return np.arange(len(self.block))

    def texts(self, left: _Left, shapes: list[Shape]) -> Iterator[pa.Table]:
        """The values of the lines of each shape known, then of new ones, which are remembered."""
        for shape in list(shapes):
            before = len(left.pieces)
            yield shape.texts(self.block, left.pieces)
            if len(left.pieces) < before / 2:  # the commonest shape goes first
                shapes.insert(0, shapes.pop(shapes.index(shape)))
            if len(left.pieces) < FEW:
                return
        for _ in range(4):
            first = (Shape.of(self.block.line(at)) for at in left.pieces[:20].tolist())
            new = next((shape for shape in first if shape and shape not in shapes), None)
            if new is None:
                return
            before = len(left.pieces)
            yield new.texts(self.block, left.pieces)
            if before - len(left.pieces) >= FEW:
                shapes.insert(0, new)
                del shapes[SHAPES:]

    def row(self, at: int, decimals: Decimals) -> tuple | None:
        line = self.block.line(at)
        return contract.row_of_json(line, decimals) if line.strip() else None

    def amount(self, at: int) -> Any:
        return contract.fields_of_json(self.block.line(at))[0].get("amount")

    def raw(self, at: int) -> bytes:
        return self.block.line(at)


class Header(NamedTuple):
    """The columns of a CSV file, by their names in lower case, and what parts them."""

    names: list[str]
    delimiter: str

    @classmethod
    def of(cls, line: bytes, file: str) -> Header:
        """The header in a file's first line; the delimiter is what gives most fields.

        Raises:
            UserError: a mandatory field is not in it, or a field is twice.
        """
        text = as_utf8(line).decode().rstrip("\r\n").translate({0: " ", 13: " "})
        found = (
            cls(
                [trim(name).lower() for name in next(csv.reader([text], delimiter=mark), [])],
                mark,
            )
            for mark in ",;\t|"
        )
        best = max(found, key=lambda header: len(set(header.names) & set(FIELDS)))
        _check_names(best.names, file)
        return best


def row_of_csv(line: bytes, header: Header, decimals: Decimals = NO_FILE) -> tuple:
    """The typed row of a record of CSV in UTF-8, as ``contract.row_of_json`` gives it.

    Raises:
        Refused: the record cannot land.
    """
    pairs = _pairs_of_csv(line, header)
    extra = [pair for pair in pairs if pair[0] not in FIELDS]
    return contract.row_of_fields(dict(pairs), extra, decimals)


def _pairs_of_csv(line: bytes, header: Header) -> list[tuple[str, str]]:
    text = line.decode()
    if "\0" in text:
        raise Refused("bad_text", "a NUL")
    values = values_of(text, header.delimiter)
    if len(values) != len(header.names):
        raise Refused("column_count", f"{len(values)} instead of {len(header.names)}")
    return [(name, value) for name, value in zip(header.names, values, strict=True) if value]


class _CsvChunk:
    """Records of CSV; piece n is the record that starts on line n of the block."""

    def __init__(self, block: Block, header: Header, records: Records, name: str) -> None:
        self.block, self.header, self.first, self.last = block, header, block.first, block.last
        self._records, self._name = records, name

    def pieces(self) -> np.ndarray:
        is_start = np.ones(len(self.block), bool)
        is_start[: int(self.first == 1)] = False
        for start, lines in self._records.longer.items():
            is_start[start + 1 : start + lines] = False
        return np.flatnonzero(is_start)

    def texts(self, left: _Left, _: list[Shape]) -> Iterator[pa.Table]:
        """The values of the records that are one line each."""
        others = np.array([*self._records.longer, *self._records.refused], np.int64)
        others = np.union1d(self.block.odd, others)
        lines = np.setdiff1d(left.pieces, others, assume_unique=True)
        names = self.header.names
        numbers = [str(at) for at in range(len(names))]
        quoted = b'"' in self.block.data
        table = columns(self.block, lines, numbers, self.header.delimiter, quoted=quoted)
        extra = [at for at, name in enumerate(names) if name not in FIELDS]
        for at in extra:
            table = table.filter(pc.invert(pc.match_substring_regex(table[at], _ESCAPED)))
        fields = {
            name: pc.if_else(pc.equal(table[at], ""), None, table[at])
            for at, name in enumerate(names)
            if name in FIELDS
        }
        fields["extra_fields"] = _json_of([(names[at], table[at]) for at in extra], table.num_rows)
        yield texts(table["n"], fields)

    def row(self, at: int, decimals: Decimals) -> tuple | None:
        if at in self._records.refused:
            raise self._records.refused[at]
        record = self.raw(at).strip(b"\r\n")
        if not record.strip():
            return None
        try:
            return row_of_csv(record, self.header, decimals)
        except Refused:
            lines = _LONE_CR.split(record.decode())
            if sum(is_transaction(line, *self.header) for line in lines) > 1:
                where = f" on line {self.first + at:,}"
                raise UserError(_MACINTOSH.format(self._name, where)) from None
            raise

    def amount(self, at: int) -> Any:
        return dict(_pairs_of_csv(self.raw(at).strip(b"\r\n"), self.header)).get("amount")

    def raw(self, at: int) -> bytes:
        lines = self._records.longer.get(at, 1)
        return self.block.data[self.block.starts[at] : self.block.ends[at + lines - 1]]


class _ParquetChunk:
    """Rows of Parquet; piece n is row n of the batch, and rows are numbered like lines."""

    def __init__(self, rows: pa.Table, before: int) -> None:
        self.first, self.last = before + 1, before + rows.num_rows
        self._rows = rows
        self._values = pa.table(
            {name: _as_text(rows[name]) for name in FIELDS if name in rows.column_names}
        )
        self._not_utf8: dict[int, str] = {}  # row: the column
        for name, column in zip(self._values.column_names, self._values.columns, strict=True):
            self._not_utf8 |= dict.fromkeys(_not_utf8(column), name)
        self._unknown = [at for at, name in enumerate(rows.column_names) if name not in FIELDS]
        self._are_numbers = not _is_text(rows.schema.field("amount").type)

    def pieces(self) -> np.ndarray:
        return np.arange(self._rows.num_rows)

    def texts(self, left: _Left, _: list[Shape]) -> Iterator[pa.Table]:
        """The values of all rows; where there are unknown columns, Python writes their JSON."""
        if self._unknown:
            return
        values = self._values.append_column("n", pa.array(left.pieces))
        if self._not_utf8:
            values = values.take(np.setdiff1d(left.pieces, list(self._not_utf8)))
        for name in TEXT_FIELDS:
            if name in values.column_names:
                nul = pc.match_substring(values[name], "\0")
                values = values.filter(pc.invert(pc.fill_null(nul, False)))
        fields = {name: values[name] for name in self._values.column_names}
        yield texts(values["n"], fields, are_numbers=self._are_numbers)

    def row(self, at: int, decimals: Decimals) -> tuple | None:
        if at in self._not_utf8:
            raise Refused("not_utf8", self._not_utf8[at])
        fields = self._values.slice(at, 1).to_pylist()[0]
        if self._are_numbers and fields["amount"] is not None:
            fields["amount"] = contract.Number(fields["amount"])
        return contract.row_of_fields(fields, self._extra(at), decimals)

    def amount(self, at: int) -> Any:
        return None if self._are_numbers else self._values["amount"][at].as_py()

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


# A chunk is a stretch of a file, in numbered pieces (lines, records, rows). `texts` yields the
# values of the pieces left, for SQL; `row(n)` is the typed row by Python (None for a blank line),
# `amount(n)` its amount as it is written, `raw(n)` the bytes as they stood. Piece n is line `first`
# + n.
_Chunk = _JsonChunk | _CsvChunk | _ParquetChunk


def _chunks(file: SourceFile, stream: Readable) -> Iterator[_JsonChunk | _CsvChunk]:
    data = gzip.GzipFile(fileobj=stream) if file.gzipped else stream
    return (_csv_chunks if file.form == "csv" else _json_chunks)(file, data)


def _marks(file: SourceFile) -> set[str]:
    """The marks before decimals that the amounts of a whole file show (see ``amounts``)."""
    found: set[str] = set()
    if file.form == "parquet":
        for rows, _ in _parquet_rows(file):
            found |= _marks_of_chunk(_ParquetChunk(rows, 0), [])
        return found
    shapes: list[Shape] = []
    with file.path.open("rb") as raw:
        whole = replace(file, landed_bytes=0, landed_lines=0)
        for chunk in _chunks(whole, Stream(raw, file.bytes)):
            found |= _marks_of_chunk(chunk, shapes)
            if len(found) > 1:
                break
    return found


def _marks_of_chunk(chunk: _Chunk, shapes: list[Shape]) -> set[str]:
    found, left = set(), _Left(chunk.pieces())
    for table in chunk.texts(left, shapes):
        left.pieces = np.setdiff1d(left.pieces, table["n"].to_numpy(), assume_unique=True)
        if table.schema.metadata != ARE_NUMBERS:
            found |= marks_in(table["amount"])
    for at in left.pieces.tolist():
        with suppress(Refused):
            amount = chunk.amount(at)
            if type(amount) is str:
                found |= marks_of([trim(amount)])
    return found


def _json_chunks(file: SourceFile, data: Readable) -> Iterator[_JsonChunk]:
    for block in blocks(data, file.name, file.landed_bytes, file.landed_lines):
        yield _JsonChunk(block)


def _csv_chunks(file: SourceFile, data: Readable) -> Iterator[_CsvChunk]:
    header, waiting = None, None
    for block in blocks(data, file.name, *_landed_records(file)):
        if header is None:
            header = Header.of(block.line(0) if block.first == 1 else _first_line(file), file.name)
        if waiting:
            block = Block(waiting.data + block.data, waiting.first)  # noqa: PLW2901
        records = Records.of(block, *header, is_last=False)
        waiting = None
        if records.waits is not None:
            cut = int(block.starts[records.waits])
            waiting = Block(block.data[cut:], block.first + records.waits)
            if not cut:
                continue
            block = Block(block.data[:cut], block.first)  # noqa: PLW2901
        yield _CsvChunk(block.as_utf8(), header, records, file.name)
    if waiting:
        records = Records.of(waiting, *header, is_last=True)
        yield _CsvChunk(waiting.as_utf8(), header, records, file.name)


def _landed_records(file: SourceFile) -> tuple[int, int]:
    """The landed bytes of CSV and their lines, without a record that new lines complete.

    Its lines were rejects, for its quote was not closed yet, and are read again.
    """
    landed = file.landed_bytes, file.landed_lines
    if not file.landed_bytes:
        return landed
    header = Header.of(_first_line(file), file.name)
    before = max(0, file.landed_bytes - MAX_RECORD_BYTES)
    with file.path.open("rb") as raw:
        raw.seek(before)
        data = raw.read(file.landed_bytes - before)
        new = raw.read(min(MAX_RECORD_BYTES, file.bytes - file.landed_bytes))
    tail = Block(data, 1 + file.landed_lines - len(Block(data, 1)))
    start = Records.of(tail, *header, is_last=False).waits
    if not start:  # or 0, which may be amid a line
        return landed
    cut, first = int(tail.starts[start]), tail.first + start
    if 0 not in Records.of(Block(data[cut:] + new, first), *header, is_last=True).longer:
        return landed
    half = Block(data[cut:], first).as_utf8()
    chunk = _CsvChunk(half, header, Records.of(half, *header, is_last=True), file.name)
    if any(_lands(chunk, at) for at in chunk.pieces().tolist()):
        return landed
    return before + cut, first - 1


def _lands(chunk: _Chunk, at: int) -> bool:
    try:
        return chunk.row(at, ANY_FILE) is not None
    except Refused:
        return False


def _first_line(file: SourceFile) -> bytes:
    with file.path.open("rb") as raw:
        return next(iter(blocks(raw, file.name))).line(0)


def _check_names(names: list[str], file: str) -> None:
    missing = [name for name in MANDATORY if name not in names]
    if missing:
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it has: {', '.join(names)[:200]}.\n"
            "Name the columns in the first line as the contract does."
        )
    twice = [name for name in FIELDS if names.count(name) > 1]
    if twice:
        raise UserError(f"{file} has the column {twice[0]} twice.\nLeave one of them.")


def _check_parquet(file: str, schema: pa.Schema) -> None:
    _check_names(schema.names, file)
    for name in FIELDS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_null(kind):  # what is written of a column without a value
            continue
        number_or_time = (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_timestamp(kind)
        )
        if not _is_text(kind) and not (
            number_or_time and name in ("event_ts", "user_id", "amount")
        ):
            raise UserError(
                f"{file}: the column {name} is {kind}, which cannot be read.\nStore it as text."
            )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _parquet_rows(file: SourceFile) -> Iterator[tuple[pa.Table, int]]:
    """The rows of a file in stretches, each with the number of all of them.

    Raises:
        UserError: it cannot be read, or not to its end.
        OSError: the disk does not give it.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as source:
            _check_parquet(file.name, source.schema_arrow)
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


def _json_of(values: list[tuple[str, pa.ChunkedArray]], rows: int) -> pa.Array | pa.ChunkedArray:
    """JSON objects of columns of text, as ``contract.to_json`` writes them, without empty values.

    There must be nothing in them that JSON escapes.
    """
    if not values:
        return pa.nulls(rows, pa.string())
    pieces = []
    for name, column in values:
        pair = pc.binary_join_element_wise(f'{contract.to_json(name)}: "', column, '", ', "")
        pieces.append(pc.if_else(pc.equal(column, ""), "", pair))
    pairs = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*pieces, ""), 0, -2)
    return pc.if_else(pc.equal(pairs, ""), None, pc.binary_join_element_wise("{", pairs, "}", ""))


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns_ = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns_, schema.types, strict=True)]
    return pa.table(arrays, schema=schema)


def _readable(line: bytes) -> str:
    """A line as text that PostgreSQL can store: other bytes are written as ``\\x``, two digits."""
    return line.strip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")
