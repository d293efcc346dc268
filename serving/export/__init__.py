"""The marts as files that other engines read as they are: Parquet or CSV, on disk or in a store.

Below the place that is exported to::

    manifest.json                                          the last whole export: put last
    latest -> 20240131T120000Z-1f2e3d                      the same, on disks only
    20240131T120000Z-1f2e3d/dim_city/part-0.parquet
    20240131T120000Z-1f2e3d/fct_transactions/event_month=2024-01-01/part-0.parquet

Each export is a folder of its own, so that one that is killed harms nothing: the manifest and
``latest`` still name the one before. That one goes when the next export begins.

A mart that is no dimension and has ``date_key`` or ``date_day`` is partitioned by the month of its
first date column. The partition column is an additional one, so no column loses its type to a
folder name; days would make too many small files.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from ingestion import interrupts, progress
from ingestion.errors import UserError
from ingestion.warehouse.target import Target
from serving.export.files import Version, write_mart
from serving.export.marts import begin_snapshot, chosen, describe, marts_in
from serving.export.place import MADE_BY, STAMP, Place

if TYPE_CHECKING:
    pass

FORMATS = ("parquet", "csv")


def export_marts(
    target: Target,
    schema: str,
    to: str,
    kind: str = "parquet",
    select: Sequence[str] = (),
    *,
    excel: bool = False,
) -> dict:
    """Write marts as files, all of one moment: one snapshot of the database.

    Rows are streamed; memory does not grow with a table. Tables are locked as `pg_dump` does: a
    rebuild waits until the export has finished.

    Args:
        target: the warehouse, logged in as anyone who reads marts.
        schema: where they are.
        to: a folder, or a URL of a store (``s3://bucket/prefix``); made when absent.
        kind: ``parquet`` or ``csv``.
        select: names or patterns (``fct_*``) of marts; all when empty.
        excel: CSV that a spreadsheet opens: marked as UTF-8, and no text is a formula.

    Returns:
        The manifest, as written.

    Raises:
        UserError: there are no such marts, or the place cannot be written to. The last export
            stays as it was.
    """
    if excel and kind != "csv":
        raise UserError("Files for spreadsheets are CSV.\nAdd: --format csv")
    from adbc_driver_postgresql import dbapi

    target.connect().close()  # says what is wrong in plain words
    with dbapi.connect(target.uri) as connection:
        names = chosen(marts_in(connection, schema), schema, target, select)
        place = Place(to)
        with place.locked():
            place.tidy()
            moment = begin_snapshot(connection, {schema: names})
            version = f"{moment:{STAMP}}-{secrets.token_hex(3)}"
            try:
                marts = []
                with (
                    interrupts.giving_back(partial(place.give_back, version)),
                    progress.task("Exporting", unit="marts") as advance,
                ):
                    advance(0, total=len(names))
                    for name in names:
                        mart = describe(connection, schema, name)
                        write_mart(connection, schema, mart, Version(place, version, kind, excel))
                        marts.append(mart)
                        advance(1)
                manifest = {
                    "made_by": MADE_BY,
                    "version": version,
                    "format": kind,
                    "excel": excel,
                    "snapshot_at": moment.isoformat(),
                    "schema": schema,
                    "marts": [asdict(mart) for mart in marts],
                }
                place.publish(version, manifest)
            except BaseException:
                place.remove(version)
                raise
    return manifest
