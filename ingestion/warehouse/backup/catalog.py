"""Which backups are in a place, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.storage import Storage

MANIFEST = "manifest.json"
MADE_BY = "marquee db backup"
STAMP = "%Y%m%dT%H%M%SZ"
NAME = re.compile(r"(dump|base|archive)-(\d{8}T\d{6}Z)-[0-9a-f]{6}")
ABANDONED = timedelta(days=1)  # in a store, an unfinished backup may be one that is under way
CHUNK = 1024**2  # bytes


def new_name(kind: str) -> str:
    """A name that sorts by time."""
    return f"{kind}-{datetime.now(timezone.utc):{STAMP}}-{secrets.token_hex(3)}"


class Backups(Storage):
    """A folder, or a prefix in a store, with backups in it."""

    def __init__(self, to: str) -> None:
        super().__init__(to, "backup", "backed up to", private=True)

    def write(self, path: str, chunks: Iterable[bytes]) -> dict[str, Any]:
        """Write a file; its size in bytes and its sum."""
        digest, size, file = hashlib.sha256(), 0, self.open(path)
        try:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            self.close(file)
        except BaseException:
            self.abandon(file)
            raise
        return {"bytes": size, "sha256": digest.hexdigest()}

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """What is written of a backup within the block goes again, unless it gets to its end."""
        with self.as_user_error():
            try:
                with interrupts.giving_back(partial(self.give_back, name)):
                    yield
            except BaseException:
                self.remove(name)
                raise

    def give_back(self, name: str) -> None:
        """Remove a backup that was interrupted, and let nothing more be written of it."""
        self.ended = True
        for _ in range(3):  # a file may just have been opened
            self.remove(name)
            time.sleep(0.1)

    def publish(self, name: str, facts: dict[str, Any]) -> None:
        """Write the manifest: from here on the backup is whole."""
        made = {"made_by": MADE_BY, "made_at": datetime.now(timezone.utc).isoformat(), **facts}
        text = json.dumps(made | {"checksum": _sum_of(made)}, indent=2)
        self.put(f"{name}/{MANIFEST}", text.encode())

    def finished(self, kind: str, folder: str = "") -> list[str]:
        """Names of the backups of a kind that have a manifest, the newest last."""
        return [
            name
            for name in self.names(folder)
            if (found := NAME.fullmatch(name))
            and found[1] == kind
            and self.exists(f"{folder}{name}/{MANIFEST}")
        ]

    def manifest(self, name: str) -> dict[str, Any]:
        """What a backup says of itself.

        Raises:
            UserError: the backup was cut short, or is damaged.
        """
        try:
            found = json.loads(self.read(f"{name}/{MANIFEST}"))
        except FileNotFoundError:
            raise UserError(
                f"{self.name}/{name} is no whole backup: it has no {MANIFEST}, which comes last.\n"
                "It was cut short. Restore another one."
            ) from None
        except (ValueError, UnicodeDecodeError):
            found = {}
        stated = found.pop("checksum", None) if isinstance(found, dict) else None
        if not stated or stated != _sum_of(found):
            raise self.damaged(name, f"{MANIFEST} is not as it was written")
        return found

    def verify(self, name: str) -> dict[str, Any]:
        """Read every file of a backup.

        Returns:
            Its manifest.

        Raises:
            UserError: a file is missing, or is not as it was written.
        """
        found = self.manifest(name)
        for file, stated in found["files"].items():
            try:
                if self.sum(f"{name}/{file}") != stated:
                    raise self.damaged(name, f"{file} is not as it was written")
            except FileNotFoundError:
                raise self.damaged(name, f"{file} is not there") from None
        return found

    def sum(self, path: str) -> dict[str, Any]:
        """Size in bytes and sum of a file."""
        digest, size = hashlib.sha256(), 0
        with self.store.open(f"{self.root}/{path}", "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return {"bytes": size, "sha256": digest.hexdigest()}

    def damaged(self, name: str, why: str) -> UserError:
        folder, _, own = name.rpartition("/")
        kind, folder = own.partition("-")[0], f"{folder}/" if folder else ""
        before = [other for other in self.finished(kind, folder) if other < own]
        remedy = "Restore another one"
        if before and kind == "dump":
            remedy += f"; the one before it: marquee db restore {self.name}/{before[-1]}"
        return UserError(f"{self.name}/{name} is damaged: {why}.\n{remedy}.")

    def fetch(self, path: str, folder: Path) -> Path:
        """A file as one on this disk: itself, or a copy in ``folder``."""
        if self.local:
            return Path(self.root, path)
        copy = folder / path.rpartition("/")[2]
        self.store.get_file(f"{self.root}/{path}", str(copy))
        return copy

    def prune(self, kind: str, keep: int | None, folder: str = "") -> list[str]:
        """Remove what was cut short, and whole backups but the ``keep`` newest ones.

        Returns:
            Names of those that were whole.
        """
        whole = self.finished(kind, folder)
        gone = whole[:-keep] if keep else []
        for name in self.names(folder):
            found = NAME.fullmatch(name)
            if not found or found[1] != kind or name in whole:
                continue
            begun = datetime.strptime(found[2], STAMP).replace(tzinfo=timezone.utc)
            if self.local or datetime.now(timezone.utc) - begun > ABANDONED:
                self.remove(f"{folder}{name}")
        for name in gone:
            # the manifest first: what is left of one that is killed here is not whole
            self.remove(f"{folder}{name}/{MANIFEST}")
            self.remove(f"{folder}{name}")
        return gone


@dataclass(frozen=True)
class Found:
    """A backup in a place: a dump, or an archive.

    Attributes:
        place: the folder or prefix that it is in.
        name: its own.
        newest: nobody has named it, it is the newest there.
    """

    place: Backups
    name: str
    newest: bool = False

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


def find(given: str) -> Found:
    """The backup that a path or a URL means: one of that name, else the newest in that place.

    Raises:
        UserError: there is none.
    """
    place = Backups(given)
    parent, _, name = given.rstrip("/").rpartition("/")
    if NAME.fullmatch(name):
        return Found(Backups(parent or "."), name)
    with place.as_user_error():
        archives = [name for name in place.names() if name.startswith("archive-")]
        found = [name for name in archives if place.finished("base", f"{name}/")]
        found = found or place.finished("dump")
        if found:
            return Found(place, found[-1], newest=True)
        begun = [name for name in place.names() if NAME.fullmatch(name)]
    if begun:
        raise UserError(
            f"{place.name} has no whole backup: {begun[-1]} was cut short.\n"
            "Make a new one: marquee db backup"
        )
    raise UserError(
        f"There is no backup in {place.name}.\n"
        "Give the folder or URL that `marquee db backup` was given."
    )


def age_text(made_at: str) -> str:
    """When a backup was made, for a person."""
    with suppress(ValueError):
        return f"{datetime.fromisoformat(made_at):%Y-%m-%d %H:%M:%S} UTC"
    return made_at


def _sum_of(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
