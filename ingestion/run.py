"""``marquee run``: from nothing to a tested warehouse, and again to an up-to-date one."""

from __future__ import annotations

import os
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from ingestion import marked, raw_tables
from ingestion.dbt_runner import dbt, install_packages, relative, target_path
from ingestion.errors import UserError, error_line
from ingestion.evidence.recorder import Recorder, recording
from ingestion.pipeline import LoadReport
from ingestion.terminal import echo, lines_are_json, one_line
from ingestion.warehouse import access, roles
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.fitness import refuse_unfit
from ingestion.warehouse.paths import STATE_DIR, dbt_command, make_state_dir
from ingestion.warehouse.state import is_superuser
from ingestion.warehouse.target import Target, marts_schema

SAMPLE_ROWS = 100_000
SAMPLE_SEED = 42
INDENT = " " * 33


@dataclass
class Steps:
    """What has been done so far, for the summary, the evidence and the document."""

    evidence: Recorder
    note: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time one step and print it; the first thing put into the list beside it, others below."""
        said: list[str] = []
        started = time.monotonic()
        end = self.evidence.step(name)
        done: dict[str, Any] = {"step": name, "status": "failed"}
        self.note.setdefault("steps", []).append(done)
        try:
            yield said
        except BaseException as error:
            end("failed", error_line(error))
            done |= {"seconds": round(time.monotonic() - started, 3), "notes": said}
            raise
        end("succeeded", "; ".join(said))
        self.seconds[name] = seconds = time.monotonic() - started
        done |= {"status": "succeeded", "seconds": round(seconds, 3), "notes": said}
        what, *notes = said or [""]
        echo(f"{name:<22} {seconds:>5.1f} s  {what}", event="step", facts=done)
        for note in [] if lines_are_json() else notes:
            safe = one_line(note, None)
            echo(textwrap.fill(safe, 100, initial_indent=INDENT, subsequent_indent=INDENT))


def run_all(target_name: str | None, note: dict[str, Any] | None = None) -> None:
    """Start the server, land every source, build and test the models, write the docs page.

    Args:
        target_name: of the profile, as in dbt.
        note: gets what the summary says, for programs.

    Raises:
        UserError: a step failed. What the earlier ones did stays; the next run goes on from there.
    """
    with recording("run") as evidence:
        _run_all(target_name, Steps(evidence, {} if note is None else note))


def prepare(target_name: str | None) -> None:
    """The first steps of a run, for those who start the others by themselves.

    Raises:
        UserError: a step failed.
    """
    with recording("prepare") as evidence:
        steps = Steps(evidence, {})
        target = _prepare(target_name, steps)
        bring_tables_forward(roles.acting_as("loader", target), steps)


def _prepare(target_name: str | None, steps: Steps) -> Target:
    with steps.step("Start PostgreSQL") as said:
        target = access.ready(target_name)
        steps.evidence.open(target)
        with closing(target.connect()) as connection:  # better said now than after minutes
            refuse_unfit(connection, target)
        said.append(target.place)
    with steps.step("Install dbt packages") as said:
        said.append(install_packages())
    return target


def _run_all(target_name: str | None, steps: Steps) -> None:
    target = _prepare(target_name, steps)
    reports = land_everything(roles.acting_as("loader", target), steps)
    try:
        built = build(target, steps)
    except UserError:
        warn_of_marked(target)  # it may be why
        raise
    if is_superuser(target):  # a profile of the user's own
        access.open_to_roles(Server(), again=True)
    with steps.step("Check freshness") as said:
        said.extend(check_freshness(target))
    with steps.step("Write the docs page") as said:
        said.extend(write_docs(target))
    _summarise(target, reports, built, steps)


def build(target: Target, steps: Steps) -> str:
    """Build and test the models; returns what passed.

    Raises:
        UserError: something failed.
    """
    with steps.step("Build and test models") as said:
        rebuilt: list[str] = []
        built = dbt("build", target, label="Building", rebuilt=rebuilt)
        said.append(built)
        if rebuilt:
            said.append(f"What these are built from has changed, so in full: {', '.join(rebuilt)}")
    return built


def warn_of_marked(target: Target) -> None:
    """Print how many transactions break a rule and so are in no fact, with what to do."""
    try:
        broken = marked.by_reason(target)
    except psycopg2.Error:  # the build failed before it could say
        return
    if broken:
        echo("\nNot in the facts: transactions that break a rule (all: marquee rejects show)")
    for rule in broken:
        said = one_line(rule.sentence, None)
        echo(textwrap.fill(said, 100, initial_indent="  ", subsequent_indent="    "))


def check_freshness(target: Target) -> list[str]:
    """Ask dbt how fresh the sources are; stale ones are said, and fail nothing."""
    found: list[Any] = []
    dbt("source", target, "freshness", label="Asking", found=found, may_fail=True)
    stale = [
        f"{result.node.source_name}.{result.node.name}"
        for result in getattr(found[0], "results", None) or []
        if result.node.resource_type == "source" and result.status != "pass"
    ]
    return [f"stale: {', '.join(stale)}" if stale else "all sources are fresh"]


def marked_rules(target: Target) -> list[dict[str, Any]]:
    """The rules that transactions break, for the document."""
    return [
        {
            "reason": rule.reason_code,
            "rows": rule.rows,
            "share": rule.share,
            "values": rule.examples,
        }
        for rule in marked.by_reason(target)
    ]


def write_docs(target: Target) -> list[str]:
    """Write dbt's docs page, and lineage by column where `make lineage` has installed it.

    Returns:
        Where they are; or why the second is not there, which is no reason to stop.
    """
    from ingestion import lineage

    page = relative(target_path() / "static_index.html")
    generate = ("generate", "--static")
    if not lineage.COLIBRI.exists():
        dbt("docs", target, *generate, "--no-compile", label="Documenting")
        return [page]
    dbt("docs", target, *generate, label="Documenting")
    try:
        return [page, lineage.write_page(target_path())]
    except UserError as error:
        return [page, f"Lineage by column is missing: {error.message}"]


def bring_tables_forward(target: Target, steps: Steps) -> None:
    """Give raw tables of an earlier release the columns of this one."""
    if added := raw_tables.bring_forward(target):
        with steps.step("Raw tables") as said:
            said.append(f"get the columns of this release: {', '.join(added)}")


def land_everything(target: Target, steps: Steps) -> list[LoadReport]:
    """Land brands, transactions, films: in this order, as TMDB is asked for titles of brands.

    Where files of the user's own have landed, that part of the sample is left out.
    """
    from ingestion.sources import tmdb

    bring_tables_forward(target, steps)
    lands: dict[str, Callable[[], LoadReport | str]] = {
        "Land brands": lambda: land_sample("brands", target),
        "Land brand releases": lambda: land_sample("releases", target),
        "Land transactions": lambda: land_sample("transactions", target),
        "Land TMDB films": lambda: tmdb.ingest(target),
    }
    reports = []
    for name, land in lands.items():
        with steps.step(name) as said:
            report = land()
            if isinstance(report, str):
                said.append(report)
                continue
            said.append(f"{sum(report.rows.values()):,} rows")
            if report.rejected:
                said.append(f"{report.rejected:,} lines put aside in raw_{report.source}.rejects")
            said.extend(report.notes)
            reports.append(report)
    return reports


def land_sample(part: str, target: Target) -> LoadReport | str:
    """Land a part of the sample: brands, releases or transactions.

    Returns:
        What has landed; or why nothing did: files of the user's own are there.
    """
    from ingestion.sources import brands, transactions

    lands: dict[str, tuple[Callable[[], LoadReport], str | None]] = {
        "brands": (lambda: brands.ingest_brands(None, target), "brands"),
        "releases": (lambda: brands.ingest_releases(None, target), "brand_releases"),
        "transactions": (lambda: transactions.ingest([sample_transactions()], target), None),
    }
    land, kind = lands[part]
    if own := own_file(target, "brands" if kind else "transactions", kind):
        return f"no sample, for {own} has landed"
    return land()


def own_file(target: Target, source: str, kind: str | None = None) -> str | None:
    """Name of the file landed last that is not the sample's; None when there is none."""
    sample = str(sample_path()) if source == "transactions" else "ingestion/sample/"
    query = (
        f"select _file_name from raw_{source}.files"  # noqa: S608 - names of ours
        " where not starts_with(_file_name, %s) and (%s is null or to_jsonb(files) ->> 'kind' = %s)"
        " order by landed_at desc limit 1"
    )
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(query, (sample, kind, kind))
        except psycopg2.errors.UndefinedTable:
            return None
        found = cursor.fetchone()
        return found and found[0]


