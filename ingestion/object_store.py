"""Object stores (S3, Google Cloud Storage, Azure) and HDFS: opened, asked, errors in two lines."""

from __future__ import annotations

import errno
import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ingestion.errors import PassingError, UserError, install_command

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHANGED = "{} was changed while it was read.\nRun this again."
STORES = {  # beginning of a URL: package that reads it
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "hdfs": "hdfs-native",
}


def objects_at(store: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
    """What is at a path, or matches it as a glob."""
    try:
        info = store.info(path)
    except FileNotFoundError:
        return store.glob(path, detail=True) if glob.has_magic(path) else {}
    return {info["name"]: info}


def open_store(protocol: str, verb: str = "Reading") -> AbstractFileSystem:
    """The file system of fsspec for a protocol, without caches: what it says is true now.

    Args:
        protocol: a key of ``STORES``, or ``file``.
        verb: what it is wanted for, for the error.

    Raises:
        UserError: the package that it needs is not installed.
    """
    try:
        kind = _kind(protocol)
    except ImportError as error:
        raise UserError(
            f"{verb} {protocol}:// needs the package {STORES[protocol]}.\n"
            f"Install it: {install_command(protocol)}"
        ) from error
    return kind(use_listings_cache=False, skip_instance_cache=True)


def _kind(protocol: str) -> type[AbstractFileSystem]:
    import fsspec

    if protocol != "hdfs":
        return fsspec.get_filesystem_class(protocol)
    from ingestion.hdfs import Hdfs  # fsspec's own wants Hadoop on this machine

    return Hdfs


def etag_of(info: dict[str, Any]) -> str | None:
    """What a store calls the version of an object, if it says."""
    tag = info.get("ETag") or info.get("etag")
    return tag and str(tag).strip('"')


@contextmanager
def as_user_error(url: str) -> Iterator[None]:
    """Errors of an object store in two lines, whichever library raises them."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"There is no {url}.\nCheck the URL.") from error
    except PermissionError as error:
        raise UserError(
            f"{url} may not be read: {safe_line(error)}.\n"
            "Check the credentials that are set, and what they allow."
        ) from error
    except Exception as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC:
            raise
        if number == errno.EBUSY:  # what fsspec says of a version that is no longer there
            raise PassingError(CHANGED.format(url)) from error
        raise UserError(
            f"{url} cannot be read: {safe_line(error)}.\n"
            "Check the network, the endpoint and the credentials, and run this again."
        ) from error


def safe_line(error: Exception) -> str:
    """The first line of what a library says, without queries of URLs: tokens may be in them."""
    said = re.sub(r"(\w://[^\s?'\"]*)\?[^\s'\"]*", r"\1", str(error)).strip()
    return (said.splitlines() or [type(error).__name__])[0].rstrip(".")
