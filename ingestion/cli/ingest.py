"""``marquee ingest`` lands raw data with dlt."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingestion import days as backfill
from ingestion.cli.options import (
    destination,
    landing_target,
    loader_target,
    print_notes,
    target_option,
    to_option,
)
from ingestion.cli.watch import watch
from ingestion.errors import UserError
from ingestion.evidence.recorder import current, recorded
from ingestion.terminal import document, echo, printable

if TYPE_CHECKING:
    from ingestion.pipeline import LoadReport
    from ingestion.sources.transactions.mapping.spec import Mapping


@click.group()
def ingest() -> None:
    """Land raw data with dlt."""


ingest.add_command(watch)


@ingest.command("brands")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@target_option
@recorded("ingest brands")
def ingest_brands(file: Path | None, target_name: str | None) -> None:
    """Land a brand index FILE (tab, comma or semicolon separated); without FILE the sample."""
    from ingestion.sources import brands

    _print_report(brands.ingest_brands(file, loader_target(target_name)))


@ingest.command("releases")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@target_option
@recorded("ingest releases")
def ingest_releases(file: Path | None, target_name: str | None) -> None:
    """Land brand release lists from FILE; without FILE the sample."""
    from ingestion.sources import brands

    _print_report(brands.ingest_releases(file, loader_target(target_name)))


@ingest.command("sample")
@click.argument("part", type=click.Choice(["brands", "releases", "transactions"]))
@target_option
@recorded("ingest sample")
def ingest_sample(part: str, target_name: str | None) -> None:
    """Land a PART of the sample, unless files of your own have landed there."""
    from ingestion.run import land_sample

    report = land_sample(part, loader_target(target_name))
    if isinstance(report, str):
        echo(report)
    else:
        _print_report(report)


def _days(command: Callable) -> Callable:
    """The options of a backfill."""
    for name, which in (("--until", "last"), ("--since", "first")):
        option = click.option(
            name, type=click.DateTime(["%Y-%m-%d"]), help=f"Of a backfill: the {which} day."
        )
        command = option(command)
    return command


@ingest.command("transactions")
@click.argument("files", metavar="PATHS...", nargs=-1, required=True)
@click.option(
    "--replace", is_flag=True, help="Land a changed file again; its new rows replace the old ones."
)
@click.option(
    "--mapping",
    "mapping_name",
    metavar="FILE|NAME",
    help="YAML that says which columns become which fields, or the name of one that is shipped.",
)
@click.option("--follow", is_flag=True, help="Of a topic: go on as messages come, until Ctrl-C.")
@click.option(
    "--build-every",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="With --follow: build the transaction models so often, if something has landed.",
)
@click.option(
    "--offset-reset",
    type=click.Choice(["earliest", "latest"]),
    help="Of a topic: where to go on if it was made anew, or has dropped what comes next.",
)
@click.option(
    "--suggest", is_flag=True, help="Print the mapping that would fit the file; land nothing."
)
@click.option(
    "--save",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="Write what --suggest prints, to FILE or to the file's name with .yml in this folder.",
)
@to_option
@_days
@target_option
@recorded("ingest transactions")
def ingest_transactions(
    files: tuple[str, ...],
    target_name: str | None,
    *,
    replace: bool,
    mapping_name: str | None,
    suggest: bool,
    save: str | None,
    follow: bool,
    offset_reset: str | None,
    build_every: float | None,
    to: str,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Land card transactions from PATHS.

    PATHS are files, folders (with the folders in them) and globs, on disk or at s3://, gs://, az://
    and hdfs://. A prefix there must end in /. - reads standard input. Formats: CSV (UTF-8, UTF-16
    or Windows-1252; lines above the header are left out), JSON (an object a line, arrays, pages
    with a list of objects, change feeds), Parquet and workbooks; packed with gzip, bzip2, xz, zstd,
    or zip with one file in it. A file lands once, whatever its name. If a plain file has grown, its
    new lines land. A changed file is refused unless you pass --replace.

    Columns may be called otherwise than in the contract: a mapping says what they are (see
    docs/your-data.md). One that is shipped is found by the columns; --suggest writes another.

    With --since and --until a path has a day in it, as s3://bucket/dt=%Y-%m-%d/*.jsonl has: the
    files of each of these days land. Without --until, up to today.

    Or one topic of Kafka, kafka://HOST[:PORT]/TOPIC: what is there lands, each message once;
    --follow goes on (see docs/streams.md).
    """
    from ingestion.sources import transactions
    from ingestion.sources.transactions.inputs.days import files_of_days
    from ingestion.sources.transactions.inputs.files import find_files
    from ingestion.sources.transactions.mapping.choose import find_mapping

    days = backfill.asked(_day(since), _day(until))
    topic = _topic(
        files,
        for_topics=follow or offset_reset is not None or build_every is not None,
        for_files=suggest or replace or save is not None or days is not None or to == "lake",
    )
    if topic:
        mapping = find_mapping(mapping_name) if mapping_name else None
        _ingest_topic(
            topic,
            target_name,
            mapping,
            follow=follow or build_every is not None,
            offset_reset=offset_reset,
            build_every=build_every,
        )
        return
    # before a server is started for nothing
    found = files_of_days(files, days) if days else find_files(files)
    if suggest or save is not None:
        from ingestion.sources.transactions.mapping import suggestion

        path = None if save is None else Path(save or f"{Path(found[0].name).stem}.yml")
        document(printable(suggestion.suggest(found, path)))
        return
    mapping = find_mapping(mapping_name) if mapping_name else None
    target, into = destination(to, target_name)
    _print_report(
        transactions.ingest(found, target, replace=replace, mapping=mapping, destination=into)
    )


