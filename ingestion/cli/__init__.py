"""The ``marquee`` command line: thin over the sources, dlt and dbt."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

import click

from ingestion import __version__
from ingestion.cli.options import target_option
from ingestion.errors import UserError, error_line
from ingestion.terminal import echo
from ingestion.warehouse import identity, libpq, paths
from ingestion.warehouse.paths import PROJECT_DIR

LAZY = {  # command groups whose modules are imported only when they are called
    "db": "db",
    "doctor": "doctor",
    "export": "export",
    "generate": "ingest",
    "ingest": "ingest",
    "lineage": "lineage",
    "rejects": "rejects",
    "superset": "superset",
}


class _Group(click.Group):
    """A group that imports some of its commands late, so that ``marquee --help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LAZY:
            from importlib import import_module

            try:
                return getattr(import_module(f"ingestion.cli.{LAZY[name]}"), name)
            except ModuleNotFoundError as error:
                if str(error.name).partition(".")[0] not in ("bi", "serving"):
                    raise
                raise UserError(
                    "Marquee's environment was made for an earlier version.\nRenew it: make setup"
                ) from error
        return super().get_command(ctx, name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="marquee")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def marquee(debug: bool) -> None:
    """Marquee: films, brands and card transactions in a tested star schema in PostgreSQL."""


@marquee.command()
@target_option
def run(target_name: str | None) -> None:
    """Start the server, land every source, build and test the models, write the docs page."""
    from ingestion.run import run_all

    run_all(target_name)


@marquee.command()
def deps() -> None:
    """Install the dbt packages from the hub; if it does not answer, install the stand-in."""
    from ingestion.dbt_runner import install_packages

    echo(install_packages())


@marquee.command(
    "dbt",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def dbt_command(args: tuple[str, ...]) -> None:
    """Run dbt with Marquee's folders and profile set; needed in a read-only checkout."""
    from ingestion.warehouse.target import profiles_path

    os.chdir(PROJECT_DIR)
    os.environ.setdefault("DBT_PROFILES_DIR", str(profiles_path().parent))
    sys.stdout.flush()
    os.execv(Path(sys.executable).with_name("dbt"), ["dbt", *args])  # noqa: S606


@marquee.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def scratch(command: tuple[str, ...]) -> None:
    """Run COMMAND with a temporary PostgreSQL as its warehouse, then remove that server."""
    from ingestion.scratch import run_in_scratch

    sys.exit(run_in_scratch(command))


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

    from ingestion.warehouse import advice

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
