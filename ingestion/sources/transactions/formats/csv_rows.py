"""CSV: its header, its records as columns of text or, one by one, as typed rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.errors import UserError
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import ANY_FILE, NO_FILE, Decimals
from ingestion.sources.transactions.contract import Refused
from ingestion.sources.transactions.formats.chunk import Left, Record
from ingestion.sources.transactions.formats.csv_records import (
    Header,
    Records,
    is_transaction,
    values_of,
)
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import Block, Readable, blocks, columns, texts
from ingestion.sources.transactions.inputs.source_file import LONE_CR, MACINTOSH, SourceFile
from ingestion.sources.transactions.settings import MAX_RECORD_BYTES

_ESCAPED = r'["\\\x00-\x1f]'  # what JSON writes with a backslash


def row_of_csv(line: bytes, header: Header, decimals: Decimals = NO_FILE) -> tuple | None:
    """The typed row of a record of CSV in UTF-8; None for one that the mapping leaves out.

    Raises:
        Refused: the record cannot land.
    """
    return header.rules.row(*_fields_of_csv(line, header), decimals)


def _fields_of_csv(line: bytes, header: Header) -> Record:
    pairs = [(name, value) for name, value in _pairs_of_csv(line, header) if value]
    names = header.rules.names
    for name, value in pairs:
        if name in header.rules.ids and '"' in value:  # more likely another dialect than an id
            raise Refused("not_csv", f"a quote amid {name}")
    extra = [pair for pair in pairs if pair[0] not in names or pair[0] in names.kept]
    return {name: value for name, value in pairs if name in names}, extra


def _pairs_of_csv(line: bytes, header: Header) -> list[tuple[str, str]]:
    text = line.decode()
    if "\0" in text:
        raise Refused("bad_text", "a NUL")
    values = values_of(text, header.delimiter)
    if len(values) != len(header.names):
        raise Refused("column_count", f"{len(values)} instead of {len(header.names)}")
    return list(zip(header.names, values, strict=True))


class CsvChunk:
    """Records of CSV; piece n is the record that starts on line n of the block."""

    def __init__(self, block: Block, header: Header, records: Records, name: str) -> None:
        self.block, self.header, self.first, self.last = block, header, block.first, block.last
        self._records, self._name = records, name

    def pieces(self) -> np.ndarray:
        is_start = np.ones(len(self.block), bool)
        is_start[: self.header.lines_in(self.block)] = False
        for start, lines in self._records.longer.items():
            is_start[start + 1 : start + lines] = False
        found = np.flatnonzero(is_start)
        mapping = self.header.rules.mapping
        if mapping is None or not mapping.skip_lines:
            return found
        left_out = self.header.rules.leaves_out
        return np.array(
            [at for at in found.tolist() if not left_out(self.block.line(at))], np.int64
        )

    def texts(self, left: Left, _: list[Shape]) -> Iterator[pa.Table]:
        """The values of the records that are one line each."""
        records = self._records
        others = np.array([*records.longer, *records.refused, *records.by_hand], np.int64)
        others = np.union1d(self.block.odd, others)
        lines = np.setdiff1d(left.pieces, others, assume_unique=True)
        names, wanted = self.header.names, self.header.rules.names
        numbers = [str(at) for at in range(len(names))]
        quoted = b'"' in self.block.data
        table = columns(self.block, lines, numbers, self.header.delimiter, quoted=quoted)
        extra = [at for at, n in enumerate(names) if n not in wanted or n in wanted.kept]
        for at in extra:
            table = table.filter(pc.invert(pc.match_substring_regex(table[at], _ESCAPED)))
        fields = {
            name: pc.if_else(pc.equal(table[at], ""), None, table[at])
            for at, name in enumerate(names)
            if name in wanted
        }
        fields["extra_fields"] = _json_of([(names[at], table[at]) for at in extra], table.num_rows)
        yield texts(table["n"], fields, self.header.rules)

    def fields(self, at: int) -> Record | None:
        if at in self._records.refused:
            raise self._records.refused[at]
        record = self.raw(at).strip(b"\r\n")
        if not record.strip():
            return None
        lines = LONE_CR.split(record.decode())
        if len(lines) > 1 and sum(is_transaction(line, self.header) for line in lines) > 1:
            where = f" on line {self.first + at:,}"
            raise UserError(MACINTOSH.format(self._name, where))
        return _fields_of_csv(record, self.header)

    def raw(self, at: int) -> bytes:
        lines = self._records.longer.get(at, 1)
        return self.block.data[self.block.starts[at] : self.block.ends[at + lines - 1]]


def csv_chunks(file: SourceFile, data: Readable) -> Iterator[CsvChunk]:
    header: Header | None = None
    waiting: Block | None = None
    for block in blocks(data, file.name, *_landed_records(file)):
        if header is None:
            header = _header_of(file, block)
        if waiting:
            block = Block(waiting.data + block.data, waiting.first)  # noqa: PLW2901
        records = Records.of(block, header, is_last=False)
        waiting = None
        if records.waits is not None:
            cut = int(block.starts[records.waits])
            waiting = Block(block.data[cut:], block.first + records.waits)
            if not cut:
                continue
            block = Block(block.data[:cut], block.first)  # noqa: PLW2901
        yield CsvChunk(block.as_utf8(), header, records, file.name)
    if waiting and header:
        records = Records.of(waiting, header, is_last=True)
        yield CsvChunk(waiting.as_utf8(), header, records, file.name)


def _landed_records(file: SourceFile) -> tuple[int, int]:
    """The landed bytes of CSV and their lines, without a record that new lines complete.

    Its lines were rejects, for its quote was not closed yet, and are read again.
    """
    landed = file.landed_bytes, file.landed_lines
    if not file.landed_bytes:
        return landed
    header = _header_of(file)
    before = max(0, file.landed_bytes - MAX_RECORD_BYTES)
    with file.path.open("rb") as raw:
        raw.seek(before)
        data = raw.read(file.landed_bytes - before)
        new = raw.read(min(MAX_RECORD_BYTES, file.bytes - file.landed_bytes))
    tail = Block(data, 1 + file.landed_lines - len(Block(data, 1)))
    start = Records.of(tail, header, is_last=False).waits
    if not start:  # or 0, which may be amid a line
        return landed
    cut, first = int(tail.starts[start]), tail.first + start
    if 0 not in Records.of(Block(data[cut:] + new, first), header, is_last=True).longer:
        return landed
    half = Block(data[cut:], first).as_utf8()
    chunk = CsvChunk(half, header, Records.of(half, header, is_last=True), file.name)
    if any(_lands(chunk, at) for at in chunk.pieces().tolist()):
        return landed
    return before + cut, first - 1


def _lands(chunk: CsvChunk, at: int) -> bool:
    try:
        record = chunk.fields(at)
        return record is not None and chunk.header.rules.row(*record, ANY_FILE) is not None
    except Refused:
        return False


def _header_of(file: SourceFile, block: Block | None = None) -> Header:
    """The header of a file; where nobody has looked for it, the first line, if a block has that."""
    line = file.header.encode() if file.header is not None else None
    if line is None and block and block.first == 1:
        line = block.line(0)
    if line is None:
        with file.path.open("rb") as raw:
            line = next(iter(blocks(raw, file.name))).line(0)
    return Header.of(line, file.name, file.rules, file.header_line)


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
