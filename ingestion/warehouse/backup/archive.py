"""The archive of the embedded server: its WAL as it is written, and base backups to begin from.

Each data folder writes to an archive of its own, so what goes on after a restore never mixes with
what was there before it. ``server_settings`` says by which settings WAL goes there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ingestion.errors import UserError
from ingestion.warehouse import server_settings
from ingestion.warehouse.backup import sending
from ingestion.warehouse.backup.catalog import CHUNK, STAMP, Backups, new_name
from ingestion.warehouse.backup.clients import client_for, logged_in
from ingestion.warehouse.backup.dump import Made
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.programs import error_line, run_command

WAL = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?")
PARTS = {"base.tar.gz", "pg_wal.tar.gz", "backup_manifest"}
_FAILED = re.compile(r" (?:ERROR|FATAL): +(.*(?:archtemp|archive file|archive_directory).*)")
_TAIL = 64 * 1024  # bytes of the server's log


def turn_on(server: Server, given: str) -> bool:
    """Have a running server send its WAL to a place, and make the first base backup there.

    Returns:
        False when it does that already.

    Raises:
        UserError: nothing can be written there; the server goes on as before.
    """
    place = Backups(given)
    now = place.root if place.local else place.name
    before = server_settings.archive(server.data)
    if before.get("place") == now:
        return False
    _restart(server, begin(server, server.data, place), before)
    base_backup(server)
    return True


def place_of(server: Server) -> str:
    """Where a server's WAL goes; empty where it goes nowhere."""
    return server_settings.archive(server.data).get("place", "")


def turn_off(server: Server) -> bool:
    """Have a running server keep its WAL to itself; False when it does so already."""
    before = server_settings.archive(server.data)
    if before:
        _restart(server, {}, before)
    return bool(before)


def _restart(server: Server, noted: dict[str, str], before: dict[str, str]) -> None:
    port = server.settings["port"]
    with server.locked():
        server.stop_process()
        server_settings.set_archive(server.data, noted)
        try:
            server.start_process(port)
        except UserError:
            server_settings.set_archive(server.data, before)
            server.start_process(port)
            raise
    sending.ensure(server)


def begin(server: Server, data: Path, place: Backups) -> dict[str, str]:
    """Make a new archive in a place, that the server's user can write to.

    Args:
        server: whose archive.
        data: a data folder of it.
        place: where.

    Returns:
        What ``server_settings.set_archive`` takes.
    """
    name = new_name("archive")
    with place.as_user_error():
        if not place.local:
            place.put(f"{name}/begun", b"")
            noted = {"place": place.name, "name": name}
            wal = data.parent / f"out-{name}"
            wal.mkdir(0o700)
        else:
            noted = {"place": place.root, "name": name}
            wal = Path(place.root, name, "wal")
            for folder in (wal.parent.parent, wal.parent):
                folder.mkdir(0o711, parents=True, exist_ok=True)
            wal.mkdir(0o700)
    if account := server.programs.account():
        os.chown(wal, account["user"], account["group"])
        if run_command("test", "-w", wal, account=account).returncode:
            place.remove(name)
            raise UserError(
                f"{place.name} is in a folder that PostgreSQL's user may not enter.\n"
                "Give a folder that it can reach: chmod a+x the ones above it."
            )
    if "\n" in str(wal):
        raise UserError("The place has a line end in its name.\nGive another one.")
    return noted


def base_backup(server: Server, keep: int | None = None) -> Made:
    """Make a base backup of the running server in its archive.

    Args:
        server: whose archive is on.
        keep: only so many of the base backups in that place stay, and the WAL from the oldest on.

    Raises:
        UserError: there is no archive, or it cannot be written to; what is there stays.
    """
    noted = server_settings.archive(server.data)
    if not noted:
        raise UserError(
            "The embedded server has no archive for base backups.\n"
            "Give a place for a dump, or begin an archive: marquee db start --archive PLACE"
        )
    place = Backups(noted["place"])
    if place.local and not Path(place.root, noted["name"]).is_dir():
        raise UserError(
            f"The archive {place.root}/{noted['name']} is not there.\n"
            "Bring its disk back; the server keeps the WAL until then."
        )
    name = f"{noted['name']}/{new_name('base')}"
    with place.locked():
        with place.making(name), tempfile.TemporaryDirectory() as scratch:
            folder = Path(place.root, name) if place.local else Path(scratch, "base")
            facts = _taken(server, folder)
            for file in folder.iterdir():
                facts["files"][file.name] = _kept(place, f"{name}/{file.name}", file)
            place.publish(name, facts)
        with place.as_user_error():
            removed = prune(place, keep, noted["name"])
    return Made(f"{place.name}/{name}", sum(f["bytes"] for f in facts["files"].values()), removed)


