"""Cursors of pages: where a walk through a mart goes on, and in which build it began."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

import orjson

from serving.api.problems import bad

_REMEDY = "Begin again without a cursor, and pass on what the page before gave, unchanged."


def written(print_of: str, build: str | None, values: tuple[str | None, ...]) -> str:
    """A cursor.

    Args:
        print_of: what all pages of the walk have in common.
        build: of the mart.
        values: of the order's columns in the last row, as text.
    """
    packed = orjson.dumps([print_of, build, values])
    return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def read(cursor: str, print_of: str, columns: int) -> tuple[str | None, tuple[str | None, ...]]:
    """The build and the values of a cursor.

    Raises:
        ProblemError: it is no cursor, or one of another walk.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        of, build, values = orjson.loads(urlsafe_b64decode(padded))
        whole = isinstance(values, list) and len(values) == columns
        texts = whole and all(v is None or isinstance(v, str) for v in values)
    except (UnicodeError, binascii.Error, ValueError, TypeError):
        raise bad("cursor", "It is no cursor.", _REMEDY) from None
    if of != print_of:
        raise bad("cursor", "It belongs to another order or other filters.", _REMEDY)
    if (
        not texts
        or any("\x00" in v for v in values if v)
        or not isinstance(build, (str, type(None)))
    ):
        raise bad("cursor", "It is no cursor.", _REMEDY)
    return build, tuple(values)
