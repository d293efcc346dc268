"""What each format gives of a file, a stretch at a time, and what becomes of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ingestion.errors import UserError
from ingestion.sources.transactions.settings import FIELDS, MANDATORY
from ingestion.sources.transactions.tables import row_schema

if TYPE_CHECKING:
    from ingestion.sources.transactions.amounts import Decimals
    from ingestion.sources.transactions.formats.json_shapes import Shape

ROWS, REJECTS = row_schema("transactions"), row_schema("rejects")

FEW = 200  # lines that Python reads sooner than a query is planned


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

    def row(self, at: int, decimals: Decimals) -> tuple | None:
        """The typed row of a piece, by Python; None for a blank line."""

    def amount(self, at: int) -> Any:
        """The amount of a piece, as it is written."""

    def raw(self, at: int) -> bytes:
        """The bytes of a piece, as they are in the file."""


def check_names(names: list[str], file: str) -> None:
    missing = [name for name in MANDATORY if name not in names]
    if missing:
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it has: {', '.join(names)[:200]}.\n"
            "Name the columns in the first line as the contract does."
        )
    twice = [name for name in FIELDS if names.count(name) > 1]
    if twice:
        raise UserError(f"{file} has the column {twice[0]} twice.\nLeave one of them.")
