"""The database for what Superset knows, on the embedded server: a role of its own owns it.

Superset logs in there as that role, who gets nowhere else, and nobody else gets in. What an earlier
version made as the superuser is handed over.
"""

from __future__ import annotations

from contextlib import closing

from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target
from ingestion.warehouse.tool_database import ToolDatabase

OWN = ToolDatabase("superset", "Superset")
DATABASE, ROLE = OWN.name, OWN.role

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
    return OWN.make_embedded(embedded, _hand_over)


def _hand_over(embedded: Server) -> None:
    with closing(embedded.connect(DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute(HAND_OVER)
        connection.commit()
