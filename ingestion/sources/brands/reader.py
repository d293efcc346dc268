"""Reads the brands source's flat files as they come: delimiter, encoding, headers, number style.

Raw is raw: a title lands as the file has it (typographic quotes too), only the white space around
it goes. What cannot be read without guessing is not guessed: the line goes to the rejects with its
text and the reason.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from itertools import islice
from pathlib import Path

from ingestion.errors import UserError
from ingestion.sources.brands.settings import (
    BRANDS,
    DELIMITERS,
    HARMLESS,
    HEADER_WITHIN,
    HEADERLESS_BRANDS,
    KINDS,
    MAX_BYTES,
    MAX_COLUMNS,
    MAX_EXTRA_DELIMITERS,
    MAX_LINE,
    SUMMARY_NAMES,
    WIDE,
    Column,
    FileKind,
)
from ingestion.texts import WHITE_SPACE, trim
from ingestion.warehouse.paths import PROJECT_DIR

# A file's columns from left to right; a text is the header of one that nobody asked for.
Layout = list[Column | str]


@dataclass
class Reading:
    """One version of one file, read.

    Attributes:
        kind: what the file is.
        name: its path as given.
        checksum: SHA-256 of its content, hexadecimal.
        size: bytes.
        rows: the rows to land, as the raw table has them (`settings.TABLES`), in file order.
        rejects: every other line below or above the header, blank lines left out.
        notes: sentences worth the user's attention.
    """

    kind: FileKind
    name: str
    checksum: str
    size: int
    rows: list[dict] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        """Lines that are neither blank nor the header."""
        return len(self.rows) + len(self.rejects)


class UnreadableRow(ValueError):
    """A line that is no row: ``code`` for queries, ``str()`` for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read(file: Path | None, kind: FileKind) -> Reading:
    """Read one file (None: the bundled sample).

    Raises:
        UserError: there is no such file; it is empty, not text, or has no header of its kind; it
            has no readable row, or more than half of its rows cannot be read.
    """
    path = file or kind.sample
    name = str(file or path.relative_to(PROJECT_DIR).as_posix())
    content = _content(path, name)
    reading = Reading(kind, name, hashlib.sha256(content).hexdigest(), len(content))
    if file is None:
        reading.notes.append(f"No file given: the bundled sample of {kind.what} is read, {name}.")

    # a byte order mark stands at the start of each file that went into this one
    decoded = (_MARKS.sub("", line) for line in _decode(content, name))
    lines = {n: line for n, line in enumerate(decoded, 1) if _has_text(line)}
    if not lines:
        raise UserError(f"{name} is empty.\nGive a file with a header and rows.")
    header, delimiter, layout = _find_header(lines, kind, name)
    if header is None:
        reading.notes.append(
            f"{name} has no header: read as Brand, Total, Releases, #1 Release, Lifetime Gross."
        )
    _read_rows(reading, lines, header, delimiter, layout)
    _refuse_if_unreadable(reading)
    return reading


# --- bytes to lines ---------------------------------------------------------------------

