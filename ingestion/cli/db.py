"""``marquee db``: the embedded PostgreSQL, and the way into whatever server the profile names."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace

import click

from ingestion.cli.backup import backup, restore, upgrade
from ingestion.cli.options import target_option
from ingestion.errors import UserError
from ingestion.pipeline import working_dir
from ingestion.terminal import document, echo
from ingestion.warehouse import access, identity, libpq
from ingestion.warehouse.access import load_target
from ingestion.warehouse.backup import archive as archives
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.profiles import is_blank, profiles_login
from ingestion.warehouse.programs import program
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import ROLES, Target, profiles_path, read_target, role_names

role_option = click.option(
    "--role",
    type=click.Choice([*ROLES, "admin"]),
    help="Log in as this role; admin is the embedded server's superuser.",
)


@click.group()
def db() -> None:
    """The warehouse's PostgreSQL: start, stop, look into it, back it up."""


db.add_command(backup)
db.add_command(restore)
db.add_command(upgrade)


@db.command()
@click.option(
    "--port", type=click.IntRange(1024, 65535), help="Listen on this port, now and at later starts."
)
@click.option(
    "--archive",
    metavar="PLACE",
    help="Send WAL to a folder or an s3:// URL, now and at later starts; make a base backup there.",
)
@click.option("--no-archive", is_flag=True, help="Do so no longer.")
def start(port: int | None, archive: str | None, no_archive: bool) -> None:
    """Start the embedded PostgreSQL.

    The first call creates it and writes profiles.yml. From an archive, `marquee db restore PLACE
    --to TIME` brings back any moment.
    """
    embedded = _embedded("Start")
    made = not embedded.initialised
    started = embedded.start(port, profiles_login(profiles_path()))
    wrote = access.open_to_roles(embedded)
    state = "made and started" if made else "started" if started else "running already"
    echo(f"The embedded PostgreSQL is {state}: {embedded.login('transformer').place}")
    if wrote:
        echo(f"Wrote {profiles_path()}")
    if archive and archives.turn_on(embedded, archive):
        echo(f"WAL goes to {archive}, and the first base backup is there.")
    if no_archive and archives.turn_off(embedded):
        echo("WAL goes nowhere from now on; the archive stays.")
    for label, fact in archives.state(embedded).items():
        echo(f"{label:<9} {fact}")


