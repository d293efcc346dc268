"""What a file is packed in, layer by layer, down to a stream of what somebody wrote."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from ingestion.errors import UserError

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
}
ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_OLD_WORKBOOK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MAX_LAYERS = 3
_BROKEN = (EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile, zlib.error)


class Unpacked(NamedTuple):
    """What is in a file.

    Attributes:
        stream: its bytes from the beginning.
        name: what it is called in there.
        layers: what it is packed in, from without.
        is_workbook: whether it is one, of Excel or OpenDocument.
    """

    stream: IO[bytes]
    name: str
    layers: tuple[str, ...]
    is_workbook: bool


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[Unpacked]:
    """Open a file and what it is packed in.

    Args:
        path: where it is.
        name: the file as it was given.

    Raises:
        OSError: it cannot be read.
        UserError: it is packed in a way that cannot be read, or holds other than one file.
    """
    layers: list[str] = []
    inner = name.replace("\\", "/").rpartition("/")[2]
    with ExitStack() as stack:
        stream: Any = stack.enter_context(path.open("rb"))
        while True:
            with errors_of(name, layers):
                start = stream.peek(8)[:8]
            kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")
            with errors_of(name, [*layers, kind]):
                archive = stack.enter_context(zipfile.ZipFile(stream)) if kind == "zip" else None
                is_workbook = start == _OLD_WORKBOOK or bool(archive and _is_workbook(archive))
                if is_workbook or not kind:
                    if archive:
                        stream.seek(0)
                    yield Unpacked(stream, inner, tuple(layers), is_workbook)
                    return
                if len(layers) == _MAX_LAYERS:
                    raise UserError(f"{name} is packed more than {_MAX_LAYERS} times.\nUnpack it.")
                if archive:
                    opened, inner = _only_member(archive, name)
                else:
                    opened = _opened(stream, kind)
                    inner = inner[: inner.rfind(".")] if inner.lower().endswith(ENDINGS) else inner
                stream = stack.enter_context(io.BufferedReader(opened))
            layers.append(kind)


@contextmanager
def errors_of(name: str, layers: list[str] | tuple[str, ...]) -> Iterator[None]:
    """Errors of a library that unpacks, in two lines; those of a plain file pass.

    Raises:
        UserError: the file is broken, or packed in a way that the library does not know.
    """
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            f"{name} is packed in a way that is not known here: {error}.\nUnpack it first."
        ) from error
    except _BROKEN as error:
        if not any(layers) or (isinstance(error, OSError) and error.errno):
            raise
        kind = next(layer for layer in reversed(layers) if layer)
        raise UserError(
            f"{name} is not a whole {kind} file: {str(error).rstrip('.')}.\nCopy it again."
        ) from error


def _opened(stream: IO[bytes], kind: str) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if kind == "zstd":
        import pyarrow as pa

        return pa.CompressedInputStream(stream, kind)
    return bz2.BZ2File(stream) if kind == "bzip2" else lzma.LZMAFile(stream)


def _is_workbook(archive: zipfile.ZipFile) -> bool:
    names = archive.namelist()
    if "mimetype" in names:
        return b"opendocument.spreadsheet" in archive.read("mimetype")
    return "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names)


def _only_member(archive: zipfile.ZipFile, name: str) -> tuple[Any, str]:
    """The one file in an archive, and its name; folders and what macOS adds aside."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and "__MACOSX" not in member.filename.split("/")
        and not member.filename.rpartition("/")[2].startswith(("._", ".DS_Store"))
    ]
    if not members:
        raise UserError(f"{name} is an archive without a file in it.\nCheck the path.")
    if len(members) > 1:
        names = ", ".join(member.filename for member in members[:5])
        more = ", ..." if len(members) > 5 else ""
        raise UserError(
            f"{name} holds {len(members)} files: {names}{more}.\n"
            "Unpack it, and give the files, or their folder."
        )
    if members[0].flag_bits & 1:
        raise UserError(f"{name} is encrypted.\nUnpack it with its password, and give the file.")
    return archive.open(members[0]), members[0].filename.rpartition("/")[2]