def _day(moment: datetime | None) -> date | None:
    return moment and moment.date()


def _topic(paths: tuple[str, ...], *, for_topics: bool, for_files: bool) -> str | None:
    """The topic that is meant, if it is one.

    Raises:
        UserError: what was asked does not go together.
    """
    from ingestion.kafka_settings import is_kafka

    topics = [path for path in paths if is_kafka(path)]
    if not topics and for_topics:
        raise UserError(
            "--follow, --build-every and --offset-reset are for topics.\n"
            "Give one: kafka://HOST[:PORT]/TOPIC"
        )
    if topics and len(paths) > 1:
        raise UserError("A topic is landed by itself.\nGive the others to a run of their own.")
    if topics and for_files:
        raise UserError(
            "--suggest, --save, --replace, --to lake, --since and --until are for files.\n"
            "To see what messages look like, put some into a file first."
        )
    return topics[0] if topics else None


def _ingest_topic(
    url: str,
    target_name: str | None,
    mapping: Mapping | None,
    *,
    follow: bool,
    offset_reset: str | None,
    build_every: float | None,
) -> None:
    from ingestion import interrupts, kafka_settings
    from ingestion.builder import Builder
    from ingestion.dbt_runner import install_packages
    from ingestion.sources.transactions.stream import ingest_topic

    kafka_settings.parse(url)  # before a server is started for nothing
    stop, ended = threading.Event(), threading.Event()

    def end() -> None:
        stop.set()
        ended.wait(4)

    target = loader_target(target_name)
    if follow and (evidence := current()):
        evidence.flush_often()
    gc.set_threshold(200_000)  # messages come by the thousand, and none is part of a cycle
    with ExitStack() as stack:
        stack.enter_context(interrupts.giving_back(end if follow else lambda: None))
        after_batch: Callable[[int], None] = lambda _: None  # noqa: E731
        if build_every:
            install_packages()
            builder = stack.enter_context(closing(Builder(build_every, target_name, echo)))
            after_batch = builder.tick
        try:
            report = ingest_topic(
                url,
                target,
                follow=follow,
                mapping=mapping,
                offset_reset=offset_reset,
                say=echo,
                stop=stop.is_set,
                after_batch=after_batch,
            )
        finally:
            ended.set()
    _print_report(report)


