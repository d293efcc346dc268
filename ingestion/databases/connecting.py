"""Connections to databases of others, and their errors in two lines without a password."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ingestion.errors import UserError, error_line, install_command

if TYPE_CHECKING:
    import sqlalchemy as sa

TIMEOUT = 15  # seconds that a connection may take
_DRIVERS = {"postgres": "psycopg2", "postgresql": "psycopg2"}
_MYSQL = {"pymysql": "pymysql", "MySQLdb": "mysqldb"}  # module to SQLAlchemy's name


def refuse_without(module: str, what: str) -> None:
    """
    Raises:
        UserError: the module of the extra is not installed.
    """
    if not importlib.util.find_spec(module):
        raise UserError(
            f"{what} needs the package {module}.\nInstall it: {install_command('databases')}"
        )


def connect(url: str) -> sa.Engine:
    """An engine that has connected once.

    Raises:
        UserError: the URL is none, a driver is missing, or the server does not answer.
    """
    refuse_without("sqlalchemy", "Reading a database")
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=_driver(parsed.drivername))
        engine = sa.create_engine(parsed, connect_args=_arguments(parsed))
    except sa.exc.NoSuchModuleError as error:
        raise UserError(
            f"{place_of(url)} is of a kind that SQLAlchemy does not know here.\n"
            "Install its dialect, or check how the URL begins."
        ) from error
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading {place_of(url)} needs the package {error.name}.\n"
            f"Install it: {install_command('databases')}"
        ) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise UserError(
            "The URL of the database cannot be read.\nWrite it as"
            " mysql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in the password."
        ) from error
    with errors_of(url):
        engine.connect().close()
    return engine


def _driver(name: str) -> str:
    if "+" in name:
        return name
    if name in ("mysql", "mariadb"):
        there = [driver for module, driver in _MYSQL.items() if importlib.util.find_spec(module)]
        return f"{name}+{(there or ['pymysql'])[0]}"
    return f"postgresql+{_DRIVERS[name]}" if name in _DRIVERS else name


def _arguments(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() in ("mysql", "mariadb"):
        return {"init_command": "set time_zone = '+00:00'", "connect_timeout": TIMEOUT}
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        return {"connect_timeout": TIMEOUT}
    return {}


def place_of(url: str) -> str:
    """Where a database is: its URL without user, password and options."""
    scheme, _, rest = url.partition("://")
    where = rest.partition("?")[0].partition("#")[0]
    host, slash, path = where.rpartition("@")[2].partition("/")
    return f"{scheme.partition('+')[0]}://{host}{slash}{path}"


@contextmanager
def errors_of(url: str) -> Iterator[None]:
    """What a database or its driver says, in two lines, without the password.

    Raises:
        UserError: that.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{place_of(url)} cannot be read: {safe(error, url)}.\n"
            "Check address, login and rights, and run this again."
        ) from None


def safe(error: BaseException, url: str) -> str:
    """The first line of what an error says, without what is secret in a URL."""
    while cause := error.__cause__ or getattr(error, "orig", None):  # dlt and SQLAlchemy wrap it
        error = cause
    said = error_line(error).rstrip(".")
    for secret in secrets_of(url):
        said = said.replace(secret, "***")
    return re.sub(r"(\w://)[^\s/@]*@", r"\1", said)


def secrets_of(url: str) -> set[str]:
    """The password of a URL and values of its options, in the ways in which they may be spelt."""
    found: set[str] = set()
    try:
        parts = urlsplit(url)
        given = [parts.password or ""]
        given += [pair.partition("=")[2] for pair in parts.query.split("&") if "pass" in pair]
    except ValueError:
        given = [url.partition("://")[2].rpartition("@")[0].partition(":")[2]]
    for text in given:
        plain = unquote(text)
        found |= {text, plain, quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1]}
    return {secret for secret in found if len(secret) > 2}
