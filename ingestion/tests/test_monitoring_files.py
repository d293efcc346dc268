"""What deploy/monitoring holds fits together, and fits the project; its programs are not needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ingestion.tests.monitors import MONITORING
from ingestion.warehouse.paths import PROJECT_DIR

DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
DOCS = (PROJECT_DIR / "docs" / "operations.md").read_text("utf-8")
PANEL = {
    *("id", "type", "title", "description", "datasource", "gridPos", "targets", "fieldConfig"),
    *("options", "transformations"),
}
WIDTH = 24  # columns of a dashboard


def read(path: str) -> dict:
    return yaml.safe_load((MONITORING / path).read_text("utf-8"))


def rules() -> Iterator[dict]:
    for path in sorted((MONITORING / "rules").glob("*.rules.yml")):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["panels"]


def owners() -> set[str]:
    groups = yaml.safe_load((PROJECT_DIR / "models" / "_groups.yml").read_text("utf-8"))
    return {group["owner"]["name"] for group in groups["groups"]}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_whom_it_asks_and_where_to_read(name: str):
    alert = ALERTS[name]
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    labels = alert["labels"]
    assert labels["severity"] in ("critical", "warning", "none")
    assert labels["component"] in ("runs", "database", "api", "host", "monitoring")
    named = set(re.findall(r"}}([A-Z][\w ]+?){{", labels.get("owner", ""))) or {labels.get("owner")}
    assert named <= owners() or (name == "MarqueeTestsFailed" and named == {None})
    file, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert file == "docs/operations.md"
    headings = re.findall(r"^#+ (.+)$", DOCS, re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_runbook_has_a_row_for_each_alert_and_no_other():
    rows = re.findall(r"^\| `(Marquee\w+)` \|", DOCS, re.MULTILINE)
    assert sorted(rows) == sorted(ALERTS)


def test_each_alert_is_seen_to_fire_by_a_test_of_promtool():
    texts = [path.read_text("utf-8") for path in (MONITORING / "rules").glob("*.test.yml")]
    fired = set(re.findall(r'\{alertname="(\w+)"', "".join(texts)))
    for text in texts:
        for test in yaml.safe_load(text)["tests"]:
            for case in test.get("alert_rule_test", ()):
                if case["exp_alerts"]:
                    fired.add(case["alertname"])
    named = set(re.findall(r'ALERTS\{alertname="(\w+)"', "".join(texts)))
    assert fired | named == set(ALERTS)


def test_messages_go_to_owners_that_exist():
    routes = read("alertmanager.yml")["route"]["routes"]
    asked = {matcher for route in routes for matcher in route["matchers"]}
    named = set(re.findall(r'owner = "(.+?)"', " ".join(asked)))
    assert named == owners() - {"Warehouse team"}, "who gets the rest"


def metrics_of_ours() -> set[str]:
    text = (PROJECT_DIR / "ingestion" / "evidence" / "metrics.py").read_text("utf-8")
    found = set(re.findall(r'"(marquee_\w+)"', text))
    text = (PROJECT_DIR / "serving" / "api" / "measures.py").read_text("utf-8")
    for kind, name in re.findall(r'= (Counter|Gauge|Histogram)\(\s*"(marquee_api_\w+)"', text):
        ends = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_count", "_sum"]}
        found |= {name + end for end in ends[kind]}
    for prefix, query in read("queries.yml").items():
        for metric in query["metrics"]:
            found |= {f"{prefix}_{name}" for name, it in metric.items() if it["usage"] != "LABEL"}
    return found


def test_rules_and_panels_ask_for_metrics_that_there_are():
    expressions = [rule["expr"] for rule in rules()]
    expressions += [
        target["expr"]
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel.get("targets", ())
    ]
    asked = {name for text in expressions for name in re.findall(r"(?<![\w:])marquee_\w+", text)}
    assert len(asked) > 30
    assert asked - metrics_of_ours() == set()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for text in expressions for name in re.findall(r"\w+:\w+:\w+|\w+:\w+", text)}
    assert asked == recorded


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_holds_together(path: Path):
    [source] = read("grafana/provisioning/datasources/marquee.yml")["datasources"]
    found = panels(path)
    ids = [panel["id"] for panel in found]
    assert sorted(ids) == sorted(set(ids))
    text = path.read_text("utf-8")
    uids = set(re.findall(r'"datasource": \{\s*"type": "prometheus",\s*"uid": "(.+?)"', text))
    assert uids == {source["uid"]}
    assert text.count('"datasource"') == len(re.findall(r'"datasource": \{', text))
    taken: dict[tuple[int, int], str] = {}
    for panel in found:
        if panel["type"] != "row":
            assert set(panel) <= PANEL
            assert panel["description"].endswith(".")
            assert [target["refId"] for target in panel["targets"]]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_no_two_dashboards_are_one():
    read_all = [json.loads(path.read_text("utf-8")) for path in DASHBOARDS]
    for key in ("uid", "title"):
        assert len({it[key] for it in read_all}) == len(DASHBOARDS) == 3
