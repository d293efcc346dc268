"""Lineage by column, as people open it: a page beside the docs page, without a server or a network.

Asked for by ``make test-lineage``, which installs dbt-colibri and needs a Chromium (CHROMIUM names
it).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ingestion import lineage
from ingestion.tests.built import Built
from ingestion.tests.test_docs import BROWSER

asked_for = pytest.mark.skipif(
    not os.environ.get("MARQUEE_LINEAGE"), reason="asked for by make test-lineage"
)
CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "") or BROWSER
# what comes from no column: counts of rows, constants, what dbt adds to snapshots
FROM_NONE = 31
CALENDAR = "dim_date"  # all of it besides: its days are computed
PATIENCE = 120_000  # milliseconds in which a busy machine does what takes one second
FIGURE = ("model.marquee.brand_performance", "revenue_usd")
SOURCE = ("source.marquee.tmdb.movies", "revenue")
Column = tuple[str, str]


@pytest.fixture
def page() -> Iterator:
    """A browser's page, and all that it asks for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        yield page
        browser.close()


def place(built: Built) -> Path:
    return built.target_path / lineage.FOLDER / "index.html"


@asked_for
def test_a_run_writes_it_and_says_what_it_cannot_tell(built: Built) -> None:
    columns, unknown = lineage.count(place(built).with_name(lineage.DATA))
    told = f"{columns:,} columns; {unknown} of them come from none"
    assert told in " ".join(built.first_run.split())
    assert columns >= 600


@asked_for
def test_only_what_has_no_origin_is_unknown(built: Built) -> None:
    """A model that is written so that its columns cannot be followed is named here."""
    nodes = json.loads(place(built).with_name(lineage.DATA).read_text())["nodes"]
    lost = {
        node["name"]: [
            name
            for name, column in node.get("columns", {}).items()
            if column.get("lineageType") == "unknown"
        ]
        for node in nodes.values()
    }
    lost.pop(CALENDAR)
    assert sum(map(len, lost.values())) <= FROM_NONE, {n: c for n, c in lost.items() if c}


def way_back(built: Built, column: Column) -> list[Column]:
    """From a column to the one that it is made of, and so on, to a source."""
    edges = json.loads(place(built).with_name(lineage.DATA).read_text())["lineage"]["edges"]
    made_of = {
        (edge["target"], edge["targetColumn"]): (edge["source"], edge["sourceColumn"])
        for edge in edges
        if not edge.get("edgeType") and edge["targetColumn"]
    }
    way = [column]
    while way[-1] in made_of:
        way.append(made_of[way[-1]])
    return way


@asked_for
def test_a_figure_is_followed_back_to_its_source(built: Built, page) -> None:
    way = way_back(built, FIGURE)
    assert way[-1] == SOURCE
    for (model, column), (before, its) in pairwise(way):
        page.goto(f"{place(built).as_uri()}?model={model}&column={column}&children=0&parents=1")
        node = page.locator(f'.react-flow__node[data-id="{before}"]')
        node.wait_for(state="attached")
        node.evaluate("node => node.querySelector('button').click()")  # shows its columns
        line = f"{before}-{its}-{model}-{column}"
        page.locator(f'.react-flow__edge[data-id="{line}"]').wait_for(state="attached")
    assert_nothing_left(page)


@asked_for
def test_the_two_pages_lead_to_one_another(built: Built, page) -> None:
    page.goto(f"{(built.target_path / 'static_index.html').as_uri()}#!/overview")
    page.get_by_role("link", name="Lineage by column").click()
    page.locator(".react-flow").wait_for()
    assert page.url.startswith(place(built).as_uri())
    page.get_by_role("link", name="dbt docs").click()
    page.get_by_text("Where to look").first.wait_for()
    assert "static_index.html" in page.url
    assert_nothing_left(page)


@asked_for
def test_what_went_wrong_is_told_in_two_lines(built: Built, tmp_path: Path) -> None:
    with pytest.raises(lineage.UserError, match="dbt docs generate"):
        lineage.write_page(tmp_path)
    for name in ("manifest", "catalog"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(lineage.UserError, match="dbt-colibri failed"):
        lineage.write_page(tmp_path)
    manifest = json.loads((built.target_path / "manifest.json").read_text())
    for node in manifest["nodes"].values():
        node.pop("compiled_code", None)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(built.target_path / "catalog.json", tmp_path)
    with pytest.raises(lineage.UserError, match="no SQL of models"):
        lineage.write_page(tmp_path)
    assert not (tmp_path / lineage.FOLDER).exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_without_it_a_run_says_how_to_get_it(built: Built) -> None:
    if lineage.COLIBRI.exists():
        pytest.skip("dbt-colibri is installed")
    done = built.marquee("lineage", check=False)
    assert done.stderr.splitlines() == [
        "Error: dbt-colibri is not installed here.",
        "Install it: make lineage",
    ]


def assert_nothing_left(page) -> None:
    """No request to anywhere but these pages: no telemetry, no font, no script."""
    page.wait_for_timeout(2_000)  # what a page sends, it sends once it is there
    others = [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))]
    assert others == []
