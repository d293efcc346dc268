"""Transactions from object stores and from standard input: the same promises as for files."""

from __future__ import annotations

import bz2
import errno
import gzip
import http.server
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from ingestion.days import Days
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import transactions
from ingestion.sources.transactions.inputs.days import files_of_days
from ingestion.sources.transactions.inputs.files import STDIN, Inbox, find_files
from ingestion.tests.built import Built
from ingestion.tests.conftest import unused_port
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

NAMES = ("transaction_id", "event_ts", "user_id", "amount")
SECRET = "marker-of-a-secret"


def row(user: int) -> dict:
    values = (f"0b9f3c1e-5a4d-4c3b-9f2e-{user:012}", "2024-03-01T12:00:00Z", user, 12.5)
    return dict(zip(NAMES, values, strict=True))


def jsonl(*users: int) -> bytes:
    return b"".join(json.dumps(row(user)).encode() + b"\n" for user in users)


def csv(*users: int) -> bytes:
    rows = (",".join(map(str, row(user).values())) for user in users)
    return "\n".join([",".join(NAMES), *rows, ""]).encode()


def parquet(*users: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row(user) for user in users]), out)
    return out.getvalue()


@pytest.fixture
def land(database: Target, tmp_path: Path) -> Iterator[Callable[..., LoadReport]]:
    """``ingest`` into the test's database; no copy of what was fetched or piped in may stay."""

    def ingest(*paths, **options) -> LoadReport:
        pipeline = make_pipeline("transactions", database, tmp_path / "dlt")
        return transactions.ingest(paths, database, pipeline=pipeline, **options)

    yield ingest
    inbox = tmp_path / "dlt" / "transactions_inbox"
    assert not inbox.exists() or [path for path in inbox.rglob("*") if path.is_file()] == []


@pytest.fixture
def query(database: Target) -> Callable[..., list[tuple]]:
    def run(text: str) -> list[tuple]:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_transactions")
            cursor.execute(text)
            return cursor.fetchall()

    return run


LEDGER = "select _file_name, path, lines_read, etag from files order by _dlt_load_id, path"
USERS = "select user_id::bigint, _file_name, _file_line from transactions order by 1, 2, 3"


