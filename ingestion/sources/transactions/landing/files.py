"""From files to the raw tables: typed rows go into COPY while the next ones are being read.

All rows of a load, its ledger included, go in one transaction. So they are there as a whole or not
at all, whenever a run is killed; and what has been sent of a file that is refused in the end is
rolled back, to the savepoint before it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.contract import DECODER
from ingestion.sources.transactions.formats.chunk import Batch
from ingestion.sources.transactions.formats.lines import ahead
from ingestion.sources.transactions.formats.reader import Reader
from ingestion.sources.transactions.inputs.plan import Plan
from ingestion.sources.transactions.inputs.prepare import prepared
from ingestion.sources.transactions.inputs.source_file import SourceFile
from ingestion.sources.transactions.landing.load import Load
from ingestion.sources.transactions.mapping.rules import Rules
from ingestion.sources.transactions.tables import COLUMNS, raw_schema

_SAMPLE = 100  # rows of a batch whose unknown fields are looked at for their names


class Pending:
    """Rows of a file until it is known whether they land: few in memory, many behind a savepoint.

    A ``UserError`` at the end of the block says that they do not.

    Attributes:
        rows: number of rows, by table.
    """

    def __init__(self, copy: Load) -> None:
        self.rows: Counter[str] = Counter()
        self._copy, self._sends = copy, False
        self._held: list[tuple[str, pa.Table]] = []

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sends and kind and issubclass(kind, UserError):
            self._copy.rollback()

    def write(self, table: str, rows: pa.Table) -> None:
        self.rows[table] += rows.num_rows
        self._held.append((table, rows))
        if self.rows.total() > settings.HELD_ROWS:
            if not self._sends:
                self._copy.savepoint()
                self._sends = True
            for held in self._held:
                self._copy.write(*held)
            self._held = []

    def land(self) -> list[tuple[str, pa.Table]]:
        """They land; returns those that have not been sent, with their tables."""
        if self._sends:
            self._copy.release()
        return self._held


class Landing:
    """Reads the files of a plan, once, and sends what lands.

    Attributes:
        rows, rejected: what has been sent and stays.
        files: those that it is of, as they were given.
        with_more: rows among them that have fields beyond the contract.
        unknown: names of such fields, the first ones that came.
        plan: its notes and problems grow as files are read.
    """

    def __init__(
        self, plan: Plan, copy: Load, max_reject_share: Callable[[], float], copies: Path
    ) -> None:
        self.plan = plan
        self._copies = copies  # the folder of prepared files
        self.files: list[SourceFile] = []
        self.rows = self.rejected = self.with_more = 0
        self.unknown: dict[str, None] = {}
        self._copy, self._max_reject_share = copy, max_reject_share
        self._held: dict[str, list[pa.Table]] = {table: [] for table in COLUMNS}  # of many files
        self._held_rows: Counter[str] = Counter()

    def read(self) -> None:
        """Read all files; those that must not land are the plan's problems then."""
        megabytes = sum(file.bytes for file in self.plan.files) / 1e6
        with closing(Reader()) as reader, task("Landing", total=megabytes, unit="MB") as advance:
            for file in self.plan.files:
                try:
                    with prepared(file, self._copies) as ready:
                        self._read_file(file, ready, reader, advance)
                except UserError as error:
                    self.plan.refuse(file.place, error.message, error)
                    self.plan.cause = self.plan.cause or error.__cause__
            for table in self._held:
                self._send(table)

    def _read_file(
        self, file: SourceFile, ready: SourceFile, reader: Reader, advance: Callable
    ) -> None:
        """Read a file, and send what lands of it.

        Args:
            file: as it was given.
            ready: as it is read.
            reader: for all files.
            advance: is told the megabytes of the file given.

        Raises:
            UserError: nothing of it lands.
        """
        began = time.monotonic()
        stamp = {
            "_file_name": file.name,
            "_file_checksum": file.checksum,
            "_dlt_load_id": self._copy.load_id,
        }
        reasons: Counter[str] = Counter()
        first_line = last_line = done = with_more = skipped = 0
        unknown: dict[str, None] = {}
        example: dict[str, Any] = {}
        with Pending(self._copy) as pending, closing(ahead(_batches(ready, reader))) as batches:
            for batch in batches:
                for table, rows in (("transactions", batch.rows), ("rejects", batch.rejects)):
                    pending.write(table, _stamped(rows, raw_schema(table), stamp))
                reasons.update(batch.rejects["reason_code"].to_pylist())
                if not example and batch.rejects.num_rows:
                    example = batch.rejects.slice(0, 1).to_pylist()[0]
                skipped += batch.skipped
                more = batch.rows["extra_fields"].drop_null()
                with_more += len(more)
                for text in more[:_SAMPLE].to_pylist():
                    unknown.update((name, None) for name, _ in DECODER.decode(text))
                first_line, last_line = first_line or batch.first_line, batch.last_line
                advance((batch.done - done) / max(ready.bytes, 1) * file.bytes / 1e6)
                done = batch.done
            lines, rejected = pending.rows.total(), pending.rows["rejects"]
            if rejected and rejected > self._max_reject_share() * lines:
                raise UserError(_too_many(file, rejected, lines, reasons, example))
        if file.rules.mapping:
            left_out = f"; {skipped:,} rows are left out, as it says" if skipped else ""
            self.plan.notes.append(
                f"{file.name} is read by the mapping {file.rules.mapping.name}{left_out}."
            )
        if not lines:
            self.plan.empty.append(file.name)
            return
        ledger = {
            "path": file.place,
            "bytes": file.bytes,
            "first_line": first_line,
            "last_line": last_line,
            "lines_read": lines,
            "rows_landed": lines - rejected,
            "rows_rejected": rejected,
            "is_replacement": file.name in self.plan.replacements,
            "seconds": round(time.monotonic() - began, 3),
            "landed_at": datetime.now(timezone.utc),
            "etag": file.etag,
            "cursor_value": file.cursor_value,
            "header": ready.header,
            **mapping_of(file.rules),
        }
        row = pa.Table.from_pylist([ledger | stamp], raw_schema("files"))
        for table, rows in (*pending.land(), ("files", row)):
            self._held[table].append(rows)
            self._held_rows[table] += rows.num_rows
            if self._held_rows[table] > settings.HELD_ROWS:
                self._send(table)
        if ready.header_line > 1:
            self.plan.notes.append(
                f"{file.name} has its header on line {ready.header_line}; what is above it is left"
                " out."
            )
        self.rows += lines - rejected
        self.rejected += rejected
        self.files.append(file)
        self.with_more += with_more
        self.unknown |= unknown

    def _send(self, table: str) -> None:
        if self._held[table]:
            self._copy.write(table, pa.concat_tables(self._held[table]))
            self._held[table] = []
            self._held_rows[table] = 0


