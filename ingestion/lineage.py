"""Lineage by column: a page beside dbt's docs page, which shows lineage by model only.

dbt-colibri writes it from dbt's manifest and catalog. It has an environment of its own, made by
``make lineage``: it needs an older sqlglot than dlt brings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ingestion import interrupts
from ingestion.errors import UserError, error_line
from ingestion.warehouse.paths import PROJECT_DIR

COLIBRI = PROJECT_DIR / ".venv-lineage" / "bin" / "colibri"
FOLDER = "lineage"
DATA = "colibri-manifest.json"
TIMEOUT_SECONDS = 300
# the way back, in a corner of the page that is free
LINK = (
    '<a href="../static_index.html" style="position:fixed;top:8px;right:16px;z-index:99;'
    'font:14px sans-serif;color:#2563eb">dbt docs</a>'
)


def write_page(target: Path) -> str:
    """Write the page from the manifest and the catalog in dbt's target folder.

    Returns:
        Where it is, with the number of columns, and of those whose origin it cannot tell.

    Raises:
        UserError: there are no such files, or dbt-colibri failed.
    """
    for name in ("manifest.json", "catalog.json"):
        if not (target / name).exists():
            raise UserError(f"There is no {target / name} yet.\nMake it: dbt docs generate")
    place = target / FOLDER
    with (
        tempfile.TemporaryDirectory(prefix="lineage-", dir=target) as folder,
        interrupts.giving_back(lambda: shutil.rmtree(folder)),
    ):
        _run_colibri(target, Path(folder))
        columns, unknown = count(Path(folder) / DATA)
        page = Path(folder) / "index.html"
        before, end, after = page.read_text(encoding="utf-8").rpartition("</body>")
        page.write_text(f"{before}{LINK}{end}{after}", encoding="utf-8")
        place.mkdir(exist_ok=True)
        for name in (DATA, page.name):
            Path(folder, name).replace(place / name)
    shown = os.path.relpath(place / page.name, PROJECT_DIR)
    return f"{shown}: {columns:,} columns; {unknown} of them come from none"


def count(data: Path) -> tuple[int, int]:
    """Columns of models, seeds and snapshots, and how many the page leads back to no other."""
    nodes = json.loads(data.read_text(encoding="utf-8"))["nodes"].values()
    kinds = [
        column["lineageType"]
        for node in nodes
        for column in node.get("columns", {}).values()
        if column.get("lineageType")
    ]
    return len(kinds), kinds.count("unknown")


def _run_colibri(target: Path, folder: Path) -> None:
    files = (f"--{name}={target / f'{name}.json'}" for name in ("manifest", "catalog"))
    try:
        done = subprocess.run(
            [COLIBRI, "generate", *files, f"--output-dir={folder}", "--disable-telemetry"],
            env=os.environ | {"DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"dbt-colibri failed: {error_line(error)}\nInstall it anew: make lineage"
        ) from error
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode or not (folder / "index.html").exists():
        raise UserError(
            f"dbt-colibri failed: {(lines or ['it says nothing'])[-1].strip()}\n"
            "Make dbt's files anew (dbt docs generate), or install it anew: make lineage"
        )
    if any("missing compiled SQL" in line for line in lines):
        raise UserError(
            f"{target / 'manifest.json'} has no SQL of models in it.\n"
            "Make it anew: dbt docs generate"
        )
