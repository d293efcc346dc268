"""Files of transactions as typed Arrow rows, and the lines that cannot land with the reason.

What is read is a stream of bytes, so where it comes from does not matter to the rest. A block of
whole lines is taken apart by column and typed by DuckDB; the few lines left over are judged one
by one in Python (see ``contract``). Memory is a few times ``settings.CHUNK_BYTES`` whatever the
size of the file.
"""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.errors import PassingError, UserError
from ingestion.sources.transactions.amounts import (
    NO_FILE,
    Decimals,
    depends_on_file,
    marks_in,
    marks_of,
)
from ingestion.sources.transactions.contract import Refused
from ingestion.sources.transactions.encoding import readable
from ingestion.sources.transactions.formats.chunk import (
    FEW,
    REJECTS,
    ROWS,
    Batch,
    Chunk,
    Left,
    Record,
)
from ingestion.sources.transactions.formats.csv_rows import csv_chunks
from ingestion.sources.transactions.formats.json_lines import json_chunks
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import Readable, Stream, ahead, numbers_of
from ingestion.sources.transactions.formats.occurrences import Occurrences
from ingestion.sources.transactions.formats.parquet import ParquetChunk, parquet_rows
from ingestion.sources.transactions.inputs.source_file import SourceFile, probe
from ingestion.sources.transactions.mapping.rules import CONTRACT, Rules
from ingestion.texts import trim

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AT_ONCE = 4  # chunks, each of which takes memory


class _Hand(threading.local):
    """What each thread has for itself.

    Attributes:
        shapes: that it has seen, the commonest first.
        duckdb: its connection, once there were enough lines for a query.
    """

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.duckdb: DuckDBPyConnection | None = None