# Object stores


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Points the cloud library at a server, by its own variables only."""

    def use(url: str) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    return use


@pytest.fixture
def bucket(s3_server: str, aws) -> SimpleNamespace:
    """A bucket on a server that speaks S3: ``url``, ``put`` and ``delete`` by key."""
    aws(s3_server)
    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    name = f"bucket-{uuid.uuid4().hex}"
    store.mkdir(name)
    return SimpleNamespace(
        url=f"s3://{name}",
        put=lambda key, content: store.pipe(f"{name}/{key}", content),
        delete=lambda key: store.rm(f"{name}/{key}"),
    )


@pytest.mark.parametrize("end", ["*.jsonl", "a.jsonl", ""])
def test_the_objects_of_some_days(land, query, bucket, end):
    for day in (1, 3, 4):
        bucket.put(f"in/dt=2026-01-0{day}/a.jsonl", jsonl(day))
    days = Days(date(2026, 1, 1), date(2026, 1, 3))
    found = files_of_days([f"{bucket.url}/in/dt=%Y-%m-%d/{end}"], days)
    assert [note for note in found.notes if "dt=2026-01-02" in note] == found.notes != []
    land(*found)
    assert [user for user, _, _ in query(USERS)] == [1, 3]


def test_an_object_a_prefix_and_a_glob(land, query, bucket):
    bucket.put("in/a.jsonl", jsonl(1, 2))
    bucket.put("in/2024/b.csv.gz", gzip.compress(csv(3)))
    bucket.put("in/2024/c.parquet", parquet(4, 5))
    bucket.put("in/", b"")
    bucket.put("in/notes.md", b"no transactions")
    bucket.put("in/_delta_log/0.json", b"of a program")
    bucket.put("in/year=2024/.x.csv", b"unfinished")
    bucket.put("other/d.jsonl.gz", gzip.compress(jsonl(6)))
    bucket.put("other/e [1]?.json", jsonl(7))
    bucket.put("other/f", csv(8))  # its first line says what it is

    assert land(f"{bucket.url}/in/a.jsonl").rows == {"transactions": 2, "files": 1}
    report = land(f"{bucket.url}/in/")
    assert report.rows == {"transactions": 3, "files": 2}
    assert f"{bucket.url}/in/a.jsonl has landed before (" in report.notes[0]
    assert report.notes[1:] == [
        f"{bucket.url}/in/: 3 files are hidden or of another kind, and left out:"
        " _delta_log/0.json, notes.md, year=2024/.x.csv."
    ]
    assert land(f"{bucket.url}/**/*.gz").rows == {"transactions": 1, "files": 1}
    land(f"{bucket.url}/other/e [1]?.json", f"{bucket.url}/other/f")
    assert land(bucket.url).rows == {"transactions": 0, "files": 0}  # the bucket, as a prefix

    assert query(USERS) == [
        (1, f"{bucket.url}/in/a.jsonl", 1),
        (2, f"{bucket.url}/in/a.jsonl", 2),
        (3, f"{bucket.url}/in/2024/b.csv.gz", 2),
        (4, f"{bucket.url}/in/2024/c.parquet", 1),
        (5, f"{bucket.url}/in/2024/c.parquet", 2),
        (6, f"{bucket.url}/other/d.jsonl.gz", 1),
        (7, f"{bucket.url}/other/e [1]?.json", 1),
        (8, f"{bucket.url}/other/f", 2),
    ]
    ledger = query(LEDGER)
    assert {name for name, *_ in ledger} == {path for _, path, *_ in ledger}
    assert all(etag for *_, etag in ledger)


def test_an_object_lands_once_grows_changes_and_is_replaced(land, query, bucket, tmp_path):
    url = f"{bucket.url}/x.jsonl"
    bucket.put("x.jsonl", jsonl(1, 2))
    land(url)
    assert "has landed before" in land(url).notes[0]

    (tmp_path / "same.jsonl").write_bytes(jsonl(1, 2))
    bucket.put("copy.jsonl", jsonl(1, 2))
    report = land(tmp_path / "same.jsonl", f"{bucket.url}/copy.jsonl")
    assert report.rows == {"transactions": 0, "files": 0}
    assert [f"has landed before as {url}" in note for note in report.notes] == [True, True]

    bucket.put("x.jsonl", jsonl(1, 2, 3))
    report = land(url)
    assert report.rows == {"transactions": 1, "files": 1}
    assert "has grown" in report.notes[0]
    assert query(USERS) == [(user, url, user) for user in (1, 2, 3)]

    bucket.put("x.jsonl", jsonl(1, 20))
    with pytest.raises(UserError, match="has changed since it landed"):
        land(url)
    report = land(url, replace=True)
    assert report.rows == {"transactions": 2, "files": 1}
    assert query("select path, is_replacement from files order by _dlt_load_id") == [
        (url, False),
        (url, False),
        (url, True),
    ]


def test_a_warehouse_that_was_emptied_takes_all_again(land, query, bucket, pipe_in, database):
    """dlt empties its own folder then; what has just been fetched must not be in there."""
    bucket.put("x.jsonl", jsonl(1))
    land(f"{bucket.url}/x.jsonl")
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("drop schema raw_transactions cascade")
    pipe_in(jsonl(2))
    assert land(f"{bucket.url}/x.jsonl", "-").rows == {"transactions": 2, "files": 2}
    assert query("select user_id::bigint from transactions order by 1") == [(1,), (2,)]


def test_what_landed_is_not_fetched_again(land, bucket, monkeypatch):
    bucket.put("x.jsonl", jsonl(1))
    url = f"{bucket.url}/x.jsonl"
    land(url)
    monkeypatch.setattr(Inbox, "fetch", lambda *_: pytest.fail("fetched"))
    assert "has landed before" in land(url).notes[0]


def test_an_object_that_vanishes_or_changes_meanwhile(land, query, bucket, monkeypatch):
    bucket.put("a.jsonl", jsonl(1))
    bucket.put("b.jsonl", jsonl(2))
    found = find_files([f"{bucket.url}/*.jsonl"])
    bucket.delete("a.jsonl")
    with pytest.raises(UserError, match=r"(?s)There is no .*a\.jsonl.*Other files have landed: 1"):
        land(*found)
    assert query("select user_id::bigint from transactions") == [(2,)]

    bucket.put("big.jsonl", jsonl(*range(1_000)))
    monkeypatch.setattr(transactions.settings, "CHUNK_BYTES", 40_000)
    original, reads = s3fs.S3File._fetch_range, []

    def change(self, start, end):
        reads.append(start)
        if len(reads) == 2:
            bucket.put("big.jsonl", jsonl(*range(1_000, 2_000)))
        return original(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", change)
    with pytest.raises(UserError, match=r"big.jsonl was changed while it was read.\nRun") as caught:
        land(f"{bucket.url}/big.jsonl")
    assert len(caught.value.message.splitlines()) == 2
    assert query("select count(*) from transactions") == [(1,)]


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A web server that gives one answer to everything; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _forbidden(request: http.server.BaseHTTPRequestHandler) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    request.send_response(403)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def _breaks_off(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(206 if "Range" in request.headers else 200)
    request.send_header("Content-Length", "5000")
    request.send_header("ETag", '"1"')
    request.send_header("Last-Modified", "Fri, 01 Mar 2024 12:00:00 GMT")
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(jsonl(1))
    request.close_connection = True


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_forbidden, r"s3://b/x.jsonl may not be read: Forbidden.\n.*credentials.*"),
        (_breaks_off, r"s3://b/x.jsonl cannot be read: .*\n.*run this again."),
    ],
    ids=["forbidden", "breaks off"],
)
def test_a_store_that_refuses_or_breaks_off(land, query, aws, answer, said):
    with answering(answer) as server:
        aws(server)
        with pytest.raises(UserError) as caught:
            land("s3://b/x.jsonl")
    assert re.fullmatch(said, caught.value.message)
    assert SECRET not in caught.value.message
    tables = "select tablename from pg_tables where schemaname = 'raw_transactions'"
    assert query(f"{tables} and tablename != '_load_lock'") == []


def test_a_store_that_is_not_there(land, aws):
    aws(f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(UserError, match=r"Could not connect.*\nCheck the network"):
        land("s3://b/x.jsonl")


def test_urls_that_name_nothing(land, bucket):
    bucket.put("in/a.jsonl", jsonl(1))
    bucket.put("md/a.md", b"")
    for url, expected in [
        ("s3://not-there-at-all/x.jsonl", "There is no s3://not-there-at-all/x.jsonl.\nCheck"),
        ("s3://not-there-at-all/in/", "There is no s3://not-there-at-all/in/.\nCheck"),
        ("s3://not-there-at-all/*.csv", "There is no s3://not-there-at-all/*.csv.\nCheck"),
        (f"{bucket.url}/gone.jsonl", f"There is no {bucket.url}/gone.jsonl.\nCheck"),
        (f"{bucket.url}/in/*.csv", f"There is no {bucket.url}/in/*.csv.\nCheck"),
        (f"{bucket.url}/in", f"{bucket.url}/in is no object, but there are"),
        (f"{bucket.url}/md/", f"There is no file of transactions below {bucket.url}/md/.\n"),
        ("ftp://b/x.jsonl", "not read from ftp://"),
        (f"s3://someone:{SECRET}@b/x.jsonl", "without credentials"),
    ]:
        with pytest.raises(UserError) as caught:
            land(url)
        assert expected in caught.value.message
        assert len(caught.value.message.splitlines()) == 2
        assert SECRET not in caught.value.message


@pytest.mark.parametrize(("protocol", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_a_store_whose_package_is_missing(protocol, package):
    if importlib.util.find_spec(package):
        pytest.skip("the package is installed")
    with pytest.raises(UserError, match=rf"needs the package {package}.\n.*'\.\[{protocol}\]'"):
        find_files([f"{protocol}://bucket/x.jsonl"])


# Standard input


@pytest.fixture
def pipe_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return give


@pytest.mark.parametrize(
    ("content", "first_line"),
    [
        (jsonl(1, 2), 1),
        (gzip.compress(jsonl(1, 2)), 1),
        (csv(1, 2), 2),
        (b"\xef\xbb\xbf" + csv(1, 2).replace(b",", b";"), 2),
        (gzip.compress(csv(1, 2)), 2),
        (parquet(1, 2), 1),
        (csv(1, 2).decode().encode("utf-16"), 2),
        (json.dumps([row(1), row(2)], indent=1).encode(), 1),
        (bz2.compress(csv(1, 2)), 2),
    ],
    ids=[
        *("jsonl", "jsonl.gz", "csv", "csv with a mark", "csv.gz", "parquet"),
        *("UTF-16", "a JSON array", "csv.bz2"),
    ],
)
def test_standard_input_is_what_it_looks_like(land, query, pipe_in, content, first_line):
    pipe_in(content)
    assert land("-", "-").rows == {"transactions": 2, "files": 1}
    assert query(USERS) == [(1, STDIN, first_line), (2, STDIN, first_line + 1)]


def test_standard_input_lands_once_by_content(land, query, pipe_in, tmp_path):
    pipe_in(jsonl(1))
    land("-")
    pipe_in(jsonl(1))
    report = land("-")
    assert report.rows == {"transactions": 0, "files": 0}
    assert f"{STDIN} has landed before (" in report.notes[0]
    (tmp_path / "same.jsonl").write_bytes(jsonl(1))
    assert f"as {STDIN}" in land(tmp_path / "same.jsonl").notes[0]

    pipe_in(jsonl(1, 2))  # not the same input grown, nor changed: another one
    assert land("-").rows == {"transactions": 2, "files": 1}
    pipe_in(jsonl(3))
    assert land("-", replace=True).rows == {"transactions": 1, "files": 1}
    assert query("select count(*), bool_or(is_replacement), count(distinct path) from files") == [
        (3, False, 3)
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "<stdin> is empty"),
        (b"nonsense\n" * 3, "<stdin>: 3 of 3 lines cannot land"),
        (b"[" + jsonl(1), "<stdin> is cut off"),
        (gzip.compress(jsonl(*range(99)))[:-20], "<stdin> is not a whole gzip file"),
    ],
)
def test_standard_input_that_cannot_land_is_not_tried_again(land, query, pipe_in, content, said):
    pipe_in(content)
    with pytest.raises(UserError, match=said):
        land("-")
    pipe_in(jsonl(1))
    assert land("-").rows == {"transactions": 1, "files": 1}
    assert query("select bytes from files") == [(len(jsonl(1)),)]


def test_no_standard_input(land, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="no standard input"):
        land("-")


DIES = """
import os, signal, sys
from pathlib import Path
from ingestion.pipeline import make_pipeline
from ingestion.sources import transactions
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.inputs import plan
from ingestion.warehouse.target import Target

