"""Which files of a folder, or below a prefix of a store, are transactions, and which are not."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from pathlib import Path

from ingestion.errors import UserError
from ingestion.sources.transactions.settings import PATTERNS

_NAMED = 3  # of what is left out


def files_below(folder: Path) -> list[str]:
    """All files of a folder and of the folders in it, sorted; a loop of links is walked once.

    Raises:
        UserError: a folder cannot be read.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += (os.path.join(place, name) for name in names)  # noqa: PTH118
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}.\nCheck it.") from error


def meant(paths: Iterable[str], above: str) -> tuple[list[str], list[str]]:
    """Those files that are transactions by their names, and sentences about the others.

    Files and folders that begin with a point are hidden or unfinished, and folders that begin with
    a line (``_delta_log``, ``_temporary``) are a program's own.

    Args:
        paths: of files, with ``/`` or the separator of this machine.
        above: the folder or the prefix that was given.
    """
    found, others = [], []
    keys: dict[str, None] = {}
    for path in paths:
        *folders, name = os.path.relpath(path, above).replace(os.sep, "/").split("/")
        is_hidden = name.startswith(".") or any(part.startswith((".", "_")) for part in folders)
        if is_hidden or not any(fnmatch.fnmatchcase(name.lower(), kind) for kind in PATTERNS):
            others.append("/".join([*folders, name]))
            continue
        found.append(path)
        keys |= dict.fromkeys(part.partition("=")[0] for part in folders if "=" in part[1:])
    notes = []
    if others:
        named = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else ".")
        what = "1 file is" if len(others) == 1 else f"{len(others):,} files are"
        notes.append(f"{above}: {what} hidden or of another kind, and left out: {named}")
    if keys:
        notes.append(
            f"{above}: what folders are named for does not land: {', '.join(keys)}. If no column"
            " of the files says it, a mapping can (constant)."
        )
    return found, notes