def _batches(file: SourceFile, reader: Reader) -> Iterator[Batch]:
    """What the reader makes of a file; what it does not expect is a fault of this file alone.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        yield from reader.read(file)
    except UserError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or ["no more is said"])[0].rstrip(".")
        raise UserError(
            f"{file.name} cannot be read ({type(error).__name__}: {said[:200]}). Nothing of it has"
            " landed.\nWrite it anew, as JSON Lines perhaps; `marquee --debug ...` shows where it"
            " failed."
        ) from error


def mapping_of(rules: Rules) -> dict[str, str | None]:
    """What the ledger keeps of how records were read."""
    mapping = rules.mapping
    if mapping is None:
        return dict.fromkeys(("mapping", "mapping_checksum", "mapping_document"))
    return {
        "mapping": mapping.name,
        "mapping_checksum": mapping.checksum,
        "mapping_document": mapping.document,
    }


def _stamped(rows: pa.Table, schema: pa.Schema, stamp: dict[str, str]) -> pa.Table:
    """Rows of a file with the columns of the load, as the raw table has them."""
    columns = [*rows.columns, *(pa.repeat(text, rows.num_rows) for text in stamp.values())]
    return pa.Table.from_arrays(columns, schema=schema)


def _too_many(
    file: SourceFile, rejected: int, lines: int, reasons: Counter[str], example: dict[str, Any]
) -> str:
    code, count = reasons.most_common(1)[0]
    start = example["raw_text"].lstrip()[:1]
    if file.form == "jsonl" and start == "[":
        hint = "It looks like one JSON array: give one transaction a line (jq -c '.[]')."
    elif code == "missing_field" and file.form == "jsonl" and not file.rules.mapping:
        hint = "Name its mapping (--mapping), or let Marquee write one (--suggest)."
    elif code == "not_utf8":
        hint = "Is it in another encoding? Convert it: iconv -f ITS-ENCODING -t UTF-8"
    else:
        hint = "Correct it, or raise sources.transactions.max_reject_share in .dlt/config.toml."
    return (
        f"{file.name}: {rejected:,} of {lines:,} lines cannot land, {count:,} of them because "
        f"{settings.REASONS[code]} (line {example['_file_line']:,}: {example['reason_code']}). "
        f"Nothing of it has landed.\n{hint}"
    )
