"""HDFS as a file system of fsspec, over hdfs-native, which needs no Java.

Paths begin with the name node, ``HOST:PORT/PATH``, as those of a store begin with a bucket; a name
service of ``hdfs-site.xml`` (``$HADOOP_CONF_DIR``) has no port. Kerberos logs in by its ticket.
"""

from __future__ import annotations

import posixpath
import secrets
from datetime import datetime, timezone
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile
from hdfs_native import Client, WriteOptions

FEW = {"dfs.client.failover.max.attempts": "3"}  # about 2 s; the default takes minutes to give up


class Hdfs(AbstractFileSystem):
    """All name nodes that paths name."""

    protocol = "hdfs"
    root_marker = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._clients: dict[str, Client] = {}

    def at(self, path: str) -> tuple[Client, str]:
        """Who knows a path, and what it is called there.

        Raises:
            OSError: the name node does not answer.
        """
        node, _, rest = self._strip_protocol(path).partition("/")
        if node not in self._clients:
            url = f"hdfs://{node}"
            Client(url, FEW).get_file_info("/")  # a wrong address fails now
            self._clients[node] = Client(url)
        return self._clients[node], f"/{rest}"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        client, there = self.at(path)
        return _info(client.get_file_info(there), self._strip_protocol(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it is there; fsspec's own takes an error for an answer."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        client, there = self.at(path)
        folder = self._strip_protocol(path)
        found = [
            _info(one, folder if one.path == there else f"{folder}/{posixpath.basename(one.path)}")
            for one in client.list_status(there, False)
        ]
        return found if detail else [one["name"] for one in found]

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        client, there = self.at(path)
        client.mkdirs(there, 0o755, create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)
        self.mkdir(path)

    def mv(self, path1: str, path2: str, overwrite: bool = False, **_: Any) -> None:
        """Rename, at once for all who look."""
        client, there = self.at(path1)
        client.rename(there, self.at(path2)[1], overwrite)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        client, there = self.at(path)
        if not client.delete(there, recursive):
            raise FileNotFoundError(path)

    def rm_file(self, path: str) -> None:
        self.rm(path)

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], timezone.utc)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a file, all or nothing: others see it whole, or as it was."""
        half = f"{path}.{secrets.token_hex(4)}.new"
        with self.open(half, "wb") as file:
            file.write(value)
        self.mv(half, path, overwrite=mode == "overwrite")

    def _open(self, path: str, mode: str = "rb", **options: Any) -> _File:
        return _File(self, path, mode, **options)


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        length = min(end, self.size) - start  # more is a panic there
        if length <= 0:
            return b""
        client, there = self.fs.at(self.path)
        with client.read(there) as reader:
            return reader.read_range(start, length)

    def _initiate_upload(self) -> None:
        client, there = self.fs.at(self.path)
        self._writer = client.create(there, WriteOptions(overwrite=True))

    def _upload_chunk(self, final: bool = False) -> bool:
        self._writer.write(self.buffer.getvalue())
        if final:
            self._writer.close()
        return True

    def discard(self) -> None:
        """Write no more of it, and remove what was written."""
        if self.offset is not None:
            self._writer.close()
            self.fs.rm(self.path)
        self.closed = True


def _info(status: Any, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "size": status.length,
        "type": "directory" if status.isdir else "file",
        "mtime": status.modification_time / 1000,
        "etag": f"{status.modification_time} {status.length}",  # the nearest to a version
    }
