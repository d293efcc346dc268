"""Any JSON API by dlt's declarative ``rest_api``, into ``raw_<name>``.

Client, authentication, paginator, resources and cursors are configured as dlt describes them, below
``[sources.rest.<name>]``. A run is one load: all its resources land, or none. Cursors are dlt's
state, which lands with the rows; ``_ingest_tables`` has a row for each resource.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingestion import table_ledger
from ingestion.errors import UserError, error_line
from ingestion.pipeline import LoadReport, load, make_pipeline, one_at_a_time, put_away
from ingestion.sources.rest.settings import Settings, configured
from ingestion.sources.rest.transport import Limits
from ingestion.sources.rest.window import within

if TYPE_CHECKING:
    import dlt
    from dlt.sources import DltSource

    from ingestion.days import Days
    from ingestion.warehouse.target import Target

REFUSED = (401, 403)  # answers of HTTP to a login that is not right


def ingest(
    settings: Settings,
    target: Callable[[str], Target] | Target,
    pipeline: dlt.Pipeline | None = None,
    *,
    days: Days | None = None,
) -> LoadReport:
    """Land the resources of an API.

    Args:
        settings: of the API, as ``configured`` reads them.
        target: the warehouse, or what gives it for the name of a source.
        pipeline: another pipeline than the target's, for tests.
        days: read what is of these days; cursors stay where they are.

    Returns:
        Rows landed by table.

    Raises:
        UserError: the API refuses, does not answer or has no end; the configuration is wrong.
    """
    began = time.monotonic()
    report = LoadReport(settings.name)
    chosen: list[str] = []
    if days:
        settings, chosen, others = within(settings, days)
        report.notes += [f"{name} is left out: it has no cursor that is a time." for name in others]
    limits = Limits(settings)
    source = api_source(settings, limits)
    source = source.with_resources(*chosen) if chosen else source
    warehouse = target(settings.name) if callable(target) else target
    with one_at_a_time(settings.name, warehouse):
        pipeline = pipeline or make_pipeline(
            settings.name, warehouse, replace_strategy="insert-from-staging"
        )
        put_away(pipeline, warehouse)
        with _errors(settings, limits):
            extracted = pipeline.extract(source)
        load(pipeline)
        trace: Any = pipeline.last_trace
        counts = trace.last_normalize_info.row_counts
        report.rows = {table: n for table, n in counts.items() if not table.startswith("_dlt_")}
        load_id, seconds = extracted.loads_ids[0], time.monotonic() - began
        with closing(warehouse.connect()) as connection, connection, connection.cursor() as cursor:
            for found in _entries(source, pipeline, settings, report):
                entry = replace(found, seconds=seconds, load_id=load_id)
                table_ledger.write(cursor, pipeline.dataset_name, entry, [])
    report.seconds = time.monotonic() - began
    return report


def api_source(settings: Settings, limits: Limits) -> DltSource:
    """dlt's source of an API.

    Raises:
        UserError: the configuration is not what dlt takes.
    """
    from dlt.sources.rest_api import rest_api_source

    client = {**settings.config["client"], "session": limits.session()}
    config: Any = {**settings.config, "client": client}
    try:
        return rest_api_source(config, name=settings.name)
    except Exception as error:
        raise UserError(
            f"[sources.rest.{settings.name}] cannot be: {_safe(error, settings)}\n"
            "Correct it in .dlt/config.toml; the words are those of dlt's rest_api source."
        ) from None


def _entries(
    source: DltSource, pipeline: dlt.Pipeline, settings: Settings, report: LoadReport
) -> Iterator[table_ledger.Entry]:
    """What the ledger says of each resource, but for the load."""
    state: Any = pipeline.state.get("sources", {}).get(source.name, {}).get("resources", {})
    by_name = {item["name"]: item for item in settings.config["resources"]}
    schema, base = pipeline.default_schema, settings.config["client"]["base_url"].rstrip("/")
    for name in source.selected_resources:
        table = schema.naming.normalize_table_identifier(name)
        cursors: dict[str, Any] = state.get(name, {}).get("incremental", {})
        cursor = next(iter(cursors), None)
        path = by_name[name].get("endpoint", name)
        path = path if isinstance(path, str) else path.get("path", name)
        columns = schema.tables.get(table, {}).get("columns", {})
        last = cursors[cursor].get("last_value") if cursor else None
        report.rows.setdefault(table, 0)
        yield table_ledger.Entry(
            table,
            f"{base}/{path.lstrip('/')}".partition("?")[0],
            "incremental" if cursor else "full",
            tuple(column for column, hints in columns.items() if hints.get("primary_key")),
            cursor,
            None if last is None else str(last),
            report.rows[table],
        )


@contextmanager
def _errors(settings: Settings, limits: Limits) -> Iterator[None]:
    """What goes wrong with an API, in two lines without a secret.

    Raises:
        UserError: that.
    """
    from requests import HTTPError, RequestException
    from requests.exceptions import JSONDecodeError

    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while not isinstance(cause, UserError | RequestException) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise UserError(cause.message) from None
        where = limits.last or settings.config["client"]["base_url"]
        answer = cause.response if isinstance(cause, HTTPError) else None
        status = answer.status_code if answer is not None else 0
        if status in REFUSED:
            raise UserError(
                f"{where} refuses the login: {status}.\n"
                f"Check client.auth below [sources.rest.{settings.name}] in .dlt/secrets.toml."
            ) from None
        said = f"answers {status}" if status else f"cannot be read: {_safe(cause, settings)}"
        if isinstance(cause, JSONDecodeError):
            said = "gives an answer that is no JSON"
        raise UserError(
            f"{where} {said}; nothing has landed.\n"
            "Check address and paths, or run this again later."
        ) from None


def _safe(error: BaseException, settings: Settings) -> str:
    said = error_line(error)
    for secret in settings.secrets:
        said = said.replace(secret, "***")
    return said.rstrip(".")


__all__ = ["Settings", "configured", "ingest"]
