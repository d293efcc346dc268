"""A load of transactions, as dlt opens, lists and completes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.pipeline import LoadReport, end_connections, load, refusals
from ingestion.sources.transactions.tables import transactions_source

if TYPE_CHECKING:
    import dlt

    from ingestion.sources.transactions.landing.copy import Copy
    from ingestion.warehouse.target import Target


@contextmanager
def open_load(pipeline: dlt.Pipeline) -> Iterator[Copy]:
    """A load: what is written in the block lands, and counts when all of it is there.

    dlt opens it, makes the tables, and lists it as complete in the end. The rows are one
    transaction. If nothing is written there is no load.

    Raises:
        UserError: the warehouse does not take it.
    """
    from ingestion.sources.transactions.landing.copy import Copy

    with refusals("transactions"):
        load_id = _extract(pipeline)
        credentials: Any = pipeline.destination_client().config.credentials
        url = credentials.to_native_representation()
        with closing(Copy(url, pipeline.dataset_name, load_id)) as copy:
            yield copy
            if not copy.rows:
                pipeline.drop()
                return
            copy.commit()
        load(pipeline)


def _extract(pipeline: dlt.Pipeline) -> str:
    """Begin a load with nothing in it, and make the tables; returns its id."""
    pipeline.sync_destination()
    extracted = pipeline.extract(transactions_source(Path(pipeline.working_dir)))
    pipeline.sync_schema()
    return extracted.loads_ids[0]


def finish_earlier(pipeline: dlt.Pipeline, target: Target, report: LoadReport) -> None:
    """Take up what a killed run has left: loads whose rows are there and that are not listed.

    All else that it may have left is in dlt's working folder and of no use, as rows are there as a
    whole or not at all. So it does not matter if that folder is lost.

    Raises:
        UserError: this machine's clock is behind the newest load's.
    """
    from ingestion.sources.transactions import ledger

    ledger.check_clock(target, pipeline.dataset_name)
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        end_connections(cursor, pipeline.pipeline_name)
    load_ids = ledger.unlisted(target, pipeline.dataset_name)
    if load_ids:
        with refusals("transactions"):
            _extract(pipeline)  # for the schema
            with pipeline.destination_client() as client:
                for load_id in load_ids:
                    client.complete_load(load_id)
        taken_up = [
            row for row in ledger.landed(target, pipeline.dataset_name) if row.load_id in load_ids
        ]
        report.rows["files"] += len(taken_up)
        report.rows["transactions"] += sum(row.rows for row in taken_up)
        report.rejected += sum(row.rejected for row in taken_up)
        report.notes += [
            f"{row.name}: an earlier, killed run has been completed." for row in taken_up
        ]
    if pipeline.has_pending_data:
        pipeline.drop()
