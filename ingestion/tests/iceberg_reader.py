"""DuckDB's own reader of Iceberg, which PyPI has for another version of DuckDB than the project's.

``make test-lake`` and ``make test-spark`` install it into an environment of its own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.warehouse.paths import PROJECT_DIR

PYTHON = PROJECT_DIR / ".venv-duckdb/bin/python"
IS_THERE = any(PYTHON.parents[1].glob("lib/python*/site-packages/duckdb_extension_iceberg"))
PROGRAM = """
import sys
from importlib.resources import files
import duckdb
with duckdb.connect() as connection:
    connection.execute("set timezone = 'UTC'")
    for name in ("avro", "iceberg"):
        folder = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"load '{folder / name}.duckdb_extension'")
    metadata, to = sys.argv[1:]
    connection.execute(f"copy (from iceberg_scan('{metadata}')) to '{to}' (format parquet)")
"""


def read_by_duckdb(metadata: str, folder: Path) -> pa.Table:
    """All rows of the version of a table that a metadata file describes."""
    if not IS_THERE:
        pytest.skip("DuckDB's extension iceberg is not here: make test-lake installs it")
    to = folder / "read.parquet"
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, metadata, to], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return pq.read_table(to)
