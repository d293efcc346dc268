"""The project keeps to its conventions (dbt-bouncer.yml), and a lapse is found.

``make test-conventions`` installs dbt-bouncer into an environment of its own; where that is there,
``make test`` checks too. It reads what dbt wrote of the built sample, and asks no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ingestion.tests.built import Built
from ingestion.warehouse.paths import PROJECT_DIR

BOUNCER = PROJECT_DIR / ".venv-bouncer" / "bin" / "dbt-bouncer"
pytestmark = pytest.mark.skipif(
    not BOUNCER.exists(), reason="make test-conventions installs dbt-bouncer"
)


@pytest.fixture
def artifacts(built: Built, tmp_path: Path) -> Path:
    """A copy of what dbt wrote, beside the configuration."""
    shutil.copy(PROJECT_DIR / "dbt-bouncer.yml", tmp_path)
    (tmp_path / "target").mkdir()
    for name in ("manifest.json", "catalog.json", "run_results.json"):
        shutil.copy(built.target_path / name, tmp_path / "target")
    return tmp_path / "target"


def bounced(artifacts: Path) -> tuple[int, set[str]]:
    """What dbt-bouncer returns, and the checks that failed, as check:resource."""
    report = artifacts.parent / "report.json"
    done = subprocess.run(
        [str(BOUNCER), "run", "--output-file", str(report), "--output-format", "json"],
        cwd=artifacts.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    lapses = [run for run in json.loads(report.read_text()) if run["outcome"] != "success"]
    return done.returncode, {re.sub(r":\d+:", ":", run["check_run_id"]) for run in lapses}


def test_the_project_keeps_to_its_conventions(artifacts: Path) -> None:
    assert bounced(artifacts) == (0, set())


FACT = "model.marquee.fct_transactions"


def _undescribed(nodes: dict[str, Any]) -> None:
    nodes[FACT]["columns"]["amount"]["description"] = ""


def _without_contract(nodes: dict[str, Any]) -> None:
    nodes[FACT]["contract"]["enforced"] = nodes[FACT]["config"]["contract"]["enforced"] = False


def _private(nodes: dict[str, Any]) -> None:
    nodes[FACT]["access"] = nodes[FACT]["config"]["access"] = "private"


def _loose_key(nodes: dict[str, Any]) -> None:
    _drop_tests(nodes, "relationships")


def _without_key(nodes: dict[str, Any]) -> None:
    _drop_tests(nodes, "unique")


def _drop_tests(nodes: dict[str, Any], kind: str) -> None:
    for unique_id, node in list(nodes.items()):
        metadata = node.get("test_metadata") or {}
        if node.get("attached_node") == FACT and metadata.get("name") == kind:
            del nodes[unique_id]


def _raw_in_a_mart(nodes: dict[str, Any]) -> None:
    nodes[FACT]["depends_on"]["nodes"].append("source.marquee.transactions.transactions")


def _of_one_engine(nodes: dict[str, Any]) -> None:
    nodes[FACT]["raw_code"] += "\nwhere amount::text = '1'"


@pytest.mark.parametrize(
    ("lapse", "check"),
    [
        (_undescribed, "check_model_column_description_populated"),
        (_without_contract, "check_model_has_contracts_enforced"),
        (_private, "check_model_access"),
        (_loose_key, "check_model_column_has_specified_test"),
        (_without_key, "check_model_has_unique_test"),
        (_raw_in_a_mart, "check_lineage_source_cannot_be_used"),
        (_of_one_engine, "check_model_code_does_not_contain_regexp_pattern"),
    ],
)
def test_a_lapse_is_found(artifacts: Path, lapse: Any, check: str) -> None:
    manifest = json.loads((artifacts / "manifest.json").read_text())
    lapse(manifest["nodes"])
    (artifacts / "manifest.json").write_text(json.dumps(manifest))
    assert bounced(artifacts) == (1, {f"{check}:fct_transactions"})
