"""What a server of the API is told, and whose login reads for it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ingestion.warehouse import roles
from ingestion.warehouse.target import Target, role_names

VARIABLE = "MARQUEE_API_SETTINGS"  # for the processes of a server; no secret is in it
PASSWORD = "MARQUEE_REPORTER_PASSWORD"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        folder: for the server's processes, while it runs.
        manifest: dbt's manifest.json.
        target_name: target of the profile; None for its default.
        schema: of the marts, where generate_schema_name is one of your own.
        connections: to the warehouse, at most, of each process; one more listens.
        wait: seconds that a request waits for a connection.
        timeout: seconds that a query may take.
        cache_bytes: of each process.
        origins: web pages that may call it from a browser (CORS).
        redis: address of the Redis in which servers share answers; its password is in
            MARQUEE_REDIS_PASSWORD.
        redis_wait: seconds that a request waits for Redis.
    """

    folder: str
    manifest: str
    target_name: str | None = None
    schema: str | None = None
    connections: int = 4
    wait: float = 5.0
    timeout: int = 30
    cache_bytes: int = 32 * 1024**2
    origins: tuple[str, ...] = ()
    redis: str | None = None
    redis_wait: float = 0.01

    def to_environment(self) -> None:
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def of_environment(cls) -> Settings:
        given = json.loads(os.environ[VARIABLE])
        return cls(**(given | {"origins": tuple(given["origins"])}))

    @property
    def rates(self) -> Path:
        return Path(self.folder) / "rates"


def reader(target: Target) -> Target:
    """The login that reads the marts: the reporter's where it is known, else the profile's."""
    found = roles.acting_as("reporter", target)
    password = os.environ.get(PASSWORD)
    if found == target and password:
        return replace(target, user=role_names()["reporter"], password=password)
    return found
