"""The warehouse that the profile means: found, started, opened to its roles."""

from __future__ import annotations

from pathlib import Path

from ingestion.terminal import echo
from ingestion.warehouse import identity, libpq, roles
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.machine import HOST
from ingestion.warehouse.profiles import is_blank, profiles_login, write_blank, write_profiles
from ingestion.warehouse.programs import ROLE
from ingestion.warehouse.state import is_embedded, is_superuser
from ingestion.warehouse.target import Target, profiles_path, read_target, role_names


def load_target(name: str | None = None, profiles: Path | None = None) -> Target:
    """The target as ``read_target`` reads it, once what it says of the embedded server is true.

    Raises:
        UserError: as for ``read_target``; or this checkout is a copy of another, whose that is.
    """
    target = read_target(name, profiles)
    if profiles is None and target.host == HOST and follow(target):
        return read_target(name)
    return target


def none_yet() -> bool:
    """Whether there is no warehouse: no profile, no variables that name one, nothing embedded."""
    path = profiles_path()
    known = path.exists() and not is_blank(path)
    return not (known or libpq.naming() or Server().initialised)


def chosen(name: str | None = None, *, settled: bool = True) -> Server | None:
    """The embedded server, if that is what the profile says; None if it names another.

    No profiles.yml means the embedded one, unless libpq's variables name another. So does one that
    was written for an embedded server whose state folder has been removed since.

    Args:
        name: of the target.
        settled: refuse the state of another checkout, of which this one is a copy.
    """
    server, path = Server(), profiles_path()
    if not libpq.naming() and (not path.exists() or is_blank(path)):
        if settled:
            identity.settle(server)
        return server
    target, login = (load_target if settled else read_target)(name), profiles_login(path)
    written_for_it = login is not None and login.port == target.port and target.host == HOST
    orphaned = not server.settings and written_for_it
    known = login is not None and written_for_it and login.password in server.passwords
    return server if is_embedded(target) or orphaned or known else None


def follow(target: Target) -> bool:
    """Bring profiles.yml up to date where it leads to this embedded server's former port.

    Args:
        target: as it was read from there.

    Returns:
        True when it has changed.

    Raises:
        UserError: the state is another checkout's, of which this one is a copy.
    """
    server, login = Server(), profiles_login(profiles_path())
    if not server.settings:
        return False
    moved = is_embedded(target) and identity.settle(server)
    behind = login is not None and login.port == target.port != server.settings["port"]
    return write_profiles(server) if moved or behind else False


def ready(name: str | None = None) -> Target:
    """The profile's target; when it is the embedded server, that is made and started as needed.

    Raises:
        UserError: the embedded server does not start, or the profile cannot be read.
    """
    if server := chosen(name):
        server.start(login=profiles_login(profiles_path()))
        open_to_roles(server)
        if is_superuser(target := load_target(name)):
            echo(
                f"{profiles_path()} logs in as the superuser {ROLE},"
                " who runs whatever a role plants in its tables.\n"
                "Put user and password of the transformer there: marquee db url --role transformer",
                err=True,
            )
        return target
    if not profiles_path().exists():
        write_blank(profiles_path())
    return load_target(name)


def open_to_roles(server: Server, *, again: bool = False) -> bool:
    """Make the roles of a running server, and have profiles.yml log in as the transformer.

    Args:
        again: also where that has been done; it hands over what a superuser has made since.

    Returns:
        True when profiles.yml was written or changed.
    """
    server.set_role_passwords(role_names(), roles.rights(server.target), again=again)
    return write_profiles(server)
