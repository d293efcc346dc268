"""Settings of the embedded PostgreSQL follow the version; what the user set wins, and stays.

Each start writes ``marquee.conf`` anew into the data folder. ``postgresql.conf`` includes it at its
top, so what the user writes below, or sets by ALTER SYSTEM, wins, and stays through every upgrade.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ingestion.errors import UserError

FILE = "marquee.conf"
ARCHIVE = "marquee_archive.json"
MEGABYTE = 1024**2
HEAD = f"""\
# Marquee's own settings are in {FILE}, which each start of the server writes anew. What stands
# below comes after them, and wins: settings of your own belong here (or set them by ALTER SYSTEM).
include_if_exists '{FILE}'

"""
_LINE = re.compile(r"^(\w+)\s*=?\s*('(?:[^'\n]|'')*'|[^\s#]+)", re.MULTILINE)
# What versions without marquee.conf wrote into postgresql.conf itself. `shared_buffers` is besides.
_EARLIER = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "50",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def configuration() -> dict[str, str]:
    """Settings for one person's bulk loads; what is not here is PostgreSQL's default."""
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "50",
        "shared_buffers": _shared_buffers(),
        "work_mem": "64MB",
        "maintenance_work_mem": "256MB",
        # no replication: what fills a table made in the same transaction goes to disk once
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def archiving(data: Path) -> dict[str, str]:
    """Settings that send WAL away, if that is noted in the data folder.

    PostgreSQL's own module writes the files: it never overwrites, syncs, and tries again.
    """
    noted = archive(data)
    if not noted:
        return {}
    return {
        "wal_level": "replica",
        "max_wal_senders": "4",
        "archive_mode": "on",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(wal_folder(data)),
        "archive_timeout": "5min",
    }


def archive(data: Path) -> dict[str, str]:
    """Where the WAL of a data folder goes: ``place``, a folder or a URL, and ``name`` of its own
    folder there. Empty where it goes nowhere.
    """
    try:
        return json.loads((data / ARCHIVE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def wal_folder(data: Path) -> Path:
    """The folder that PostgreSQL writes WAL to: of the archive, or, where that is in a store, one
    from which it is sent on.
    """
    noted = archive(data)
    if "://" in noted["place"]:
        return data.parent / f"out-{noted['name']}"
    return Path(noted["place"], noted["name"], "wal")


def set_archive(data: Path, noted: dict[str, str]) -> None:
    """Note where WAL goes; it holds from the next start on."""
    if noted:
        write(data / ARCHIVE, json.dumps(noted, indent=2) + "\n")
    else:
        (data / ARCHIVE).unlink(missing_ok=True)


def refuse_other_version(data: Path, ours: int) -> None:
    """Refuse data of another major version than the programs, before these trip over them.

    Raises:
        UserError: they are older, or newer.
    """
    theirs = int((data / "PG_VERSION").read_text(encoding="ascii").partition(".")[0])
    if theirs < ours:
        raise UserError(
            f"The data in {data} are of PostgreSQL {theirs}; the programs here are {ours}.\n"
            "Bring the data forward, and keep the old ones beside: marquee db upgrade"
        )
    if theirs > ours:
        raise UserError(
            f"The data in {data} are of PostgreSQL {theirs}; the programs here are {ours}.\n"
            "Renew the programs: make setup"
        )


def begin(data: Path) -> None:
    """Take over the ``postgresql.conf`` that initdb has just written."""
    _include(data, lambda name, _: name in configuration())
    renew(data)


def renew(data: Path) -> None:
    """Write ``marquee.conf``; the server must be stopped, or takes it at its next start.

    A data folder of a version that wrote its settings into ``postgresql.conf`` gives those up; what
    its user changed or added there stays.
    """
    text = "# Written anew at each start. Your own settings go into postgresql.conf.\n"
    for name, value in (configuration() | archiving(data)).items():
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        text += f"{name} = '{quoted}'\n"
    path = data / FILE
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        write(path, text)
    _include(data, _was_ours)


def _include(data: Path, ours: Callable[[str, str], bool]) -> None:
    """Have ``postgresql.conf`` include ``marquee.conf``, and comment out what is ours in it."""
    path = data / "postgresql.conf"
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if re.search(rf"^\s*include(_if_exists)?\s*=?\s*'{re.escape(FILE)}'", text, re.MULTILINE):
        return
    seen: set[str] = set()

    def given_up(line: re.Match[str]) -> str:
        name, value = line[1].lower(), line[2]
        first = name not in seen  # a later one is the user's
        seen.add(name)
        bare = value[1:-1].replace("''", "'") if value.startswith("'") else value
        return f"#{line[0]}" if first and ours(name, bare) else line[0]

    write(path, HEAD + _LINE.sub(given_up, text))


def _was_ours(name: str, value: str) -> bool:
    if name == "shared_buffers":  # of this machine; of one with less or more memory
        return value in {_shared_buffers(), "128MB", "1024MB"}
    return _EARLIER.get(name) == value


def _shared_buffers() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # a container's share of it
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return f"{min(max(memory // 8 // MEGABYTE, 128), 1024)}MB"


def write(path: Path, text: str) -> None:
    """Write a file, all or nothing, for the owner of its folder: the server's user."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    scratch.replace(path)
