"""Metrics of the runs for Prometheus: its text format, from the evidence and the server.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows, times as seconds
since 1970. What is as old as the warehouse is read from ``totals``; the rest is that of the latest
runs, so that nothing changes when old evidence is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingestion.evidence import tables

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

Sample = tuple[dict[str, str], float]
_REJECTS = ("rejects", "_ingest_rejects")

# The latest run of each command that has ended, and the latest that succeeded. A part of a project
# that dbt was told to build is no run of it.
_RUNS = """
    with ended as (
        select *, extract(epoch from ended_at - started_at) as seconds,
            row_number() over (
                partition by program, command order by started_at desc
            ) as place
        from {ops}.invocations
        where status in ('succeeded', 'failed', 'interrupted') and not is_partial
    )
    select
        program, command,
        max(extract(epoch from ended_at)) filter (where place = 1),
        max(seconds) filter (where place = 1),
        max(case when status = 'succeeded' then 1 else 0 end) filter (where place = 1),
        max(exit_code) filter (where place = 1),
        max(extract(epoch from ended_at)) filter (where status = 'succeeded')
    from ended group by program, command order by 1, 2
"""
_UNFINISHED = """
    select program, command, status, count(*) from {ops}.invocations
    where status in ('running', 'lost') group by 1, 2, 3 order by 1, 2, 3
"""
_STEPS = """
    select step_name, extract(epoch from steps.ended_at - steps.started_at)
    from {ops}.steps
    where steps.ended_at is not null and invocation_id = (
        select invocation_id from {ops}.invocations
        where program = 'marquee' and command = 'run' and status <> 'running'
        order by started_at desc limit 1
    )
    order by step_number
"""
_TOTALS = (
    "select source_name, table_name, rows_landed, rows_rejected from {ops}.totals order by 1, 2"
)
# a table that is a source's rejects has no landed rows of its own
_LANDED_AT = """
    select source_name, max(extract(epoch from coalesce(ended_at, started_at))),
        max(extract(epoch from coalesce(ended_at, started_at))) filter (where rows_landed > 0)
    from {ops}.landings inner join {ops}.invocations using (invocation_id)
    where status in ('succeeded', 'running') group by 1 order by 1
"""
# Of each test its latest result, whichever command ran it.
_TESTS = """
    with latest as (
        select
            node_results.*,
            row_number() over (partition by unique_id order by started_at desc) as place
        from {ops}.node_results inner join {ops}.invocations using (invocation_id)
        where resource_type in ('test', 'unit_test')
        and node_results.status <> 'skipped'
        and started_at >= (
            select coalesce(max(started_at), '-infinity') from {ops}.invocations
            where program = 'dbt' and command in ('build', 'test') and not is_partial
            and status in ('succeeded', 'failed')
        )
    )
    select
        owner_name,
        count(*),
        count(*) filter (where status in ('fail', 'error', 'runtime error')),
        count(*) filter (where status = 'warn')
    from latest where place = 1 group by 1 order by 1
"""
_FRESHNESS = """
    with checks as (
        select
            freshness.*,
            extract(epoch from coalesce(checked_at, started_at)) as asked_at,
            row_number() over (
                partition by source_name, table_name order by started_at desc
            ) as place
        from {ops}.freshness inner join {ops}.invocations using (invocation_id)
    )
    select source_name, table_name, status, extract(epoch from max_loaded_at), asked_at
    from checks where place = 1 order by 1, 2
"""
_SCHEMAS = """
    select nspname, sum(pg_total_relation_size(pg_class.oid))
    from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'p', 'm') and nspname !~ '^(pg_|information_schema$)'
    group by 1 order by 1
