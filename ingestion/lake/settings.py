"""Where the lake is, and what its parts are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ingestion.errors import UserError, install_command
from ingestion.places import place
from ingestion.warehouse.paths import STATE_DIR

NAME = "lake"  # of the lock of its loads
SCHEMA = f"raw_{NAME}"  # of the warehouse: the catalogue, the ledger, the list of loads
CATALOGUE = "marquee"
NAMESPACE = "raw_transactions"  # as the warehouse's schema, so that the same models can read it
FOLDERS = {  # of each Iceberg table, below the location
    "transactions": "validated/transactions",
    "rejects": "rejects/transactions",
    "files": "ledger/files",
    "_dlt_loads": "ledger/loads",
}
RAW = "raw/transactions"
COPIED = "copied"  # tables that land in the warehouse only, by source
DAY = "event_date"  # the partition of ``transactions``, in UTC
FLUSH_ROWS = 500_000  # in memory until they are written
SMALL_BYTES = 64 << 20  # a data file below this is joined to others of its partition


class Location(NamedTuple):
    """Where the lake is.

    Attributes:
        protocol: of fsspec: ``file``, ``s3``, ``gs``, ``az``, ``hdfs``.
        path: an absolute path, or bucket (HDFS: name node) and prefix, without ``/`` at the end.
    """

    protocol: str
    path: str

    @property
    def url(self) -> str:
        return f"{self.protocol}://{self.path}"

    def of(self, part: str) -> str:
        """The URL of something below it."""
        return f"{self.url}/{part}"


def location() -> Location:
    """What ``lake.location`` says in dlt's places, ``$LAKE__LOCATION`` among them.

    Without it the lake is in the state folder.

    Raises:
        UserError: it is no place that is known here.
    """
    import dlt

    given: Any = dlt.config.get("lake.location")
    if given is None:
        return Location("file", str((STATE_DIR / "lake").absolute()))
    found = place(str(given))
    if isinstance(found, Path):
        return Location("file", str(found.absolute()))
    return Location(found[0], found[1].rstrip("/"))


def need_libraries() -> None:
    """Refuse to begin without what a lake needs.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyiceberg.catalog.sql  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"A lake needs the package {error.name}.\nInstall it: {install_command('lake')}"
        ) from error
