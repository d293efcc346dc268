"""The embedded server as it was at a time: a base backup, and the WAL from there on.

The data come into being in a folder of their own, beside those that are there. Which folder is the
server's is one word in its ``server.json``, which is written at the end: until then nothing has
changed, and the folder from before is never touched.
"""

from __future__ import annotations

import os
import re
import shlex
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.warehouse import identity, server_settings
from ingestion.warehouse.backup import archive, sending
from ingestion.warehouse.backup.catalog import STAMP, Backups
from ingestion.warehouse.backup.restore import DATA
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.machine import free_port, size_text
from ingestion.warehouse.paths import remove_folder
from ingestion.warehouse.programs import error_line, run_command
from ingestion.warehouse.state import noted_pid, works_in

HOURS = 24 * 3600  # seconds that a recovery may take


class Base(NamedTuple):
    """A base backup: its place, its name there, what its manifest says."""

    place: Backups
    name: str
    facts: dict[str, Any]


@dataclass
class Recovered:
    """A recovery that was done.

    Attributes:
        base: the base backup that it began from.
        until: when the last transaction was committed that is in it, as PostgreSQL says it.
        beside: the data folder from before.
        skipped: why newer base backups were not used.
    """

    base: str
    until: str
    beside: Path | None
    skipped: list[str] = field(default_factory=list)


def recover(
    server: Server,
    place: Backups,
    to: datetime | None = None,
    only: str | None = None,
    *,
    force: bool = False,
) -> Recovered:
    """Have the embedded server be as it was at a time.

    Args:
        server: it is made, and may run or not.
        place: where the archives are.
        to: the time; None is as late as the WAL goes.
        only: the archive to take, where not any.
        force: also where the server has data; these stay beside.

    Raises:
        UserError: it cannot be done; the server is as it was.
    """
    fresh = _refuse_data(server, force=force)
    with place.as_user_error():
        base, skipped = _base(place, to, only)
    with server.locked(), staged(server) as staging:
        ran = server.stop_process()
        try:
            _extract(base, staging)
            until = _replay(server, base, staging, to)
            noted = _go_on(server, place, staging / "pgdata")
            beside = take(server, staging / "pgdata")
        except BaseException:
            if ran:
                server.start_process(server.settings["port"])
            raise
        if not noted:
            skipped.append("Its WAL goes nowhere: marquee db start --archive PLACE")
        if fresh:
            remove_folder(beside)
    return Recovered(base.name, until, None if fresh else beside, skipped)


@contextmanager
def staged(server: Server) -> Iterator[Path]:
    """A folder for new data beside the server's, under ``locked``; what is left there goes.

    So does what one that was killed has left, and a server that runs on that.
    """
    for left in server.data.parent.glob("init-*"):
        _clear(server, left)
    staging = Path(tempfile.mkdtemp(prefix="init-", dir=server.data.parent))
    staging.chmod(0o711)
    try:
        with interrupts.giving_back(partial(_clear, server, staging)):
            yield staging
    finally:
        _clear(server, staging)


def _clear(server: Server, staging: Path) -> None:
    data = staging / "pgdata"
    if (pid := noted_pid(data)) and works_in(pid, data):
        server.programs.run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={data}")
    remove_folder(staging)


def _refuse_data(server: Server, *, force: bool) -> bool:
    """Whether the server has nothing in it.

    Raises:
        UserError: it has, or cannot be asked, and nobody has said ``force``.
    """
    if server.running:
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(DATA)
            if not cursor.fetchone()[0]:
                return not force
    if force:
        return False
    raise UserError(
        f"{server.target.place} has data, and a restore would take its place.\n"
        "With --force it does, and what is there now stays beside it."
    )


