"""Card transactions from files: JSON, CSV and Parquet, perhaps packed (see ``inputs``).

Three tables in ``raw_transactions``, all append-only: ``transactions`` (typed rows), ``rejects``
(lines that cannot be typed or identified, as they stood, with the reason) and ``files`` (the
ledger, one row per file and load: ``lines_read = rows_landed + rows_rejected``; blank lines and
CSV headers do not count).

What a load guarantees:

- The ledger in the warehouse says what has landed, no local state does. The same content is
  skipped, whatever its name; a file that grew lands its new lines; a file whose content changed
  otherwise is refused, or lands whole as the replacement of what landed from its path before
  (``is_replacement``: all earlier loads of that path no longer count).
- A load counts once ``_dlt_loads`` lists it (status 0). Its rows and that line are one transaction:
  after a kill all of it is there, or nothing, and the next run reads the files again. So each line
  is there once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, one_at_a_time, working_dir
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.landing.load import Destination, Load, Warehouse
from ingestion.warehouse.paths import make_state_dir

if TYPE_CHECKING:
    import dlt

    from ingestion.sources.transactions.inputs.files import Input
    from ingestion.sources.transactions.inputs.plan import Plan
    from ingestion.sources.transactions.inputs.source_file import SourceFile
    from ingestion.sources.transactions.mapping.spec import Mapping
    from ingestion.warehouse.target import Target


class NotLandedError(UserError):
    """Some files have not landed.

    Attributes:
        report: of the others.
        refused: why, by place.
        passing: the places of those whose reason passes by itself.
    """

    def __init__(self, message: str, report: LoadReport, plan: Plan) -> None:
        super().__init__(message)
        self.report = report
        self.refused, self.passing = plan.refused, plan.passing


def ingest(
    paths: Sequence[str | Path | Input],
    target: Target,
    *,
    replace: bool = False,
    mapping: Mapping | None = None,
    pipeline: dlt.Pipeline | None = None,
    destination: Destination | None = None,
) -> LoadReport:
    """Land files of transactions.

    Args:
        paths: files, folders, globs, URLs, ``-``, as ``find_files`` takes them.
        target: the warehouse.
        replace: land files whose content changed since they were landed; the ledger marks the new
            version as the replacement of all that landed from that place before.
        mapping: how all these files are read; None: each by its columns.
        pipeline: another pipeline than the target's, for tests.
        destination: where the rows go, if not into the warehouse's raw tables.

    Returns:
        Rows landed by table, what an earlier, killed run had left included; lines rejected; a note
        for each file that was skipped.

    Raises:
        UserError: there is no such file, or the warehouse does not take the load.
        NotLandedError: nothing in a file; too many lines rejected
            (``sources.transactions.max_reject_share``); changed content. Files that are not
            concerned have landed then, and the message says so.
    """
    from ingestion import raw_tables
    from ingestion.sources.transactions.inputs import files, plan

    began = time.monotonic()
    found = files.find_files(paths)
    into = destination or Warehouse(target, pipeline)
    report = LoadReport(into.name, rows={"transactions": 0, "files": 0})
    if destination is None:
        raw_tables.bring_forward(target, "transactions")
    with one_at_a_time(into.name, target):
        into.settle(report)
        landed = into.landed()
        folder = Path(pipeline.pipelines_dir) if pipeline else working_dir(target)
        # where files from elsewhere are copied; not in dlt's own folder, which dlt may empty
        with files.Inbox(make_state_dir(folder) / f"{into.name}_inbox") as inbox:
            asked = plan.Asked(replace, mapping)
            todo = plan.make_plan(inbox.receive(found, landed), landed, inbox, asked)
            report.notes += inbox.notes
            if todo.files:
                with into.open_load() as load:
                    read = _land(todo, load, report, inbox.prepared)
                    into.keep([(file.path, file.name, file.checksum) for file in read])
    report.notes += todo.notes
    report.seconds = time.monotonic() - began
    _complain(todo, report)
    report.notes += found.notes
    return report


def _land(plan: Plan, load: Load, report: LoadReport, copies: Path) -> list[SourceFile]:
    """Read the files of a plan; returns those that land."""
    from ingestion.sources.transactions.landing.files import Landing

    landing = Landing(plan, load, settings.max_reject_share, copies)
    landing.read()
    report.rows["transactions"] += landing.rows
    report.rows["files"] += len(landing.files)
    report.rejected += landing.rejected
    if landing.with_more:
        names = [name if name.isprintable() else ascii(name) for name in landing.unknown]
        others = " and others" if len(names) > settings.NAMED else ""
        report.notes.append(
            f"{landing.with_more:,} rows have fields beyond the contract, kept in extra_fields:"
            f" {', '.join(name[:50] for name in names[: settings.NAMED])}{others}."
        )
    return landing.files


def _complain(plan: Plan, report: LoadReport) -> None:
    """Say which files have not landed.

    Raises:
        NotLandedError: there are such files, or nothing but empty ones.
    """
    if plan.empty and not (report.rows["files"] or report.notes or plan.problems):
        plan.problems.append(f"{plan.empty[0]} is empty: nothing to land.\nCheck the path.")
    else:
        report.notes += [f"{name} is empty; skipped." for name in plan.empty]
    if plan.problems:
        landed = report.rows["files"]
        others = f"\nOther files have landed: {landed:,}." if landed else ""
        message = "\n".join(plan.problems) + others
        raise NotLandedError(message, report, plan) from plan.cause
