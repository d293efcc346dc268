"""Where a person wants a file read or written: what a path or a URL means, and what it must not."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingestion.errors import UserError

STORES = ("s3", "gs", "az", "hdfs")
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}
_BUCKET = ("bucket", "BUCKET/PREFIX")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)")
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")


def place(given: str) -> Path | tuple[str, str]:
    """A path on this disk, or the scheme of a store and what comes after ``://``.

    ``file:`` URLs are paths. A path in which a colon stands where a scheme has one is written
    ``./name:...``.

    Raises:
        UserError: it is neither.
    """
    if not given.strip():
        raise UserError("The path is empty.\nIs a variable not set? . is the current folder.")
    found = _SCHEME.match(given)
    if not found or not (found[2] or found[1].lower() == "file"):
        return _path(given)
    scheme = found[1].lower()
    if scheme == "file":
        return _path_of_url(given)
    scheme = _ALIASES.get(scheme, scheme)
    if scheme not in STORES:
        raise UserError(
            f"{scheme}:// is no place that is known here.\n"
            "Give a path, a file:// URL, or an s3://, gs://, az:// or hdfs:// URL."
        )
    rest = given[found.end() :]
    bucket = rest.partition("/")[0]
    if len(found[2]) != 2 or not bucket:
        what, form = ("name node", "HOST:PORT/PATH") if scheme == "hdfs" else _BUCKET
        raise UserError(f"{given} names no {what}.\nWrite it as {scheme}://{form}.")
    check_no_credentials(scheme, bucket)
    return scheme, rest


def check_no_credentials(scheme: str, bucket: str) -> None:
    """Refuse a login in a URL.

    Args:
        scheme: one of ``STORES``.
        bucket: what stands between ``://`` and the next ``/``.

    Raises:
        UserError: there is one.
    """
    if scheme == "hdfs" and not re.fullmatch(r"[^:@]+(:\d+)?", bucket):
        raise UserError(  # said without the URL: there may be a secret in it
            "URLs of hdfs:// are HOST:PORT, or a name service, and a path, without credentials.\n"
            "They come from HADOOP_USER_NAME, or from Kerberos' ticket (kinit)."
        )
    if scheme != "hdfs" and re.search("[:@]", bucket):
        raise UserError(
            f"URLs of {scheme}:// are bucket and key, without credentials.\n"
            "They come from the cloud's own places, such as AWS_* in the environment."
        )


def on_disk(given: str | Path, what: str) -> Path:
    """A path on this disk.

    Args:
        given: a path or a ``file:`` URL.
        what: what is meant to be there, for the error.

    Raises:
        UserError: it is a URL of something else.
    """
    found = place(str(given))
    if isinstance(found, Path):
        return found
    raise UserError(f"{what} is on this disk, and {found[0]}:// is not.\nGive a path.")


def _path(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise UserError(f"{given} begins with the name of no user.\nWrite the path out.") from error


def _path_of_url(given: str) -> Path:
    url = urlsplit(given)
    if url.netloc.startswith("~") or not url.path.startswith("/"):
        raise UserError(f"{given} is no whole path.\nWrite file:///WHOLE/PATH, or the path alone.")
    if url.netloc not in ("", "localhost"):
        raise UserError(
            f"{given} is on the machine {url.netloc}.\n"
            "Write file:///PATH, with three slashes, for a path on this one."
        )
    if url.query or url.fragment:
        raise UserError(f"{given} has ? or # in it.\nWrite %3F or %23 for them, or the path alone.")
    path = unquote(url.path, errors="surrogateescape")
    if "\0" in path:
        raise UserError(f"{given} has %00 in it, which no path has.\nGive another path.")
    return Path(path)


def as_name(text: str) -> str:
    """A text as the name of one file or folder, which is different for every text.

    Dots lead elsewhere, some names are devices to Windows, capitals and accents are the same to
    some disks, and readers take ``=``, ``_`` at the beginning and others for marks of their own:
    all these are written as in URLs (``%2e``).
    """
    name = "".join(char if re.fullmatch(r"[a-z0-9_-]", char) else _encoded(char) for char in text)
    if name.startswith(("_", "-")) or _RESERVED.fullmatch(name):
        name = _encoded(name[0]) + name[1:]
    return name


def _encoded(char: str) -> str:
    return "".join(f"%{byte:02x}" for byte in char.encode(errors="surrogateescape"))
