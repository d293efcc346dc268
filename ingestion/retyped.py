"""Columns of raw tables that become text, though views read them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql

from ingestion.errors import UserError

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

LOCK_SECONDS = 30

# The views that read a column, directly or through others: how deep, and what it takes to make each
# of them again. A view's statistics, rules and triggers of its own are not kept: dbt makes none.
_VIEWS = """
    with recursive readers as (
        select rules.ev_class as oid, 1 as depth
        from pg_depend as depends
        inner join pg_rewrite as rules on rules.oid = depends.objid
        inner join pg_attribute as columns
            on columns.attrelid = depends.refobjid and columns.attnum = depends.refobjsubid
        where depends.classid = 'pg_rewrite'::regclass
        and depends.refclassid = 'pg_class'::regclass
        and depends.refobjid = %(table)s::regclass and columns.attname = %(column)s
        union
        select rules.ev_class, readers.depth + 1
        from readers
        inner join pg_depend as depends on depends.refobjid = readers.oid
        inner join pg_rewrite as rules on rules.oid = depends.objid
        where depends.classid = 'pg_rewrite'::regclass
        and depends.refclassid = 'pg_class'::regclass and rules.ev_class <> readers.oid
    ),
    deepest as (select oid, max(depth) as depth from readers group by oid)
    select
        classes.oid::regclass::text as name,
        classes.relkind = 'v' as is_view,
        case when classes.relkind = 'v' then pg_get_viewdef(classes.oid) end as definition,
        array_to_string(classes.reloptions, ', ') as options,
        pg_get_userbyid(classes.relowner) as owner,
        (
            select array_agg(format(
                'grant %%s on %%s to %%s%%s', acl.privilege_type, classes.oid::regclass,
                case when acl.grantee = 0 then 'public' else acl.grantee::regrole::text end,
                case when acl.is_grantable then ' with grant option' else '' end
            ))
            from aclexplode(classes.relacl) as acl where acl.grantee <> classes.relowner
        ) as grants,
        (
            select array_agg(format(
                'comment on %%s is %%L',
                case when comments.objsubid = 0 then format('view %%s', classes.oid::regclass)
                else format('column %%s.%%I', classes.oid::regclass, columns.attname) end,
                comments.description
            ))
            from pg_description as comments
            left join pg_attribute as columns
                on columns.attrelid = comments.objoid and columns.attnum = comments.objsubid
            where comments.objoid = classes.oid and comments.classoid = 'pg_class'::regclass
        ) as comments
    from deepest inner join pg_class as classes on classes.oid = deepest.oid
    order by deepest.depth
"""


def make_text(target: Target, columns: list[tuple[str, str, str]]) -> list[str]:
    """Make columns text; what they hold stays, and so do the views that read them.

    Args:
        target: the warehouse, as a login that may drop these views.
        columns: schema, table and column of each.

    Returns:
        The columns, as ``schema.table.column``.

    Raises:
        UserError: something else than a view reads a column, the tables are in use, or the login
            may not do it. Nothing is changed then.
    """
    for column in columns:
        name = ".".join(column)
        try:
            with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
                cursor.execute(f"set local lock_timeout = '{LOCK_SECONDS}s'; set search_path = ''")
                _retype(cursor, *column)
        except psycopg2.errors.LockNotAvailable as error:
            raise UserError(
                f"{name} is to become text, and others use its table.\n"
                "Wait until they have finished, then run this again."
            ) from error
        except psycopg2.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{name} is to become text, and this login may not change it and its views:"
                f" {_first_line(error)}.\nLet the login that owns them run: marquee run"
            ) from error
        except psycopg2.Error as error:
            raise UserError(
                f"{name} is to become text, and a view that reads it then fails:"
                f" {_first_line(error)}.\nDrop that view, run this again, and make it anew."
            ) from error
    return [".".join(column) for column in columns]


def _retype(cursor: Any, schema: str, table: str, column: str) -> None:
    place = sql.Identifier(schema, table)
    cursor.execute(_VIEWS, {"table": place.as_string(cursor), "column": column})
    readers = cursor.fetchall()
    for name, is_view, *_ in readers:
        if not is_view:
            raise UserError(
                f"{name} reads {schema}.{table}.{column}, which is to become text.\n"
                "Drop it, run this again, and make it anew."
            )
    for name, *_ in reversed(readers):
        cursor.execute(f"drop view {name}")  # quoted by PostgreSQL
    cursor.execute(
        sql.SQL("alter table {} alter column {} type varchar using {}::varchar").format(
            place, *[sql.Identifier(column)] * 2
        )
    )
    for name, _, definition, options, owner, grants, comments in readers:
        having = f" with ({options})" if options else ""
        cursor.execute(f"create view {name}{having} as {definition}")
        for statement in (*(grants or ()), *(comments or ())):
            cursor.execute(statement)
        cursor.execute(f"alter view {name} owner to {sql.Identifier(owner).as_string(cursor)}")


def _first_line(error: psycopg2.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