def sample_path() -> Path:
    """Where the made-up transactions of the sample are."""
    return STATE_DIR / "sample" / "transactions.jsonl"


def sample_transactions() -> Path:
    """The made-up transactions of the sample, written on first use."""
    from ingestion.sample import transactions

    path = sample_path()
    if not path.exists():
        make_state_dir(path.parent)
        unfinished = path.with_name(f"{os.getpid()}.{path.name}")
        transactions.generate(SAMPLE_ROWS, SAMPLE_SEED, unfinished)
        unfinished.replace(path)
    return path


def _summarise(target: Target, reports: list[LoadReport], built: str, steps: Steps) -> None:
    rows: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for report in reports:
        rows.update({f"raw_{report.source}.{table}": n for table, n in report.rows.items()})
        rejected[f"raw_{report.source}.{report.rejects}"] += report.rejected
    reader = roles.acting_as("reporter", target)
    steps.note |= {
        "target": target.name,
        "warehouse": reader.place,
        "marts_schema": marts_schema(target),
        "rows_landed": dict(sorted(rows.items())),
        "rows_rejected": dict(sorted(rejected.items())),
        "built": built,
        "docs_page": str(target_path() / "static_index.html"),
        "transactions_marked": marked_rules(target),
    }
    if lines_are_json():
        facts = {key: steps.note[key] for key in ("rows_landed", "rows_rejected", "built")}
        echo("The warehouse is built.", event="summary", facts=facts)
        return
    echo("\nRows landed" if any(rows.values()) else "\nNothing new to land.")
    for table in sorted(+rows):
        echo(f"  {table:<32} {rows[table]:>9,}")
    warn_of_marked(target)
    marts = marts_schema(target)
    role = " --role reporter" if reader != target else ""
    echo(f"""
Built {built}, in {sum(steps.seconds.values()):.0f} s in all.

Look at it         .venv/bin/marquee db psql -c 'table {marts}.brand_performance'
Browse lineage     make docs, or open {relative(target_path() / "static_index.html")}
Open dashboards    make superset
Build again        {dbt_command()} build
Connect a BI tool  {reader.place}, schema {marts}; with the password: .venv/bin/marquee db url{role}
Use your own       TMDB token, files, PostgreSQL: see README.md""")
