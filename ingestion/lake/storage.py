"""Files of the lake: written so that they outlive a power cut, kept as they came, listed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pyiceberg.io.fsspec import FsspecFileIO, FsspecOutputFile

from ingestion.errors import PassingError
from ingestion.lake.settings import RAW, Location
from ingestion.object_store import CHANGED, open_store

_CHUNK = 8 << 20  # bytes
_LONGEST_ENDING = 24  # characters of a name's endings that are kept


class DurableIO(FsspecFileIO):
    """How pyiceberg reads and writes; on this disk a file that is closed is on the disk."""

    def get_fs(self, scheme: str, hostname: str | None = None) -> Any:
        return _hdfs() if scheme == "hdfs" else super().get_fs(scheme, hostname)

    def new_output(self, location: str) -> FsspecOutputFile:
        if location.startswith("file://"):
            return _LocalFile(location, self.get_fs("file"))
        return super().new_output(location)


@cache
def _hdfs() -> Any:
    return open_store("hdfs", "Reading and writing")


class _LocalFile(FsspecOutputFile):
    def create(self, overwrite: bool = False) -> Any:
        path = Path(self.location.removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Synced(io.FileIO(path, "w" if overwrite else "x"))


class _Synced(io.BufferedWriter):
    def close(self) -> None:
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
        super().close()


class Files:
    """All that is below the location, whoever wrote it."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._store: Any = open_store(location.protocol, "Writing to")

    def keep(self, path: Path, name: str, checksum: str) -> str:
        """Copy a file as it came, named by its content; returns its URL.

        Raises:
            PassingError: its content is another one by now.
        """
        kept = self._location.of(f"{RAW}/{checksum}{_endings(name)}")
        target = kept.removeprefix(f"{self._location.protocol}://")
        if self._store.exists(target):
            return kept
        half = f"{target}.part"
        if self._location.protocol == "file":
            Path(half).parent.mkdir(parents=True, exist_ok=True)
        whole = hashlib.sha256()
        with path.open("rb") as source, self._store.open(half, "wb") as out:
            while data := source.read(_CHUNK):
                whole.update(data)
                out.write(data)
            if self._location.protocol == "file":
                out.flush()
                os.fsync(out.fileno())
        if whole.hexdigest() != checksum:
            self._store.rm(half)
            raise PassingError(CHANGED.format(name))
        self._store.mv(half, target)
        return kept

    def below(self, part: str) -> Iterator[tuple[str, float]]:
        """The URL of each file of a folder, and when it was written, in seconds since 1970."""
        root = f"{self._location.path}/{part}"
        if not self._store.exists(root):
            return
        for name, info in self._store.find(root, detail=True).items():
            written = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
            moment = written.timestamp() if hasattr(written, "timestamp") else float(written or 0)
            path = name.removeprefix(f"{self._location.protocol}://")
            yield f"{self._location.protocol}://{path}", moment

    def remove(self, url: str) -> None:
        self._store.rm(url.removeprefix(f"{self._location.protocol}://"))


def _endings(name: str) -> str:
    """The endings of a name, such as ``.csv.gz``, if they are plain."""
    endings = "".join(Path(name).suffixes[-2:]).lower()
    plain = endings.replace(".", "").isascii() and endings.replace(".", "").isalnum()
    return endings if plain and len(endings) <= _LONGEST_ENDING else ""
