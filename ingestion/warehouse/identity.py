"""Whose the state is: a checkout that was renamed keeps its warehouse, a copy gets its own.

``server.json`` notes the state folder that it was made in. Where that is another one by now, the
checkout has been renamed (the noted one is gone, or is this one by another name), or it is a copy.
"""

from __future__ import annotations

import json
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse.paths import PROJECT_DIR

if TYPE_CHECKING:
    from ingestion.warehouse.embedded import Server


def mark(server: Server) -> dict[str, str | int]:
    """What to note of a state folder and its data."""
    inode = server.data.stat().st_ino if server.data.exists() else 0
    return {"home": str(server.home), "machine": _machine(), "inode": inode}


def foreign(server: Server) -> bool:
    """Whether the state is another checkout's, of which this one is a copy."""
    noted = server.settings
    if not noted or noted.get("home") == str(server.home):
        return False
    if "home" not in noted:  # of an earlier version: known by its place only
        elsewhere = server.data.parent not in {server.home, server.outside}
        return elsewhere and owner_nearby(server.data, server.home) is not None
    if server.data.exists() and server.data.parent == server.home:
        if server.data.stat().st_ino == noted.get("inode"):
            return False
        if noted.get("machine") != _machine():
            return True
    return (Path(noted["home"]) / "server.json").exists()


def settle(server: Server) -> bool:
    """Have the state belong to this folder: at once after a renaming, in a copy if that is safe.

    Returns:
        True when its port or its data have another place now.

    Raises:
        UserError: this is a copy, and its data are not its own or not whole.
    """
    noted = server.settings
    if not noted or noted.get("home") == str(server.home):
        return False
    if not foreign(server):
        return server.adopt()
    original = noted.get("home") or str(owner_nearby(server.data, server.home))
    if server.data.parent == server.home and server.shut_down_cleanly:
        port = server.adopt_copy(noted["port"])
        echo(
            f"{server.home} is a copy of {original}: its server has port {port} from now on.",
            err=True,
        )
        return True
    why = "whose data it would work on"
    if server.data.parent == server.home:
        why = "made while the server of that ran, so its data are not whole"
    raise UserError(
        f"{server.home} is a copy of {original}, {why}.\n"
        "Begin anew here, where nothing of that one is touched: marquee db reset"
    )


def refuse_borrowed_programs() -> None:
    """Refuse to be the program of a copied ``.venv``, which works on the original.

    Raises:
        UserError: it is one.
    """
    script = Path(sys.argv[0]).absolute()
    folder = script.parent.parent.parent
    if script.parent.name != "bin" or not (folder / "dbt_project.yml").exists():
        return
    with suppress(OSError):
        if not folder.samefile(PROJECT_DIR):
            raise UserError(
                f"The programs of {folder} are those of {PROJECT_DIR}, of which it is a copy.\n"
                f"Make its own: make -C '{folder}' setup"
            )


def owner_nearby(data: Path, home: Path) -> Path | None:
    """A state folder beside this one that has these data, as it was renamed."""
    for file in home.parent.parent.glob(f"*/{home.name}/server.json"):
        with suppress(OSError, ValueError):
            if file.parent == home:
                continue
            if json.loads(file.read_text(encoding="utf-8")).get("data") == str(data):
                return file.parent
    return None


def _machine() -> str:
    with suppress(OSError):
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or platform.node()
    return platform.node()
