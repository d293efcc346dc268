"""Rejects that are corrected: out into a file, and back into the raw tables.

A corrected line lands as a row with the file, line and checksum of the reject, so its lineage
leads to where it came from. The ledger gets a row for each such file with ``replay_of``, the load
that had put the lines aside; rejects stay where they are (see ``ingestion.rejects`` for which of
them count as open).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, one_at_a_time
from ingestion.progress import task
from ingestion.rejects import Reject, open_rejects

if TYPE_CHECKING:
    import dlt

    from ingestion.sources.transactions.landing.copy import Copy
    from ingestion.warehouse.target import Target

HEAD = """\
# Rejected transactions: a reference, a tab, the text as it stood. Correct the text, leave the
# reference. What is still wrong, or taken out of here, stays rejected. Then:
# marquee rejects replay {}
"""
_REFERENCE = re.compile(rb"([0-9a-f]{12}:\d+):\w+\t")
_NOT_AS_IT_STOOD = ("not_utf8", "bad_text")  # their raw_text spells bytes out
SHOWN = 20  # lines that are still rejected


def export(rejects: Iterable[Reject], file: Path) -> int:
    """Write rejects as they stood, one a line, each with its reference; returns how many.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    count = 0
    try:
        with (
            file.open("x", encoding="utf-8", newline="\n") as out,
            interrupts.giving_back(file.unlink),
        ):
            out.write(HEAD.format(file))
            for reject in rejects:
                out.write(f"{_reference(reject)}:{reject.reason_code}\t{reject.raw_text}\n")
                count += 1
    except FileExistsError as error:
        raise UserError(f"{file} is there already.\nGive another name.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.\nCheck it.") from error
    if not count:
        file.unlink()
    return count


