"""What libpq's environment variables say, for programs that do not ask libpq."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

from ingestion.errors import UserError
from ingestion.warehouse.paths import home

# Those that say where a server is. Who names none of them means the default server.
_PLACE = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")
_OF_SERVICE = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "passfile": "PGPASSFILE",
}


def naming() -> list[str]:
    """The variables that name a server, those that are set."""
    return [name for name in _PLACE if os.environ.get(name)]


def settle() -> None:
    """Write what libpq alone would know into the variables that dbt's profile reads.

    A service (PGSERVICE) becomes the variables it stands for; it comes first, as in libpq.

    Raises:
        UserError: there is no such service.
    """
    for name in [*_OF_SERVICE.values(), "PGSERVICE"]:
        if os.environ.get(name) == "":
            del os.environ[name]  # libpq takes an empty one for one that is not set
    if service := os.environ.get("PGSERVICE"):
        for key, value in _service(service).items():
            if key in _OF_SERVICE:
                os.environ[_OF_SERVICE[key]] = value
    if address := os.environ.get("PGHOSTADDR"):
        os.environ.setdefault("PGHOST", address)


def _service(name: str) -> dict[str, str]:
    asked = []
    for file in _service_files():
        asked.append(str(file))
        parser = configparser.ConfigParser(
            delimiters="=", comment_prefixes="#", interpolation=None, strict=False
        )
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, configparser.Error) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{file}, for PGSERVICE={name}, cannot be read: {first}") from error
        if parser.has_section(name):
            return dict(parser[name])
    raise UserError(
        f"PGSERVICE={name} is in no service file ({', '.join(asked) or 'there is none'}).\n"
        "Add it there, or set PGHOST, PGPORT, PGUSER and PGDATABASE instead."
    )


def _service_files() -> list[Path]:
    if told := os.environ.get("PGSERVICEFILE"):
        return [Path(told)]
    user_home = home()
    files = [user_home / ".pg_service.conf"] if user_home else []
    if folder := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(folder) / "pg_service.conf")
    return files