def _base(place: Backups, to: datetime | None, only: str | None) -> tuple[Base, list[str]]:
    """The newest whole base backup from before a time; and why newer ones are not it."""
    skipped, earliest = [], None
    for name in reversed(archive.bases(place, only)):
        try:
            facts = place.manifest(name)
            ended = datetime.fromisoformat(facts["ended_at"])
            earliest = min(earliest or ended, ended)
            if to and ended > to:
                continue
            place.verify(name)
        except UserError as error:
            skipped.append(error.message.splitlines()[0])
            continue
        return Base(place, name, facts), skipped
    if skipped:
        raise UserError(f"{skipped[0]}\nThere is no other base backup that goes back so far.")
    if earliest:
        raise UserError(
            f"The base backups in {place.name} begin at {earliest:%Y-%m-%d %H:%M:%S} UTC.\n"
            "Give that time, or a later one."
        )
    raise UserError(
        f"{place.name} has no whole base backup.\nMake one: marquee db backup, without TO"
    )


def _extract(base: Base, staging: Path) -> None:
    """Unpack a base backup into ``staging/pgdata``."""
    data = staging / "pgdata"
    size = 4 * sum(file["bytes"] for file in base.facts["files"].values())
    if size > archive.free_of(staging):
        raise UserError(
            f"About {size_text(size)} are needed on the disk of {staging.parent}, and"
            f" {size_text(archive.free_of(staging))} are free.\nFree some space there."
        )
    data.mkdir(0o700)
    for name, folder in (("base.tar.gz", data), ("pg_wal.tar.gz", data / "pg_wal")):
        with base.place.as_user_error():
            file = base.place.fetch(f"{base.name}/{name}", staging)
        with tarfile.open(file) as packed:
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since 3.11.4
            packed.extractall(folder, **safely)  # type: ignore[arg-type]  # noqa: S202
    os.chmod(data, 0o700)  # noqa: PTH101
    (data / "server.log").unlink(missing_ok=True)


def _replay(server: Server, base: Base, staging: Path, to: datetime | None) -> str:
    """Have PostgreSQL replay WAL up to a time; when its last transaction was, as it says."""
    data, log = staging / "pgdata", staging / "recovery.log"
    server_settings.set_archive(data, {})  # nothing is sent away while it replays
    server_settings.renew(data)
    settings = {
        "restore_command": _restore_command(server, base, staging),
        "recovery_target_action": "promote",
        "recovery_target_time": f"{to:%Y-%m-%d %H:%M:%S.%f}+00" if to else "",
        "hot_standby": "off",  # nobody looks in meanwhile
        "archive_mode": "off",
    }
    lines = (
        "{} = '{}'\n".format(name, value.replace("\\", "\\\\").replace("'", "''"))
        for name, value in settings.items()
        if value
    )
    with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write(f"{MARK}{''.join(lines)}")
    (data / "recovery.signal").touch()
    server.programs.own(staging)
    where = (f"--pgdata={data}", "--wait", f"--timeout={HOURS}", f"--log={log}")
    for _ in range(PORTS):
        log.unlink(missing_ok=True)
        options = f"-p {free_port(server.settings['port'] + 1)}"
        started = server.programs.run("pg_ctl", "start", *where, f"--options={options}")
        said = log.read_text(errors="replace") if log.exists() else started.stderr
        if "could not create any TCP/IP sockets" not in said:  # somebody was quicker
            break
    done = not started.returncode and _ended(data)
    said = log.read_text(errors="replace") if log.exists() else started.stderr
    try:
        times = re.findall(r"(?:last completed transaction was at log time|, time) (\S+ \S+)", said)
        if not done:
            raise _failed(base.place, to, said, times)
    finally:
        server.programs.run("pg_ctl", "stop", f"--pgdata={data}", "--wait", "--mode=fast")
    auto = data / "postgresql.auto.conf"
    auto.write_text(auto.read_text("utf-8").partition(MARK)[0], "utf-8")
    _set_password(server, data)
    before = re.findall(r"last completed transaction was at log time (\S+ \S+)", said)
    return before[-1] if before else "its base backup"


