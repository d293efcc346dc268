"""Ids that are made of columns: equal rows of a file are told apart by their number.

The first one keeps its id, the second gets ``-2`` behind it. So the ids are the same when the file
lands again, and rows of another export of the same time have them too.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_MERGE_AT = 8  # sorted stretches that are kept side by side


class Occurrences:
    """Counts the ids of a file, 8 bytes each, whatever the number of rows."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []

    def told_apart(self, rows: pa.Table) -> pa.Table:
        """The rows of the next stretch of the file, each with an id of its own.

        Args:
            rows: with ``transaction_id``, a # and an md5 in hexadecimal, and ``_file_line``.
        """
        if not rows.num_rows:
            return rows
        ids = rows["transaction_id"].to_pylist()
        hashes = np.array([int(each[1:17], 16) for each in ids], np.uint64)
        order = np.lexsort((rows["_file_line"].to_numpy(), hashes))
        ordered = hashes[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counts = np.diff(np.append(starts, len(ordered)))
        earlier = np.repeat(self._count(ordered[starts]), counts)
        numbers = np.arange(len(ordered)) - np.repeat(starts, counts) + earlier
        self._add(ordered)
        for at in np.flatnonzero(numbers).tolist():
            ids[order[at]] += f"-{numbers[at] + 1}"
        place = rows.schema.get_field_index("transaction_id")
        return rows.set_column(place, rows.schema.field(place), pa.array(ids, pa.string()))

    def _count(self, hashes: np.ndarray) -> np.ndarray:
        """How often each was there before."""
        found = np.zeros(len(hashes), np.int64)
        for seen in self._seen:
            found += np.searchsorted(seen, hashes, "right") - np.searchsorted(seen, hashes, "left")
        return found

    def _add(self, hashes: np.ndarray) -> None:
        self._seen.append(hashes)
        if len(self._seen) > _MERGE_AT:
            self._seen = [np.sort(np.concatenate(self._seen))]
