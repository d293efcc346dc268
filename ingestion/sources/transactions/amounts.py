"""How an amount is written, and what it is then.

``1.000`` is one in some countries and a thousand in others. So an amount that is text is read with
a point before its decimals, and with a comma. One reading: that is it. Two alike (``5``,
``1 000``): no matter. Two that differ: the other amounts of the file decide. A file that says
nothing about it, or both, does not, and the line is refused: nothing is guessed by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING

from ingestion.texts import trim

if TYPE_CHECKING:
    import pyarrow as pa

POINT, COMMA = ".", ","
_BLANKS = " \u00a0\u2007\u2009\u202f"  # between groups of three digits
_PLAIN = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)


def _grouped(mark: str, other: str) -> re.Pattern[str]:
    groups = rf"[1-9]\d{{0,2}}(?:(?P<by>[{other}'\u2019{_BLANKS}])\d{{3}})(?:(?P=by)\d{{3}})*"
    decimals = rf"\{mark}\d{{1,40}}"
    return re.compile(rf"[+-]?(?:(?:{groups}|\d{{1,40}})(?:{decimals})?|{decimals})", re.ASCII)


_GROUPED = {POINT: _grouped(POINT, COMMA), COMMA: _grouped(COMMA, POINT)}
_PARTS = str.maketrans("", "", f"'\u2019{_BLANKS}")


def plain(text: str) -> Decimal | None:
    """The number that is written as programs write it; None for what is not."""
    return Decimal(text) if _PLAIN.fullmatch(text) else None


def readings(text: str) -> dict[str, Decimal]:
    """What a text means with either mark before the decimals, where it means anything."""
    found = {}
    if (number := plain(text)) is not None:
        found[POINT] = number
        if POINT not in text:
            found[COMMA] = number
    elif _GROUPED[POINT].fullmatch(text):
        found[POINT] = Decimal(text.translate(_PARTS).replace(COMMA, ""))
    if _GROUPED[COMMA].fullmatch(text):
        found[COMMA] = Decimal(text.translate(_PARTS).replace(POINT, "").replace(COMMA, POINT))
    return found


def depends_on_file(text: str) -> bool:
    """Whether SQL reads a text once it is known how its file writes amounts."""
    found = readings(text)
    return COMMA in found and found.get(POINT) != found[COMMA]


def marks_of(texts: Iterable[str]) -> set[str]:
    """The marks that some amounts show beyond doubt: those that have one reading only."""
    found: set[str] = set()
    for text in texts:
        read = readings(text)
        if len(read) == 1:
            found |= read.keys()
    return found


class Decimals:
    """The mark before decimals in the amounts of one file.

    Args:
        look: gives the marks that the whole file shows; it is asked once, when a line needs it,
            whichever thread reads that.
    """

    def __init__(self, look: Callable[[], set[str]] = set) -> None:
        self._look: Callable[[], set[str]] | None = look
        self._mark: str | None = None
        self._looking = Lock()

    @classmethod
    def fixed(cls, mark: str) -> Decimals:
        """A mark that is known beforehand."""
        found = cls(lambda: {mark})
        found._look, found._mark = None, mark
        return found

    @property
    def is_known(self) -> bool:
        """Whether the file has been asked."""
        return self._look is None

    @property
    def mark(self) -> str | None:
        """The one mark that the file shows; None where it shows none, or both."""
        if not self.is_known:
            with self._looking:
                if look := self._look:
                    found = look()
                    self._mark = found.pop() if len(found) == 1 else None
                    self._look = None
        return self._mark


NO_FILE = Decimals()  # a line by itself
ANY_FILE = Decimals(lambda: {POINT})  # where it only matters whether it could be a line

# In SQL: regular expressions of amounts that are beyond doubt, and what turns one into a number

_WHOLE = "(0|[1-9][0-9]{0,13})"
NUMBER = rf"-?{_WHOLE}(\.[0-9]{{1,4}})?"  # of JSON or a typed column; or where points are decimal
_NO_GROUP = rf"-?({_WHOLE}(\.([0-9]{{1,2}}|[0-9]{{4}}))?|(0|[1-9][0-9]{{3,13}})\.[0-9]{{3}})"
_WITH_COMMA = r"-?((0|[1-9][0-9]{0,13})|[1-9][0-9]{0,2}(\.[0-9]{3}){1,3})(,[0-9]{1,4})?"


def in_sql(text: str, decimals: Decimals, *, are_numbers: bool) -> tuple[str, str]:
    """Pattern of the amounts that SQL may read from an expression, and what it casts then."""
    if are_numbers or (decimals.is_known and decimals.mark == POINT):
        return NUMBER, text
    if decimals.is_known and decimals.mark == COMMA:
        return _WITH_COMMA, f"replace(replace({text}, '.', ''), ',', '.')"
    return _NO_GROUP, text


def marks_in(column: pa.ChunkedArray, bare: Callable[[str], str] = str) -> set[str]:
    """As ``marks_of``, of a whole column: the commonest forms are told at once.

    Args:
        column: amounts as they are written.
        bare: takes off what is around a number.
    """
    import pyarrow.compute as pc

    found: set[str] = set()
    column = column.drop_null()
    for mark in (POINT, COMMA):
        shows = pc.match_substring_regex(column, rf"^-?[0-9]+[{mark}]([0-9]{{1,2}}|[0-9]{{4,}})$")
        if pc.any(shows).as_py():
            found.add(mark)
            column = column.filter(pc.invert(shows))
    rest = column.filter(pc.invert(pc.match_substring_regex(column, r"^-?[0-9]*$")))
    return found | marks_of(bare(trim(text)) for text in pc.unique(rest).to_pylist())
