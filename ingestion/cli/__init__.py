"""The ``marquee`` command line: thin over the sources, dlt and dbt."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from pathlib import Path

import click

from ingestion import __version__, logs
from ingestion.cli.options import target_option
from ingestion.errors import UserError, error_line
from ingestion.evidence import run_id
from ingestion.evidence.recorder import exit_code
from ingestion.terminal import echo, lines_are_json
from ingestion.warehouse import identity, libpq, paths, secret_files
from ingestion.warehouse.paths import PROJECT_DIR

LAZY = {  # command groups whose modules are imported only when they are called
    "airflow": "airflow",
    "api": "api",
    "db": "db",
    "doctor": "doctor",
    "export": "export",
    "generate": "generate",
    "ingest": "ingest",
    "lake": "lake",
    "lineage": "lineage",
    "metrics": "metrics",
    "rejects": "rejects",
    "superset": "superset",
}


_BUILDS = ("build", "run", "test", "seed", "snapshot", "source", "retry")  # of dbt
_PRINTS = (
    "ls",
    "list",
    "show",
    "serve",
    "--version",
    "--help",
    "-h",
)  # what is asked for, as it is


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
                if str(error.name).partition(".")[0] not in ("bi", "orchestration", "serving"):
                    raise
                raise UserError(
                    "Marquee's environment was made for an earlier version.\nRenew it: make setup"
                ) from error
        return super().get_command(ctx, name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="marquee")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    envvar=logs.VARIABLE,
    default="text",
    help="json: every line is an object with time, level, event, run_id, logger and message.",
)
def marquee(debug: bool, log_format: str) -> None:  # noqa: ARG001 - looked for in sys.argv
    """Marquee: films, brands and card transactions in a tested star schema in PostgreSQL."""
    logs.settle(log_format)


@marquee.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, at the end.")
@target_option
def run(target_name: str | None, *, as_json: bool) -> None:
    """Start the server, land every source, build and test the models, write the docs page.

    With --json standard output holds one document that says what the summary says, also where the
    run fails; all else goes to standard error.
    """
    from ingestion.run import run_all

    if not as_json:
        run_all(target_name)
        return
    from ingestion.run_document import documented

    with documented() as note:
        run_all(target_name, note)


@marquee.command()
@target_option
def prepare(target_name: str | None) -> None:
    """Do the first steps of a run: start PostgreSQL, install dbt packages, renew raw tables.

    For schedulers, which then start `marquee ingest` and `marquee dbt build` one by one.
    """
    from ingestion import run

    run.prepare(target_name)


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
    """Run dbt with Marquee's folders and profile set; needed in a read-only checkout.

    A command that builds or tests exits with 75 where all that failed passes by itself: another
    build is running, the server is away. Other codes are dbt's.
    """
    from ingestion.warehouse.profiles import write_blank
    from ingestion.warehouse.target import profiles_path

    os.chdir(PROJECT_DIR)
    # dbt-spark asks for Hive, which no server that is reached by Spark Connect lets a client set
    about = "Failed to set spark.sql.catalogImplementation"
    warnings.filterwarnings("ignore", about)
    os.environ.setdefault("PYTHONWARNINGS", f"ignore:{about}")
    if libpq.naming() and not profiles_path().exists():
        write_blank(profiles_path())
    os.environ.setdefault("DBT_PROFILES_DIR", str(profiles_path().parent))
    builds = any(arg in _BUILDS for arg in args)
    if builds or (lines_are_json() and not any(arg in _PRINTS for arg in args)):
        from ingestion.dbt_runner import as_typed

        sys.exit(as_typed(args))
    sys.stdout.flush()
    os.execv(Path(sys.executable).with_name("dbt"), ["dbt", *args])  # noqa: S606


@marquee.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def scratch(command: tuple[str, ...]) -> None:
    """Run COMMAND with a temporary PostgreSQL as its warehouse, then remove that server."""
    from ingestion.scratch import run_in_scratch

    sys.exit(run_in_scratch(command))


def main() -> None:
    """Entry point: every error is one or two lines, and an exit code; ``--debug`` shows where.

    The code is 2 for a command that cannot be understood, 75 for what passes by itself, 1 for any
    other error.
    """
    logs.settle(_asked_format(sys.argv[1:]) or os.environ.get(logs.VARIABLE, "text"))
    try:
        _settle()
        code = marquee.main(standalone_mode=False)
    except click.Abort:
        echo("Aborted!", err=True)
        code = 1
    except Exception as error:
        code = _say(error)
    sys.exit(code if isinstance(code, int) else 0)


def _asked_format(args: list[str]) -> str:
    """What --log-format says, or nothing: before click looks, which may find a mistake first."""
    for place, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if name == "--log-format":
            return value or "".join(args[place + 1 : place + 2])
        if not arg.startswith("-"):  # a command, which may have such an option of its own
            break
    return ""


def _say(error: Exception) -> int:
    """Print an error; returns the exit code."""
    code = exit_code(error)
    if "--debug" in sys.argv[1:]:
        echo(traceback.format_exc().rstrip(), err=True, level="error", event="failed")
    elif isinstance(error, click.UsageError) and lines_are_json():
        echo(error.format_message(), err=True, level="error", event="misused")
    elif isinstance(error, click.ClickException):
        error.show()
    else:
        UserError(explain(error)).show(code=code)
    return code


def _settle() -> None:
    """Have the environment say where things are, for all that is started from here."""
    run_id.settle()
    identity.refuse_borrowed_programs()
    secret_files.settle()
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
