"""docs/api.ipynb, run from its first cell to its last against a real API."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from ingestion.tests.api_server import Api, serving, warehouse_of
from ingestion.tests.built import Built
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

if not os.environ.get("MARQUEE_API"):
    pytest.skip("asked for by make test-api", allow_module_level=True)
for package in ("ipykernel", "polars"):
    pytest.importorskip(package, reason="make test-api installs it")
nbclient = pytest.importorskip("nbclient", reason="make test-api installs it")
nbformat = pytest.importorskip("nbformat", reason="make test-api installs it")

NOTEBOOK = PROJECT_DIR / "docs" / "api.ipynb"


@pytest.fixture(scope="module")
def api(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("notebook")
    with warehouse_of(built, target, folder) as warehouse, serving(warehouse) as one:
        yield one


def shown(notebook: dict) -> str:
    """What its cells show, as text."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    )


def run(api: Api, notebook: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setenv("MARQUEE_API_URL", api.base)
    monkeypatch.setenv("MARQUEE_API_KEY", api.key)
    return nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()


def test_the_notebook_runs_and_shows_what_the_warehouse_has(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    done = run(api, nbformat.read(NOTEBOOK, as_version=4), monkeypatch)
    text = shown(done)
    assert "transaction_count" in text
    refused = api.get("/v1/metrics/amount", {"group_by": "month"}).json()
    assert refused["detail"] in text
    brand = api.warehouse.one(
        "select brand_name from marts.brand_performance order by index_rank limit 1"
    )
    assert brand in text
    large = api.warehouse.one(
        "select count(*) from marts.fct_transactions"
        " where currency_code = 'EUR' and amount_bucket = '>=500'"
    )
    assert str(large) in text


def test_a_notebook_whose_figures_differ_does_not_pass(api: Api, monkeypatch: pytest.MonkeyPatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(
            "count(*) as transactions", "count(*) + 1 as transactions"
        )
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        run(api, notebook, monkeypatch)


def test_it_is_kept_without_outputs_and_names_no_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert shown(notebook) == ""
    assert [cell for cell in notebook.cells if cell.get("execution_count")] == []
    text = NOTEBOOK.read_text("utf-8")
    assert set(re.findall(r"https?://([\w.]+)", text)) == {"127.0.0.1"}
    assert re.findall(r"/(?:home|root|work|tmp|Users)/", text) == []
