"""The database for what Superset knows, on the embedded server: a role of its own owns it.

Superset logs in there as that role, who gets nowhere else, and nobody else gets in. What an earlier
version made as the superuser is handed over.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from psycopg2 import sql

from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

DATABASE = "superset"
ROLE = "marquee_superset"

MAKE_ROLE = f"""
do $$
begin
    if not exists (select from pg_roles where rolname = '{ROLE}') then
        create role {ROLE};
    end if;
end
$$
"""

# Types of rows and arrays go with their table, sequences of columns, too; extensions stay.
HAND_OVER = f"""
do $$
declare
    statement text;
begin
    for statement in
        select format(
            'alter %s public.%I owner to {ROLE}',
            case relkind
                when 'v' then 'view' when 'm' then 'materialized view'
                when 'S' then 'sequence' else 'table'
            end,
            relname
        )
        from pg_class
        where
            relnamespace = 'public'::regnamespace
            and relkind in ('r', 'p', 'v', 'm', 'S')
            and pg_get_userbyid(relowner) = current_user
            and not exists (
                select from pg_depend
                where
                    classid = 'pg_class'::regclass and objid = pg_class.oid
                    and (deptype = 'e' or relkind = 'S' and deptype in ('a', 'i'))
            )
        union all
        select format('alter type public.%I owner to {ROLE}', typname)
        from pg_type
        where
            typnamespace = 'public'::regnamespace
            and typtype in ('e', 'd')
            and pg_get_userbyid(typowner) = current_user
    loop
        execute statement;
    end loop;
end
$$
"""  # noqa: S608


def make(embedded: Server) -> Target:
    """Make role and database, as far as they are not there.

    Returns:
        How Superset logs in there.
    """
    embedded.set_role_passwords({"superset": ROLE}, MAKE_ROLE)
    database, role = sql.Identifier(DATABASE), sql.Identifier(ROLE)
    with closing(embedded.connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "select pg_get_userbyid(datdba) from pg_database where datname = %s", (DATABASE,)
            )
            owner = cursor.fetchone()
            if owner and owner[0] != ROLE:
                _hand_over(embedded)
                give = "alter database {} owner to {}"
                cursor.execute(sql.SQL(give).format(database, role))
            elif not owner:
                make_it = "create database {} owner {} template template0"
                cursor.execute(sql.SQL(make_it).format(database, role))
            cursor.execute(sql.SQL("revoke all on database {} from public").format(database))
    return login(embedded)


def login(embedded: Server) -> Target:
    """How Superset logs in to its database.

    Raises:
        UserError: it has none yet.
    """
    return replace(embedded.login("superset"), dbname=DATABASE)


def _hand_over(embedded: Server) -> None:
    with closing(embedded.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute(HAND_OVER)
        connection.commit()
