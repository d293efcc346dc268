"""A profiles.yml for servers that the environment names: the example as it is, and marked."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ingestion.paths import EXAMPLE, writable

_MARK = """\
# Written for the server that PGHOST and the like name. Where they are not set, the embedded server
# is taken, and its port and login are filled in. To stay with a server, write its address below.
"""


def write_blank(path: Path) -> None:
    """Write the example, so that dbt, too, finds the server that the environment names."""
    with suppress(OSError):  # not needed to land: dbt itself says that it needs one
        path.parent.mkdir(parents=True, exist_ok=True)
    if writable(path.parent):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(_MARK + EXAMPLE.read_text(encoding="utf-8"))


def is_blank(path: Path) -> bool:
    """Whether ``write_blank`` wrote this, and no address has been written into it since."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        return text.startswith(_MARK) and _addresses(text) == _addresses(
            EXAMPLE.read_text(encoding="utf-8")
        )
    return False


def _addresses(text: str) -> list[str]:
    keys = "target|type|host|port|user|password|pass|dbname|database"
    return re.findall(rf"^ *(?:{keys}):.*$", text, re.MULTILINE)
