"""JSON that is no JSON Lines: arrays, objects over several lines, pages that hold a list of rows.

It becomes JSON Lines, one object after another, by its own text, so that no digit changes. Few
megabytes are in memory, whatever the size of the document.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ingestion.errors import UserError
from ingestion.sources.transactions.mapping.names import word
from ingestion.sources.transactions.settings import MANDATORY, MAX_LINE_BYTES

_BLANK = re.compile(r"[ \t\r\n]*")
SMALL = 1 << 20  # characters of an object that is looked at as a whole
_NEAR_END = 16  # characters: an error so near to the end can be that more is to come
# What stands beside the list on a page of an API: with other names, an object of JSON Lines that
# holds a list is a row
_OF_PAGES = re.findall(
    r"\w+",
    "api apiversion code count currentpage cursor error errors hasmore hasnext kind limit "
    "links message meta metadata more next nextcursor nextpage nextpagetoken nexttoken "
    "object offset ok page pages pagesize pagination paging perpage prev previous requestid "
    "result results size status success timestamp total totalcount totalitems totalpages "
    "totalresults url version",
)
# numbers as text: they are not looked at, and may have any number of digits
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)


def is_document(head: str, *, is_whole: bool) -> bool:
    """Whether JSON is something else than JSON Lines, as far as its beginning shows beyond doubt.

    Args:
        head: its beginning.
        is_whole: whether that is all of it.
    """
    text = head.lstrip("\ufeff \t\r\n")
    if text[:1] not in ("{", "["):
        return False
    lines = [line for line in text.split("\n", 20)[:20] if line.strip()]
    first, *others = [_value(line) for line in lines]
    if first is not None:
        return _is_document_by_itself(first, others, is_only=len(lines) == 1)
    if text[0] == "[":
        return text[1:].lstrip()[:1] in ("{", "")
    if _are_side_by_side(lines[0]):
        return not any(others)
    return _goes_on(lines[0]) and _is_object_over_lines(text, others, is_whole=is_whole)


def _is_document_by_itself(first: Any, others: list, *, is_only: bool) -> bool:
    """Whether a first line that is a value is more than one row of others."""
    if isinstance(first, list):
        is_array = all(isinstance(item, dict) for item in first)
        return is_array and not any(isinstance(value, dict) for value in others)
    if not isinstance(first, dict) or not _is_page(first):
        return False
    return is_only or (_is_plain_page(first) and not any(map(_is_row, others)))


def json_lines(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The objects of a document in UTF-8, one a line.

    Args:
        chunks: of the document.
        name: the file as it was given.

    Raises:
        UserError: it is broken or cut off, or it is not clear which of its lists has the rows.
    """
    for text in _Document(chunks, name).rows():
        line = text.replace("\r", " ").replace("\n", " ")  # never within a text of JSON
        yield line.encode(errors="surrogateescape") + b"\n"


_MANDATORY = frozenset(word(name) for name in MANDATORY)


def _is_row(value: Any, depth: int = 3) -> bool:
    """Whether a value is a row or, in an envelope, holds one: then it is no page."""
    if not isinstance(value, dict):
        return False
    names = {word(name) for name in value} & _MANDATORY
    if (depth == 3 and names) or len(names) > 1 or word(MANDATORY[0]) in names:
        return True
    nested = [within for within in value.values() if isinstance(within, dict)]
    return depth > 0 and any(_is_row(within, depth - 1) for within in nested)


def _is_page(value: dict) -> bool:
    """Whether an object is a page with a list of rows, perhaps an empty one."""
    if _is_row(value):
        return False
    return any(_lists(value)) or (bool(_lists(value)) and _is_plain_page(value))


def _is_plain_page(value: dict) -> bool:
    """Whether all that is on a page beside lists and objects has a name that pages use."""
    others = (name for name, within in value.items() if not isinstance(within, list | dict))
    return {word(name) for name in others} <= set(_OF_PAGES)


def _lists(value: dict) -> list[list]:
    """The lists of objects in an object and in its objects; empty ones are such, too."""
    found: list[list] = []
    for within in value.values():
        if isinstance(within, dict):
            found += _lists(within)
        elif isinstance(within, list) and all(isinstance(item, dict) for item in within):
            found.append(within)
    return found


def _value(text: str) -> Any:
    """The value that a text is; None if it is none."""
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError):
        return None


def _are_side_by_side(line: str) -> bool:
    """Whether a line has objects with nothing between them."""
    try:
        return line[_DECODER.raw_decode(line)[1] :].lstrip()[:1] == "{"
    except (json.JSONDecodeError, RecursionError):
        return False


def _goes_on(line: str) -> bool:
    """Whether a line of JSON that is no value by itself is the beginning of one."""
    try:
        _DECODER.decode(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip()) and not error.msg.startswith("Unterminated")
    except RecursionError:
        pass
    return False


def _is_object_over_lines(text: str, others: list, *, is_whole: bool) -> bool:
    """Whether a text whose first line goes on is an object, and not a broken line before others."""
    try:
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not is_whole and _is_near_end(error, text):
            return True
        return not any(map(_is_row, others))
    except RecursionError:
        return False
    return True


def _is_near_end(error: json.JSONDecodeError, text: str) -> bool:
    return error.pos >= len(text) - _NEAR_END or error.msg.startswith("Unterminated")


