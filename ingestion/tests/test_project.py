"""The dbt project holds together: its packages, its descriptions, its contracts."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from ingestion.warehouse import PROJECT_DIR

CODE = ("models", "macros", "tests", "seeds", "snapshots")


def _texts(*folders: str) -> list[str]:
    files = [
        p for f in folders for p in (PROJECT_DIR / f).rglob("*") if p.suffix in (".sql", ".yml")
    ]
    assert files
    return [path.read_text(encoding="utf-8") for path in files]


def test_the_stand_in_offers_exactly_the_dbt_utils_that_are_used():
    used = {name for text in _texts(*CODE) for name in re.findall(r"\bdbt_utils\.(\w+)", text)}
    offered = {
        name
        for text in _texts("packages/dbt_utils/macros")
        for name in re.findall(r"\{%-?\s*(?:macro|test)\s+(\w+)", text)
        if not name.startswith("default__")
    }
    assert used == offered


@pytest.fixture(scope="module")
def manifest(built) -> dict:
    return json.loads((built.target_path / "manifest.json").read_text(encoding="utf-8"))


def _ours(manifest: dict) -> list[dict]:
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    kinds = ("model", "seed", "snapshot", "source")
    return [n for n in nodes if n["resource_type"] in kinds and n["package_name"] == "marquee"]


def test_every_model_and_column_is_described(manifest: dict):
    bare = [
        node["name"] if column is None else f"{node['name']}.{column['name']}"
        for node in _ours(manifest)
        for column in (None, *node["columns"].values())
        if not (column or node)["description"].strip()
    ]
    assert bare == []


def test_descriptions_and_tables_name_the_same_columns(manifest: dict, built):
    """A column that is missing from the YAML, or only there, is a description that has drifted."""
    catalog = json.loads((built.target_path / "catalog.json").read_text(encoding="utf-8"))["nodes"]
    drifted = {}
    for node in _ours(manifest):
        if node["resource_type"] in ("model", "seed"):
            table = set(catalog[node["unique_id"]]["columns"])
            if table != set(node["columns"]):
                drifted[node["name"]] = sorted(table ^ set(node["columns"]))
    assert drifted == {}


def test_every_mart_has_an_enforced_contract_and_a_unique_key(manifest: dict):
    marts = [n for n in _ours(manifest) if n["path"].startswith("marts/")]
    assert len(marts) >= 18
    assert [n["name"] for n in marts if not n["contract"]["enforced"]] == []

    unique = {"unique", "unique_combination_of_columns"}
    keyed = {
        parent
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and node.get("test_metadata", {}).get("name") in unique
        for parent in node["depends_on"]["nodes"]
    }
    assert [n["name"] for n in marts if n["unique_id"] not in keyed] == []


def test_models_keep_to_portable_sql():
    """What Spark does not take stands in macros and configs only."""
    forbidden = re.compile(
        r"distinct on|to_char\s*\(|->>?|::|(?<![\w.])(regexp_replace|generate_series)\s*\(",
        re.I,
    )
    models = list((PROJECT_DIR / "models").rglob("*.sql"))
    assert models
    found = {p.name: m[0] for p in models if (m := forbidden.search(p.read_text(encoding="utf-8")))}
    assert found == {}


def test_nothing_of_this_machine_is_tracked():
    files = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
    ).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    odd = re.compile(r"https?://[\w.-]*(pythonhosted|pypi)\.|/home/\w+/|/Users/\w+/")
    texts = {f: Path(PROJECT_DIR / f).read_text(encoding="utf-8", errors="ignore") for f in files}
    assert [
        f for f, text in texts.items() if odd.search(text) and not f.endswith("test_project.py")
    ] == []
