"""Where the header of CSV stands: not always on the first line."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence

from ingestion.sources.transactions.mapping.names import word
from ingestion.sources.transactions.settings import HEADER_WITHIN, MANDATORY
from ingestion.texts import trim

_MANDATORY = {word(name) for name in MANDATORY}
_FEWEST = 3  # columns of a table, where no line has the contract's names
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a line of Excel's own


def find_header(lines: Sequence[str]) -> tuple[int, bool]:
    """Index of the header's line, and whether it has the contract's mandatory names.

    Where no line has them, it is the first line that has as many columns as most lines have, all
    filled and none of them beginning with a digit; where there is none either, the first one.
    """
    lines = lines[:HEADER_WITHIN]
    tables = [[_cells(line, mark) for line in lines] for mark in ",;\t|"]
    for at in range(len(lines)):
        if any({word(cell) for cell in cells[at]} >= _MANDATORY for cells in tables):
            return at, True
    tables = [[cells if any(cells) else [] for cells in table] for table in tables]
    widths = [Counter(len(cells) for cells in table if cells).most_common(1) for table in tables]
    (width, _), table = max(
        (
            (width[0] if width else (0, 0), table)
            for width, table in zip(widths, tables, strict=True)
        ),
        key=lambda each: each[0],
    )
    if width >= _FEWEST:
        for at, cells in enumerate(table):
            if len(cells) == width and all(c and not re.match(r"[-+]?\d", c) for c in cells):
                return at, False
    return int(bool(lines and SEPARATOR.fullmatch(lines[0]))), False


def _cells(line: str, mark: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
    except csv.Error:  # a NUL, a value beyond the limit
        return []
    return [trim(cell) for cell in cells]