def _kept(place: Backups, path: str, file: Path) -> dict[str, Any]:
    """Have a file that was written be in the place for good; its size and sum."""
    with file.open("rb") as written:
        if not place.local:
            return place.write(path, iter(partial(written.read, CHUNK), b""))
        os.fsync(written.fileno())
    return place.sum(path)


def _taken(server: Server, folder: Path) -> dict[str, Any]:
    """Run pg_basebackup and pg_verifybackup; what to note of the result."""
    major = server.programs.major()
    where = (f"--pgdata={folder}", "--format=tar", "--compress=client-gzip:1")
    how = ("--wal-method=stream", "--checkpoint=fast", "--no-password")
    with logged_in(server.target) as env:
        _run("pg_basebackup", major, *where, *how, env=env)
        ended = datetime.now(timezone.utc)
        if more := {path.name for path in folder.iterdir()} - PARTS:
            raise UserError(
                f"The server has tablespaces ({', '.join(sorted(more))}).\n"
                "An archive is of a server without any: move their tables, or make dumps."
            )
        _run("pg_verifybackup", major, "--format=tar", "--no-parse-wal", str(folder), env=env)
    said = json.loads((folder / "backup_manifest").read_text())["WAL-Ranges"][0]
    high, low = (int(part, 16) for part in said["Start-LSN"].split("/"))
    first = f"{said['Timeline']:08X}{high:08X}{low >> 24:08X}"
    return {"kind": "base", "ended_at": ended.isoformat(), "first_wal": first, "files": {}}


def _run(name: str, major: int, *args: str, env: dict[str, str]) -> None:
    command = [client_for(name, major), *args]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(28, "No space left on device")
        raise UserError(f"{name} failed: {error_line(done.stderr)}\nNothing is kept of it.")


def bases(place: Backups, archive: str | None = None) -> list[str]:
    """Whole base backups in a place, as ``archive-.../base-...``, the newest last.

    Args:
        place: where.
        archive: only of this one.
    """
    archives = [archive] if archive else [n for n in place.names() if n.startswith("archive-")]
    found = [f"{name}/{base}" for name in archives for base in place.finished("base", f"{name}/")]
    return sorted(found, key=lambda name: name.partition("/")[2])


def prune(place: Backups, keep: int | None, current: str) -> list[str]:
    """Remove base backups but the ``keep`` newest, and WAL that none of these needs.

    Args:
        place: where.
        keep: how many, of all archives there; None keeps all.
        current: the archive that is written to, which stays.

    Returns:
        Names of what went.
    """
    place.prune("base", None, f"{current}/")  # what was cut short
    if not keep:
        return []
    whole = bases(place)
    gone, kept = whole[:-keep], whole[-keep:]
    for name in gone:
        place.remove(f"{name}/manifest.json")  # first: what is left is not whole
        place.remove(name)
    for archive in {name.partition("/")[0] for name in gone}:
        starts = [place.manifest(n)["first_wal"] for n in kept if n.startswith(f"{archive}/")]
        if not starts and archive != current:
            place.remove(archive)
            continue
        for file in place.names(f"{archive}/wal") if starts else ():
            if WAL.fullmatch(file) and file[8:24] < min(starts)[8:24]:
                place.remove(f"{archive}/wal/{file}")
    return gone


def state(server: Server) -> dict[str, str]:
    """How the archive is doing, as label and value for a person; empty where there is none."""
    noted = server_settings.archive(server.data)
    if not noted:
        return {}
    status = server.data / "pg_wal" / "archive_status"
    waiting = sorted(path.stat().st_mtime for path in status.glob("*.ready"))
    waiting += sending.waiting(server)
    text = noted["place"]
    if "://" not in text:
        if not server_settings.wal_folder(server.data).parent.is_dir():
            text += " (it is not there)"
        elif found := bases(Backups(text), noted["name"]):
            begun = datetime.strptime(found[-1].split("-")[-2], STAMP)
            text += f", last base backup of {begun:%Y-%m-%d %H:%M:%S} UTC"
    if not waiting:
        return {"archive": f"{text}, no WAL waits"}
    since = datetime.fromtimestamp(min(waiting), tz=timezone.utc)
    text += f", {len(waiting)} WAL files wait since {since:%Y-%m-%d %H:%M:%S} UTC"
    if why := sending.problem(server) or _last_failure(server):
        text += f": {why}"
    return {"archive": text}


def _last_failure(server: Server) -> str:
    if not server.log.exists():
        return ""
    with server.log.open("rb") as log:
        log.seek(max(0, server.log.stat().st_size - _TAIL))
        found = _FAILED.findall(log.read().decode(errors="replace"))
    return found[-1] if found else ""


def free_of(folder: Path) -> int:
    """Free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free
