"""What checks the files in deploy/ and .github, without an engine, a cluster or a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ingestion.warehouse.paths import PROJECT_DIR

CHECKS = PROJECT_DIR / ".venv-deploy" / "bin"
CHART = "deploy/helm/marquee"
COMPOSE = "deploy/compose.yaml"
WORKFLOW = ".github/workflows/ci.yml"
PROFILES = ("", "database", "superset", "airflow", "kafka", "monitoring", "*")
# What renders the chart: values on standard input, manifests on standard output.
RENDER = """
import json, sys
from helm_python.chart import Chart, lint
values = json.load(sys.stdin)
found = lint(sys.argv[1], values)
worst = [m for m in found["messages"] if m["severity"] > 1]
if worst or found["errors"]:
    sys.exit(f"{worst} {found['errors']}")
with Chart.load(sys.argv[1]) as chart:
    json.dump(chart.render(values, name="nightly", namespace="warehouse"), sys.stdout)
"""
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {
        "superset": {"enabled": True, "replicas": 2},
        "secretFiles": [{"variable": "TMDB_API_TOKEN", "secret": "tmdb", "key": "token"}],
        "env": {"MARQUEE_LOG_FORMAT": "json"},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"repository": "registry.example.com/marquee", "digest": f"sha256:{'a' * 64}"},
        "run": {"volumes": [{"name": "files", "emptyDir": {}}]},
        "networkPolicy": {"warehouse": [{"ipBlock": {"cidr": "10.0.0.5/32"}}], "https": False},
        "state": {"existingClaim": "marquee"},
        "nodeSelector": {"disk": "fast"},
    },
    "injected": {
        "passwordFile": "/vault/secrets/password",
        "podAnnotations": {"vault.hashicorp.com/agent-inject": "true"},
        "serviceAccount": {"create": False, "name": "of-the-house"},
        "networkPolicy": {"enabled": False},
    },
}


def run(folder: Path, program: str, *args: str, **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [CHECKS / program, *args],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def said(done: subprocess.CompletedProcess) -> str:
    """What a check has against something; nothing where it passed."""
    return "" if done.returncode == 0 else done.stdout + done.stderr or "it failed"


def compose(folder: Path, profile: str, *args: str) -> subprocess.CompletedProcess:
    env = {"PATH": os.defpath, "HOME": str(folder), "COMPOSE_PROFILES": profile}
    return run(folder, "docker-compose", "--file", COMPOSE, "config", *args, env=env)


def render(folder: Path, values: dict[str, Any]) -> subprocess.CompletedProcess:
    return run(folder, "python", "-c", RENDER, CHART, input=json.dumps(values))


def manifests(folder: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    done = render(folder, values)
    assert done.returncode == 0, done.stderr
    texts = [text for name, text in json.loads(done.stdout).items() if name.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(each for each in found if each["kind"] == kind)


# The checks: each says what is wrong below a folder, or nothing.


def check_compose(folder: Path) -> str:
    found = "".join(said(compose(folder, profile, "--quiet")) for profile in PROFILES)
    if found:
        return found
    schema = "vendor.compose-spec"
    return said(run(folder, "check-jsonschema", "--builtin-schema", schema, COMPOSE))


def check_confinement(folder: Path) -> str:
    """No port for others, no more rights than needed, no secret in sight, nothing that moves."""
    services = json.loads(compose(folder, "*", "--format=json").stdout)["services"]
    return "\n".join(
        f"{name}: {what}" for name, service in services.items() for what in unconfined(service)
    )


def unconfined(service: dict[str, Any]) -> Iterator[str]:
    is_ours = "build" in service  # which has a health check in its image
    if any(port.get("host_ip") != "127.0.0.1" for port in service.get("ports", [])):
        yield "a port is open to others"
    if not service.get("read_only"):
        yield "its root can be written to"
    if service.get("cap_drop") != ["ALL"]:
        yield "it has capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "it may get more rights"
    if not is_ours and "healthcheck" not in service:
        yield "nobody sees that it hangs"
    if not is_ours and not re.search(r":v?\d[\d.]*$", service["image"]):
        yield "its version moves"
    variables = service.get("environment") or {}
    if any(re.search("(PASSWORD|TOKEN|SECRET|KEY)$", name) for name in variables):
        yield "a secret is in its environment"


def check_dockerfile(folder: Path) -> str:
    return said(run(folder, "hadolint", "--failure-threshold=info", "deploy/Dockerfile"))


def check_chart(folder: Path) -> str:
    for name, values in VALUES.items():
        done = render(folder, values)
        if done.returncode:
            return f"{name}: {done.stderr}"
        rendered = folder / f"{name}.rendered.yaml"
        texts = [text for file, text in json.loads(done.stdout).items() if file.endswith(".yaml")]
        rendered.write_text("\n---\n".join(text for text in texts if text.strip()))
        if found := said(run(folder, "kubernetes-validate", "--strict", str(rendered))):
            return f"{name}: {found}"
    return ""


def check_workflows(folder: Path) -> str:
    return "".join(
        said(run(folder, "check-jsonschema", "--builtin-schema", schema, file))
        for schema, file in (
            ("vendor.github-workflows", WORKFLOW),
            ("custom.github-workflows-require-timeout", WORKFLOW),
            ("vendor.dependabot", ".github/dependabot.yml"),
        )
    )


def check_rights_of_workflows(folder: Path) -> str:
    """They may read and nothing else, run what is pinned, and call targets that there are."""
    text = (folder / WORKFLOW).read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    makefile = (PROJECT_DIR / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z][a-z-]*)", text))
    for job in jobs.values():
        called |= set(job.get("strategy", {}).get("matrix", {}).get("target", []))
    pinned = re.compile(r"@(v\d+|[0-9a-f]{40})$")
    found = [f"no target {name}" for name in called - targets]
    used = re.findall(r"uses: *(\S+)", text)
    found += [f"not pinned: {name}" for name in used if not pinned.search(name)]
    found += [f"{name} may write" for name, job in jobs.items() if "permissions" in job]
    if workflow.get("permissions") != {"contents": "read"}:
        found.append("it may write")
    if "concurrency" not in workflow:
        found.append("runs pile up")
    return "\n".join(found)
