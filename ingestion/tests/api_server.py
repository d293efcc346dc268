"""A server of the data API over a warehouse of the tests, as its users start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import requests
from psycopg2 import sql

from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import execute, unused_port
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target, role_names

PATIENCE = 60  # seconds in which a busy machine does what takes one
SECRET = "a secret of the reporter"


class Api:
    """A running server.

    Attributes:
        base: its address.
        key: one without a limit.
        process: of the server, which is the parent of its workers.
    """

    def __init__(self, warehouse: Built, process: subprocess.Popen, port: int, key: str) -> None:
        self.warehouse, self.process, self.key = warehouse, process, key
        self.base = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str, params: Any = None, **more: Any) -> requests.Response:
        return self.session.get(self.base + path, params=params, timeout=PATIENCE, **more)

    def mart(self, name: str, params: Any = None, **more: Any) -> requests.Response:
        return self.get(f"/v1/marts/{name}", params, **more)

    def health(self) -> dict:
        return requests.get(f"{self.base}/health", timeout=PATIENCE).json()

    def figure(self, name: str) -> float:
        """The sum of a metric's samples, over all labels."""
        text = requests.get(f"{self.base}/metrics", timeout=PATIENCE).text
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def workers(self) -> list[int]:
        """Processes that answer requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        found = [int(pid) for pid in children.split()]
        lines = {}
        for pid in found:
            with suppress(OSError):  # it has just ended
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        return [pid for pid, line in lines.items() if b"spawn_main" in line]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; returns what it gave."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (requests.RequestException, psycopg2.Error):
            pass
        time.sleep(0.02)
    raise AssertionError(what)


@contextmanager
def serving(warehouse: Built, *options: str, **variables: str) -> Iterator[Api]:
    """A server over a warehouse, until the end of the block."""
    key = warehouse.marquee("api", "key", "create", "tests", "--rate", "0").stdout.strip()
    port = unused_port()
    log = warehouse.folder / f"api-{uuid.uuid4().hex[:6]}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [BIN / "marquee", "api", "serve", "--port", str(port), *options],
            cwd=PROJECT_DIR,
            env=warehouse.environment | {"MARQUEE_REPORTER_PASSWORD": SECRET} | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    api = Api(warehouse, process, port, key)
    try:
        until(lambda: api.get("/ready").status_code == 200 or process.poll() is not None, "ready")
        assert process.poll() is None, log.read_text()
        yield api
    finally:
        api.session.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said = log.read_text()
        assert "Traceback" not in said, said[-4000:]


@contextmanager
def warehouse_of(built: Built, target: Target, folder: Path) -> Iterator[Built]:
    """A copy of the built warehouse with roles, as on a server of one's own."""
    with copy_of(built, target, folder, kind=Built) as copy:
        copy.dbt("run-operation", "make_roles")
        let_reporter_in(target)
        try:
            copy.dbt("parse")  # a manifest in its own folder
            yield copy
        finally:
            for name in role_names().values():
                for statement in ("drop owned by {} cascade", "drop role {}"):
                    execute(copy.target, sql.SQL(statement).format(sql.Identifier(name)))


def let_reporter_in(target: Target) -> None:
    """Make the roles' reporter a login, as an administrator would."""
    statement = sql.SQL("alter role {} login password {}")
    name = sql.Identifier(role_names()["reporter"])
    execute(target, statement.format(name, sql.Literal(SECRET)))


def rebuilt(warehouse: Built, mart: str) -> str:
    """Do what the hook of a build does, without the build; returns its invocation."""
    invocation = str(uuid.uuid4())
    warehouse.execute(
        f"update ops.mart_builds set invocation_id = '{invocation}',"
        f" built_at = clock_timestamp() where relation_name = 'marts.{mart}';"
        f"select pg_notify('marquee_mart_builds', 'marts.{mart}')"
    )
    return invocation


def marts_of(warehouse: Built) -> dict[str, dict]:
    """Public models of the manifest, by name."""
    nodes = json.loads((warehouse.target_path / "manifest.json").read_text())["nodes"].values()
    return {
        node["name"]: node
        for node in nodes
        if node["resource_type"] == "model" and node["access"] == "public"
    }


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