@db.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; its data stay."""
    stopped = _embedded("Stop").stop()
    echo(f"The embedded PostgreSQL {'is stopped' if stopped else 'was not running'}.")


@db.command()
@target_option
def status(target_name: str | None) -> None:
    """Say where the warehouse is.

    The exit code is 1 if it does not answer.
    """
    embedded = Server()
    if access.none_yet():
        raise UserError("There is no warehouse yet.\nMake the embedded one with: marquee db start")
    path = profiles_path()
    known = libpq.naming() or (path.exists() and not is_blank(path))
    target = load_target(target_name) if known else embedded.target
    by = ", ".join(libpq.naming()) or "profiles.yml"
    facts = {"server": f"your own, by {by}", "address": target.place}
    if is_embedded(target):
        facts = {"server": "the embedded PostgreSQL"} | embedded.status()
        facts |= archives.state(embedded)
        facts["address"] = target.place
    if not is_embedded(target) or embedded.running:
        facts |= _answer(target)
    for label, fact in facts.items():
        echo(f"{label:<9} {fact}")
    if facts.get("state") == "stopped":
        raise UserError("The embedded PostgreSQL is stopped.\nStart it with: marquee db start")


@db.command()
@target_option
@role_option
@click.option("--no-password", is_flag=True, help="Leave the password out.")
def url(target_name: str | None, role: str | None, no_password: bool) -> None:
    """Print the warehouse's postgresql:// URL.

    The URL contains the password. For a BI tool, print the one of --role reporter, who can only
    read the marts.
    """
    target = load_target(target_name)
    if role:
        target = _login(target, role)
    if no_password:
        document(replace(target, password="").url.replace(":@", "@", 1))
    else:
        document(target.url)


@db.command()
@target_option
def roles(target_name: str | None) -> None:
    """Create the roles loader, transformer and reporter, or renew their rights.

    It does the same as `dbt run-operation make_roles`. On the embedded server each role also gets a
    password.
    """
    from ingestion.dbt_runner import install_packages, make_roles

    target = access.ready(target_name)
    if is_embedded(target):
        access.open_to_roles(Server(), again=True)
    else:
        install_packages()
        make_roles(target)
    names = role_names()
    for role, may in {
        "loader": "lands raw data",
        "transformer": "runs dbt: reads raw data, owns what the models make",
        "reporter": "reads marts and nothing else",
    }.items():
        echo(f"{names[role]:<20} {may}")
    if is_embedded(target):
        echo("Log in as one of them: marquee db url --role reporter")
    else:
        echo(_to_log_in(names["reporter"]))


@db.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@role_option
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def psql(role: str | None, args: tuple[str, ...]) -> None:
    """Run psql on the warehouse, with the profile's login unless you pass --role.

    All other arguments go to psql: marquee db psql -c 'select 1'
    """
    target = load_target()
    if is_embedded(target) and not Server().running:
        raise UserError("The embedded PostgreSQL is stopped.\nStart it with: marquee db start")
    if role:
        target = _login(target, role)
    # at a terminal rather an installed psql: the wheel's has no line editing
    installed = shutil.which("psql") if sys.stdin.isatty() else None
    psql_path = installed or program("psql")
    sys.stdout.flush()
    os.execve(psql_path, ["psql", *args], os.environ | target.libpq_env())  # noqa: S606


@db.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Drop all data of the embedded PostgreSQL and start it empty.

    Raw data and dlt's state are dropped as well.
    """
    embedded = _embedded("Reset")
    if not yes:
        place = embedded.home if identity.foreign(embedded) else embedded.data
        click.confirm(f"Drop everything in {place}?", abort=True)
    archived = archives.place_of(embedded)
    if embedded.settings:  # what dlt has not loaded yet goes as well
        shutil.rmtree(working_dir(embedded.target), ignore_errors=True)
    embedded.reset(profiles_login(profiles_path()))
    access.open_to_roles(embedded)
    echo(f"The embedded PostgreSQL is empty and running: {embedded.login('transformer').place}")
    if archived:
        echo(f"Its WAL goes nowhere now. Begin anew: marquee db start --archive {archived}")


def _login(target: Target, role: str) -> Target:
    """The same place, logged in to as a role.

    Raises:
        UserError: its password is not ours to know, or it has not been made.
    """
    if is_embedded(target):
        return Server().login(role)
    if role == "admin":
        raise UserError(
            f"The superuser of {target.host}:{target.port} is not ours to know.\n"
            "Log in there by its own means; admin is the embedded server's."
        )
    variable = f"MARQUEE_{role.upper()}_PASSWORD"
    user = role_names()[role]
    if password := os.environ.get(variable):
        return replace(target, user=user, password=password)
    raise UserError(
        f"The passwords of {target.host}:{target.port} are kept there, not here.\n"
        f"{_to_log_in(user)}\n"
        f"Then tell it here: export {variable}=..."
    )


def _to_log_in(name: str) -> str:
    return f"Let it in there with a password: alter role {name} login password '...'"


def _embedded(verb: str) -> Server:
    """The embedded server, unless the profile names another one.

    Raises:
        UserError: it does.
    """
    if embedded := access.chosen(settled=verb != "Reset"):
        return embedded
    target = read_target()
    overriding = libpq.naming()
    by = f" ({', '.join(overriding)} set)" if overriding else ""
    path = profiles_path()
    others = not path.exists() or is_blank(path) or profiles_login(path)
    ways = [] if others else [f"move {path} away"]
    ways += [f"unset {' '.join(overriding)}"] if overriding else []
    raise UserError(
        f"Target '{target.name}' of the profile is {target.place}{by}, not the embedded server.\n"
        f"{verb} that server by its own means, or, to use the embedded one, {' and '.join(ways)}."
    )


def _answer(target: Target) -> dict[str, str]:
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select current_setting('server_version'),"
                " pg_size_pretty(pg_database_size(current_database()))"
            )
            release, size = cursor.fetchone()
    finally:
        connection.close()
    return {"version": f"PostgreSQL {release}", "database": f"{target.dbname}, {size}"}
