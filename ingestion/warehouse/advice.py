"""What to do about what PostgreSQL refuses: the right that is missing, the reason it went away."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import psycopg2
from psycopg2.extensions import parse_dsn

from ingestion.errors import UserError
from ingestion.warehouse.state import ServerState

_LATELY = timedelta(minutes=2)
_TAIL = 64 * 1024  # bytes of the server's log
_FULL = "No space left on device"


def on_privilege(error: BaseException) -> str:
    """Which right is missing, and who can give it; for an error of SQLSTATE 42501."""
    said, user = str(error), _user(error)
    owner, theirs = "As its owner or a superuser:", "It belongs to another role. "
    if match := re.search(r"must be owner of (?:materialized )?(\w+) (\S+)", said):
        kind, name = match.groups()
        kind = "table" if kind == "relation" else kind
        return f"{theirs}{owner} alter {kind} {name} owner to {user};"
    match = re.search(r"permission denied for (?:materialized )?(\w+) (\S+)", said)
    kind, name = match.groups() if match else ("", "")
    if kind == "database":
        return f"{owner} grant create on database {name} to {user};"
    if kind == "schema":
        return f"{theirs}{owner} grant usage, create on schema {name} to {user};"
    if kind in {"table", "view", "relation"}:
        return f"{theirs}{owner} grant all on {name} to {user};"
    if match:
        return f"{owner} grant all on {kind} {name} to {user};"
    return f"Log in as a role that may, or have a superuser give {user} that right."


def on_loss() -> str | None:
    """Why the embedded server went away, if that is the warehouse and its log or disk tell."""
    from ingestion.warehouse import access

    embedded = None
    with suppress(UserError):
        embedded = access.chosen(settled=False)
    if not embedded or not embedded.initialised:
        return None
    lately = _lately(embedded)
    again = "Free some space there, then run this again."
    if _FULL in lately:
        return f"The disk of the embedded PostgreSQL is full: {embedded.data}\n{again}"
    if match := re.search(r"was terminated by signal (\d+)", lately):
        return (
            f"A process of the embedded PostgreSQL was killed (signal {match[1]}), as happens when"
            f" memory runs out.\nSee {embedded.log}, then run this again."
        )
    if not embedded.running:
        stopped = "received fast shutdown request" in lately or "immediate shutdown" in lately
        how = "was stopped" if stopped else "was killed"
        return f"The embedded PostgreSQL {how} meanwhile.\nRun this again: that starts it."
    return None


def is_loss(error: BaseException) -> bool:
    """Whether an error is that of a connection which is gone."""
    lost = "closed the connection|terminating connection|connection already closed|recovery mode"
    refused = "Connection refused|no connection to the server|SSL SYSCALL|could not receive data"
    return re.search(f"{lost}|{refused}|{_FULL}", str(error)) is not None


def _user(error: BaseException) -> str:
    with suppress(AttributeError, KeyError, psycopg2.Error):
        cursor = error.cursor  # type: ignore[attr-defined]
        return parse_dsn(cursor.connection.dsn)["user"]  # also once it is closed
    return "this login"


def _lately(embedded: ServerState) -> str:
    """What the server's log says of the last minutes, PostgreSQL's times being UTC."""
    if not embedded.log.exists():
        return ""
    with embedded.log.open("rb") as log:
        log.seek(max(0, embedded.log.stat().st_size - _TAIL))
        lines = log.read().decode(errors="replace").splitlines()
    since = f"{datetime.now(timezone.utc) - _LATELY:%Y-%m-%d %H:%M:%S}"
    return "\n".join(line for line in lines if line[:19] >= since or not line[:1].isdigit())
