"""A mapping for a file that nobody has described: what it shows, and what it leaves open.

Nothing is guessed row by row. Where ``03/04/2024`` or ``1.000`` can be read in two ways, the whole
file is asked; where it does not say, the mapping has a ``?`` that its user replaces.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.sources.transactions.amounts import Decimals
from ingestion.sources.transactions.contract import Refused, to_json
from ingestion.sources.transactions.formats.reader import marks_of_file, records_of
from ingestion.sources.transactions.inputs.database import DatabaseTable, write_rows
from ingestion.sources.transactions.inputs.files import Input, LocalFile
from ingestion.sources.transactions.inputs.plan import open_file
from ingestion.sources.transactions.inputs.prepare import prepared
from ingestion.sources.transactions.mapping.choose import names_in
from ingestion.sources.transactions.mapping.draft import OPEN, AllColumns, Draft
from ingestion.sources.transactions.mapping.guesses import Column
from ingestion.sources.transactions.mapping.rules import MappedRules
from ingestion.sources.transactions.mapping.spec import parse_mapping
from ingestion.sources.transactions.settings import FIELDS

if TYPE_CHECKING:
    from ingestion.sources.transactions.formats.chunk import Record
    from ingestion.sources.transactions.inputs.source_file import SourceFile

HEAD = 1_000  # records by which columns are judged
SHOWN = 3


def suggest(found: list[Input], save: Path | None) -> str:
    """A mapping for a file as YAML, what is unsure of it, and the first rows as they would land.

    Args:
        found: the file, or a table of a database; of several, the first.
        save: where to write the mapping.

    Raises:
        UserError: the file cannot be read, has no records, or is not on this disk; ``save`` exists.
    """
    given = found[0]
    with TemporaryDirectory() as folder:
        if isinstance(given, DatabaseTable):
            path = Path(folder) / "rows.jsonl"
            write_rows(given, None, path, most=HEAD)
            given = LocalFile(given.name, path, given.place, is_query=True)
        if not isinstance(given, LocalFile):
            raise UserError(f"{given.name} is not on this disk.\nCopy it, and give the copy.")
        with prepared(open_file(given), Path(folder)) as file:
            return _suggest(file, save)


def _suggest(file: SourceFile, save: Path | None) -> str:
    if file.rules.mapping:
        return (
            f"{file.name} fits the mapping {file.rules.mapping.name}, which is there.\n"
            f"Land it: marquee ingest transactions {quote(file.name)}"
        )
    columns, records = _columns(file)
    if not records:
        raise UserError(f"{file.name} shows no records.\nCheck the file, and its first line.")
    draft = Draft(file, columns)
    draft.fill()
    text = draft.text()
    said = [text]
    if draft.unsure:
        said += ["# Unsure:", *(f"# - {note}" for note in draft.unsure), ""]
    said += _first_rows(file, records, text)
    if save:
        _write(save, text)
        said.append(f"Land it: marquee ingest transactions {quote(file.name)} --mapping {save}")
    else:
        said.append("Write it to a file: --save FILE")
    return "\n".join(said)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} is there already.\nGive another name.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.\nCheck it.") from error


def _columns(file: SourceFile) -> tuple[list[Column], list[Record]]:
    """The columns by their first values, and the records that these are of."""
    names = names_in(file)
    columns = {name: Column(name) for name in names}
    records = []
    every = replace(file, rules=AllColumns(names))
    for record in records_of(every, HEAD):
        records.append(record)
        for name, value in record[0].items():
            if name in columns and value is not None and value != "":
                columns[name].values.append(value if isinstance(value, str) else to_json(value))
    return list(columns.values()), records


def _first_rows(file: SourceFile, records: list[Record], text: str) -> list[str]:
    """The first records as they would land."""
    try:
        rules = MappedRules(parse_mapping(text, "the mapping", "suggested"))
    except UserError:
        return [f"# Replace each {OPEN} by what is right, then land the file with the mapping.", ""]
    decimals = Decimals(lambda: marks_of_file(replace(file, rules=rules)))
    said = []
    for found, extra in records[:SHOWN]:
        layout = rules.names.layout(list(found))
        wanted = {name: value for name, value in zip(layout, found.values(), strict=True) if name}
        try:
            row = rules.row(wanted, extra, decimals)
        except Refused as refusal:
            said.append(f"# would be rejected: {refusal.reason}")
            continue
        values = zip(FIELDS, _legible(row), strict=False) if row else ()
        said.append("# " + ", ".join(f"{name} {value}" for name, value in values if value))
    return ["# The first rows would land as:", *said, ""]


def _legible(row: tuple) -> list[Any]:
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    with suppress(OverflowError):
        return [row[0], (epoch + timedelta(microseconds=row[1])).isoformat(), *row[2:]]
    return list(row)
