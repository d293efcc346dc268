"""A batch of a stream's messages as rows of the raw tables, with the ledger's."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa

from ingestion.sources.transactions.inputs.kafka import Messages, Topic
from ingestion.sources.transactions.landing.files import mapping_of
from ingestion.sources.transactions.mapping.rules import Rules
from ingestion.sources.transactions.tables import raw_schema


class Batch:
    """Where the messages of a batch are from.

    Attributes:
        after: by partition, the offset after its last message.
    """

    def __init__(self, topic: Topic, messages: Messages, load_id: str) -> None:
        self._messages, self._load_id = messages, load_id
        numbers, self._part = np.unique(messages.partitions, return_inverse=True)
        self._partitions = numbers.tolist()
        self._places = [topic.place(number) for number in self._partitions]
        self._names = [topic.name(number) for number in self._partitions]
        self._checksums = [topic.checksum(number) for number in self._partitions]
        last = [int(messages.offsets[self._part == at].max()) for at in self._numbers]
        self.after = {
            number: offset + 1 for number, offset in zip(self._partitions, last, strict=True)
        }

    @property
    def _numbers(self) -> range:
        return range(len(self._partitions))

    def stamped(self, table: str, found: pa.Table) -> pa.Table:
        """Rows of the batch as the raw table has them: ``_file_line`` is the offset."""
        at = found["_file_line"].to_numpy()
        part = pa.array(self._part[at])
        columns = {name: found[name] for name in found.column_names}
        columns["_file_line"] = pa.array(self._messages.offsets[at])
        columns["_file_name"] = pa.array(self._names, pa.string()).take(part)
        columns["_file_checksum"] = pa.array(self._checksums, pa.string()).take(part)
        columns["_dlt_load_id"] = pa.repeat(self._load_id, found.num_rows)
        schema = raw_schema(table)
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def ledger(self, rows: pa.Table, rejects: pa.Table, rules: Rules, began: float) -> pa.Table:
        """A row for each partition."""
        count = len(self._partitions)
        sizes = np.fromiter(map(len, (v or b"" for v in self._messages.values)), np.int64)
        landed, rejected = (
            np.bincount(self._part[table["_file_line"].to_numpy()], minlength=count)
            for table in (rows, rejects)
        )
        lines = []
        for at, number in enumerate(self._partitions):
            offsets = self._messages.offsets[self._part == at]
            lines.append(
                {
                    "path": self._places[at],
                    "bytes": int(sizes[self._part == at].sum()),
                    "first_line": int(offsets.min()),
                    "last_line": self.after[number] - 1,
                    "lines_read": int(landed[at] + rejected[at]),
                    "rows_landed": int(landed[at]),
                    "rows_rejected": int(rejected[at]),
                    "is_replacement": False,
                    "seconds": round(time.monotonic() - began, 3),
                    "landed_at": datetime.now(timezone.utc),
                    **mapping_of(rules),
                    "_file_name": self._names[at],
                    "_file_checksum": self._checksums[at],
                    "_dlt_load_id": self._load_id,
                }
            )
        return pa.Table.from_pylist(lines, raw_schema("files"))
