"""What is in deploy/ and .github: right, and seen when it is not. `make test-deploy`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ingestion.tests import deployment
from ingestion.tests.deployment import (
    CHART,
    COMPOSE,
    PROFILES,
    VALUES,
    WORKFLOW,
    check_chart,
    check_compose,
    check_confinement,
    check_dockerfile,
    check_rights_of_workflows,
    check_workflows,
    compose,
    manifests,
    of_kind,
    render,
)
from ingestion.warehouse.paths import PROJECT_DIR

pytestmark = pytest.mark.skipif(
    not deployment.CHECKS.exists(), reason="the checks are not installed: make test-deploy"
)


@dataclass(frozen=True)
class Fault:
    """A file, broken in one place, and the check that has to say so."""

    check: Callable[[Path], str]
    file: str
    old: str
    new: str


FAULTS = {
    "compose: a key that there is not": Fault(
        check_compose, COMPOSE, "    stop_grace_period: 2m", "    stop_grace: 2m"
    ),
    "compose: a volume that there is not": Fault(
        check_compose, COMPOSE, "\n  grafana:\n\n", "\n\n"
    ),
    "compose: waits for nobody": Fault(
        check_compose, COMPOSE, "prometheus: {condition: service_healthy}", "p: {condition: x}"
    ),
    "compose: a port for all": Fault(
        check_confinement, COMPOSE, '"127.0.0.1:${GRAFANA_PORT:-3000}', '"${GRAFANA_PORT:-3000}'
    ),
    "compose: a root that can be written to": Fault(
        check_confinement, COMPOSE, "  read_only: true\n", ""
    ),
    "compose: capabilities": Fault(check_confinement, COMPOSE, "cap_drop: [ALL]", "cap_drop: []"),
    "compose: latest": Fault(
        check_confinement, COMPOSE, "grafana/grafana:12.3.0", "grafana/grafana:latest"
    ),
    "compose: a password in the environment": Fault(
        check_confinement,
        COMPOSE,
        "PGPASSWORD_FILE: /run/secrets/marquee_password",
        "PGPASSWORD: x",
    ),
    "Dockerfile: a base without a version": Fault(
        check_dockerfile, "deploy/Dockerfile", "FROM ${BASE} AS runtime", "FROM debian AS runtime"
    ),
    "Dockerfile: a relative folder": Fault(
        check_dockerfile, "deploy/Dockerfile", "WORKDIR /app\nVOLUME", "WORKDIR app\nVOLUME"
    ),
    "Dockerfile: an instruction that there is not": Fault(
        check_dockerfile, "deploy/Dockerfile", "ENTRYPOINT [", "ENTRY ["
    ),
    "chart: a template that does not render": Fault(
        check_chart, f"{CHART}/templates/cronjob.yaml", "{{- end }}", "{{- fin }}"
    ),
    "chart: a field that Kubernetes does not know": Fault(
        check_chart, f"{CHART}/templates/cronjob.yaml", "restartPolicy:", "restart:"
    ),
    "chart: a word where a number belongs": Fault(
        check_chart,
        f"{CHART}/templates/cronjob.yaml",
        "backoffLimit: {{ .Values.run.backoffLimit }}",
        "backoffLimit: often",
    ),
    "chart: a value that its schema refuses": Fault(
        check_chart, f"{CHART}/values.yaml", "  port: 5432", "  port: postgres"
    ),
    "workflow: a key that there is not": Fault(
        check_workflows, WORKFLOW, "fail-fast: false", "fail-first: false"
    ),
    "workflow: a job without an end": Fault(
        check_workflows, WORKFLOW, "    timeout-minutes: 30\n", ""
    ),
    "dependabot: a registry that it does not know": Fault(
        check_workflows, ".github/dependabot.yml", "package-ecosystem: pip", "package-ecosystem: x"
    ),
    "workflow: a target that there is not": Fault(
        check_rights_of_workflows, WORKFLOW, "run: make test-deploy", "run: make test-depoly"
    ),
    "workflow: an action of any day": Fault(
        check_rights_of_workflows, WORKFLOW, "actions/checkout@v4", "actions/checkout@main"
    ),
    "workflow: it may write": Fault(
        check_rights_of_workflows, WORKFLOW, "contents: read", "contents: write"
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with what is checked."""
    for name in ("deploy", ".github"):
        shutil.copytree(
            PROJECT_DIR / name, tmp_path / name, ignore=shutil.ignore_patterns("secrets")
        )
    return tmp_path


