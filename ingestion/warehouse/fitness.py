"""Whether a database can be the warehouse: asked before anything lands there."""

from __future__ import annotations

from typing import Any

from ingestion.errors import UserError
from ingestion.warehouse.target import Target

OLDEST_SERVER = 14


def problem(cursor: Any, target: Target) -> tuple[str, str] | None:
    """What keeps raw data from landing in this database, and what to do; None if nothing does.

    In another encoding than UTF8 letters would be lost or, worse, be written as others.
    """
    cursor.execute(
        "select current_setting('server_version'),"
        " current_setting('server_version_num')::int / 10000,"
        " current_setting('server_encoding'), pg_is_in_recovery(),"
        " current_setting('transaction_read_only') = 'on'"
    )
    version, major, encoding, standby, read_only = cursor.fetchone()
    if major < OLDEST_SERVER:
        remedy = f"Use PostgreSQL {OLDEST_SERVER} or newer, or the embedded one."
        return f"PostgreSQL {version} is too old", remedy
    if encoding != "UTF8":
        where = f"-h {target.host} -p {target.port} -U {target.user}"
        remedy = f"createdb {where} -E UTF8 -l C.UTF-8 -T template0 {target.dbname}_utf8"
        return (
            f"the database {target.dbname} is in {encoding}, which cannot hold every letter",
            f"Make one in UTF8, and name that one in profiles.yml or PGDATABASE: {remedy}",
        )
    if standby:
        return "it is a standby, which can only be read", "Name its primary in profiles.yml."
    if read_only:
        return (
            f"default_transaction_read_only is on for {target.user}, so nothing can be written",
            f"Switch it off: alter role {target.user} set default_transaction_read_only = off;",
        )
    return None


def refuse_unfit(connection: Any, target: Target) -> None:
    """Refuse a database that cannot be the warehouse.

    Raises:
        UserError: it cannot; says why and what to do.
    """
    with connection.cursor() as cursor:
        found = problem(cursor, target)
    connection.rollback()
    if found:
        what, remedy = found
        raise UserError(f"Nothing can land at {target.place}: {what}.\n{remedy}")
