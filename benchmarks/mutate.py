"""Whether the tests catch what can go wrong: one fault at a time, on a throw-away warehouse.

Run it with ``make mutate``. The sample is landed and built once. For each fault of ``faults.yml``
a fresh copy of that database gets the fault, and dbt has to notice it with the test that the fault
names; a test that warns has noticed too. A fault is one of:

- ``sql``: what is done to tables that are built; then tests of what it ``select``s run,
- ``raw``: what is done to raw tables; then the source that it ``select``s and what is made of it
  are built,
- ``edit``: a line of the project that is changed; then what it ``select``s and what is made of it
  are built,
- ``freshness``: what is done to raw tables; then dbt looks at the freshness of sources.

NOT NULL and unique keys of marts and raw tables are dropped first, for it is the tests that are
tried here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import yaml
from dbt.cli.main import dbtRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ingestion.warehouse.access import load_target
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target

FAULTS = Path(__file__).with_name("faults.yml")
SCRATCH = "faulty"
PARTS = ("dbt_project.yml", "packages.yml", "macros", "models", "seeds", "snapshots", "tests")
PARTS += ("docs", "packages", "dbt_packages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="faults whose name matches this regular expression")
    only = re.compile(parser.parse_args().only or "")
    faults = [fault for fault in yaml.safe_load(FAULTS.read_text()) if only.search(fault["fault"])]

    subprocess.run([sys.executable, "-m", "ingestion", "run"], cwd=PROJECT_DIR, check=True)
    warehouse = load_target()
    if is_embedded(warehouse):
        warehouse = Server().target  # who may make databases
    scratch = replace(warehouse, dbname=SCRATCH)
    print(f"\n{len(faults)} faults, each alone\n")
    print(f"| {'fault':<60} | caught by")
    print(f"|{'-' * 62}|{'-' * 60}")
    escaped = 0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        # the copy is the one place that the profile's database and login are changed for
        os.environ |= scratch.libpq_env()
        for fault in faults:
            _refresh(warehouse)
            _copy_project(project)
            wanted, others = _try(fault, scratch, project)
            escaped += not wanted
            more = f" and {len(others)} more" if wanted and others else ""
            caught = f"{wanted[0]}{more}" if wanted else f"NOTHING of it ({', '.join(others)})"
            print(f"| {fault['fault']:<60} | {caught}", flush=True)
    print(f"\n{len(faults) - escaped} of {len(faults)} faults were caught.")
    sys.exit(1 if escaped else 0)


def _try(fault: dict, scratch: Target, project: Path) -> tuple[list[str], list[str]]:
    """Let dbt look for a fault.

    Returns:
        Names of what noticed it: those that the fault expects, and the others.
    """
    select = fault.get("select", "")
    if statement := fault.get("sql"):
        _execute(scratch, statement)
        command = ["test", "--select", select, "--exclude", "test_type:unit"]
    elif statement := fault.get("raw"):
        _execute(scratch, statement)
        command = ["build", "--select", f"source:{select}+"]
    elif edit := fault.get("edit"):
        file = project / edit["file"]
        text = file.read_text()
        if text.count(edit["find"]) != 1:
            return [], [f"{edit['file']} does not hold {edit['find']!r} once"]
        file.write_text(text.replace(edit["find"], edit["replace"]))
        command = ["build", "--select", *(f"{name}+" for name in select.split())]
    else:
        _execute(scratch, fault["freshness"])
        command = ["source", "freshness"]
    done = dbtRunner().invoke(
        [
            *("--quiet", "--log-level", "none", "--log-level-file", "none", "--no-use-colors"),
            *command,
            *("--project-dir", str(project), "--target-path", str(project / "target")),
        ]
    )
    if done.exception:
        noticed = [f"dbt: {str(done.exception).strip().splitlines()[0]}"]
    else:
        noticed = [
            _name(result.node)
            for result in done.result.results
            if result.status in ("fail", "error", "warn", "runtime error")
        ]
    expected = re.compile(fault["caught_by"])
    wanted = [name for name in noticed if expected.search(name)]
    return wanted, [name for name in noticed if name not in wanted]


def _name(node: object) -> str:
    """A test's name; of a model that does not build, that it does not."""
    kind, name = node.resource_type, node.name
    if kind == "source":
        return f"freshness of {node.source_name}.{name}"
    return name if kind in ("test", "unit_test") else f"build of {name}"


def _refresh(warehouse: Target) -> None:
    """Make the scratch database a copy of what was built, without the marts' constraints."""
    maintenance = replace(warehouse, dbname="postgres")
    _execute(maintenance, f"drop database if exists {SCRATCH} with (force)")
    _execute(
        maintenance, f"create database {SCRATCH} template {warehouse.dbname} strategy file_copy"
    )
    _execute(
        replace(warehouse, dbname=SCRATCH),
        """
        do $$ declare found record; begin
            for found in
                select format('alter table %s drop constraint %I', conrelid::regclass, conname) as it
                from pg_constraint
                where connamespace::regnamespace::text ~ '^(marts|raw)' and contype in ('p', 'u')
            loop execute found.it; end loop;
            for found in
                select format('alter table %s alter %I drop not null', attrelid::regclass, attname) as it
                from pg_attribute join pg_class on pg_class.oid = attrelid
                where relnamespace::regnamespace::text ~ '^(marts|raw)'
                    and relkind = 'r' and attnotnull and attnum > 0
            loop execute found.it; end loop;
        end $$
        """,  # noqa: E501
    )


def _copy_project(project: Path) -> None:
    """The project as it is, for one fault; dbt's parsed state stays, which makes it quicker."""
    for part in PARTS:
        source, copy = PROJECT_DIR / part, project / part
        if not source.exists():
            continue
        if source.is_dir():
            shutil.copytree(source, copy, dirs_exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def _execute(target: Target, statement: str) -> None:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)


if __name__ == "__main__":
    main()