"""


@dataclass
class Metric:
    """One metric: what it is called, its kind, what it says, and its samples."""

    name: str
    kind: str
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        if value is not None:
            self.samples.append((labels, float(value)))

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {_escaped(self.help)}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            inner = ",".join(f'{k}="{_escaped(v, quotes=True)}"' for k, v in labels.items())
            yield (
                f"{self.name}{{{inner}}} {_number(value)}"
                if inner
                else (f"{self.name} {_number(value)}")
            )


def text(target: Target) -> str:
    """The metrics of a warehouse, in Prometheus' text format.

    Raises:
        UserError: it does not answer.
    """
    with closing(target.connect(statement_timeout="60s", TimeZone="UTC")) as connection:
        connection.set_session(readonly=True, autocommit=True)
        with connection.cursor() as cursor:
            found = [_up(1), *_of_server(cursor)]
            if tables.may_be_read(cursor, tables.schema(target)):
                found += _of_evidence(cursor, f'"{tables.schema(target)}"')
    return _text(found)


def text_of_none() -> str:
    """The metrics of a warehouse that does not answer."""
    return _text([_up(0)])


def _up(value: int) -> Metric:
    up = Metric("marquee_up", "gauge", "1 if the warehouse answers, 0 if not.")
    up.add(value)
    return up


def _text(metrics: list[Metric]) -> str:
    return "".join(f"{line}\n" for metric in metrics if metric.samples for line in metric.lines())


def _of_server(cursor: Any) -> Iterable[Metric]:
    whole = Metric("marquee_database_size_bytes", "gauge", "Size of the warehouse's database.")
    cursor.execute("select pg_database_size(current_database())")
    whole.add(cursor.fetchone()[0])
    parts = Metric("marquee_schema_size_bytes", "gauge", "Size of the tables of a schema.")
    for schema, size in _rows(cursor, _SCHEMAS, ""):
        parts.add(size, schema=schema)
    return whole, parts


def _of_evidence(cursor: Any, ops: str) -> list[Metric]:
    return [
        *_of_runs(cursor, ops),
        *_of_sources(cursor, ops),
        *_of_tests(cursor, ops),
        *_of_freshness(cursor, ops),
    ]


def _of_runs(cursor: Any, ops: str) -> Iterable[Metric]:
    ended = Metric(
        "marquee_run_last_end_timestamp_seconds", "gauge", "When a command ended the last time."
    )
    seconds = Metric("marquee_run_last_duration_seconds", "gauge", "How long it took then.")
    success = Metric("marquee_run_last_success", "gauge", "1 if it succeeded then, 0 if not.")
    code = Metric("marquee_run_last_exit_code", "gauge", "Its exit code then; 75 is passing.")
    good = Metric(
        "marquee_run_last_success_timestamp_seconds", "gauge", "When it succeeded the last time."
    )
    for program, command, at, took, is_good, left, good_at in _rows(cursor, _RUNS, ops):
        labels = {"program": program, "command": command}
        for metric, value in zip(
            (ended, seconds, success, code, good), (at, took, is_good, left, good_at), strict=True
        ):
            metric.add(value, **labels)
    open_ended = Metric(
        "marquee_runs_unfinished",
        "gauge",
        "Runs without an end: running, or lost (killed), as far as evidence is kept.",
    )
    for program, command, status, count in _rows(cursor, _UNFINISHED, ops):
        open_ended.add(count, program=program, command=command, status=status)
    steps = Metric(
        "marquee_step_last_duration_seconds", "gauge", "Seconds of a step of the last marquee run."
    )
    for name, took in _rows(cursor, _STEPS, ops):
        steps.add(took, step=name)
    return ended, seconds, success, code, good, open_ended, steps


def _of_sources(cursor: Any, ops: str) -> Iterable[Metric]:
    landed = Metric("marquee_rows_landed_total", "counter", "Rows that landed in a raw table.")
    rejected = Metric(
        "marquee_rows_rejected_total", "counter", "Rows of a source that were put aside."
    )
    aside: dict[str, int] = {}
    for source, table, rows, rejects in _rows(cursor, _TOTALS, ops):
        aside[source] = aside.get(source, 0) + rejects
        if rows or table not in _REJECTS:  # which are counted by source
            landed.add(rows, source=source, table=table)
    for source, rejects in aside.items():
        rejected.add(rejects, source=source)
    load = Metric(
        "marquee_source_last_load_timestamp_seconds",
        "gauge",
        "When a source was loaded the last time, with or without new rows.",
    )
    rows_at = Metric(
        "marquee_source_last_rows_timestamp_seconds", "gauge", "When rows of it landed last."
    )
    for source, loaded_at, at in _rows(cursor, _LANDED_AT, ops):
        load.add(loaded_at, source=source)
        rows_at.add(at, source=source)
    return landed, rejected, load, rows_at


def _of_tests(cursor: Any, ops: str) -> Iterable[Metric]:
    tests = Metric("marquee_tests", "gauge", "Tests of an owner that dbt has run since the build.")
    failures = Metric("marquee_test_failures", "gauge", "Those whose latest result is a failure.")
    warnings = Metric("marquee_test_warnings", "gauge", "Those whose latest result is a warning.")
    for owner, count, failed, warned in _rows(cursor, _TESTS, ops):
        tests.add(count, owner=owner)
        failures.add(failed, owner=owner)
        warnings.add(warned, owner=owner)
    return tests, failures, warnings


def _of_freshness(cursor: Any, ops: str) -> Iterable[Metric]:
    loaded = Metric(
        "marquee_source_freshness_loaded_timestamp_seconds",
        "gauge",
        "The newest row of a source's table, by the last dbt source freshness.",
    )
    stale = Metric(
        "marquee_source_freshness_status",
        "gauge",
        "What dbt said of it: 0 fresh, 1 warning, 2 error.",
    )
    checked = Metric(
        "marquee_source_freshness_checked_timestamp_seconds", "gauge", "When dbt looked last."
    )
    for source, table, status, at, asked_at in _rows(cursor, _FRESHNESS, ops):
        loaded.add(at, source=source, table=table)
        checked.add(asked_at, source=source, table=table)
        stale.add({"pass": 0, "warn": 1}.get(status, 2), source=source, table=table)
    return loaded, checked, stale


def _rows(cursor: Any, query: str, ops: str) -> list[tuple]:
    cursor.execute(query.replace("{ops}", ops))
    return cursor.fetchall()


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _escaped(said: str, *, quotes: bool = False) -> str:
    safe = said.replace("\\", "\\\\").replace("\n", "\\n")
    return safe.replace('"', '\\"') if quotes else safe
