"""PostgreSQL's client programs for a server: new enough for it, and logged in by a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.warehouse.machine import process_exists
from ingestion.warehouse.paths import write_private
from ingestion.warehouse.programs import client
from ingestion.warehouse.target import Target


def client_for(name: str, major: int) -> str:
    """A client program that is not older than a server of that major version.

    Raises:
        UserError: there is none.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = [path for path in (client(name), shutil.which(name), *installed) if path]
    for path in found:
        if major_of(str(path)) >= major:
            return str(path)
    if not found:
        raise UserError(f"{name} is not installed.\nInstall PostgreSQL's client programs.")
    newest = max(major_of(str(path)) for path in found)
    raise UserError(
        f"The server is PostgreSQL {major}, and {name} here is of {newest}: too old for it.\n"
        f"Install the client programs of PostgreSQL {major} or newer."
    )


@cache
def major_of(path: str) -> int:
    """The major version of a program; 0 where it does not say."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else 0


_PREFIX = "marquee-login-"  # then the id of the process that needs it


def _forget_killed() -> None:
    """Remove what processes that were killed have left."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not process_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def logged_in(target: Target, account: dict | None = None) -> Iterator[dict[str, str]]:
    """Variables by which client programs log in; the password is in a file, not among them.

    Args:
        target: where, and as whom.
        account: user and group of the programs, where those are others.
    """
    env = {name: value for name, value in os.environ.items() if name != "PGSERVICE"}
    env |= target.libpq_env()
    del env["PGPASSWORD"]
    if not target.password:  # libpq looks into the user's own file
        yield env
        return
    _forget_killed()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    file = folder / "pgpass"
    with interrupts.giving_back(lambda: shutil.rmtree(folder, ignore_errors=True)):
        try:
            escaped = target.password.replace("\\", "\\\\").replace(":", "\\:")
            write_private(file, f"*:*:*:*:{escaped}\n")
            if account:
                for path in (folder, file):
                    os.chown(path, account["user"], account["group"])
            yield env | {"PGPASSFILE": str(file)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