class _Document:
    """A window on the text of a document, and how far it has been read."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._name, self._chunks = name, iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # where the window begins

    def rows(self) -> Iterator[str]:
        """The source text of each row."""
        while char := self._next():
            if char == "[":
                yield from self._elements()
            elif char == "{":
                yield from self._page_or_row()
            else:
                raise self._broken("there is something else than an object")

    def _page_or_row(self) -> Iterator[str]:
        found = self._take(SMALL)
        if found and not _is_page(found[0]):
            yield found[1]
            return
        if found:
            self._at -= len(found[1])
        lists: list[str] = []
        yield from self._members(lists)
        if not lists and not found:
            raise self._broken("an object of more than a million characters ends")

    def _members(self, lists: list[str], above: str = "") -> Iterator[str]:
        """The rows of the list in an object that is not in memory as a whole.

        Args:
            lists: names of the lists of objects found so far.
            above: the names of the objects around it, each with a point.
        """
        self._at += 1
        while self._next() != "}":
            if self._next() != '"':
                raise self._broken("a name in double quotes is missing")
            name = above + self._value()[0]
            if self._next() != ":":
                raise self._broken("a colon is missing")
            self._at += 1
            if self._next() == "{":
                yield from self._members(lists, f"{name}.")
            elif self._is_list_of_objects():
                lists.append(name)
                if len(lists) > 1:
                    raise UserError(
                        f"{self._name} has several lists of objects: {', '.join(lists)}.\n"
                        "Write the one with the transactions to a file of its own:"
                        f" jq '.{lists[-1]}'"
                    )
                yield from self._elements()
            else:
                self._value()
            self._comma("}")
        self._at += 1

    def _is_list_of_objects(self) -> bool:
        return self._next() == "[" and self._next(1) == "{"

    def _elements(self) -> Iterator[str]:
        """The source text of what is in a list."""
        self._at += 1
        while self._next() != "]":
            yield self._value()[1]
            self._comma("]")
        self._at += 1

    def _comma(self, end: str) -> None:
        char = self._next()
        if char == ",":
            self._at += 1
            if self._next() == end:
                raise self._broken(f"a comma stands before {end}")
        elif char != end:
            raise self._broken(f"a comma or {end} is missing")

    def _next(self, further: int = 0) -> str:
        """The next character that is no blank, "" at the end; or the next one after ``further``.

        The window moves on to it only if ``further`` is 0.
        """
        while True:
            found = _BLANK.match(self._text, self._at + further)
            end = found.end() if found else len(self._text)
            if end < len(self._text):
                self._at = end if not further else self._at
                return self._text[end]
            if not self._more():
                return ""

    def _value(self) -> tuple[Any, str]:
        found = self._take(MAX_LINE_BYTES)
        if not found:
            raise self._broken(f"a value is longer than {MAX_LINE_BYTES >> 20} MiB")
        return found

    def _take(self, limit: int) -> tuple[Any, str] | None:
        """The next value and its source text; None, and nothing taken, beyond a limit."""
        while True:
            start = self._at
            try:
                value, end = _DECODER.raw_decode(self._text, start)
                if end < len(self._text) or not self._more():  # a number may go on
                    size = end - start
                    text = self._text[self._at : self._at + size]
                    self._at += size
                    return value, text
            except RecursionError:
                raise self._broken("it is nested too deep") from None
            except json.JSONDecodeError as error:
                if not _is_near_end(error, self._text):
                    raise self._broken(error.msg[:1].lower() + error.msg[1:], error.pos) from None
                if len(self._text) - start > limit:
                    return None
                if not self._more():
                    at = self._at + error.pos - start
                    if self._text[at:].strip() and not error.msg.startswith("Unterminated"):
                        raise self._broken(error.msg[:1].lower() + error.msg[1:], at) from None
                    line, column = self._place(self._text)
                    raise UserError(
                        f"{self._name} is cut off: its JSON ends amid a value, at line {line:,},"
                        f" column {column:,}.\nCopy it again."
                    ) from None

    def _more(self) -> bool:
        """Drop what has been read, and read as much again as is left."""
        done, self._text = self._text[: self._at], self._text[self._at :]
        self._line, self._column = self._place(done)
        self._at, wanted = 0, len(self._text)
        pieces, read = [], 0
        for chunk in self._chunks:
            pieces.append(self._decoder.decode(chunk))
            read += len(pieces[-1])
            if read and read >= wanted:
                break
        else:
            pieces.append(self._decoder.decode(b"", final=True))
        self._text += "".join(pieces)
        return any(pieces)

    def _place(self, passed: str) -> tuple[int, int]:
        """Line and column behind a text that the window begins with."""
        lines = passed.count("\n")
        column = len(passed) - passed.rfind("\n") if lines else self._column + len(passed)
        return self._line + lines, column

    def _broken(self, why: str, at: int | None = None) -> UserError:
        at = self._at if at is None else at
        line, column = self._place(self._text[:at])
        where = f"line {line:,}, column {column:,}"
        if not self._text[at:].strip() and not self._more():
            return UserError(f"{self._name} is cut off: its JSON ends at {where}.\nCopy it again.")
        return UserError(
            f"{self._name} is no whole JSON document: {why}, at {where}.\n"
            "Correct it, or give one transaction a line (JSON Lines)."
        )
