"""Workbooks (.xlsx, .xlsb, .xls, .ods): the sheet with the rows, as JSON Lines.

A line is a row of the sheet, by the same number; it is blank where that has no transaction.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import IO, TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.sources.transactions.inputs.header import find_header
from ingestion.sources.transactions.settings import HEADER_WITHIN

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

_EXACT = 2**53  # whole numbers beyond are not all there, and keep their exponent


def rows_of_workbook(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The rows of the only sheet with a table, or with the contract's columns, one a line.

    Dates and times are ISO 8601; a cell that shows an error is empty; of merged cells the first has
    the value, and of a formula its last result is read.

    Args:
        stream: the workbook.
        name: the file as it was given.

    Raises:
        UserError: it cannot be read, or it is not clear which sheet has the rows.
    """
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(stream.read()))
        sheet, header = _sheet(book, name)
    except python_calamine.PasswordError as error:
        raise UserError(
            f"{name} has a password.\nSave it without, or its sheet as CSV (UTF-8)."
        ) from error
    except python_calamine.CalamineError as error:
        raise UserError(
            f"{name} cannot be read as a workbook: {error}.\nSave its sheet as CSV (UTF-8)."
        ) from error
    names: list[str] = []
    for number, cells in enumerate(sheet.iter_rows()):
        if number == header:
            names = [_text(cell) or f"column_{at}" for at, cell in enumerate(cells, 1)]
        pairs = [
            f"{json.dumps(key, ensure_ascii=False)}: {_json(cell)}"
            for key, cell in zip(names, cells, strict=False)
            if number > header and cell is not None and cell != ""
        ]
        yield f"{{{', '.join(pairs)}}}\n".encode() if pairs else b"\n"


def _sheet(book: CalamineWorkbook, name: str) -> tuple[CalamineSheet, int]:
    """The sheet with the rows, and the index of its header."""
    tables = {}
    for title in book.sheet_names:
        sheet = book.get_sheet_by_name(title)
        if sheet.height > 1:
            tables[title] = (sheet, *find_header(_first_lines(sheet)))
    if not tables:
        raise UserError(f"{name} has no sheet with a header and rows.\nCheck the file.")
    known = {title: table for title, table in tables.items() if table[2]} or tables
    if len(known) > 1:
        raise UserError(
            f"{name} has several sheets with rows: {', '.join(known)}.\n"
            "Save the one with the transactions to a file of its own."
        )
    sheet, header, _ = next(iter(known.values()))
    return sheet, header


def _first_lines(sheet: CalamineSheet) -> list[str]:
    found = []
    for number, cells in enumerate(sheet.iter_rows()):
        if number >= HEADER_WITHIN:
            break
        texts = (" ".join(_text(cell).replace('"', "'").split()) for cell in cells)
        found.append("\t".join(texts))
    return found


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else _json(cell).strip('"')


def _json(cell: Any) -> str:
    """A cell as JSON: a whole number has no point, and no number more digits than it had."""
    if isinstance(cell, bool):
        return json.dumps(cell)
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _EXACT:
        return str(int(cell))
    if isinstance(cell, int | float):
        return repr(cell)
    if isinstance(cell, datetime | date | time):
        return json.dumps(cell.isoformat())
    return json.dumps(str(cell), ensure_ascii=False)