_MARKS = re.compile(r"^ *\ufeff[ \ufeff]*")
_CONTAINERS = {
    b"PK\x03\x04": "an Excel or OpenDocument workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}


def _content(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise UserError(f"{name} is a folder.\nGive the path of one file.")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{name} is larger than {MAX_BYTES // 2**20} MB, far more than a list of brands.\n"
                "Check the path."
            )
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"There is no file {name}.\nCheck the path.") from error
    except OSError as error:
        raise UserError(
            f"{name} cannot be read: {error.strerror}.\nCheck its permissions."
        ) from error
    for magic, what in _CONTAINERS.items():
        if content.startswith(magic):
            raise UserError(f"{name} is {what}.\nSave the sheet as CSV (UTF-8) and give that file.")
    return content


def _decode(content: bytes, name: str) -> list[str]:
    """The physical lines.

    UTF-16 is told by its mark or its zeros. Other lines are UTF-8, else cp1252, one by one: files
    pasted together from both exist.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _utf16_lines(content, "utf-16")
    if b"\x00" in content:
        zeros = content[:200:2].count(0), content[1:200:2].count(0)
        if max(zeros) <= 4 * min(zeros) + 1:
            raise UserError(
                f"{name} is not a text file.\nSave the table as CSV (UTF-8) and give that file."
            )
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return _utf16_lines(content, encoding)
    content = content.removeprefix(b"\xef\xbb\xbf")
    return [_decode_line(line) for line in re.split(rb"\r\n|\r|\n", content)]


def _utf16_lines(content: bytes, encoding: str) -> list[str]:
    text = content.decode(encoding, errors="replace").replace("\x00", "")  # PostgreSQL takes no NUL
    return re.split(r"\r\n|\r|\n", text)


def _decode_line(line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            pass
    return line.decode("latin-1")  # cp1252 leaves five bytes undefined


def _has_text(line: str) -> bool:
    return bool(line.strip(WHITE_SPACE + DELIMITERS + '"'))


# --- lines to fields --------------------------------------------------------------------


def _split(lines: dict[int, str], delimiter: str) -> dict[int, list[str]]:
    """Line number to fields, stripped.

    A record never spans lines, so a stray quote cannot swallow its neighbours. Quotes that do not
    enclose a whole field (``"Weird Al" Story``) are part of its text.
    """
    fields = {}
    alike: dict[tuple[int, int], dict[int, str]] = {}
    for n, line in lines.items():
        if len(line) > MAX_LINE:
            fields[n] = [line]
        else:
            key = _quoting(line, delimiter), line.count(delimiter)
            alike.setdefault(key, {})[n] = line
    for (quoting, delimiters), part in alike.items():
        if delimiters < WIDE:
            fields |= _read_csv(part, delimiter, quoting, width=delimiters + 1)
            continue
        for n, line in part.items():  # to pandas each column is work, filled or not
            found = csv.reader([line], delimiter=delimiter, quoting=quoting, skipinitialspace=True)
            fields[n] = [trim(text) for text in next(found)]
    return {n: fields[n] for n in lines}


def _quoting(line: str, delimiter: str) -> int:
    """How pandas and csv are to take the line's quotes: as enclosing fields, or as text."""
    try:
        next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _read_csv(
    lines: dict[int, str], delimiter: str, quoting: int, width: int
) -> dict[int, list[str]]:
    import pandas as pd

    frame = pd.read_csv(
        StringIO("\n".join(lines.values())),
        sep=delimiter,
        header=None,
        names=range(width),
        index_col=False,
        dtype=str,
        keep_default_na=False,  # a film may be called None or NA; a missing field is still null
        quoting=quoting,
        skipinitialspace=True,
        skip_blank_lines=False,
        engine="python",
    )
    return {
        n: [trim(value) for value in row if isinstance(value, str)]
        for n, row in zip(lines, frame.itertuples(index=False, name=None), strict=True)
    }


# --- headers ----------------------------------------------------------------------------


def simplified(header: str) -> str:
    """A header without case, accents (sound or mis-encoded), spaces and what brackets enclose."""
    text = unicodedata.normalize("NFKD", re.sub(r"\(.*?\)", "", header)).lower()
    return re.sub(r"[^a-z0-9#]", "", text)


def _layout(headers: Sequence[str], kind: FileKind) -> Layout | None:
    """The columns these headers name, or None where a required one is missing."""
    layout: Layout = []
    width = max((n for n, header in enumerate(headers, 1) if header), default=0)
    if width > MAX_COLUMNS:
        return None
    for position, header in enumerate(headers[:width], 1):
        name = simplified(header)
        known = [column for column in kind.columns if name in column.headers]
        extra = header or f"column_{position}"
        while extra in layout:
            extra += "_"
        layout.append(known[0] if known and known[0] not in layout else extra)
    missing = [column for column in kind.columns if column.required and column not in layout]
    return None if missing else layout


def _best_header(lines: dict[int, str], kind: FileKind) -> tuple[int, str, Layout] | None:
    """Line number, delimiter and layout of the first line that names most of the kind's columns."""
    found = []
    top = dict(islice(lines.items(), HEADER_WITHIN))
    for delimiter in DELIMITERS:
        for number, headers in _split(top, delimiter).items():
            layout = _layout(headers, kind)
            if layout:
                known = sum(isinstance(column, Column) for column in layout)
                found.append((-known, number, delimiter, layout))
    return min(found, key=lambda each: each[:2])[1:] if found else None


def _find_header(
    lines: dict[int, str], kind: FileKind, name: str
) -> tuple[int | None, str, Layout]:
    """Line number of the header (None: the first line is a row already), delimiter and layout."""
    header = _best_header(lines, kind)
    if header:
        return header
    if kind is BRANDS:
        by_name = {column.name: column for column in kind.columns}
        layout = [by_name[column] for column in HEADERLESS_BRANDS]
        first = dict(islice(lines.items(), 1))
        for delimiter in DELIMITERS:
            for fields in _split(first, delimiter).values():
                if _shows_index_row(fields, layout):
                    return None, delimiter, layout
    for other in KINDS.values():
        if _best_header(lines, other):
            raise UserError(f"{name} is not {kind.what} but {other.what}.\nLoad it as such.")
    needed = " and ".join(column.name.capitalize() for column in kind.columns if column.required)
    raise UserError(
        f"{name} has no line with the headers of {kind.what}.\n"
        f"It needs the columns {needed} (English or French), between tabs, commas, semicolons or |."
    )


def _shows_index_row(fields: list[str], layout: Layout) -> bool:
    """Whether a line can only be a row of the index.

    None of the five values is missing or of another kind, and the total is not below the gross of
    one release.
    """
    if len(fields) != len(layout):
        return False
    try:
        row = _row(fields, layout)
    except UnreadableRow:
        return False
    return None not in map(row.get, HEADERLESS_BRANDS) and row["total"] >= row["lifetime_gross"]


# --- fields to rows ---------------------------------------------------------------------


def _read_rows(
    reading: Reading, lines: dict[int, str], header: int | None, delimiter: str, layout: Layout
) -> None:
    """Fill the reading's rows and rejects."""
    fields_of = _split(lines, delimiter)
    headers = fields_of.pop(header, None)
    empty = dict.fromkeys(column.name for column in reading.kind.columns)
    reject_repeats = _repeats(reading.kind)
    for number, fields in fields_of.items():
        where = {
            "_file_name": reading.name,
            "_file_line": number,
            "_file_checksum": reading.checksum,
        }
        try:
            _reject_furniture(fields, number < (header or 0), headers)
            row = empty | _row(_fit(fields, lines[number], delimiter, layout), layout)
            _reject_summary(row)
            reject_repeats(row, number)
        except UnreadableRow as error:
            reject = {
                "kind": reading.kind.name,
                "raw_text": lines[number],
                "reason_code": error.code,
                "reason": str(error),
            }
            reading.rejects.append(reject | where)
        else:
            reading.rows.append(row | where)
    _number_rows(reading)


def _reject_furniture(fields: list[str], is_above: bool, headers: list[str] | None) -> None:
    """Tell titles, notes and repeated headers from rows."""
    if fields == headers:
        raise UnreadableRow("repeated_header", "The line repeats the header.")
    if is_above:
        raise UnreadableRow("above_header", "The line stands above the header.")
    if max(map(len, fields)) > MAX_LINE:
        raise UnreadableRow("line_too_long", f"More than {MAX_LINE} characters.")
    if sum(map(bool, fields)) <= 1:
        raise UnreadableRow("note", "Only one cell is filled.")


def _reject_summary(row: dict) -> None:
    if simplified(row["brand"]) in SUMMARY_NAMES:
        raise UnreadableRow("summary_row", "A line of totals is no brand.")


def _fit(fields: list[str], line: str, delimiter: str, layout: Layout) -> list[str]:
    """As many fields as the layout has columns."""
    width = len(layout)
    filled = len(fields)
    while filled > width and not fields[filled - 1]:
        filled -= 1
    fields = fields[:filled]
    if any(text.count('"') % 2 for text in fields):
        raise UnreadableRow("broken_quotes", "A quote is opened and not closed on the same line.")
    if any('\\"' in text for text in fields):
        raise UnreadableRow("broken_quotes", "A quote stands behind a backslash: write it twice.")
    if len(fields) < width:
        raise UnreadableRow(
            "too_few_columns", f"{len(fields)} columns where the header has {width}."
        )
    return fields if len(fields) == width else _realign(line, delimiter, layout)


def _realign(line: str, delimiter: str, layout: Layout) -> list[str]:
    """Put a title with bare delimiters in it back together, if there is one way only."""
    quoting = _quoting(line, delimiter)
    pieces = next(csv.reader([line], delimiter=delimiter, quoting=quoting))
    ways, read = 0, []
    if len(layout) <= len(pieces) <= len(layout) + MAX_EXTRA_DELIMITERS:
        ways, read = _alignments(pieces, layout, delimiter)
    if ways != 1:
        how = "can be read in several ways" if ways else "no reading fits"
        raise UnreadableRow(
            "too_many_columns",
            f"{len(pieces)} columns where the header has {len(layout)}, and {how}: quote texts.",
        )
    return read


def _alignments(pieces: list[str], layout: Layout, delimiter: str) -> tuple[int, list[str]]:
    """The ways to join neighbouring pieces to one readable value a column: how many, and one.

    Two stand for more. From the last column to the first, so that each join is tried once: the
    work grows with the columns and the square of the surplus pieces, whatever is in them.
    """
    surplus = len(pieces) - len(layout)
    # by the surplus pieces that stand further left: ways of what is right of here, and one of them
    after: list[tuple[int, tuple | None]] = [*[(0, None)] * surplus, (1, None)]
    for at in reversed(range(len(layout))):
        here = []
        for start in range(at, at + surplus + 1):
            ways, read = 0, None
            for end in range(start + 1, at + surplus + 2):
                further, rest = after[end - at - 1]
                if not further:
                    continue
                text = trim(delimiter.join(pieces[start:end]))
                if _is_readable(text, layout[at]):
                    ways, read = min(ways + further, 2), (text, rest)
            here.append((ways, read))
        after = here
    ways, read = after[0]
    texts = []
    while read:
        text, read = read
        texts.append(text)
    return ways, texts


def _is_readable(text: str, column: Column | str) -> bool:
    try:
        _row([text], [column])
    except UnreadableRow:
        return False
    return True


def _row(fields: Sequence[str], layout: Layout) -> dict:
    """Values by column; those of extra columns, as text, below ``extra_fields``."""
    row: dict = {"extra_fields": None}
    extra = {}
    for column, text in zip(layout, fields, strict=True):
        if isinstance(column, Column):
            row[column.name] = _value(text, column)
        elif text:
            extra[column] = text
    return row | ({"extra_fields": extra} if extra else {})


def _repeats(kind: FileKind) -> Callable[[dict, int], None]:
    """A check that raises for what an earlier row of the file has said: the first one stands."""
    seen: dict[tuple, int] = {}

    def check(row: dict, number: int) -> None:
        brand = " ".join(row["brand"].split()).casefold()
        keys = [("duplicate_row", repr(sorted(row.items())))]
        if kind is BRANDS:
            keys.append(("duplicate_brand", brand))
        elif row["position"] is not None:
            keys.append(("duplicate_position", brand, row["position"]))
        for key in keys:
            if key in seen:
                what = key[0].removeprefix("duplicate_")
                raise UnreadableRow(key[0], f"Line {seen[key]} has the same {what}.")
        seen.update(dict.fromkeys(keys, number))

    return check


def _number_rows(reading: Reading) -> None:
    """Give rows without a rank or position their place in the file, or among their brand's rows."""
    placed: dict[str | None, int] = {}
    for row in reading.rows:
        group = None if reading.kind is BRANDS else row["brand"]
        placed[group] = placed.get(group, 0) + 1
        column = reading.kind.columns[0].name
        row[column] = placed[group] if row[column] is None else row[column]


def _refuse_if_unreadable(reading: Reading) -> None:
    bad = [reject for reject in reading.rejects if reject["reason_code"] not in HARMLESS]
    if reading.rows and len(bad) <= len(reading.rows):
        return
    if not bad:
        raise UserError(f"{reading.name} has a header but no rows.\nGive a file with rows.")
    raise UserError(
        f"{len(bad)} of {len(reading.rows) + len(bad)} rows of {reading.name} cannot be read;"
        f" line {bad[0]['_file_line']}: {bad[0]['reason']}\n"
        "Nothing was landed: mend the file and run this again."
    )


# --- fields to values -------------------------------------------------------------------

_NO_TEXT = {"", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "N/A"}
_NO_NUMBER = _NO_TEXT | {"na", "NA", "nan", "NaN", "nd", "n.d.", "null", "None"}
# No-break, thin and other spaces, apostrophes; first, no-break spaces whose encoding was mistaken.
_SPACE = re.compile(
    r"\N{LATIN CAPITAL LETTER A WITH CIRCUMFLEX}\xa0|\xe2\u20ac\xaf|[\s'\u2019\ufffd]"
)
_DOLLAR = re.compile(r"^(?:US ?\$|\$ ?US|USD|\$) ?| ?(?:US ?\$|\$ ?US|USD|\$)$", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<whole>0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:(?P<by>[ .,])[0-9]{3})(?:(?P=by)[0-9]{3})*)"
    r"(?:(?!(?P=by))[.,](?P<cents>[0-9]{1,2}))?"
)


