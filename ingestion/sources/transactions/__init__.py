"""Card transactions from files: JSON Lines, CSV (both plain or gzip) and Parquet.

Three tables in ``raw_transactions``, all append-only: ``transactions`` (typed rows), ``rejects``
(lines that cannot be typed or identified, as they stood, with the reason) and ``files`` (the
ledger, one row per file and load: ``lines_read = rows_landed + rows_rejected``; blank lines and
CSV headers do not count).

What a load guarantees:

- The ledger in the warehouse says what has landed, no local state does. The same content is
  skipped, whatever its name; a file that grew lands its new lines; a file whose content changed
  otherwise is refused, or lands whole as the replacement of what landed from its path before
  (``is_replacement``: all earlier loads of that path no longer count).
- A load counts once ``_dlt_loads`` lists it (status 0). Its rows are one transaction: after a kill
  they are all there, and the next run lists the load, or none is, and it reads the files again. So
  each line is there once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.pipeline import (
    LoadReport,
    end_connections,
    load,
    make_pipeline,
    one_at_a_time,
    refusals,
)
from ingestion.sources.transactions import settings

if TYPE_CHECKING:
    import dlt
    from dlt.extract import DltSource

    from ingestion.sources.transactions.inputs.files import Input
    from ingestion.sources.transactions.landing import Copy
    from ingestion.sources.transactions.ledger import Plan
    from ingestion.warehouse.target import Target

NAMED = 8  # unknown fields that a report names
_TEXT = {"data_type": "text"}
_MUST = {"nullable": False}
_OF_A_LOAD = {
    "_file_name": _TEXT | _MUST,
    "_file_checksum": _TEXT | _MUST,
    "_dlt_load_id": _TEXT | _MUST,
}
_LINE = {"_file_line": {"data_type": "bigint"} | _MUST}
COLUMNS: dict[str, dict[str, Any]] = {
    "transactions": {
        "transaction_id": _TEXT | _MUST,
        "event_ts": {"data_type": "timestamp"} | _MUST,
        "user_id": {"data_type": "bigint"} | _MUST,
        "amount": {"data_type": "decimal", "precision": 18, "scale": 4} | _MUST,
        **dict.fromkeys(settings.TEXT_FIELDS, _TEXT),
        "extra_fields": {"data_type": "json"},
        **_LINE,
        **_OF_A_LOAD,
    },
    "rejects": {
        "raw_text": _TEXT | _MUST,
        "reason_code": _TEXT | _MUST,
        "reason": _TEXT | _MUST,
        **_LINE,
        **_OF_A_LOAD,
    },
    "files": {
        "path": _TEXT | _MUST,
        **dict.fromkeys(
            ("bytes", "first_line", "last_line", "lines_read", "rows_landed", "rows_rejected"),
            {"data_type": "bigint"} | _MUST,
        ),
        "is_replacement": {"data_type": "bool"} | _MUST,
        "seconds": {"data_type": "double"} | _MUST,
        "landed_at": {"data_type": "timestamp"} | _MUST,
        "etag": _TEXT,  # of an object in a store: which version of it landed
        "header": _TEXT,  # of CSV: its rejects cannot be read without it
        "replay_of": _TEXT,  # the load whose rejects these lines were, see `marquee rejects replay`
        **_OF_A_LOAD,
    },
}


def ingest(
    paths: Sequence[str | Path | Input],
    target: Target,
    *,
    replace: bool = False,
    pipeline: dlt.Pipeline | None = None,
) -> LoadReport:
    """Land files of transactions.

    Args:
        paths: files, folders, globs, URLs, ``-``, as ``inputs.find_files`` takes them.
        target: the warehouse.
        replace: land files whose content changed since they were landed; the ledger marks the new
            version as the replacement of all that landed from that place before.
        pipeline: another pipeline than the target's, for tests.

    Returns:
        Rows landed by table, what an earlier, killed run had left included; lines rejected; a note
        for each file that was skipped.

    Raises:
        UserError: no such file; nothing in it; too many lines rejected
            (``sources.transactions.max_reject_share``); changed content. Files that are not
            concerned have landed then, and the message says so.
    """
    from ingestion.sources.transactions import ledger
    from ingestion.sources.transactions.inputs import files

    began = time.monotonic()
    found = files.find_files(paths)
    report = LoadReport("transactions", rows={"transactions": 0, "files": 0})
    with one_at_a_time("transactions", target):
        pipeline = pipeline or make_pipeline("transactions", target)
        finish_earlier(pipeline, target, report)
        landed = ledger.landed(target, pipeline.dataset_name)
        with files.Inbox(_inbox(pipeline)) as inbox:
            plan = ledger.plan(inbox.receive(found), landed, inbox, replace=replace)
            report.notes += inbox.notes
            if plan.files:
                _land(plan, pipeline, report)
    report.notes += plan.notes
    report.seconds = time.monotonic() - began
    _complain(plan, report)
    return report


def transactions_source(folder: Path) -> DltSource:
    """The dlt source, which makes the tables: three resources without a row.

    Columns and types are declared here and nowhere inferred. The rows go into the tables by COPY
    (see ``landing``), under the load that dlt has opened and closes.

    Args:
        folder: where to write the empty files that dlt loads.
    """
    import dlt

    def nothing(table: str) -> Iterator[Any]:
        path = folder / f"{table}.csv"
        path.write_text(",".join(COLUMNS[table]) + "\n")
        yield dlt.mark.with_file_import(str(path), "csv", 0)

    @dlt.source(name="transactions", schema_contract={"data_type": "freeze"})
    def source() -> Iterator[Any]:
        for table, columns in COLUMNS.items():
            yield dlt.resource(
                nothing(table),
                name=table,
                columns={name: dict(hints) for name, hints in columns.items()},  # dlt's to keep
                write_disposition="append",
                file_format="parquet",  # for dlt, that is ADBC, which writes json and not jsonb
            )

    return source()


@contextmanager
def open_load(pipeline: dlt.Pipeline) -> Iterator[Copy]:
    """A load: what is written in the block lands, and counts when all of it is there.

    dlt opens it, makes the tables, and lists it as complete in the end. The rows are one
    transaction. If nothing is written there is no load.

    Raises:
        UserError: the warehouse does not take it.
    """
    from ingestion.sources.transactions.landing import Copy

    with refusals("transactions"):
        load_id = _extract(pipeline)
        url = pipeline.destination_client().config.credentials.to_native_representation()
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


def _land(plan: Plan, pipeline: dlt.Pipeline, report: LoadReport) -> None:
    from ingestion.sources.transactions.landing import Landing

    share = _max_reject_share()
    with open_load(pipeline) as copy:
        landing = Landing(plan, copy, share)
        landing.read()
    report.rows["transactions"] += landing.rows
    report.rows["files"] += landing.files
    report.rejected += landing.rejected
    if landing.with_more:
        names = [name if name.isprintable() else ascii(name) for name in landing.unknown]
        others = " and others" if len(names) > NAMED else ""
        report.notes.append(
            f"{landing.with_more:,} rows have fields beyond the contract, kept in extra_fields:"
            f" {', '.join(name[:50] for name in names[:NAMED])}{others}."
        )


def _complain(plan: Plan, report: LoadReport) -> None:
    """Say which files have not landed.

    Raises:
        UserError: there are such files, or nothing but empty ones.
    """
    if plan.empty and not (report.rows["files"] or report.notes or plan.problems):
        plan.problems.append(f"{plan.empty[0]} is empty: nothing to land.\nCheck the path.")
    else:
        report.notes += [f"{name} is empty; skipped." for name in plan.empty]
    if plan.problems:
        landed = report.rows["files"]
        others = f"\nOther files have landed: {landed:,}." if landed else ""
        raise UserError("\n".join(plan.problems) + others) from plan.cause


def _max_reject_share() -> float:
    import dlt

    value = dlt.config.get("sources.transactions.max_reject_share")
    try:
        share = settings.MAX_REJECT_SHARE if value is None else float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(
            f"sources.transactions.max_reject_share is {value!r}.\nIt must be from 0 to 1, as 0.5."
        )
    return share


def _inbox(pipeline: dlt.Pipeline) -> Path:
    """Where files from elsewhere are copied; not in dlt's folder, which dlt may empty."""
    return Path(pipeline.pipelines_dir) / f"{pipeline.pipeline_name}_inbox"