@ingest.command("tmdb")
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), help="Only films released on or after this day."
)
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), help="Only films released on or before this day."
)
@click.option("--max-movies", type=click.IntRange(min=1), help="Land at most this many films.")
@target_option
@recorded("ingest tmdb")
def ingest_tmdb(
    since: datetime | None, until: datetime | None, max_movies: int | None, target_name: str | None
) -> None:
    """Pull films from the TMDB API (needs TMDB_API_TOKEN); without a token, from the stand-in."""
    from ingestion.sources import tmdb

    _print_report(
        tmdb.ingest(
            loader_target(target_name),
            since=_day(since),
            until=_day(until),
            max_movies=max_movies,
        )
    )


@ingest.command("database")
@click.argument("database", metavar="URL|NAME")
@click.option("--table", "tables", multiple=True, metavar="T", help="A table; '*' is all of them.")
@click.option("--name", default="", help="The tables land in raw_NAME. Usual: the database's name.")
@click.option("--schema", help="Schema of the tables, if not the database's default.")
@click.option("--cursor", metavar="COLUMN", help="Read only rows at or after its last value.")
@click.option(
    "--key", metavar="COLUMN", multiple=True, help="What tells rows apart. Usual: the primary key."
)
@click.option("--mark-deletes", is_flag=True, help="Compare keys, and mark rows that are gone.")
@click.option("--text", metavar="COLUMN", multiple=True, help="Land this column as text.")
@click.option("--canonical", is_flag=True, help="MongoDB: numbers in documents keep their types.")
@click.option("--exclude", metavar="COLUMN", multiple=True, help="Leave this column out.")
@_days
@target_option
@recorded("ingest database")
def ingest_database(
    database: str,
    target_name: str | None,
    *,
    tables: tuple[str, ...],
    name: str,
    schema: str | None,
    since: datetime | None,
    until: datetime | None,
    **options: Any,
) -> None:
    """Land tables of a database as they are.

    URL is one of SQLAlchemy's, such as mysql://, mariadb:// or postgresql://USER:PASSWORD@HOST/DB.
    NAME is a database below [sources.databases.NAME] in .dlt/secrets.toml and .dlt/config.toml,
    which lists its tables (see docs/databases.md). Without --cursor a table lands in full, in place
    of what landed before. With --since and --until rows land whose --cursor, a date or a time, is
    of these days; the next run without goes on as if this one had not been.
    """
    from ingestion.databases.asked import Asked, TableAsked
    from ingestion.sources import databases

    chosen = tuple(TableAsked(table, **options) for table in tables)
    if "://" in database:
        asked = Asked(database, name, schema, chosen)
    else:
        asked = databases.configured(database)
        asked = replace(asked, tables=chosen or asked.tables, schema=schema or asked.schema)
    if days := backfill.asked(_day(since), _day(until)):
        asked = replace(asked, tables=tuple(replace(table, days=days) for table in asked.tables))
    _print_report(databases.ingest(asked, lambda source: landing_target(source, target_name)))


@ingest.command("rest")
@click.argument("name")
@_days
@target_option
@recorded("ingest rest")
def ingest_rest(
    name: str, target_name: str | None, since: datetime | None, until: datetime | None
) -> None:
    """Land the resources of a JSON API.

    NAME is an API below [sources.rest.NAME] in .dlt/config.toml, its secrets in .dlt/secrets.toml
    (see docs/databases.md). With --since and --until resources whose cursor is a time are read for
    these days; the next run without goes on as if this one had not been.
    """
    from ingestion.sources import rest

    settings, days = rest.configured(name), backfill.asked(_day(since), _day(until))
    _print_report(
        rest.ingest(settings, lambda source: landing_target(source, target_name), days=days)
    )


def _print_report(report: LoadReport) -> None:
    print_notes(report)
    place = report.source if report.source == "lake" else f"raw_{report.source}"
    rejected = {report.rejects: report.rejected} if report.rejected else {}
    for table, rows in [*report.rows.items(), *rejected.items()]:
        facts = {"source": report.source, "table": table, "rows": rows}
        echo(f"{place}.{table:<24} {rows:>12,} rows", event="landed", facts=facts)
    echo(f"{report.seconds:.1f} s", event="loaded", facts={"seconds": round(report.seconds, 3)})
