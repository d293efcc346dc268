"""The tables of the schema ``ops``: made by the SQL of a dbt macro, rendered here without dbt.

Loads may come before the first build, and must not wait for dbt.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import role_names, schema_name

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

MACRO = PROJECT_DIR / "macros" / "operations" / "evidence_tables.sql"


def schema(target: Target) -> str:
    """The schema of evidence on a target."""
    return schema_name("ops", target)


def are_there(cursor: Any, folder: str) -> bool:
    """Whether the tables are those of this release, and this login may write to them."""
    return _stand(cursor, folder, "select", "insert", "update")


def may_be_read(cursor: Any, folder: str) -> bool:
    """Whether the tables are those of this release, and this login may read them."""
    return _stand(cursor, folder, "select")


def _stand(cursor: Any, folder: str, *rights: str) -> bool:
    cursor.execute(
        "select bool_and(has_table_privilege(pg_class.oid, held)) from pg_class"
        " inner join pg_namespace on pg_namespace.oid = relnamespace"
        " cross join unnest(%s) as held"
        " where nspname = %s and relname = 'invocations'"
        " and obj_description(pg_class.oid, 'pg_class') = %s"
        " and has_schema_privilege(pg_namespace.oid, 'usage')",
        (list(rights), folder, _release()),
    )
    return bool(cursor.fetchone()[0])


def make(cursor: Any, folder: str) -> None:
    """Make them, or bring those of an earlier release forward, where this login may."""
    from jinja2 import Environment, StrictUndefined

    (body,) = re.findall(r"do \$evidence\$.*\$evidence\$", _text(), re.DOTALL)
    environment = Environment(undefined=StrictUndefined)  # noqa: S701 - SQL, not a web page
    quoted = {
        "ops": folder,
        "reporter": role_names()["reporter"],
        "made_as": _release(),
        "sql_text": _quoted,
    }
    cursor.execute(environment.from_string(body).render(quoted))


@cache
def _text() -> str:
    return MACRO.read_text("utf-8")


def _release() -> str:
    (found,) = re.findall(r'macro evidence_release\(\).*?return\("(.+?)"\)', _text(), re.DOTALL)
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
