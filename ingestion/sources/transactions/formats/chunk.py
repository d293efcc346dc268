"""What each format gives of a file, a stretch at a time, and what becomes of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.sources.transactions.tables import row_schema

if TYPE_CHECKING:
    from ingestion.sources.transactions.formats.json_shapes import Shape

ROWS, REJECTS = row_schema("transactions"), row_schema("rejects")

FEW = 200  # lines that Python reads sooner than a query is planned


Record = tuple[dict[str, Any], Sequence[tuple[str, Any]]]


class Batch(NamedTuple):
    """A stretch of a file. Blank lines and a CSV header are in neither table.

    Attributes:
        rows: typed rows, with schema ``ROWS``.
        rejects: what cannot land, with schema ``REJECTS``.
        skipped: number of lines that the mapping leaves out.
        first_line, last_line: 1-based numbers of the first and the last line seen.
        done: bytes of the file read by now.
    """

    rows: pa.Table
    rejects: pa.Table
    skipped: int
    first_line: int
    last_line: int
    done: int

    def since(self, line: int) -> Batch:
        """What is on a line or after it."""
        if self.first_line >= line:
            return self
        rows, rejects = (
            table.filter(pc.greater_equal(table["_file_line"], line))
            for table in (self.rows, self.rejects)
        )
        return self._replace(rows=rows, rejects=rejects, first_line=line)


@dataclass
class Left:
    """The pieces of a chunk that nobody has taken yet."""

    pieces: np.ndarray


class Chunk(Protocol):
    """A stretch of a file, in numbered pieces (lines, records, rows): what each format gives.

    Attributes:
        first, last: 1-based numbers of the first and the last line; piece n is line ``first`` + n.
    """

    first: int
    last: int

    def pieces(self) -> np.ndarray:
        """The numbers of its pieces."""

    def texts(self, left: Left, shapes: list[Shape], /) -> Iterator[pa.Table]:
        """The values of the pieces left, for SQL."""

    def fields(self, at: int) -> Record | None:
        """The wanted fields of a piece and its extra ones; None for a blank line."""

    def raw(self, at: int) -> bytes:
        """The bytes of a piece, as they are in the file."""
