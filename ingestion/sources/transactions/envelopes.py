"""What programs put around a row when they send it on, and how it is taken out.

Debezium's ``before``, ``after`` and ``op``, Kafka Connect's ``schema`` and ``payload``, Maxwell's
``data``, and any other object in which one object is a row beyond doubt. What stands around the row
(times, offsets, where it comes from) does not land.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Pairs = Sequence[tuple[str, Any]]

_DEPTH = 3  # objects within objects that are looked through
_OPERATIONS = ("op", "operation", "type", "__op")
_DELETES = ("d", "delete", "deleted")


class Deleted(Exception):
    """The row says that a transaction was deleted, and holds no other."""


def unwrapped(pairs: Pairs, mandatory_in: Callable[[list[str]], int]) -> Pairs:
    """The pairs of the row in an object: its own, if it is one, or if it is not clear which.

    Args:
        pairs: names and values, where a value that is an object is such a list of pairs again.
        mandatory_in: how many of a row's mandatory fields are among some names. An object with one
            of them is a row, and an object in it needs two to be the row.

    Raises:
        Deleted: the row was deleted.
    """
    if mandatory_in(_names(pairs)):
        return pairs
    found = _within(pairs, mandatory_in, _DEPTH)
    return found[0] if len(found) == 1 else pairs


def _within(pairs: Pairs, mandatory_in: Callable[[list[str]], int], depth: int) -> list[Pairs]:
    """The rows in the objects of an object."""
    objects = {name: value for name, value in pairs if _is_object(value)}
    if _is_deletion(pairs, objects):
        raise Deleted
    if "after" in objects:
        objects = {"after": objects["after"]}  # what was before is no row of its own
    rows = [value for value in objects.values() if mandatory_in(_names(value)) > 1]
    if not rows and depth > 1:
        for value in objects.values():
            rows += _within(value, mandatory_in, depth - 1)
    return rows


def _is_deletion(pairs: Pairs, objects: dict[str, Pairs]) -> bool:
    values = dict(pairs)
    about = [*pairs, *objects.get("metadata", ())]
    if any(name in _OPERATIONS and value in _DELETES for name, value in about):
        return bool(objects) or "after" in values
    is_tombstone = values.keys() == {"schema", "payload"} and values["payload"] is None
    return is_tombstone or ({"before", "after"} <= values.keys() and values["after"] is None)


def _is_object(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, tuple) and len(item) == 2 for item in value
    )


def _names(pairs: Pairs) -> list[str]:
    return [name for name, _ in pairs]
