"""Airflow for the tests: `marquee airflow` over a checkout and a warehouse of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import requests

from ingestion.tests.checkout import Checkout
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR

PATIENCE = 600  # seconds


RATES = [{"id": day, "at": f"2026-02-0{day}T12:00:00Z"} for day in (1, 2, 3)]
API = """
[sources.rest.rates.client]
base_url = "{url}"

[[sources.rest.rates.resources]]
name = "rates"
primary_key = "id"

[sources.rest.rates.resources.endpoint]
path = "rates"
incremental = {{ cursor_path = "at", initial_value = "2026-01-01T00:00:00Z" }}
"""


class Webhook:
    """A server that keeps what is posted to it, and gives rates as a JSON API does."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(RATES).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    def of(self, run: str) -> list[dict[str, Any]]:
        return [alert for alert in self.received if alert["run"] == run]


@dataclass
class AirflowPlace:
    """`marquee airflow` over a checkout and a warehouse of its own."""

    home: Path = field(default_factory=reachable_folder)
    port: int = field(default_factory=unused_port)
    webhook: Webhook = field(default_factory=Webhook)
    process: subprocess.Popen | None = None
    said: str = ""

    def __post_init__(self) -> None:
        self.checkout = Checkout(
            self.home / "marquee",
            {
                "HOME": str(self.home),
                "AIRFLOW_CONN_MARQUEE_WEBHOOK": json.dumps(
                    {"conn_type": "http", "host": self.webhook.url}
                ),
                # so that a change of the settings counts soon
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            },
        ).make()
        with (self.checkout.folder / ".dlt/config.toml").open("a") as config:
            config.write(API.format(url=self.webhook.url))
        (self.checkout.folder / ".venv-airflow").symlink_to(PROJECT_DIR / ".venv-airflow")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.checkout.folder / ".marquee"

    @property
    def password(self) -> str:
        return json.loads((self.state / "airflow.json").read_text())["password"]

    def serve(self) -> None:
        """Start it, and wait until it answers."""
        log = self.home / "airflow.out"
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [self.checkout.folder / ".venv/bin/marquee", "airflow", f"--port={self.port}"],
                cwd=self.checkout.folder,
                env={"PATH": os.defpath} | self.checkout.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait(lambda: self.process.poll() is not None or self._healthy(), "Airflow")
        self.said = log.read_text()
        assert self.process.poll() is None, self.said

    def _healthy(self) -> bool:
        try:
            health = requests.get(f"{self.address}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health[part]["status"] == "healthy" for part in parts)

    def processes(self) -> list[psutil.Process]:
        """`marquee airflow` and all that it has started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def stop(self) -> list[psutil.Process]:
        """Interrupt it as Ctrl-C does; returns those of its processes that are still there."""
        started = self.processes()[1:]
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        return psutil.wait_procs(started, timeout=10)[1]

    def remove(self) -> None:
        if self.process and self.process.poll() is None:
            self.stop()
        self.webhook.server.shutdown()
        Server(self.state).delete()
        shutil.rmtree(self.home)

    def airflow(self, *command: str) -> subprocess.CompletedProcess:
        """Run a command of Airflow's own."""
        return self.checkout.run("marquee", "airflow", f"--port={self.port}", *command)

    def api(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        login = {"username": "admin", "password": self.password}
        token = requests.post(f"{self.address}/auth/token", json=login, timeout=30).json()
        answer = requests.request(
            method,
            f"{self.address}/api/v2{path}",
            headers={"Authorization": f"Bearer {token['access_token']}"},
            json=body or None,
            timeout=60,
        )
        assert answer.ok, answer.text
        return answer.json() if answer.text else {}

    def set(self, **settings: Any) -> None:
        """Say the variable `marquee`, and wait until the DAG has been read anew."""
        value, before = json.dumps(settings), time.time()
        known = self.api("GET", "/variables")["variables"]
        where = ("PATCH", "/variables/marquee") if known else ("POST", "/variables")
        self.api(*where, key="marquee", value=value)
        self.wait(lambda: self._parsed() > before + 1, "the DAG to be read")

    def _parsed(self) -> float:
        dags = self.api("GET", "/dags")["dags"]
        return max((_seconds(dag["last_parsed_time"]) for dag in dags), default=0)

    def trigger(self, run: str, **more: Any) -> str:
        day = {"logical_date": more.pop("logical_date", None)}
        self.api("POST", "/dags/marquee/dagRuns", dag_run_id=run, **day, **more)
        return run

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        found = self.api("GET", f"/dags/marquee/dagRuns/{run}/taskInstances")
        return {task["task_id"]: task for task in found["task_instances"]}

    def states(self, run: str) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks(run).items()}

    def ended(self, run: str) -> str:
        """Wait until a run has ended; returns its state."""

        def state() -> str:
            return self.api("GET", f"/dags/marquee/dagRuns/{run}")["state"]

        began = time.monotonic()
        self.wait(lambda: state() in ("success", "failed"), f"run {run}")
        print(f"  run {run}: {state()}, {time.monotonic() - began:.0f} s")
        return state()

    def log(self, run: str, task: str) -> str:
        """What Airflow keeps of a task."""
        paths = self.state.glob(f"airflow/logs/**/run_id={run}/task_id={task}/*.log")
        return "\n".join(path.read_text() for path in paths)

    def wait(self, done: Callable[[], object], what: str) -> None:
        last = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < last, f"{what}: not within {PATIENCE} s"
            time.sleep(0.5)

    def sql(self, query: str) -> list[tuple]:
        connection = Server(self.state).target.connect()
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def rows(self) -> dict[str, int]:
        """Rows of the raw tables."""
        tables = self.sql(
            "select table_schema || '.' || table_name from information_schema.tables"
            " where table_schema like 'raw%' and table_name not like '\\_%'"
        )
        return {table: self.sql(f"select count(*) from {table}")[0][0] for (table,) in tables}

    @contextmanager
    def edited(self, path: str, old: str, new: str):
        """A file of the checkout with another text in it, for a while."""
        file = self.checkout.folder / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        try:
            yield
        finally:
            file.write_text(text)


def _seconds(moment: str | None) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() if moment else 0
