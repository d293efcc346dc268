"""Where an export goes, a folder or a prefix in a store, and which exports are there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.object_store import open_store, safe_line
from ingestion.places import place

if TYPE_CHECKING:
    pass


MANIFEST = "manifest.json"
LATEST = "latest"
MADE_BY = "marquee export marts"
STAMP = "%Y%m%dT%H%M%SZ"
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
ABANDONED = timedelta(days=1)  # in a store, an unfinished export may be one that is under way


class Place:
    """Where the files go: a folder on a disk, or a prefix in a store."""

    def __init__(self, to: str) -> None:
        found, self._ended = place(to), False
        self.local = isinstance(found, Path)
        if isinstance(found, Path):
            self.root, protocol = str(found.absolute()), "file"
            self.name = str(found)
        else:
            protocol, path = found
            self.root = path.rstrip("/")
            self.name = f"{protocol}://{self.root}"
        with self.as_user_error():
            self._store = open_store(protocol, "Writing to")

    # Reading and writing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other exports to the same folder out; a store has no locks."""
        if not self.local:
            yield
            return
        with self.as_user_error():
            Path(self.root).mkdir(parents=True, exist_ok=True)
            lock = Path(self.root, ".lock").open("w")  # noqa: SIM115
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another export to {self.name} is running.\nWait until it has finished."
                ) from error
            yield

    def open(self, path: str) -> IO[bytes]:
        """A new file, to be closed by ``close`` or ``abandon``."""
        if self._ended:
            raise UserError("The export was interrupted.\nRun this again.")
        full = f"{self.root}/{path}"
        if self.local:
            Path(full).parent.mkdir(parents=True, exist_ok=True)
            return Path(full).open("wb")
        return self._store.open(full, "wb")

    def close(self, file: IO[bytes]) -> None:
        """Have it on the disk, or in the store, before anything names it."""
        if self.local:
            file.flush()
            os.fsync(file.fileno())
        file.close()

    def abandon(self, file: Any) -> None:
        """Close it, whatever happened to it."""
        with suppress(Exception):
            # what has been sent of it to a store is discarded there
            file.close() if self.local else file.discard()

    def publish(self, version: str, manifest: dict) -> None:
        """Make an export the last one: from here on readers find it."""
        text = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
        with self.as_user_error():
            self._put(f"{version}/{MANIFEST}", text)
            self._put(MANIFEST, text)
            self._point_at(version)

    def _put(self, path: str, content: bytes) -> None:
        """Write a small file, all or nothing."""
        full = f"{self.root}/{path}"
        if not self.local:
            self._store.pipe_file(full, content)
            return
        with self.open(f"{path}.new") as file:
            file.write(content)
            self.close(file)
        Path(f"{full}.new").replace(full)

    def _point_at(self, version: str) -> None:
        if self.local:
            fresh = Path(self.root, f".{LATEST}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(version)
            fresh.replace(Path(self.root, LATEST))

    # What is there

    def tidy(self) -> None:
        """Remove what earlier exports left: all but the last whole one.

        Raises:
            UserError: the folder is not one of exports.
        """
        with self.as_user_error():
            manifest = self._last()
            if manifest:
                self._point_at(manifest["version"])
            for version in self._versions():
                if version == (manifest or {}).get("version"):
                    continue
                begun = datetime.strptime(version.partition("-")[0], STAMP)
                age = datetime.now(timezone.utc) - begun.replace(tzinfo=timezone.utc)
                whole = self._store.exists(f"{self.root}/{version}/{MANIFEST}")
                if self.local or whole or age > ABANDONED:
                    self.remove(version)

    def remove(self, version: str) -> None:
        """Remove an export, as far as possible."""
        with suppress(Exception):  # the next export tries again
            self._store.rm(f"{self.root}/{version}", recursive=True)

    def give_back(self, version: str) -> None:
        """Remove an export that was interrupted, and let nothing more be written of it."""
        self._ended = True
        for _ in range(3):  # a file may just have been opened
            self.remove(version)
            time.sleep(0.1)

    def _last(self) -> dict | None:
        """The manifest of the last whole export."""
        try:
            found = json.loads(self._store.cat_file(f"{self.root}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        known = isinstance(found, dict) and found.get("made_by") == MADE_BY
        if not known or not VERSION.fullmatch(str(found.get("version"))):
            raise UserError(
                f"{self.name} has a {MANIFEST} of something else.\nExport to another place."
            )
        return found

    def _versions(self) -> list[str]:
        try:
            names = self._store.ls(self.root, detail=False)
        except FileNotFoundError:
            return []
        found = (name.rstrip("/").rpartition("/")[2] for name in names)
        return [name for name in found if VERSION.fullmatch(name)]

    @contextmanager
    def as_user_error(self) -> Iterator[None]:
        """What goes wrong when writing, in two lines, whichever library raises it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                what, remedy = "the disk is full", "Free some space there"
            elif self.local:
                what = getattr(error, "strerror", None) or safe_line(error)
                remedy = "Choose a folder that you may write to"
            else:
                what, remedy = safe_line(error), "Check bucket, credentials and endpoint"
            raise UserError(
                f"{self.name} cannot be exported to: {what}.\n"
                f"{remedy}, and run this again; the last export is untouched."
            ) from error
