"""The lake as a destination of files of transactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ingestion.lake.catalogue import Catalogue
from ingestion.lake.load import LakeLoad
from ingestion.lake.settings import NAME, SCHEMA, Location, location
from ingestion.lake.storage import Files
from ingestion.pipeline import LoadReport, end_connections, refusals
from ingestion.sources.transactions import ledger
from ingestion.sources.transactions.ledger import Landed
from ingestion.sources.transactions.tables import COLUMNS
from ingestion.warehouse.target import Target

_TYPES = {"bigint": "bigint", "bool": "boolean", "double": "double precision"} | {
    "text": "text",
    "timestamp": "timestamptz",
}


class Lake:
    """Where files land as Iceberg tables.

    Args:
        target: the warehouse, in which the catalogue and the ledger are.
        place: where the files go; None: as it is set.

    Attributes:
        target: as given.
        location: where the files go.

    Raises:
        UserError: what is set is no place.
    """

    name = NAME

    def __init__(self, target: Target, place: Location | None = None) -> None:
        self.target, self.location = target, place or location()
        self._landed: list[Landed] = []

    def settle(self, report: LoadReport) -> None:  # noqa: ARG002 - nothing is taken up
        """End what a killed run has open, and make the ledger where it is not there."""
        ledger.check_clock(self.target, SCHEMA)
        with closing(self.target.connect()) as connection, connection.cursor() as cursor:
            end_connections(cursor, NAME)
        make_ledger(self.target)

    def landed(self) -> list[Landed]:
        self._landed = ledger.landed(self.target, SCHEMA)
        return self._landed

    @contextmanager
    def open_load(self) -> Iterator[LakeLoad]:
        """A load: what is written in the block lands and counts, all of it or nothing.

        Raises:
            UserError: the catalogue or the place does not take it.
        """
        with (
            refusals(NAME),
            closing(Catalogue(self.target, self.location)) as catalogue,
            closing(LakeLoad(catalogue, catalogue.tables(), self._landed)) as load,
        ):
            yield load
            if not load.is_empty:
                load.commit()

    def keep(self, files: Sequence[tuple[Path, str, str]]) -> None:
        kept = Files(self.location)
        for path, name, checksum in files:
            kept.keep(path, name, checksum)


def make_ledger(target: Target) -> None:
    """Make the tables of the ledger and of the list of loads, with columns that are new."""
    columns = {
        name: _TYPES[hints["data_type"]] + ("" if hints.get("nullable", True) else " not null")
        for name, hints in COLUMNS["files"].items()
    }
    listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    statements = [
        f"create table if not exists {SCHEMA}.files ({listed})",
        f"create table if not exists {SCHEMA}._dlt_loads (load_id text not null, schema_name text,"
        " status bigint not null, inserted_at timestamptz not null, schema_version_hash text)",
        # none here is of dlt, and the list of loads names its versions
        f"create table if not exists {SCHEMA}._dlt_version"
        " (schema_name text, version_hash text, inserted_at timestamptz)",
        *(
            f"alter table {SCHEMA}.files add column if not exists {name} {kind}"
            for name, kind in columns.items()
        ),
    ]
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
