"""The catalogue of the lake's tables, in the warehouse, and the tables themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.transforms import DayTransform
from pyiceberg.types import (
    BooleanType,
    DecimalType,
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy import URL, Connection, delete, select
from sqlalchemy.orm import Session

from ingestion.errors import UserError
from ingestion.lake.settings import (
    CATALOGUE,
    COPIED,
    DAY,
    FOLDERS,
    NAMESPACE,
    SCHEMA,
    Location,
)
from ingestion.object_store import safe_line
from ingestion.sources.transactions.tables import COLUMNS
from ingestion.warehouse.target import Target

FIRST_PARTITION = 1000  # ids of partition fields begin here
LOADS: dict[str, Any] = {  # as dlt's table in the warehouse
    "load_id": {"data_type": "text", "nullable": False},
    "schema_name": {"data_type": "text"},
    "status": {"data_type": "bigint", "nullable": False},
    "inserted_at": {"data_type": "timestamp", "nullable": False},
    "schema_version_hash": {"data_type": "text"},
}
PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    # what says which files are the table's: the last ones stay, for readers that are at work
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # many loads leave many manifests, which every reader opens
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "commit.retry.num-retries": "0",  # the lock keeps others out
}


class Catalogue(SqlCatalog):
    """Which version of each table counts: rows in a schema of the warehouse."""

    engine: Any

    def __init__(self, target: Target, location: Location) -> None:
        super().__init__(
            CATALOGUE,
            uri=_url(target),
            warehouse=location.url,
            **{"py-io-impl": "ingestion.lake.storage.DurableIO"},
        )
        self._location = location

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def together(self) -> Iterator[Connection]:
        """What is committed to tables in the block counts at its end, all of it or nothing.

        What is asked of the connection is part of it.
        """
        engine = self.engine
        with engine.begin() as connection:
            self.engine = connection  # sessions on it do not commit by themselves
            try:
                yield connection
            finally:
                self.engine = engine

    def entries(self) -> dict[tuple[str, str], str]:
        """Where the catalogue finds each table: the URL of its metadata; nothing of it is read."""
        columns = (IcebergTables.table_namespace, IcebergTables.table_name)
        with Session(self.engine) as session:
            found = session.execute(
                select(*columns, IcebergTables.metadata_location)
                .where(IcebergTables.catalog_name == self.name)
                .order_by(*columns)
            )
            return {(namespace, name): url for namespace, name, url in found}

    def there(self) -> list[Table]:
        """The lake's tables, copies too; nothing is made.

        Tables that others have put elsewhere with this catalogue are left out.
        """
        return [
            self.load_table(name)
            for name, url in self.entries().items()
            if name[0] == NAMESPACE or self._is_here(url)
        ]

    def load_table(self, identifier: str | tuple[str, ...]) -> Table:
        """The table as it is now.

        Raises:
            NoSuchTableError: there is none.
            UserError: it is not at this lake's location, or cannot be read.
        """
        name = self.identifier_to_tuple(identifier)
        url = self.entries().get((name[0], name[-1]))
        if url and not self._is_here(url):
            raise UserError(
                f"The lake's table {'.'.join(name)} is at {url},"
                f" and lake.location says {self._location.url}.\n"
                "Set $LAKE__LOCATION to where the lake is. To begin one anew at the other place:"
                " marquee lake forget --all"
            )
        try:
            return super().load_table(identifier)
        except (NoSuchTableError, UserError):
            raise
        except Exception as error:  # as many as there are stores
            raise UserError(
                f"The lake's table {'.'.join(name)} cannot be read: {safe_line(error)}.\n"
                "Check the place, the network and the credentials, and run this again."
                " If its files are gone for good: marquee lake forget"
            ) from error

    def _is_here(self, url: str) -> bool:
        if url.startswith(self._location.of("")):
            return True
        if self._location.protocol != "file" or not url.startswith("file://"):
            return False
        place = Path(self._location.path).resolve()  # by another name
        return Path(url.removeprefix("file://")).resolve().is_relative_to(place)

    def forget(self, names: Iterable[tuple[str, str]]) -> None:
        """Take tables out of the catalogue, whether or not they can be read; files stay."""
        with Session(self.engine) as session:
            for namespace, name in names:
                session.execute(
                    delete(IcebergTables).where(
                        IcebergTables.catalog_name == self.name,
                        IcebergTables.table_namespace == namespace,
                        IcebergTables.table_name == name,
                    )
                )
            session.commit()

    def files(self) -> FileIO:
        """How files below the lake's location are read and written."""
        return self._load_file_io(location=self._location.url)

    def begun(
        self, namespace: str, name: str, schema: Schema, properties: dict[str, str]
    ) -> Transaction:
        """A table that is made when its transaction is committed: a copy of one that lands here."""
        return self.create_table_transaction(
            (namespace, name),
            schema,
            location=self._location.of(f"{COPIED}/{namespace.removeprefix('raw_')}/{name}"),
            properties=PROPERTIES | properties,
        )

    def tables(self) -> dict[str, Table]:
        """The tables, by name; made where they are not there, with columns that are new."""
        self.create_namespace_if_not_exists(NAMESPACE)
        found = {}
        for name, folder in FOLDERS.items():
            schema = schema_of(name)
            try:
                table = self.load_table((NAMESPACE, name))
            except NoSuchTableError:
                table = self.create_table(
                    (NAMESPACE, name),
                    schema,
                    location=self._location.of(folder),
                    partition_spec=_partitions(schema, name),
                    properties=PROPERTIES,
                )
            if set(schema.column_names) - set(table.schema().column_names):
                with table.update_schema() as update:
                    update.union_by_name(schema)
            found[name] = table
        return found


def schema_of(name: str) -> Schema:
    """The columns of a table, from the one place that declares them."""
    columns = COLUMNS.get(name, LOADS)
    return Schema(
        *(
            NestedField(at, column, _type(hints), required=not hints.get("nullable", True))
            for at, (column, hints) in enumerate(columns.items(), 1)
        )
    )


def _type(hints: dict[str, Any]) -> IcebergType:
    if hints["data_type"] == "decimal":
        return DecimalType(hints["precision"], hints["scale"])
    return {
        "bigint": LongType(),
        "bool": BooleanType(),
        "double": DoubleType(),
        "json": StringType(),
        "text": StringType(),
        "timestamp": TimestamptzType(),
    }[hints["data_type"]]


def _partitions(schema: Schema, name: str) -> PartitionSpec:
    if name != "transactions":
        return PartitionSpec()
    column = schema.find_field("event_ts").field_id
    return PartitionSpec(PartitionField(column, FIRST_PARTITION, DayTransform(), DAY))


def _url(target: Target) -> str:
    """The warehouse for SQLAlchemy: sessions find the catalogue's schema first."""
    url = URL.create(
        "postgresql+psycopg2",
        username=target.user,
        password=target.password or None,
        database=target.dbname,
        query={
            "host": target.host,  # may be the folder of a socket
            "port": str(target.port),
            "options": f"-csearch_path={SCHEMA} -ctimezone=UTC",
            "application_name": f"marquee:{SCHEMA.removeprefix('raw_')}",
            "client_encoding": "utf8",
            **({"sslmode": target.sslmode} if target.sslmode else {}),
        },
    )
    return url.render_as_string(hide_password=False)