def _value(text: str, column: Column) -> str | Decimal | int | None:
    if column.kind == "text":
        value = None if text in _NO_TEXT else text
    else:
        value = None if text in _NO_NUMBER else _number(text, column)
    if value is None and column.required:
        raise UnreadableRow("missing_value", f"{column.name} is empty.")
    return value


def _number(text: str, column: Column) -> Decimal | int:
    """``$1,234``, ``1 234,56``, ``1.234.567`` or ``1234``.

    One kind of separator groups by three, the other one is decimal.
    Three digits after a lone separator are a group: no sum of money has three decimals.
    """
    plain = _DOLLAR.sub("", _SPACE.sub(" ", text).strip())
    if column.kind == "rank":
        plain = plain.removeprefix("#").removesuffix(".").strip()
    found = _NUMBER.fullmatch(plain)
    if not found:
        raise UnreadableRow("bad_number", f"{column.name} is no number: {text[:80]!r}.")
    value = Decimal(re.sub(r"[ .,]", "", found["whole"]) + "." + (found["cents"] or "0"))
    if value >= 10**18:
        raise UnreadableRow("bad_number", f"{column.name} is too large: {text[:80]!r}.")
    if column.kind == "money":
        return value.quantize(Decimal("0.01"))
    if value % 1:
        raise UnreadableRow("bad_number", f"{column.name} is no whole number: {text[:80]!r}.")
    return int(value)
