"""Nothing of somebody else reaches a terminal as anything but text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ingestion.sources.tmdb.standin import StandIn
from ingestion.terminal import one_line, printable
from ingestion.tests.built import Built
from ingestion.tests.test_tmdb import TOKEN, film
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

EVIL = {
    "escape": "\x1b[31mred\x1b[0m",
    "bell": "ring\x07",
    "one-byte CSI": "\x9b2J",
    "link": "\x1b]8;;http://example.org\x1b\\click\x1b]8;;\x07",
    "clipboard": "\x1b]52;c;aGVsbG8=\x07",
    "title": "\x1b]0;title\x07",
    "carriage return": "real\rfake",
    "backspace": "real\b\b\b\bfake",
    "turned": "\u202egnp.exe",
    "isolated": "\u2066a\u2069",
    "no width": "a\u200bb",
    "line separator": "a\u2028b",
    "delete": "a\x7f",
    "NUL": "a\0b",
}
ALL = "".join(EVIL.values())


def assert_safe(text: str) -> None:
    odd = {c for c in text if not c.isprintable()} - {"\n", "\t"}
    assert not odd, f"{odd!r} in {text!r}"


@pytest.mark.parametrize("name", EVIL)
def test_what_acts_on_a_terminal_is_escaped(name: str) -> None:
    text = f"before {EVIL[name]} after"
    for safe in (printable(text), one_line(text)):
        assert safe.isprintable()
        assert safe.startswith("before ")
        assert safe.endswith(" after")
    assert printable("two\nlines\tÉté 東京 🎬") == "two\nlines\tÉté 東京 🎬"
    assert one_line("two\nlines") == r"two\nlines"
    assert one_line("x" * 1000).endswith("... (1,000 characters)")
    assert printable("half \ud83d").isprintable()


def test_all_that_is_printed_goes_through_the_one_helper() -> None:
    """Or it stands here, with the reason."""
    own = {"terminal.py", "standin.py"}  # the helper; a program that says its own address
    files = [f for f in (PROJECT_DIR / "ingestion").rglob("*.py") if "tests" not in f.parts]
    assert len(files) > 20
    found = {
        f.name: call[0]
        for f in files
        if f.name not in own
        and (call := re.search(r"click\.(s?echo)\(|(?<![\w.])print\(", f.read_text("utf-8")))
    }
    assert found == {}


@pytest.fixture
def warehouse(database: Target, tmp_path: Path) -> Built:
    made = Built(database, tmp_path)
    made.write_profile()
    return made


def said(warehouse: Built, *args: str) -> str:
    """What a command prints, on both ways, as bytes that are UTF-8."""
    done = warehouse.marquee(*args, check=False)
    assert done.stdout + done.stderr
    assert_safe(done.stdout)
    assert_safe(done.stderr)
    return done.stdout + done.stderr


FILE_SAFE = ALL.replace("\0", "").replace("/", "_").encode("utf-8", "replace").decode()


def test_texts_of_transaction_files_are_printed_safely(warehouse: Built, tmp_path: Path) -> None:
    folder = tmp_path / FILE_SAFE
    folder.mkdir()
    bad = {"transaction_id": ALL, "event_ts": ALL, "user_id": ALL, "amount": ALL, "merchant": ALL}
    good = {"event_ts": "2024-01-01T00:00:00Z", "user_id": "1", "amount": "5"}
    good |= {
        "transaction_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "merchant": ALL.replace("\0", ""),
    }
    (folder / f"{FILE_SAFE}.jsonl").write_text(
        f"{json.dumps(bad)}\n{FILE_SAFE}\n" + f"{json.dumps(good)}\n" * 30
    )
    table = f"transaction_id,event_ts,user_id,amount,{ALL}\nt1,{ALL},1,5,x\n"
    (folder / "table.csv").write_bytes(table.encode())
    (folder / "rubbish.parquet").write_bytes(b"PAR1" + ALL.encode() + b"PAR1")
    text = said(warehouse, "ingest", "transactions", str(folder / f"{FILE_SAFE}.jsonl"))
    assert "rejects" in text
    said(warehouse, "ingest", "transactions", str(folder / "table.csv"))
    said(warehouse, "ingest", "transactions", str(folder / "rubbish.parquet"))
    said(warehouse, "ingest", "transactions", str(folder / f"{FILE_SAFE} is not there.csv"))
    assert r"\x1b" in said(warehouse, "rejects", "show")
    said(warehouse, "rejects")


def test_texts_of_brand_files_are_printed_safely(warehouse: Built, tmp_path: Path) -> None:
    head = "Brand,Total,Releases,#1 Release,Lifetime Gross"
    index = tmp_path / f"{FILE_SAFE.replace('.', '')[:60]}.csv"
    line = FILE_SAFE.replace('"', "").replace(",", "").replace("\r", "")
    index.write_text(f"{head}\n{line},{line},{line},{line},{line}\nA,$1,1,B,$1\n")
    said(warehouse, "ingest", "brands", str(index))
    said(warehouse, "rejects", "show")
    index.write_text(f"{line},Total\n1,2\n")
    said(warehouse, "ingest", "brands", str(index))


def test_texts_of_tmdb_are_printed_safely(
    warehouse: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingestion.sources.tmdb import standin_server

    monkeypatch.setitem(standin_server.ERRORS, 400, (5, ALL))
    odd = film(1, title=ALL, budget=ALL, genres=[ALL], **{ALL: ALL})
    with StandIn([odd], token=TOKEN) as stand_in:
        warehouse.variables = {
            "TMDB_API_TOKEN": TOKEN,
            "SOURCES__TMDB__BASE_URL": stand_in.base_url,
            "SOURCES__TMDB__BACKOFF": "0.01",
        }
        said(warehouse, "ingest", "tmdb")
        text = said(warehouse, "rejects", "show", "--source", "tmdb")
        assert "/movie/1 budget" in text
        stand_in.faults = [standin_server.Fault(status=400, path="discover")]
        refused = said(warehouse, "ingest", "tmdb")
        assert r"\x1b[31mred" in refused
        said(warehouse, "--debug", "ingest", "tmdb")


def test_texts_of_the_warehouse_are_printed_safely(warehouse: Built) -> None:
    """The server names what it refuses: a column or table may be called anything."""
    name = FILE_SAFE.replace('"', "").encode()[:40].decode("utf-8", "ignore")
    warehouse.execute("create schema marts")
    warehouse.execute(f'create table marts."{name}" ("{name}" text)')
    said(warehouse, "export", "marts", "--to", str(warehouse.folder / "out"))
