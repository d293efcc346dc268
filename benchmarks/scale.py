"""What the star costs as history grows, by engine: make bench-scale ROWS=1000000,10000000 ENGINES=

Runs in `marquee scratch`, in the environment of Spark. For each size, made-up transactions of two
years' pace land in PostgreSQL; each engine builds the star in full, then the step of 10,000 rows
that `make bench-build` describes. DuckDB and Spark get the raw tables as by `marquee export raw`,
whose time stands apart. Spark is a server on this machine with two executors and Spark's own
settings, not those of the tests; the tables are Iceberg's. DuckDB may take 12 GB and then writes
to disk: the 80 % of the machine that it takes otherwise leave dbt and PostgreSQL too little.
After each step come the models that it spent most time in, with seconds, waiting included.

Memory is the peak of all processes of an engine together, dbt included, by proportional set size:
what they share counts once. Only Linux tells it; elsewhere it is the resident size. Disk is the
peak of what DuckDB and Spark keep: tables, raw tables, and what a build puts aside meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import psutil
import yaml
from build import AROUND, DAYS, STAR, execute, land, land_batch, prepare, show

from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target
from serving.export.raw import copy_raw, write_raw
from serving.spark.server import Server

BIN = Path(sys.executable).parent
ENGINES = ("postgres", "duckdb", "spark")
TESTS = ("test_type:data", "test_type:unit")
OTHER = "stg_brands__brands"  # a view that is none of the star's
SAMPLED_EVERY = 0.5  # seconds
SLOWEST = 12  # models of a step that are named
LEAST = 110_000  # rows of two years, or no week has those that a batch changes
GIGABYTE = 1e9
DUCKDB_MEMORY = "12GB"
SPARK = {  # Spark's own defaults, and what two small executors need
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.maxResultSize": "2g",
}


class Peaks:
    """What processes, all below them, and files of a folder take at most, until `stop`."""

    def __init__(self, processes: list[psutil.Process], folder: Path) -> None:
        self.memory = self.disk = 0  # bytes
        self._processes, self._folder, self._over = processes, folder, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            found = {}
            for root in self._processes:
                with suppress(psutil.Error):
                    for process in (root, *root.children(recursive=True)):
                        with suppress(psutil.Error):
                            used = process.memory_full_info()
                            found[process.pid] = getattr(used, "pss", used.rss)
            self.memory = max(self.memory, sum(found.values()))
            self.disk = max(self.disk, _size_of(self._folder))


def _size_of(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):  # leaves out what goes meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(place, name).lstat().st_size
    return size


class Engine:
    """One engine with a warehouse of one size: its variables, and the processes of its server."""

    def __init__(self, name: str, target: Target, folder: Path, stack: ExitStack) -> None:
        self.name, self.target = name, target
        self.folder = folder / name
        self.folder.mkdir(mode=0o755)
        self.servers: list[psutil.Process] = []
        self.variables = {"PGDATABASE": target.dbname}
        # of its own: dbt would read the whole project anew whenever the target changes
        self.variables["DBT_TARGET_PATH"] = str(folder / f"target-{name}")
        if name == "postgres":
            self.servers = [_postmaster(target)]
        elif name == "duckdb":
            self.variables["DBT_TARGET"] = name
            self.variables["MARQUEE_DUCKDB"] = str(self.folder / "star.duckdb")
            _set_in_profile(name, "memory_limit", DUCKDB_MEMORY)
        else:
            server = Server(self.folder / "server", port=0, memory="3g", settings=SPARK)
            server.start()
            stack.callback(server.stop)
            self.servers = [psutil.Process(server.process.pid)]
            self.variables |= {"DBT_TARGET": name, "MARQUEE_SPARK": server.address}
            self.variables |= {"MARQUEE_SPARK_RAW": str(self.folder / "raw")}

    def copy(self) -> float:
        """Bring the raw tables to it, as `marquee export raw` does; the seconds."""
        began = time.monotonic()
        if self.name == "duckdb":
            copy_raw(self.target, Path(self.variables["MARQUEE_DUCKDB"]))
        elif self.name == "spark":
            write_raw(self.target, self.variables["MARQUEE_SPARK_RAW"])
            self.dbt("run", "--select", OTHER)  # the first run after a copy takes it in
        return time.monotonic() - began

    def dbt(self, *args: str) -> tuple[float, Peaks]:
        """Seconds, memory and disk that dbt takes, the engine's server included."""
        began = time.monotonic()
        process = subprocess.Popen(
            [BIN / "dbt", "--quiet", *args],
            env=os.environ | self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        peaks = Peaks([psutil.Process(process.pid), *self.servers], self.folder)
        said, _ = process.communicate()
        seconds = time.monotonic() - began
        peaks.stop()
        if process.returncode:
            raise SystemExit(f"{self.name}: {said[-3000:]}")
        return seconds, peaks

    def slowest(self) -> str:
        """The models that dbt's last run spent most time in, each with its seconds."""
        file = Path(self.variables["DBT_TARGET_PATH"], "run_results.json")
        results = json.loads(file.read_text())["results"]
        results.sort(key=lambda result: result["execution_time"], reverse=True)
        named = (
            f"{result['unique_id'].split('.')[-1]} {result['execution_time']:.1f}"
            for result in results[:SLOWEST]
        )
        return ", ".join(named)


def _set_in_profile(target: str, setting: str, value: str) -> None:
    """Change a setting of a target in the throw-away profile."""
    file = Path(os.environ["DBT_PROFILES_DIR"], "profiles.yml")
    profile = yaml.safe_load(file.read_text("utf-8"))
    profile["marquee"]["outputs"][target].setdefault("settings", {})[setting] = value
    file.write_text(yaml.safe_dump(profile))


def _postmaster(target: Target) -> psutil.Process:
    """The server that the connections of this process belong to."""
    with closing(target.connect()) as connection:
        return psutil.Process(connection.info.backend_pid).parent()


@contextmanager
def engines_of(target: Target, names: list[str]) -> Iterator[list[Engine]]:
    """The engines by name, with their files in a folder that goes with them."""
    with tempfile.TemporaryDirectory(prefix="marquee-scale-") as folder, ExitStack() as stack:
        place = Path(folder)
        place.chmod(0o755)
        yield [Engine(name, target, place, stack) for name in names]


@click.command()
@click.option("--rows", default="1000000,10000000", show_default=True)
@click.option("--engines", "chosen", default=",".join(ENGINES), show_default=True)
@click.option("--batches", default=2, show_default=True)
def main(rows: str, chosen: str, batches: int) -> None:
    """Print seconds and peak memory of builds and steps, and how steps grow with history."""
    base = load_target()
    prepare(base)
    names = [name for name in ENGINES if name in chosen.split(",")]
    sizes = sorted(int(size) for size in rows.split(","))
    if sizes[-1] < LEAST:
        raise click.UsageError(
            f"The largest history needs {LEAST:,} rows, for a batch of a week's."
        )
    steps: dict[str, list[float]] = {name: [] for name in names}
    for size in sizes:
        target = replace(base, dbname=f"rows_{size}")
        admin = replace(base, dbname="postgres")
        execute(admin, f"create database {target.dbname} template {base.dbname}")
        land(target, size, round(DAYS * size / sizes[-1]), seed=1)
        with engines_of(target, names) as engines:
            table = {}
            for engine in engines:
                copied = engine.copy()
                engine.dbt("build", "--select", *AROUND, "--exclude", *TESTS)
                seconds, peaks = engine.dbt("run", "--full-refresh", "--select", *STAR)
                table[engine.name] = {
                    "raw copied s": copied,
                    "full build s": seconds,
                    "peak GB": peaks.memory / GIGABYTE,
                    "disk, peak GB": peaks.disk / GIGABYTE or None,
                }
                click.echo(f"{size:,} rows, {engine.name}: {table[engine.name]}", err=True)
            found: dict[str, list[tuple[float, Peaks]]] = {name: [] for name in names}
            for number in range(batches):
                land_batch([target], number)
                for engine in engines:
                    engine.copy()
                    found[engine.name].append(engine.dbt("run", "--select", *STAR))
                    click.echo(f"  step on {engine.name}: {engine.slowest()}", err=True)
            for name, each in found.items():
                steps[name].append(median(seconds for seconds, _ in each))
                table[name]["step s"] = steps[name][-1]
                table[name]["step, peak GB"] = max(peaks.memory for _, peaks in each) / GIGABYTE
            show(f"{size:,} rows; steps of 10,000, median of {batches}", table)
        execute(admin, f"drop database {target.dbname} with (force)")
    if len(sizes) > 1:
        title = f"A step's cost with {sizes[-1] // sizes[0]} times the history (target 1.5)"
        show(title, {name: {"ratio": each[-1] / each[0]} for name, each in steps.items()})


if __name__ == "__main__":
    main()
