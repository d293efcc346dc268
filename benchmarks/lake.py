"""How fast transactions land in a lake, beside Arrow writing the same Parquet plainly.

Run it with ``make bench-lake ROWS=1000000``. Every way is a process of its own, from its start to
its end. Ways take turns; medians are printed. CPU is the processor time of the process, which other
work on the machine disturbs less than the wall time.

- ``lake``: ``marquee ingest transactions --to lake`` of a JSON Lines file as it was generated, with
  half a percent of lines that must be rejected, into a new lake on this disk: contract, rejects,
  ledger, the file itself, Iceberg tables by day.
- ``arrow``: Arrow reads the same lines, those that land, with the types given, and writes Parquet
  by day with the same codec: no contract, no ledger, no copy, no catalogue, no fsync.
- ``parquet``: Arrow writes the rows that landed, which are in memory, as the same files. It reads
  and types nothing: what is left of the work when all else is taken away.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import MARQUEE, Run, database, run
from ingestion.sample.transactions import generate
from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target

SEED = 42
DAYS = 7
TARGET = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--way", choices=["arrow", "parquet"])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.way:
        {"arrow": _read_and_write, "parquet": _write}[asked.way](asked.folder)
        return
    with tempfile.TemporaryDirectory(prefix="marquee-lake-") as name:
        _compare(Path(name), asked.rows, asked.repeats, asked.days)


def _compare(folder: Path, rows: int, repeats: int, days: int) -> None:
    from datetime import date, timedelta

    start = date(2026, 1, 1)
    end = start + timedelta(days=days - 1)
    counts = generate(rows, SEED, folder / "lines.jsonl", start=start, end=end)
    found: dict[str, list[Run]] = {"lake": [], "arrow": [], "parquet": []}
    target = load_target()
    for turn in range(repeats):
        with database(target, "bench_lake") as fresh:
            found["lake"].append(_land(folder, fresh, turn))
            if not turn:
                _export(folder, fresh)
        for way in ("arrow", "parquet"):
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
            shutil.rmtree(folder / "plain", ignore_errors=True)
            timed = run(command, target, _state(folder, way))
            if way == "parquet":  # without the start and the reading of rows into memory
                said = json.loads((folder / "seconds.json").read_text())
                timed = Run(said["seconds"], said["cpu"], timed.memory)
            found[way].append(timed)
    size = sum(path.stat().st_size for path in (folder / "plain").rglob("*.parquet")) / 1e6
    print(f"{rows:,} lines of {days} days, {counts['landed']:,} rows, {size:,.0f} MB of Parquet")
    print(f"{'way':<10}{'s':>8}{'rows/s':>12}{'CPU s':>8}{'MB':>8}")
    medians = {}
    for way, runs in found.items():
        seconds, cpu, memory = (statistics.median(values) for values in zip(*runs, strict=True))
        medians[way] = seconds, cpu
        print(f"{way:<10}{seconds:>8.2f}{rows / seconds:>12,.0f}{cpu:>8.2f}{memory:>8,.0f}")
    for way, what in (("arrow", "reading and writing"), ("parquet", "writing alone")):
        wall, cpu = (medians[way][at] / medians["lake"][at] for at in (0, 1))
        print(f"rows/s of lake to Arrow {what}: {wall:.2f} (by CPU {cpu:.2f}; target {TARGET})")


def _state(folder: Path, way: str) -> Path:
    state = folder / f"state-{way}"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    return state


def _land(folder: Path, fresh: Target, turn: int) -> Run:
    place = folder / "lake"
    shutil.rmtree(place, ignore_errors=True)
    os.environ["LAKE__LOCATION"] = str(place)
    command = [*MARQUEE, "ingest", "transactions", "--to", "lake", str(folder / "lines.jsonl")]
    return run(command, fresh, _state(folder, f"lake{turn}"))


def _export(folder: Path, fresh: Target) -> None:
    """The rows that landed as one file of Arrow, and their lines as JSON."""
    import pyarrow as pa

    from ingestion.lake.catalogue import Catalogue
    from ingestion.lake.settings import location

    with closing(Catalogue(fresh, location())) as catalogue:
        rows = catalogue.tables()["transactions"].scan().to_arrow()
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as file,
        pa.ipc.new_file(file, rows.schema) as out,
    ):
        out.write_table(rows)
    landed = set(rows["_file_line"].to_pylist())
    with (folder / "lines.jsonl").open() as lines, (folder / "good.jsonl").open("w") as good:
        good.writelines(line for number, line in enumerate(lines, 1) if number in landed)


def _read_and_write(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.json as pj

    names = ("transaction_id", "merchant", "category", "city", "status", "payment_method")
    schema = pa.schema([(name, pa.string()) for name in (*names, "currency")])
    for name, kind in (
        ("event_ts", pa.timestamp("us", "UTC")),
        ("user_id", pa.int64()),
        ("amount", pa.float64()),  # as Arrow reads numbers: not exact, as the lake's are
    ):
        schema = schema.append(pa.field(name, kind))
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    rows = pj.read_json(folder / "good.jsonl", parse_options=options)
    for name, kind in (("user_id", pa.string()), ("amount", pa.decimal128(18, 4))):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, rows[name].cast(kind))
    _write_by_day(rows, folder / "plain")


def _write(folder: Path) -> None:
    import pyarrow as pa

    with pa.memory_map(str(folder / "rows.arrow")) as file:
        rows = pa.ipc.open_file(file).read_all()
    began, cpu = time.perf_counter(), time.process_time()
    _write_by_day(rows, folder / "plain")
    said = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    (folder / "seconds.json").write_text(json.dumps(said))


def _write_by_day(rows, place: Path) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    rows = rows.append_column("event_date", rows["event_ts"].cast(pa.date32()))
    kind = ds.ParquetFileFormat()
    ds.write_dataset(
        rows,
        place,
        format=kind,
        partitioning=["event_date"],
        partitioning_flavor="hive",
        file_options=kind.make_write_options(compression="zstd", compression_level=1),
        max_partitions=10_000,
    )


if __name__ == "__main__":
    main()
