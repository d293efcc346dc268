"""The file profiles.yml: written from the example, kept up to date, removed with the server."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ingestion.errors import UserError
from ingestion.warehouse.embedded import Login, Server
from ingestion.warehouse.paths import EXAMPLE, PROJECT_DIR, writable, write_private
from ingestion.warehouse.target import profiles_path

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


# The values of profiles.yml that are filled in; the first of each is the default target's.
_PORT = re.compile(r"(?<=env_var\('PGPORT', ')\d*(?='\))")
_USER = re.compile(r"(?<=env_var\('PGUSER', ')[^']*(?='\))")
_PASSWORD = re.compile(r"(?<=env_var\('PGPASSWORD', ')[^']*(?='\))")


def write_profiles(server: Server, path: Path | None = None) -> bool:
    """Write ``profiles.yml`` (mode 0600) from the example, with the server's port and login.

    The login is the transformer's, or the superuser's as long as there are no roles. A profile that
    exists is left alone, unless it has a password of this server: then its port and, where it is
    the superuser's, its login are brought up to date.

    Returns:
        True when it was written or changed.
    """
    path = path or profiles_path()
    target = server.target
    with suppress(UserError):
        target = server.login("transformer")
    wanted = Login(target.port, target.user, target.password)
    if path.exists() and not is_blank(path):
        known = profiles_login(path)
        if not known or known.password not in server.passwords:
            return False
        if not known.user:  # its user was written by hand
            wanted = known._replace(port=target.port)
        if known == wanted:
            return False
        text = path.read_text(encoding="utf-8")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (PROJECT_DIR / "profiles.yml.example").read_text(encoding="utf-8")
    text = _PASSWORD.sub(wanted.password, text, count=1)
    text = _USER.sub(wanted.user, text, count=1)
    write_private(path.resolve(), _PORT.sub(str(wanted.port), text, count=1))
    return True


def remove_profiles(path: Path) -> None:
    """Remove a profiles.yml that ``write_profiles`` wrote and nobody has edited."""
    example = (PROJECT_DIR / "profiles.yml.example").read_text(encoding="utf-8")
    if profiles_login(path) and _without_values(
        path.read_text(encoding="utf-8")
    ) == _without_values(example):
        path.unlink()


def _without_values(profile: str) -> str:
    for value in (_PORT, _USER, _PASSWORD):
        profile = value.sub("", profile)
    return profile


def profiles_login(path: Path) -> Login | None:
    """The login in a profiles.yml that ``write_profiles`` wrote; None for any other."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8")
        port, user, password = (value.search(text) for value in (_PORT, _USER, _PASSWORD))
        if port and password and re.fullmatch(r"[\w-]{32}", password[0]):
            return Login(int(port[0]), user[0] if user else "", password[0])
    return None
