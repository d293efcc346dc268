"""PostgreSQL servers of another version than the embedded one, as users have them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.warehouse.target import Target

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
PASSWORD = "it's: a \\ password"


def account() -> dict:
    """A user that is not root, for PostgreSQL."""
    if os.geteuid():
        return {}
    for name in ("postgres", "marquee", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip("no user here may run PostgreSQL")
    return {}


def run(*command: object, **options: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


@contextmanager
def installed_server() -> Iterator[Target]:
    """A server of the machine's own packages; logged in as its superuser, ``postgres``."""
    if not INSTALLED:
        pytest.skip("no PostgreSQL is installed here")
    programs, folder, port = INSTALLED[0].parent, reachable_folder(), unused_port()
    who, data = account(), folder / "data"
    (folder / "password").write_text(PASSWORD)
    for path in (folder, folder / "password") if who else ():
        shutil.chown(path, who["user"], who["group"])
    try:
        run(
            programs / "initdb",
            *(f"--pgdata={data}", "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"),
            *("--locale=C", f"--pwfile={folder / 'password'}"),
            **who,
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        pg_ctl = (programs / "pg_ctl", f"--pgdata={data}", "--wait", f"--log={folder / 'log'}")
        run(*pg_ctl, f"--options={options}", "start", **who)
        try:
            login = ("127.0.0.1", port, "postgres", PASSWORD, "postgres", "dev")
            yield Target("test", *login)
        finally:
            run(*pg_ctl, "--mode=immediate", "stop", **who)
    finally:
        shutil.rmtree(folder)
