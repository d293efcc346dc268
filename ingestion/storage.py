"""A place that is written to, a folder on a disk or a prefix in a store: whole files or none."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ingestion.errors import UserError
from ingestion.object_store import open_store, safe_line
from ingestion.places import place


class Storage:
    """A place for files of one kind of work.

    Args:
        to: a folder, or a URL of a store (``s3://bucket/prefix``).
        noun: the work, for messages: an export, a backup.
        verb: what cannot be done, for messages: exported to, backed up to.
        private: files made on a disk are for their owner only, and folders list nothing to others.
    """

    def __init__(self, to: str, noun: str, verb: str, *, private: bool = False) -> None:
        found, self._noun, self._verb = place(to), noun, verb
        self._modes = (0o711, 0o600) if private else (0o777, 0o666)
        self.local = isinstance(found, Path)
        if isinstance(found, Path):
            self.root, protocol = str(found.absolute()), "file"
            self.name = str(found)
        else:
            protocol, path = found
            self.root = path.rstrip("/")
            self.name = f"{protocol}://{self.root}"
        self.ended = False
        with self.as_user_error():
            self.store = open_store(protocol, "Writing to")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out of the same folder; a store has no locks."""
        if not self.local:
            yield
            return
        with self.as_user_error():
            Path(self.root).mkdir(self._modes[0], parents=True, exist_ok=True)
            lock = Path(self.root, ".lock").open("w")  # noqa: SIM115
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another {self._noun} to {self.name} is running.\nWait until it has finished."
                ) from error
            yield

    def open(self, path: str) -> IO[bytes]:
        """A new file, to be closed by ``close`` or ``abandon``."""
        if self.ended:
            raise UserError(f"The {self._noun} was interrupted.\nRun this again.")
        full = f"{self.root}/{path}"
        if self.local:
            Path(full).parent.mkdir(self._modes[0], parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            return os.fdopen(os.open(full, flags, self._modes[1]), "wb")
        return self.store.open(full, "wb")

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

    def put(self, path: str, content: bytes) -> None:
        """Write a small file, all or nothing."""
        full = f"{self.root}/{path}"
        if not self.local:
            self.store.pipe_file(full, content)
            return
        with self.open(f"{path}.new") as file:
            file.write(content)
            self.close(file)
        Path(f"{full}.new").replace(full)

    def read(self, path: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self.store.cat_file(f"{self.root}/{path}")

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return self.store.exists(f"{self.root}/{path}")

    def names(self, path: str = "") -> list[str]:
        """Names of what is in a folder; none where there is no such folder."""
        try:
            found = self.store.ls(f"{self.root}/{path}".rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def remove(self, path: str) -> None:
        """Remove a file or folder, as far as possible."""
        with suppress(Exception):  # the next run tries again
            self.store.rm(f"{self.root}/{path}", recursive=True)

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
                f"{self.name} cannot be {self._verb}: {what}.\n"
                f"{remedy}, and run this again; the last {self._noun} is untouched."
            ) from error