settings.CHUNK_BYTES = 10_000
moment, folder, *target = sys.argv[1:]
target = Target("test", target[0], int(target[1]), *target[2:], "dev")
if moment == "before reading":
    plan.make_plan = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
elif moment == "while loading":
    from ingestion.sources.transactions.landing.copy import Copy
    Copy.commit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
pipeline = make_pipeline("transactions", target, Path(folder))
transactions.ingest(["-"], target, pipeline=pipeline)
"""


def dying(moment: str, target: Target, folder: Path) -> subprocess.Popen:
    where = [target.host, str(target.port), target.user, target.password, target.dbname]
    return subprocess.Popen(
        [sys.executable, "-c", DIES, moment, str(folder), *where],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT_DIR,
    )


@pytest.mark.parametrize("moment", ["before reading", "while loading"])
def test_what_was_piped_in_outlives_a_kill(land, query, database, tmp_path, moment):
    process = dying(moment, database, tmp_path / "dlt")
    process.communicate(jsonl(1, 2))
    assert process.returncode == -signal.SIGKILL
    (tmp_path / "x.jsonl").write_bytes(jsonl(3))
    report = land(tmp_path / "x.jsonl")
    assert report.rows == {"transactions": 3, "files": 2}
    assert f"{STDIN}: what an earlier, killed run had read is taken up." in report.notes
    assert query(USERS) == [(1, STDIN, 1), (2, STDIN, 2), (3, str(tmp_path / "x.jsonl"), 1)]
    assert land(tmp_path / "x.jsonl").rows == {"transactions": 0, "files": 0}


def test_what_was_piped_in_outlives_a_full_disk(land, query, pipe_in, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    pipe_in(jsonl(1))
    with monkeypatch.context() as patch:
        patch.setattr("dlt.Pipeline.extract", full)
        with pytest.raises(OSError, match="No space"):
            land("-")
    pipe_in(jsonl(2))
    assert land("-").rows == {"transactions": 2, "files": 2}
    assert query("select user_id::bigint from transactions order by 1") == [(1,), (2,)]


def test_what_was_half_read_from_a_pipe_does_not_land(land, query, database, tmp_path):
    process = dying("never", database, tmp_path / "dlt")
    process.stdin.write(jsonl(*range(10, 1_000)))
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not any(half.stat().st_size for half in (tmp_path / "dlt").rglob("*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    process.stdin.close()
    (tmp_path / "x.jsonl").write_bytes(jsonl(3))
    land(tmp_path / "x.jsonl")
    assert query("select user_id::bigint from transactions") == [(3,)]


# The command line


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "A path is empty.\nIs a variable not set? . is the current folder."),
        ("~nobody-of-this-name/x.jsonl", "There is no file {}.\nCheck the path."),
        ("x" * 300, "There is no file {}.\nCheck the path."),
        ("x\0", "There is no file {}.\nCheck the path."),
    ],
    ids=["empty", "the home of nobody", "too long", "a NUL"],
)
def test_a_path_that_can_be_of_no_file(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jsonl").write_bytes(jsonl(1))
    with pytest.raises(UserError) as refusal:
        find_files([path])
    assert refusal.value.message == said.replace("{}", path)


def test_a_glob_takes_names_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody.jsonl").write_bytes(jsonl(1))
    assert [file.name for file in find_files(["*.jsonl"])] == ["~nobody.jsonl"]


def test_a_path_is_looked_at_before_a_server_is_made(target: Target, tmp_path: Path):
    bare = Built(target, tmp_path)
    done = bare.marquee("ingest", "transactions", "nowhere.jsonl", check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: There is no file nowhere.jsonl.\nCheck the path.\n"
    assert not list(tmp_path.iterdir())