class Reader:
    """Reads files, and remembers from block to block what their lines look like.

    Args:
        threads: cores that it may use; None for all.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._at_once = min(threads or os.cpu_count() or 1, AT_ONCE)
        self._hand, self._opening = _Hand(), threading.Lock()
        self._database: DuckDBPyConnection | None = None

    @property
    def _duckdb(self) -> DuckDBPyConnection:
        """Opened when there are enough lines for a query: it takes a quarter of a second."""
        if not self._hand.duckdb:
            import duckdb

            with self._opening:
                config: dict[str, Any] = {"threads": self._threads} if self._threads else {}
                self._database = self._database or duckdb.connect(config=config)
                self._hand.duckdb = self._database.cursor()
            self._hand.duckdb.execute("set timezone = 'UTC'")
        return self._hand.duckdb

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._at_once)

    def close(self) -> None:
        if "_pool" in self.__dict__:
            self._pool.shutdown(cancel_futures=True)
        if self._database:
            self._database.close()

    def read(self, file: SourceFile) -> Iterator[Batch]:
        """The file in batches, from the first line that has not landed yet.

        Raises:
            UserError: the file as a whole cannot be read (a broken archive, no header, no line
                ends), or it was changed meanwhile.
        """
        known = file.rules.decimal
        decimals = Decimals.fixed(known) if known else Decimals(lambda: marks_of_file(file))
        if file.rules.makes_ids:
            yield from self._with_ids_of_their_own(file, decimals)
        else:
            yield from self._read(file, decimals)

    def _with_ids_of_their_own(self, file: SourceFile, decimals: Decimals) -> Iterator[Batch]:
        """Of a file that has grown, also the rows that have landed count: all of it is read."""
        occurrences, first_new = Occurrences(), 1
        if file.landed_bytes:
            with file.path.open("rb") as raw:
                new = next(_chunks(file, Stream(raw, file.bytes)), None)
            first_new = new.first if new else file.landed_lines + 1
            file = replace(file, landed_bytes=0, landed_lines=0)
        for batch in self._read(file, decimals):
            batch = batch._replace(rows=occurrences.told_apart(batch.rows))  # noqa: PLW2901
            if batch.last_line >= first_new:
                yield batch.since(first_new)

    def _read(self, file: SourceFile, decimals: Decimals) -> Iterator[Batch]:
        try:
            if file.form == "parquet":
                yield from self._read_parquet(file, decimals)
                return
            with file.path.open("rb") as raw:
                stream = Stream(raw, file.bytes)
                chunks = ((chunk, stream.done) for chunk in ahead(_chunks(file, stream)))
                yield from self._batches(chunks, file.rules, decimals)
            if stream.hash.hexdigest() != file.checksum:
                raise PassingError(f"{file.name} was changed while it was read.\nRun this again.")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{file.name} is not a whole gzip file: {error}\nCopy it again."
            ) from error
        except OSError as error:
            raise UserError(f"{file.name} cannot be read: {error}\nRun this again.") from error

    def _read_parquet(self, file: SourceFile, decimals: Decimals) -> Iterator[Batch]:
        def chunks() -> Iterator[tuple[Chunk, int]]:
            line = 0
            for rows, rows_in_all in parquet_rows(file):
                chunk = ParquetChunk(rows, line, file.rules)
                line += rows.num_rows
                yield chunk, file.bytes * line // rows_in_all

        yield from self._batches(chunks(), file.rules, decimals)
        if probe(file.path)[1] != file.checksum:
            raise PassingError(f"{file.name} was changed while it was read.\nRun this again.")

    def _batches(
        self, chunks: Iterator[tuple[Chunk, int]], rules: Rules, decimals: Decimals
    ) -> Iterator[Batch]:
        """What becomes of the chunks, in their order, while the next ones are being read.

        Args:
            chunks: each with the bytes of the file that are done after it.
            rules, decimals: as for ``batch``.
        """
        coming: deque[Future[Batch]] = deque()
        try:
            for chunk, done in chunks:
                coming.append(self._pool.submit(self.batch, chunk, done, rules, decimals))
                if len(coming) > self._at_once:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()

    def batch(
        self, chunk: Chunk, done: int, rules: Rules = CONTRACT, decimals: Decimals = NO_FILE
    ) -> Batch:
        """Type a chunk: SQL takes what is beyond doubt, Python judges what is left."""
        tables, left = [], Left(chunk.pieces())
        if len(left.pieces) >= FEW:
            for texts in chunk.texts(left, self._hand.shapes):
                typed = self._typed(texts, rules, decimals)
                left.pieces = np.setdiff1d(left.pieces, typed["n"].to_numpy(), assume_unique=True)
                numbers = pc.add(pc.cast(typed["n"], pa.int64()), chunk.first)
                table = typed.drop_columns("n").append_column("_file_line", numbers)
                tables.append(table.cast(ROWS))

        rows: list[tuple] = []
        refused: list[tuple] = []
        skipped = 0
        for at in left.pieces.tolist():
            try:
                record = chunk.fields(at)
                row = rules.row(*record, decimals) if record else None
                if row is not None:
                    rows.append((*row, chunk.first + at))
                elif record:
                    skipped += 1
            except Refused as refusal:
                raw = readable(chunk.raw(at))
                refused.append((raw, refusal.code, refusal.reason, chunk.first + at))
        tables.append(_table(rows, ROWS))
        return Batch(
            rows=pa.concat_tables(tables),
            rejects=_table(refused, REJECTS),
            skipped=skipped,
            first_line=chunk.first,
            last_line=chunk.last,
            done=done,
        )

    def _typed(self, texts: pa.Table, rules: Rules, decimals: Decimals) -> pa.Table:
        """``n`` and the typed rows of the texts whose values are beyond doubt.

        Where many amounts are not plain numbers, the file is asked how it writes them.
        """
        numbers = numbers_of(texts)
        typed = self._query(texts, rules.query(decimals, numbers))
        written = [name for name in rules.amounts if name not in numbers]
        if not written or decimals.is_known or texts.num_rows - typed.num_rows < FEW:
            return typed
        is_left = pc.invert(pc.is_in(texts["n"], typed["n"].combine_chunks()))
        left = texts.filter(is_left)
        amounts = (amount for name in written for amount in left[name].drop_null().to_pylist())
        in_doubt = sum(depends_on_file(rules.bare_amount(trim(amount))) for amount in amounts)
        if in_doubt >= FEW and decimals.mark:
            return self._query(texts, rules.query(decimals, numbers))
        return typed

    def _query(self, texts: pa.Table, query: str | None) -> pa.Table:
        if query is None:
            nothing = _table([], ROWS).drop_columns("_file_line")
            return nothing.append_column("n", pa.array([], pa.int64()))
        parts = pa.Table.from_batches(
            texts.combine_chunks().to_batches(max_chunksize=16_384), texts.schema
        )
        connection = self._duckdb
        connection.register("texts", parts)
        typed = connection.sql(query).to_arrow_table()
        in_doubt = typed["event_ts"].null_count
        return typed.filter(pc.is_valid(typed["event_ts"])) if in_doubt else typed


def records_of(file: SourceFile, limit: int | None = None) -> Iterator[Record]:
    """The records of a file as they are written; those that are none are left out."""
    with file.path.open("rb") as raw:
        for chunk in _all_chunks(file, Stream(raw, file.bytes)):
            for at in chunk.pieces().tolist():
                with suppress(Refused):
                    record = chunk.fields(at)
                    if record:
                        yield record
                        limit = None if limit is None else limit - 1
                if limit == 0:
                    return


def _all_chunks(file: SourceFile, stream: Readable) -> Iterator[Chunk]:
    if file.form != "parquet":
        yield from _chunks(file, stream)
        return
    for rows, _ in parquet_rows(file):
        yield ParquetChunk(rows, 0, file.rules)


def _chunks(file: SourceFile, stream: Readable) -> Iterator[Chunk]:
    data: Any = gzip.GzipFile(fileobj=cast("IO[bytes]", stream)) if file.gzipped else stream
    return (csv_chunks if file.form == "csv" else json_chunks)(file, data)


def marks_of_file(file: SourceFile) -> set[str]:
    """The marks before decimals that the amounts of a whole file show (see ``amounts``)."""
    found: set[str] = set()
    shapes: list[Shape] = []
    whole = replace(file, landed_bytes=0, landed_lines=0)
    with file.path.open("rb") as raw:
        for chunk in _all_chunks(whole, Stream(raw, file.bytes)):
            found |= _marks_of_chunk(chunk, shapes, file.rules)
            if len(found) > 1:
                break
    return found


def _marks_of_chunk(chunk: Chunk, shapes: list[Shape], rules: Rules) -> set[str]:
    found, left = set(), Left(chunk.pieces())
    for table in chunk.texts(left, shapes):
        left.pieces = np.setdiff1d(left.pieces, table["n"].to_numpy(), assume_unique=True)
        for name in set(rules.amounts) - numbers_of(table):
            found |= marks_in(table[name], rules.bare_amount)
    for at in left.pieces.tolist():
        with suppress(Refused):
            values, _ = chunk.fields(at) or ({}, [])
            for name in rules.amounts:
                if type(values.get(name)) is str:
                    found |= marks_of([rules.bare_amount(trim(values[name]))])
    return found


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns_ = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns_, schema.types, strict=True)]
    return pa.table(arrays, schema=schema)
