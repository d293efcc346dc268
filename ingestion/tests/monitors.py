"""Prometheus, Alertmanager and the exporters as real processes, over a copy of deploy/monitoring.

The copy differs from the original in what would make a test wait: it asks and evaluates every few
seconds, alerts fire at once (``for`` is taken out), messages are sent at once. Its targets are
ports of 127.0.0.1 that nobody else listens on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from ingestion.tests.conftest import unused_port
from ingestion.warehouse.paths import PROJECT_DIR

MONITORING = PROJECT_DIR / "deploy" / "monitoring"
FETCHED = PROJECT_DIR / ".monitoring" / "usr" / "bin"  # where make test-monitoring puts them
OTHER_NAMES = {  # Debian's to those of the projects
    "prometheus-alertmanager": "alertmanager",
    "prometheus-node-exporter": "node_exporter",
    "prometheus-postgres-exporter": "postgres_exporter",
}
T = TypeVar("T")
PATIENCE = 120.0  # seconds until something that has to happen has happened


def program(name: str) -> list[str]:
    """How a program is called: an installed one, or that of a package that was unpacked.

    Debian's Alertmanager and amtool read /usr/share, so they are shown what was unpacked there.

    Raises:
        FileNotFoundError: it is not here.
    """
    for known in (name, OTHER_NAMES.get(name, name)):
        if found := shutil.which(known):
            return [found]
    if not (FETCHED / name).exists():
        raise FileNotFoundError(name)
    if name not in ("amtool", "prometheus-alertmanager"):
        return [str(FETCHED / name)]
    shown = 'mount --bind "$0" /usr/share && exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", shown]
    return [*inside, str(FETCHED.parent / "share"), str(FETCHED / name)]


def call(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool to its end."""
    return subprocess.run(
        [*program(name), *map(str, args)], capture_output=True, text=True, check=False
    )


def until(look: Callable[[], T], what: Callable[[], object]) -> T:
    """What ``look`` finds, as soon as that is something; ``what`` says what is wrong otherwise."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
    return found


class Webhook:
    """An address that takes what Alertmanager sends, and keeps it."""

    def __init__(self) -> None:
        self.messages: list[dict] = []
        kept = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/alerts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, name: str, status: str = "firing", **labels: str) -> dict | None:
        """An alert that has come, as its last message has it; its receiver is in it."""
        for message in reversed(self.messages):
            for alert in message["alerts"]:
                has = alert["labels"]
                if has["alertname"] == name and all(has.get(k) == v for k, v in labels.items()):
                    return alert | message if alert["status"] == status else None
        return None

    def waits_for(self, name: str, status: str = "firing", **labels: str) -> dict:
        return until(
            lambda: self.told(name, status, **labels),
            lambda: f"no {name} {status}: {[self.names(one) for one in self.messages]}",
        )

    @staticmethod
    def names(message: dict) -> list[str]:
        return [f"{alert['labels']['alertname']} {alert['status']}" for alert in message["alerts"]]


def impatient_copy(folder: Path, targets: dict[str, int], webhook: str) -> Path:
    """A copy of deploy/monitoring that fires at once, asks these ports, and tells this address.

    Args:
        targets: ports by the name of their file in targets/.
    """
    copy = folder / "monitoring"
    shutil.copytree(MONITORING, copy)
    change(
        copy / "prometheus.yml",
        lambda it: it["global"].update(
            scrape_interval="3s", scrape_timeout="3s", evaluation_interval="1s"
        ),
    )
    for name, port in targets.items():
        change(
            copy / "targets" / f"{name}.yml",
            lambda it, port=port: it[0].update(targets=[f"127.0.0.1:{port}"]),
        )
    for path in (copy / "rules").glob("*.rules.yml"):
        change(path, fire_at_once)
    (copy / "webhook").write_text(f"{webhook}\n")
    change(copy / "alertmanager.yml", lambda it: _send_at_once(it, copy / "webhook"))
    return copy


def change(path: Path, how: Callable[[Any], object]) -> None:
    """Change a YAML file in place."""
    content = yaml.safe_load(path.read_text("utf-8"))
    how(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def fire_at_once(rules: dict) -> None:
    """Take out how long each alert waits."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)


def _send_at_once(config: dict, url_file: Path) -> None:
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    with_files = takes_url_files()
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", ()):
            hook["url_file"] = str(url_file)
            if not with_files:
                hook["url"] = url_file.read_text("utf-8").strip()
                del hook["url_file"]


def takes_url_files() -> bool:
    """Whether this Alertmanager is 0.26 or later."""
    said = call("amtool", "--version")
    version = (said.stdout + said.stderr).split("version ")[1].split("+")[0].split(".")
    return (int(version[0]), int(version[1])) >= (0, 26)


class Monitors:
    """The four processes, from one folder; all end with ``stop``."""

    def __init__(self, folder: Path, warehouse_url: str, webhook: Webhook) -> None:
        self.folder, self.warehouse_url = folder, warehouse_url
        self.ports = {
            name: unused_port() for name in ("node", "postgres", "alertmanager", "prometheus")
        }
        self.textfiles = folder / "textfiles"
        self.textfiles.mkdir()
        self.copy = impatient_copy(folder, self.ports, webhook.url)
        self._processes: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        self._start(
            "prometheus-node-exporter", "node", f"--collector.textfile.directory={self.textfiles}"
        )
        self._start(
            "prometheus-postgres-exporter",
            "postgres",
            f"--extend.query-path={self.copy / 'queries.yml'}",
            "--no-collector.bgwriter",
            DATA_SOURCE_NAME=self.warehouse_url,
        )
        self._start(
            "prometheus-alertmanager",
            "alertmanager",
            f"--config.file={self.copy / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'alertmanager'}",
            "--cluster.listen-address=",
        )
        self.start_prometheus()

    def start_prometheus(self) -> None:
        """Start it, alone or as the last one, and wait until all that run answer."""
        self._start(
            "prometheus",
            "prometheus",
            f"--config.file={self.copy / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
        )
        for name in self.ports:
            until(
                lambda name=name: self._answers(name), f"{name} does not answer: {self.log(name)}"
            )

    def stop(self) -> None:
        for name in self._processes:
            self.end(name)

    def end(self, name: str) -> None:
        process = self._processes[name]
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()

    def query(self, expression: str) -> list[dict]:
        """What Prometheus answers now."""
        return self._api("query", query=expression)["result"]

    def alerts(self) -> dict[str, list[dict]]:
        """The labels of what fires, by name."""
        found: dict[str, list[dict]] = {}
        for alert in self._api("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def held(self, name: str) -> list[dict]:
        """What Alertmanager holds of an alert, silenced or not."""
        told = urlencode({"filter": f'alertname="{name}"'})
        return self._asked("alertmanager", f"/api/v2/alerts?{told}")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text("utf-8", "replace")[-3000:] if path.exists() else ""

    def _start(self, name: str, short: str, *args: str, **variables: str) -> None:
        with (self.folder / f"{short}.log").open("w") as log:
            self._processes[short] = subprocess.Popen(
                [*program(name), f"--web.listen-address=127.0.0.1:{self.ports[short]}", *args],
                cwd=self.folder,
                env=os.environ | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _answers(self, name: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _api(self, what: str, **parameters: str) -> Any:
        return self._asked("prometheus", f"/api/v1/{what}?{urlencode(parameters)}")["data"]

    def _asked(self, name: str, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=20) as answer:
            return json.load(answer)
