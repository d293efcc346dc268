"""The dbt docs page, as people open it: examples that run, descriptions, and the lineage graph."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from ingestion.tests.built import Built
from ingestion.warehouse.paths import PROJECT_DIR

EXAMPLE = re.compile(r"{% docs example_(\w+) %}.*?```sql\n(.*?)```\n{% enddocs %}", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((PROJECT_DIR / "docs/examples.md").read_text(encoding="utf-8")))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
in_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium")


@pytest.fixture
def manifest(built: Built) -> dict:
    return json.loads((built.target_path / "manifest.json").read_text())


@pytest.mark.parametrize("mart", EXAMPLES)
def test_an_example_runs_and_shows_something(mart: str, built: Built) -> None:
    assert f"marts.{mart}" in EXAMPLES[mart]
    assert built.rows(EXAMPLES[mart])


def test_every_mart_shows_its_grain_and_its_example(manifest: dict) -> None:
    marts = {
        node["name"]: node["description"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["schema"] == "marts"
    }
    assert marts.keys() == EXAMPLES.keys()
    lacking = [
        name
        for name, description in marts.items()
        if "One row per" not in description or EXAMPLES[name].strip() not in description
    ]
    assert lacking == []


@in_browser
@pytest.mark.parametrize(
    ("place", "texts"),
    [
        ("overview", ["How to read the lineage", "unknown member", "dim_production_company"]),
        (
            "model/model.marquee.fct_transactions",
            ["One row per transaction_id", "approved_share", "approved_amount", "Depends On"],
        ),
        ("source_list/transactions", ["Append-only", "warns when nothing has landed for 7 days"]),
        ("source/source.marquee.transactions.transactions", ["One row per line", "ISO 4217"]),
    ],
)
def test_a_page_shows(place: str, texts: list[str], built: Built, tmp_path: Path) -> None:
    page = browse(built, place, tmp_path, "--dump-dom").decode()
    shown = re.sub(r"<script.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL)
    shown = " ".join(shown.split()).lower()
    assert [text for text in texts if text.lower() not in shown] == []


@in_browser
def test_the_lineage_graph_is_drawn(built: Built, tmp_path: Path) -> None:
    """As a picture: a graph of models takes far more bytes than one of nothing."""
    sizes = {}
    for selection in ("+fct_transactions+", "no_such_model"):
        picture = tmp_path / f"{selection}.png"
        place = f"overview?g_v=1&g_i={quote(selection)}"
        browse(built, place, tmp_path, "--window-size=1600,1000", f"--screenshot={picture}")
        sizes[selection] = picture.stat().st_size
    assert sizes["+fct_transactions+"] > 2 * sizes["no_such_model"]


def browse(built: Built, place: str, profile: Path, *options: str) -> bytes:
    """Open a place of the static docs page in a browser without a window."""
    page = f"{(built.target_path / 'static_index.html').as_uri()}#!/{place}"
    done = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000"),
            f"--user-data-dir={profile / 'browser'}",
            *options,
            page,
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return done.stdout