def _ended(data: Path) -> bool:
    """Wait for the end of a recovery, as pg_ctl waits for its beginning; whether it got there."""
    while (pid := noted_pid(data)) and works_in(pid, data):
        with suppress(OSError, IndexError):  # it is being written
            if (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready":
                return True
        time.sleep(0.1)
    return False


PORTS = 5  # that are tried
MARK = "# a recovery's, until it is done\n"


def _failed(place: Backups, to: datetime | None, said: str, times: list[str]) -> UserError:
    if "before configured recovery target was reached" in said:
        last = f", with a transaction of {times[-1]}" if times else ""
        return UserError(
            f"The WAL in {place.name} ends before {to:%Y-%m-%d %H:%M:%S} UTC{last}.\n"
            "Give an earlier time; without --to it is all that there is."
        )
    return UserError(
        f"The recovery failed: {error_line(said)}\nNothing has changed; the backup stays as it is."
    )


def _restore_command(server: Server, base: Base, staging: Path) -> str:
    """What copies a WAL file: from the archive, and what has not got there from this machine."""
    place, line, first = base.place, base.name.partition("/")[0], base.facts["first_wal"]
    account = server.programs.account()
    wal = Path(place.root, line, "wal")
    if not place.local or run_command("test", "-r", wal, account=account).returncode:
        wal = staging / "wal"
        wal.mkdir()
        with place.as_user_error():
            for name in place.names(f"{line}/wal"):
                if len(name) < 24 or name[8:24] >= first[8:24]:
                    place.store.get_file(f"{place.root}/{line}/wal/{name}", str(wal / name))
    folders = [wal]
    for data in server.data.parent.glob("pgdata*"):
        noted = server_settings.archive(data)
        if noted.get("name") == line:
            folders += [server_settings.wal_folder(data), data / "pg_wal"]
    copies = (f'cp {shlex.quote(str(folder)).replace("%", "%%")}/%f "%p"' for folder in folders)
    return " 2>/dev/null || ".join(dict.fromkeys(copies))


def _set_password(server: Server, data: Path) -> None:
    """Have the superuser's password be the one that is noted here."""
    settings = server.settings
    password = settings["password"].replace("'", "''")
    single = ("--single", "-D", str(data), "-c", "exit_on_error=on", "-c", "log_statement=none")
    statement = f"alter role {settings['user']} password '{password}'\n"
    done = server.programs.run("postgres", *single, "postgres", stdin=statement)
    if done.returncode:
        raise UserError(f"The recovered server cannot be opened: {error_line(done.stderr)}")


def _go_on(server: Server, place: Backups, data: Path) -> bool:
    """Have the recovered data go on with an archive of their own in the same place."""
    try:
        server_settings.set_archive(data, archive.begin(server, server.data, place))
    except UserError:
        return False
    return True


def take(server: Server, fresh: Path) -> Path:
    """Have a stopped server's data be another folder's, and start it, under ``locked``.

    Args:
        server: stopped.
        fresh: a data folder on the same disk, which is moved to where data are.

    Returns:
        The folder from before, which stays.

    Raises:
        UserError: it does not start; the server has its former data.
    """
    before = server.data
    now = f"{datetime.now(timezone.utc):{STAMP}}".lower()
    place = fresh if fresh.parent == before.parent else before.with_name(f"pgdata-{now}")
    fresh.rename(place)
    _point_at(server, place)
    try:
        server.start_process(server.settings["port"])
    except UserError:
        _point_at(server, before)
        raise
    server.save(**identity.mark(server))
    sending.ensure(server)
    return before


def _point_at(server: Server, data: Path) -> None:
    server.save(data=data.name if data.parent == server.home else str(data))


def go_back(server: Server, folder: Path, *, force: bool) -> Path:
    """Have the server's data be those that a restore or an upgrade left beside them.

    Returns:
        The folder from before, which stays.

    Raises:
        UserError: it is none of these, or nobody has said ``force``.
    """
    folder = folder.resolve()
    if folder.parent != server.data.parent or folder == server.data:
        raise UserError(
            f"{folder} is not beside the data of the embedded server, {server.data}.\n"
            "Give a folder that `marquee db restore` or `marquee db upgrade` has named."
        )
    server_settings.refuse_other_version(folder, server.programs.major())
    _refuse_data(server, force=force)
    with server.locked():
        ran = server.stop_process()
        try:
            return take(server, folder)
        except UserError:
            if ran:
                server.start_process(server.settings["port"])
            raise
