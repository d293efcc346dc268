"""A database for what a tool beside the warehouse knows, such as Superset or Airflow.

It is on the warehouse's server. On the embedded one a role of its own owns it, who gets nowhere
else, and nobody else gets in; on another server the profile's login has it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import psycopg2
from psycopg2 import sql

from ingestion.errors import UserError
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target

_OWNER = "select pg_get_userbyid(datdba) from pg_database where datname = %s"


@dataclass(frozen=True)
class ToolDatabase:
    """The database of one tool.

    Attributes:
        name: of the database, and of its login in the embedded server's state.
        tool: what the tool is called in messages.
    """

    name: str
    tool: str

    @property
    def role(self) -> str:
        return f"marquee_{self.name}"

    def login(self, target: Target) -> Target:
        """How the tool logs in.

        Raises:
            UserError: the embedded server has no such database yet.
        """
        return self.embedded_login(Server()) if is_embedded(target) else self._elsewhere(target)

    def embedded_login(self, server: Server) -> Target:
        """The same of an embedded server."""
        return replace(server.login(self.name), dbname=self.name)

    def make(self, target: Target) -> Target:
        """Make the database on the target's server, as far as it is not there.

        Returns:
            How the tool logs in there.

        Raises:
            UserError: the profile's login may not make one.
        """
        if is_embedded(target):
            return self.make_embedded(Server())
        self._make_elsewhere(target)
        return self._elsewhere(target)

    def make_embedded(
        self, server: Server, hand_over: Callable[[Server], None] | None = None
    ) -> Target:
        """Make role and database on an embedded server.

        Args:
            server: it.
            hand_over: gives the role what is in a database that somebody else owns.
        """
        server.set_role_passwords({self.name: self.role}, self._role_sql())
        database, role = sql.Identifier(self.name), sql.Identifier(self.role)
        with closing(server.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_OWNER, (self.name,))
                owner = cursor.fetchone()
                if not owner:
                    make_it = "create database {} owner {} template template0"
                    cursor.execute(sql.SQL(make_it).format(database, role))
                elif owner[0] != self.role and hand_over:
                    hand_over(server)
                    give = "alter database {} owner to {}"
                    cursor.execute(sql.SQL(give).format(database, role))
                cursor.execute(sql.SQL("revoke all on database {} from public").format(database))
        return self.embedded_login(server)

    def _elsewhere(self, target: Target) -> Target:
        return replace(target, dbname=self.name)

    def _make_elsewhere(self, target: Target) -> None:
        with closing(target.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_OWNER, (self.name,))
                if cursor.fetchone():
                    return
                name = sql.Identifier(self.name)
                try:
                    cursor.execute(sql.SQL("create database {}").format(name))
                except psycopg2.errors.InsufficientPrivilege as error:
                    raise UserError(
                        f"{self.tool} needs a database '{self.name}', and {target.user} may not"
                        f" make one.\nMake it: create database {self.name} owner {target.user}"
                    ) from error
                cursor.execute(sql.SQL("revoke all on database {} from public").format(name))

    def _role_sql(self) -> str:
        return f"""
do $$
begin
    if not exists (select from pg_roles where rolname = '{self.role}') then
        create role {self.role};
    end if;
end
$$
"""


def sqlalchemy_url(target: Target) -> str:
    """The address as SQLAlchemy writes it."""
    return target.url.replace("postgresql://", "postgresql+psycopg2://", 1)
