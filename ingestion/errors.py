"""The one kind of error that a user is meant to see, and a remedy that several of them name."""

from __future__ import annotations

import errno
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from ingestion.terminal import echo, lines_are_json, printable

PASSING: Final = 75  # exit code EX_TEMPFAIL of sysexits.h: the same command may succeed later


class UserError(click.ClickException):
    """Something the user can correct: one or two lines that say what is wrong and what to do.

    Click prints it as ``Error: ...`` on standard error, without a traceback, and exits with code 1;
    or with 75 where what caused it passes by itself. What it quotes of others is printed safely.
    """

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return PASSING if is_passing(self) else 1

    def format_message(self) -> str:
        return printable(self.message)

    def show(self, file: Any = None, *, code: int | None = None) -> None:  # noqa: ARG002
        facts = {"exit_code": code or self.exit_code}
        said = self.message if lines_are_json() else f"Error: {self.message}"
        echo(said, err=True, level="error", event="failed", facts=facts)


class PassingError(UserError):
    """What passes by itself: somebody else is at work there, or a server does not answer."""


_NETWORK = {
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT),
    *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
}
# what connections, drivers and HTTP clients call it, whichever library they are of
_NAMES = re.compile(
    r"Connect(ion)?(Error|TimeoutError|Timeout|Refused|Reset|Closed|Failure)|ReadTimeout(Error)?"
    r"|(Network|ServerSelection|Server|Pool)?Timeout(Error)?|AutoReconnect|MaxRetryError"
    r"|EndpointConnectionError|NewConnectionError|ProtocolError|ChunkedEncodingError"
    r"|FailedToConnectError|ClientConnectorError|NotPrimaryError"
)
_NEVER = re.compile(r"(SSL|Certificate|Proxy)\w*Error")  # are kinds of these, and stay
_DRIVERS = ("psycopg2", "adbc_driver_manager", "dbt", "dbt_common", "sqlalchemy", "pymysql")
_SAID = re.compile(
    r"connection refused|timeout expired|timed? ?out|could not receive data|closed the connection"
    r"|connection (already |has been )?closed|connection reset|broken pipe|no connection to the"
    r"|terminating connection|recovery mode|(starting|shutting) (up|down)|SSL SYSCALL"
    r"|too many (clients|connections)|connection slots|no route to host|network is unreachable"
    r"|temporary failure in name resolution|deadlock detected|could not serialize"
    r"|lost connection to|can't connect to|lock timeout|gone away|not yet accepting connections",
    re.IGNORECASE,
)
_STATES = re.compile(r"08...|53300|57P0[1235]|40001|40P01|55P03")  # of PostgreSQL
_FULL = re.compile(r"No space left on device|[Dd]isk .*full")
_RETRIED = {408, 425, 429, 500, 502, 503, 504}  # of HTTP


def is_passing(error: BaseException) -> bool:
    """Whether an error passes by itself: busy, a server that is away, a network that is slow."""
    causes = list(_causes(error))
    if any(_FULL.search(str(cause)) for cause in causes):
        return False
    return any(isinstance(cause, PassingError) or _is_of_network(cause) for cause in causes)


def may_pass(said: str) -> bool:
    """The same of what a database or its driver has said; names that it quotes do not count."""
    plain = re.sub('"[^"]*"', "", said)
    return _SAID.search(plain) is not None and not _FULL.search(plain)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        cause = todo.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [cause.__cause__, cause.__context__, getattr(cause, "orig", None)]


def _is_of_network(error: BaseException) -> bool:
    kind, room = type(error).__name__, type(error).__module__.partition(".")[0]
    if isinstance(error, UserError) or _NEVER.fullmatch(kind):
        return False
    if isinstance(error, OSError) and error.errno in _NETWORK:
        return True
    if isinstance(error, ConnectionError | TimeoutError) or _NAMES.fullmatch(kind):
        return room not in _DRIVERS or may_pass(str(error))
    state = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    if isinstance(state, str) and re.fullmatch("(?!00000)[0-9A-Z]{5}", state):
        return _STATES.fullmatch(state) is not None  # which says more than words do
    if room in _DRIVERS and not kind.endswith(("DataError", "ProgrammingError")):
        return may_pass(str(error))
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of S3
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(response, "status_code", response) in _RETRIED


def error_line(error: BaseException) -> str:
    """What an error says of itself, in one line; where it says nothing, what it is and whence."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    where = ""
    if frames := traceback.extract_tb(error.__traceback__):
        last = frames[-1]
        where = f", in {last.name} ({Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__} without a word{where}"


def install_command(extra: str) -> str:
    """What adds an extra of pyproject.toml to this environment, which has no pip if uv made it."""
    if importlib.util.find_spec("pip"):
        return f"{sys.executable} -m pip install -e '.[{extra}]'"
    return f"uv pip install --python {sys.executable} -e '.[{extra}]'"
