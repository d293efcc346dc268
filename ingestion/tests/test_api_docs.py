"""The description of the data API: its page in Chromium offline, and requests made of it.

``make test-api`` asks for it, and installs schemathesis and playwright; CHROMIUM names a browser.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import requests

from ingestion.tests.api_server import Api, serving, warehouse_of
from ingestion.tests.built import BIN, Built
from ingestion.tests.test_docs import BROWSER
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

if not os.environ.get("MARQUEE_API"):
    pytest.skip("asked for by make test-api", allow_module_level=True)

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "") or BROWSER
PICTURE = PROJECT_DIR / "docs" / "images" / "api.png"
PATIENCE = 120_000  # milliseconds
OPEN = "read_brand_performance"


@pytest.fixture(scope="module")
def api(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("described")
    with warehouse_of(built, target, folder) as warehouse, serving(warehouse) as one:
        yield one


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_the_page_works_offline_and_asks_for_rows(api: Api):
    from PIL import Image
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{api.base}/docs")
        page.click("button.authorize")
        page.fill("input[aria-label='auth-bearer-value']", api.key)
        page.click(".auth-btn-wrapper button[type=submit]")
        page.click(".auth-btn-wrapper button.btn-done")
        block = page.locator(f"#operations-marts-{OPEN}")
        block.locator(".opblock-summary-control").click()
        block.get_by_text("One row per").first.wait_for()
        block.locator("button.try-out__btn").click()
        block.locator("tr[data-param-name=limit] input").fill("2")
        block.locator("tr[data-param-name=select] input").fill("brand_name,index_rank")
        block.locator("button.execute").click()
        block.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        assert "index_rank" in block.locator(".live-responses-table").inner_text()
        block.scroll_into_view_if_needed()
        page.evaluate(
            "element => window.scrollTo(0, element.offsetTop - 120)", block.element_handle()
        )
        page.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
        browser.close()
    assert [url for url in asked if not url.startswith((api.base, "data:", "blob:"))] == []


def test_requests_made_of_the_description_are_answered_as_described(api: Api):
    """Schemathesis makes valid and invalid requests for each path, within its own bounds."""
    described = requests.get(f"{api.base}/openapi.json", timeout=60).json()
    assert len(described["paths"]) > 35
    walk(api, int(os.environ.get("MARQUEE_API_EXAMPLES", "8")))


def test_requests_for_metrics_made_of_the_description_are_answered_as_described(api: Api):
    """Many more for the one path of all metrics; enough of them get as far as the warehouse."""
    answered = 'marquee_api_requests_total{mart="",path="/v1/metrics/{metrics}",status="200"}'

    def figures() -> float:
        lines = requests.get(f"{api.base}/metrics", timeout=60).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(answered))

    before = figures()
    walk(api, 300, "--include-path=/v1/metrics/{metrics}")
    assert figures() - before >= 20


def walk(api: Api, examples: int, *options: str) -> None:
    """Let schemathesis ask as often for each path; what it finds fails."""
    done = subprocess.run(
        [
            BIN / "schemathesis",
            "run",
            f"{api.base}/openapi.json",
            f"--header=Authorization: Bearer {api.key}",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            f"--max-examples={examples}",
            "--phases=examples,fuzzing",
            "--mode=all",
            "--seed=15",
            "--generation-deterministic",
            "--no-color",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=api.warehouse.folder,
    )
    said = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, said[-8000:] + done.stderr[-2000:]
