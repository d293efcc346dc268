"""The ``marquee`` command line: thin over the sources, dlt and dbt."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

import click

from ingestion import __version__
from ingestion.errors import UserError, error_line
from ingestion.terminal import echo, one_line
from ingestion.warehouse import advice, identity, libpq, paths
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target, profiles_path

LAZY = {  # command groups whose modules are imported only when they are called
    "db": ("ingestion.commands_db", "db"),
    "doctor": ("ingestion.doctor", "doctor"),
    "export": ("ingestion.commands_export", "export"),
    "lineage": ("ingestion.lineage", "lineage"),
    "rejects": ("ingestion.commands_rejects", "rejects"),
    "superset": ("ingestion.cli_superset", "superset"),
}


class _Group(click.Group):
    """A group that imports some of its commands late, so that ``marquee --help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LAZY:
            from importlib import import_module

            module, attribute = LAZY[name]
            return getattr(import_module(module), attribute)
        return super().get_command(ctx, name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="marquee")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def marquee(debug: bool) -> None:
    """Marquee: films, brands and card transactions in a tested star schema in PostgreSQL."""


target_option = click.option("--target", "target_name", help="Target of the profile, as in dbt.")


@marquee.group()
def ingest() -> None:
    """Land raw data with dlt."""


@ingest.command("brands")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@target_option
def ingest_brands(file: Path | None, target_name: str | None) -> None:
    """Land a brand index FILE (tab, comma or semicolon separated); without FILE the sample."""
    from ingestion.sources import brands

    _report(brands.ingest_brands(file, _target(target_name)))


@ingest.command("releases")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@target_option
def ingest_releases(file: Path | None, target_name: str | None) -> None:
    """Land brand release lists from FILE; without FILE the sample."""
    from ingestion.sources import brands

    _report(brands.ingest_releases(file, _target(target_name)))


@ingest.command("transactions")
@click.argument("files", metavar="PATHS...", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Land a file anew whose content has changed.")
@target_option
def ingest_transactions(files: tuple[str, ...], replace: bool, target_name: str | None) -> None:
    """Land card transactions from PATHS.

    Files, folders (without those below) and globs, here or at s3://, gs:// and az:// (a prefix
    ends with /, and is read with all below); - is standard input. JSON Lines and CSV, plain or
    gzip, and Parquet. A file that has landed is skipped, by its content; of a plain one that grew,
    the new lines land.
    """
    from ingestion.sources import transactions
    from ingestion.sources.transactions.inputs.files import find_files

    found = find_files(files)  # before a server is started for nothing
    _report(transactions.ingest(found, _target(target_name), replace=replace))


@ingest.command("tmdb")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Films released from this day on.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Films released up to this day.")
@click.option("--max-movies", type=click.IntRange(min=1), help="Land at most so many films.")
@target_option
def ingest_tmdb(since, until, max_movies: int | None, target_name: str | None) -> None:
    """Pull films from the TMDB API (TMDB_API_TOKEN), or from the stand-in without a token."""
    from ingestion.sources import tmdb

    _report(
        tmdb.ingest(
            _target(target_name),
            since=since and since.date(),
            until=until and until.date(),
            max_movies=max_movies,
        )
    )


@marquee.group()
def generate() -> None:
    """Make data to try things with."""


@generate.command("transactions")
@click.option("--rows", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=42, show_default=True, help="The same seed gives the same file.")
@click.option("--out", required=True, metavar="FILE", help="JSONL file to write, here on the disk.")
def generate_transactions(rows: int, seed: int, out: str) -> None:
    """Write made-up card transactions as JSONL, some late, repeated, changed or broken."""
    from ingestion.sources.transactions import generator

    for kind, count in generator.generate(rows, seed, out).items():
        echo(f"{kind:<28} {count:>12,}")


@marquee.command()
@target_option
def run(target_name: str | None) -> None:
    """Start the server, land every source, build and test the models, write the docs page."""
    from ingestion.run import run_all

    run_all(target_name)


@marquee.command()
def deps() -> None:
    """Install the dbt packages: from the hub, or the stand-in where it does not answer."""
    from ingestion.run import install_packages

    echo(install_packages())


@marquee.command(
    "dbt",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def dbt_command(args: tuple[str, ...]) -> None:
    """Run dbt as it is, told where things are: for checkouts that cannot be written to."""
    os.chdir(PROJECT_DIR)
    os.environ.setdefault("DBT_PROFILES_DIR", str(profiles_path().parent))
    sys.stdout.flush()
    os.execv(Path(sys.executable).with_name("dbt"), ["dbt", *args])  # noqa: S606


@marquee.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def scratch(command: tuple[str, ...]) -> None:
    """Run COMMAND with a throw-away PostgreSQL as its warehouse, and remove that afterwards."""
    from ingestion.run import run_in_scratch

    sys.exit(run_in_scratch(command))


def _target(name: str | None) -> Target:
    """The target to land in. The embedded server is started when it is the one and stopped."""
    from ingestion.warehouse import access, roles

    return roles.acting_as("loader", access.ready(name))


def _report(report) -> None:
    for note in report.notes:
        echo(one_line(note, None))
    for table, rows in report.rows.items():
        echo(f"raw_{report.source}.{table:<24} {rows:>12,} rows")
    if report.rejected:
        echo(f"raw_{report.source}.{'rejects':<24} {report.rejected:>12,} rows")
    echo(f"{report.seconds:.1f} s")


def main() -> None:
    """Entry point: every error is one or two lines and exit code 1; ``--debug`` shows where."""
    if "--debug" in sys.argv[1:]:
        try:
            _settle()
            sys.exit(marquee(standalone_mode=False) or 0)
        except Exception:
            echo(traceback.format_exc().rstrip(), err=True)
            sys.exit(1)
    try:
        _settle()
        marquee()
    except Exception as error:
        echo(f"Error: {explain(error)}", err=True)
        sys.exit(1)


def _settle() -> None:
    """Have the environment say where things are, for all that is started from here."""
    identity.refuse_borrowed_programs()
    libpq.settle()
    paths.settle()


def explain(error: BaseException) -> str:
    """An unexpected error in one or two lines: its root cause, and what to do."""
    import psycopg2

    causes = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) and inner not in causes:
        causes.append(inner)
    for cause in causes:
        if isinstance(cause, UserError):
            return cause.message
        full = getattr(cause, "errno", None) == errno.ENOSPC or isinstance(
            cause, psycopg2.errors.DiskFull
        )
        if full or "No space left on device" in str(cause):
            return "The disk is full.\nFree some space and run this again: it goes on from there."
    for cause in reversed(causes):
        if isinstance(cause, psycopg2.OperationalError):
            if advice.is_loss(cause) and (why := advice.on_loss()):
                return why
            first = error_line(cause)
            return (
                f"The warehouse went away: {first}\nSee `marquee db status`, then run this again."
            )
        if isinstance(cause, psycopg2.errors.InsufficientPrivilege):
            return f"{error_line(cause)}\n{advice.on_privilege(cause)}"
    root = causes[-1]
    said = f"{type(root).__name__}: " if str(root).strip() else ""
    return f"{said}{error_line(root)}\nRun it again as `marquee --debug ...` to see where."