@pytest.mark.parametrize("check", sorted({fault.check for fault in FAULTS.values()}, key=str))
def test_the_files_are_right(check: Callable[[Path], str], copy: Path) -> None:
    assert check(copy) == ""


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_file_is_seen(name: str, copy: Path) -> None:
    fault = FAULTS[name]
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    assert fault.old in text
    file.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
    assert fault.check(copy) != ""


@pytest.mark.parametrize("profile", PROFILES)
def test_each_part_of_the_compose_file_can_be_left_out(profile: str, copy: Path) -> None:
    done = compose(copy, profile, "--services")
    services = set(done.stdout.split())
    assert "marquee" in services
    for name, part in {
        "postgres": "database",
        "superset": "superset",
        "airflow": "airflow",
        "kafka": "kafka",
        "grafana": "monitoring",
        "alertmanager": "monitoring",
    }.items():
        assert (name in services) == (profile in (part, "*")), name


def test_the_nightly_run_is_one_at_a_time_and_only_passing_faults_are_tried_again(
    copy: Path,
) -> None:
    spec = of_kind(manifests(copy, {}), "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Count", "FailJob"]
    retried, final = (rule["onExitCodes"] for rule in rules[1:])
    assert (retried["operator"], retried["values"]) == ("In", [75])
    assert (final["operator"], final["values"]) == ("NotIn", [75])
    pod = job["template"]["spec"]
    assert {each["containerName"] for each in (retried, final)} == {pod["containers"][0]["name"]}
    assert pod["restartPolicy"] == "Never"  # a failure policy needs it


@pytest.mark.parametrize("values", VALUES)
def test_pods_have_no_more_rights_than_they_need(values: str, copy: Path) -> None:
    found = manifests(copy, VALUES[values])
    pods = [of_kind(found, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
    pods += [each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            plain = {each["name"] for each in container["env"] if "value" in each}
            assert not [name for name in plain if re.search("(PASSWORD|TOKEN|KEY)$", name)]
    assert not [each for each in found if each["kind"] == "Secret"]


def test_the_network_policy_lets_out_what_is_needed_alone(copy: Path) -> None:
    policy = of_kind(manifests(copy, VALUES["all"]), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 5432}
    warehouse = next(rule for rule in policy["egress"] if rule["ports"][0]["port"] == 5432)
    assert warehouse["to"] == [{"ipBlock": {"cidr": "10.0.0.5/32"}}]


def test_superset_survives_a_drained_node(copy: Path) -> None:
    found = manifests(copy, VALUES["all"])
    budget = of_kind(found, "PodDisruptionBudget")["spec"]
    labels = of_kind(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1 < VALUES["all"]["superset"]["replicas"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert not [each for each in manifests(copy, {}) if each["kind"] == "Deployment"]


@pytest.mark.parametrize(
    "values",
    [
        {"env": {"TMDB_API_TOKEN": "in plain sight"}},
        {"warehouse": {"password": "in plain sight"}},
        {"run": {"schedule": "at night"}},
        {"run": {"args": []}},
        {"superset": {"maxUnavailable": 0}},
        {"podSecurityContext": {"runAsNonRoot": False}},
        {"imagePullPolicy": "Always"},  # it is below image
    ],
    ids=str,
)
def test_values_that_cannot_be_right_are_refused(values: dict[str, Any], copy: Path) -> None:
    done = render(copy, values)
    assert done.returncode == 1
    assert "schema" in done.stderr