def corrected(file: Path) -> dict[str, bytes]:
    """The texts of a file that ``export`` wrote, by their references.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.\nCheck the path.") from error
    texts: dict[str, bytes] = {}
    reference = None
    for number, line in enumerate(lines, 1):
        if match := _REFERENCE.match(line):
            reference = match[1].decode()
            if reference in texts:
                raise UserError(
                    f"{file}, line {number}: {reference} is there twice.\nLeave one of them."
                )
            texts[reference] = line[match.end() :]
        elif reference:  # a text of more than one line, or the end
            texts[reference] += b"\n" + line
        elif line.strip() and not line.startswith(b"#"):
            raise UserError(
                f"{file}, line {number}: there is no reference of a reject.\n"
                "Give a file that `marquee rejects export` wrote, corrected."
            )
    return {reference: text.rstrip(b"\r\n") for reference, text in texts.items()}


def replay(
    texts: dict[str, bytes] | None, target: Target, *, pipeline: dlt.Pipeline | None = None
) -> LoadReport:
    """Land what can land of the open rejects, under today's rules.

    Args:
        texts: corrected texts by reference, as ``corrected`` reads them; None for all as they were.
        target: the warehouse.
        pipeline: another pipeline than the target's, for tests.

    Returns:
        Rows landed; a note for what is still rejected, and for references that are not open.

    Raises:
        UserError: the warehouse does not take it.
    """
    from ingestion import raw_tables
    from ingestion.sources.transactions.landing import load

    began = time.monotonic()
    report = LoadReport("transactions", rows={"transactions": 0, "files": 0})
    raw_tables.bring_forward(target, "transactions")
    with one_at_a_time("transactions", target):
        load.finish_earlier(target, report)
        replayed = Replayed(texts)
        with task("Reading") as advance:
            for reject in open_rejects(target, "transactions"):
                replayed.read(reject)
                advance(1)
        if replayed.files:
            with load.open_load(target, pipeline) as copy:
                replayed.write(copy)
    report.rows["transactions"] += sum(len(file.lines) for file in replayed.files.values())
    report.rows["files"] += len(replayed.files)
    report.notes += replayed.notes()
    report.seconds = time.monotonic() - began
    return report


@dataclass
class ReplayedFile:
    """The corrected lines of one file.

    Attributes:
        example: a reject of it.
        rows: as ``tables.row_schema`` has them.
        lines: where they stood.
        bytes: of their texts.
    """

    example: Reject
    rows: list[tuple] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bytes: int = 0


class Replayed:
    """What lands of the rejects.

    Attributes:
        files: by checksum. Corrected rows are few, so they stay in memory.
        still: the rejects that cannot land, with the reason.
    """

    def __init__(self, texts: dict[str, bytes] | None) -> None:
        self.files: dict[str, ReplayedFile] = {}
        self.still: list[tuple[Reject, str]] = []
        self._texts, self._began = texts, time.monotonic()
        self._unknown = set(texts or ())

    def read(self, reject: Reject) -> None:
        """Take up a reject, if it is among the texts and can land now."""
        from ingestion.sources.transactions.contract import Refused

        reference = _reference(reject)
        text = reject.raw_text.encode()
        if self._texts is not None:
            if reference not in self._texts:
                return
            text = self._texts[reference]
            self._unknown.discard(reference)
        try:
            row = _row(reject, text)
        except Refused as refusal:
            self.still.append((reject, refusal.reason))
            return
        file = self.files.setdefault(reject.checksum, ReplayedFile(reject))
        file.rows.append(row)
        file.lines.append(reject.line)
        file.bytes += len(text)

    def notes(self) -> list[str]:
        notes = [
            f"{reject.file}:{reject.line} is still rejected: {reason}"
            for reject, reason in self.still[:SHOWN]
        ]
        if len(self.still) > SHOWN:
            notes.append(f"{len(self.still):,} lines in all are still rejected.")
        if self._unknown:
            some = ", ".join(sorted(self._unknown)[:3])
            notes.append(
                f"{len(self._unknown):,} are no open rejects (corrected before, or their file was"
                f" replaced); skipped: {some}"
            )
        return notes

    def write(self, copy: Copy) -> None:
        """Land the rows, and what the ledger has to say of them."""
        import pyarrow as pa

        from ingestion.sources.transactions.tables import raw_schema

        for checksum, file in self.files.items():
            name, lines = file.example.file, file.lines
            stamp = (name, checksum, copy.load_id)
            columns = [*zip(*file.rows, strict=True), lines, *([s] * len(lines) for s in stamp)]
            schema = raw_schema("transactions")
            arrays = [pa.array(c, kind) for c, kind in zip(columns, schema.types, strict=True)]
            copy.write("transactions", pa.table(arrays, schema=schema))
            ledger = {
                "path": file.example.place,
                "bytes": file.bytes,
                "first_line": min(lines),
                "last_line": max(lines),
                "lines_read": len(lines),
                "rows_landed": len(lines),
                "rows_rejected": 0,
                "is_replacement": False,
                "seconds": round(time.monotonic() - self._began, 3),
                "landed_at": datetime.now(timezone.utc),
                "replay_of": file.example.load_id,
                **dict.fromkeys(("mapping", "mapping_checksum", "mapping_document")),
                "_file_name": name,
                "_file_checksum": checksum,
                "_dlt_load_id": copy.load_id,
            }
            copy.write("files", pa.Table.from_pylist([ledger], raw_schema("files")))


def _row(reject: Reject, text: bytes) -> tuple:
    """The typed row of a text.

    Raises:
        Refused: it cannot land.
    """
    from ingestion.sources.transactions import contract
    from ingestion.sources.transactions.formats.csv_records import Header
    from ingestion.sources.transactions.formats.csv_rows import row_of_csv
    from ingestion.sources.transactions.mapping.rules import CONTRACT, MappedRules, Rules
    from ingestion.sources.transactions.mapping.spec import parse_mapping

    rules: Rules = CONTRACT
    if reject.mapping:
        rules = MappedRules(parse_mapping(reject.mapping, "the mapping in the ledger", "ledger"))
    if not text.strip():
        raise contract.Refused("missing_field", "the text is empty")
    if text == reject.raw_text.encode() and reject.reason_code in _NOT_AS_IT_STOOD:
        raise contract.Refused(reject.reason_code, "correct it: some bytes of it are spelt out")
    if reject.header and not text.lstrip().startswith(b"{"):
        row = row_of_csv(text, Header.of(reject.header.encode(), reject.file, rules))
    else:
        row = rules.row(*contract.fields_of_json(text, rules.names))
    if row is None:
        raise contract.Refused("missing_field", "the mapping leaves it out")
    return row


def _reference(reject: Reject) -> str:
    return f"{reject.checksum[:12]}:{reject.line}"
