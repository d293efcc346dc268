"""Which mapping a file is read by: the one that is asked for, or the one whose columns it has."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.mapping.names import word
from ingestion.sources.transactions.mapping.rules import CONTRACT, MappedRules, Rules
from ingestion.sources.transactions.mapping.spec import Mapping, read_mapping
from ingestion.sources.transactions.settings import MANDATORY
from ingestion.warehouse.paths import PROJECT_DIR

if TYPE_CHECKING:
    from ingestion.sources.transactions.inputs.source_file import SourceFile

FOLDER = PROJECT_DIR / "ingestion" / "mappings"
LINES = 50  # of JSON whose names are looked at


@cache
def shipped() -> tuple[Mapping, ...]:
    """The mappings of the folder ``ingestion/mappings``.

    Raises:
        UserError: one of them is not valid.
    """
    return tuple(read_mapping(path) for path in sorted(FOLDER.glob("*.yml")))


def find_mapping(given: str) -> Mapping:
    """The mapping of a name in the folder, or of a file.

    Raises:
        UserError: there is none.
    """
    path = Path(given)
    if path.is_file():
        return read_mapping(path)
    names = {mapping.name: mapping for mapping in shipped()}
    if given in names:
        return names[given]
    raise UserError(
        f"There is no mapping {given}.\nGive a file, or one of: {', '.join(names) or 'none'}."
    )


def rules_for(file: SourceFile, given: Mapping | None) -> Rules:
    """How a file is read.

    Args:
        file: whose columns decide.
        given: the mapping that was asked for.

    Raises:
        UserError: several mappings fit.
        OSError: it cannot be read.
    """
    if given:
        return MappedRules(given)
    return rules_by_names(names_in(file), file.name)


def rules_by_names(names: list[str], label: str) -> Rules:
    """How records with these names are read, of a source with this label.

    Raises:
        UserError: several mappings fit.
    """
    there = {word(name) for name in names}
    if all(word(name) in there for name in MANDATORY):
        return CONTRACT
    fitting = [each for each in shipped() if each.applies(names) and not each.lacks(names)]
    if len(fitting) > 1:
        most = max(len(each.applies_to) for each in fitting)
        fitting = [each for each in fitting if len(each.applies_to) == most]
    if len(fitting) > 1:
        raise UserError(
            f"{label} fits several mappings: {', '.join(each.name for each in fitting)}.\n"
            f"Choose one: --mapping {fitting[0].name}"
        )
    return MappedRules(fitting[0]) if fitting else CONTRACT


def names_in(file: SourceFile) -> list[str]:
    """The names of a file's columns; of JSON, those of its first lines.

    Raises:
        OSError: it cannot be read.
    """
    from ingestion.sources.transactions.formats.csv_records import names_of

    if file.form == "parquet":
        return _names_of_parquet(file.path)
    if file.form == "csv":
        return names_of((file.header or "").encode(), CONTRACT.names)[0]
    with file.path.open("rb") as raw:
        data: Iterable[bytes] | IO[bytes] = gzip.GzipFile(fileobj=raw) if file.gzipped else raw
        return names_in_json(data)


def names_in_json(lines: Iterable[bytes]) -> list[str]:
    """The names in the first records of JSON."""
    found: dict[str, None] = {}
    with suppress(EOFError, gzip.BadGzipFile):
        for line in itertools.islice(lines, LINES):
            with suppress(contract.Refused):
                fields, extra = contract.fields_of_json(line, CONTRACT.names)
                found.update(dict.fromkeys([*fields, *(name for name, _ in extra)]))
    return list(found)


def _names_of_parquet(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema: Any = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):
        return []  # the reader says what is wrong with it
    return list(schema.names)
