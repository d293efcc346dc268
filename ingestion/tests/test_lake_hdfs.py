"""A lake in HDFS, and files that land from there: with Hadoop's own name node and data node."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyiceberg", reason="the extra lake: make test-lake")
pytest.importorskip("hdfs_native", reason="the extra hdfs: make test-lake")

from ingestion.errors import UserError
from ingestion.object_store import open_store
from ingestion.places import place
from ingestion.storage import Storage
from ingestion.tests.built import BIN
from ingestion.tests.hdfs_server import DATA_NODE, IS_POSSIBLE, NAME_NODE, HdfsServer
from ingestion.tests.test_lake import Site, ledger_says, made
from ingestion.tests.test_watch import line, until, watching
from ingestion.warehouse.target import Target

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="there is no Java or no Maven")
READING = {"py-io-impl": "ingestion.lake.storage.DurableIO"}


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HdfsServer]:
    server = HdfsServer(tmp_path_factory.mktemp("hdfs"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def site(database: Target, tmp_path: Path) -> Site:
    found = Site(database, tmp_path)
    found.write_profile()
    return found


def put(hdfs: HdfsServer, path: str, content: bytes) -> str:
    """Write a file there; returns its URL."""
    url = f"{hdfs.url}/{path}"
    open_store("hdfs").pipe_file(url, content)
    return url


def test_a_lake_there_is_as_on_a_disk(site, hdfs):
    site.variables["LAKE__LOCATION"] = f"{hdfs.url}/lake"
    store = open_store("hdfs")
    file = made(site, "a.jsonl", 600, 1)
    url = put(hdfs, "in/a.jsonl", file.read_bytes())
    with watching(
        site, f"{hdfs.url}/in/", "--every", "0.5", "--settle", "0.5", "--to", "lake"
    ) as process:
        until(lambda: "have landed" in ledger_says(site))
        assert process.poll() is None
    site.land(url)
    (counts,) = site.read("select count(*), sum(rows_landed) from files", **READING)
    assert counts == (1, site.read("select count(*) from transactions", **READING)[0][0])
    kept = hashlib.sha256(file.read_bytes()).hexdigest()
    assert store.cat_file(f"{hdfs.url}/lake/raw/transactions/{kept}.jsonl") == file.read_bytes()
    put(hdfs, "in/a.jsonl", (line() + "\n").encode())
    site.land(url, replace=True)
    assert site.read("select count(*) from transactions", **READING) == [(1,)]
    site.marquee("lake", "compact")
    site.marquee("lake", "expire", "--older-than", "0")
    found = store.find(f"{hdfs.url}/lake/validated")
    assert len([name for name in found if name.endswith(".parquet")]) == 1
    assert site.read("select count(*) from transactions", **READING) == [(1,)]


def test_a_load_that_is_killed_leaves_nothing(site, hdfs):
    site.variables["LAKE__LOCATION"] = f"{hdfs.url}/killed"
    site.land(made(site, "first.jsonl", 500, 2))
    before = site.read("select count(*) from transactions", **READING)
    big = made(site, "big.jsonl", 60_000, 3)
    for seconds in (1.5, 2.5, 3.5):
        command = [BIN / "marquee", "ingest", "transactions", "--to", "lake", str(big)]
        process = subprocess.Popen(command, env=site.environment, stdout=-3, stderr=-3)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            break  # it was quicker
        assert site.read("select count(*) from transactions", **READING) == before
    site.land(big)
    (counts,) = site.read("select count(*) from transactions", **READING)
    assert counts == site.read("select sum(rows_landed) from files", **READING)[0]


@pytest.mark.parametrize("node", [NAME_NODE, DATA_NODE], ids=["name node", "data node"])
def test_nodes_that_go_away_lose_nothing(site, hdfs, node):
    site.variables["LAKE__LOCATION"] = f"{hdfs.url}/{node.rpartition('.')[2]}"
    first, second = made(site, "first.jsonl", 300, 4), made(site, "second.jsonl", 300, 5)
    site.land(first)
    before = site.read("select count(*) from transactions", **READING)
    hdfs.kill(node)
    done = site.land(second, check=False)
    hdfs.start(node)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = site.land(second).stdout
    assert "have landed" in said or "rows" in said
    assert site.read("select count(*) from transactions", **READING) > before
    assert site.read("select count(distinct _file_name) from files", **READING) == [(2,)]


def test_a_place_for_exports_and_backups(hdfs):
    place_there = Storage(f"{hdfs.url}/exports", "export", "exported to")
    place_there.put("manifest.json", b"1")
    place_there.put("manifest.json", b"22")
    assert place_there.read("manifest.json") == b"22"
    with pytest.raises(FileNotFoundError):
        place_there.read("other.json")
    file = place_there.open("version/part.parquet")
    content = os.urandom(12 << 20)  # more than is sent at once
    file.write(content)
    place_there.close(file)
    half = place_there.open("version/half.parquet")
    half.write(content)
    place_there.abandon(half)
    assert place_there.read("version/part.parquet") == content
    assert place_there.names() == ["manifest.json", "version"]
    assert place_there.names("version") == ["part.parquet"]
    place_there.remove("version")
    assert not place_there.exists("version")


def test_what_is_not_there_and_who_does_not_answer(hdfs, site):
    missing = site.land(f"{hdfs.url}/nothing.jsonl", check=False)
    assert missing.returncode == 1
    assert f"There is no {hdfs.url}/nothing.jsonl" in missing.stderr
    away = site.land("hdfs://127.0.0.1:1/a.jsonl", check=False)
    assert away.returncode == 1
    assert "hdfs://127.0.0.1:1/a.jsonl cannot be read: Connection refused" in away.stderr
    for url, said in (
        ("hdfs:///lake", "names no name node"),
        ("hdfs://me:secret@host:8020/lake", "without credentials"),
        ("hdfs://host:port/lake", "without credentials"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            place(url)
        assert "secret" not in str(caught.value)
