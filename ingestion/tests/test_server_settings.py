"""Settings of the embedded server: the project's follow its version, the user's stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from ingestion.tests.conftest import unused_port
from ingestion.tests.test_server import query, scratch_server
from ingestion.warehouse import server_settings
from ingestion.warehouse.embedded import Server

OURS = server_settings.configuration()


@pytest.fixture
def server() -> Iterator[Server]:
    with scratch_server() as one:
        one.init(unused_port())
        yield one


def settings(server: Server, *names: str) -> list[str]:
    return [query(server, f"show {name}")[0][0] for name in names]


def as_version_one(server: Server) -> None:
    """Put the data folder back to what the first versions made: all by ``initdb --set``."""
    (server.data / "marquee.conf").unlink()
    path = server.data / "postgresql.conf"
    text = path.read_text().replace(server_settings.HEAD, "")
    first = OURS | {"wal_compression": "on", "shared_buffers": "1024MB"}
    for name, value in first.items():
        line = f"{name} = {value if value.isalnum() else repr(value)}"
        text, found = re.subn(rf"^#+{name} = \S+", line, text, count=1, flags=re.MULTILINE)
        assert found, name
    path.write_text(text)


def test_a_setting_that_changed_is_taken_at_the_next_start(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    assert settings(server, "wal_level", "work_mem") == ["minimal", "64MB"]
    server.stop()
    newer = OURS | {"wal_level": "replica", "max_wal_senders": "4", "work_mem": "48MB"}
    monkeypatch.setattr(server_settings, "configuration", lambda: newer)
    server.start()
    assert settings(server, "wal_level", "work_mem") == ["replica", "48MB"]


def test_what_the_first_versions_wrote_is_superseded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_version_one(server)
    newer = {**OURS, "wal_level": "replica", "max_connections": "60", "shared_buffers": "160MB"}
    monkeypatch.setattr(server_settings, "configuration", lambda: newer)
    server.start()
    names = ("wal_level", "max_connections", "shared_buffers", "wal_compression", "timezone")
    assert settings(server, *names) == ["replica", "60", "160MB", "off", "UTC"]


def test_what_the_user_set_stays(server: Server) -> None:
    as_version_one(server)
    path = server.data / "postgresql.conf"
    text = path.read_text().replace("work_mem = 64MB", "work_mem = 99MB", 1)
    text = text.replace("shared_buffers = 1024MB", "shared_buffers = 200MB")
    path.write_text(text + "max_connections = 33\njit = off\n# café\n", encoding="latin-1")
    for _ in range(2):  # a second start changes nothing
        server.start()
        query(server, "alter system set random_page_cost = 3")
        names = ("work_mem", "shared_buffers", "max_connections")
        assert settings(server, *names) == ["99MB", "200MB", "33"]
        assert "\njit = off\n# café\n" in path.read_text(encoding="latin-1")
        server.stop()
    server.start()
    assert settings(server, "random_page_cost") == ["3"]
    written = path.read_bytes()
    assert written.count(b"marquee.conf'") == 1


def test_a_new_server_has_ours_and_lets_the_user_change_them(server: Server) -> None:
    server.start()
    with closing(server.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select name, sourcefile from pg_settings where source like '%file'")
        sources = dict(cursor.fetchall())
    files = {sources[name].rpartition("/")[2] for name in OURS if name != "timezone"}
    assert files == {"marquee.conf"}
    server.stop()
    path = server.data / "postgresql.conf"
    path.write_text(path.read_text().replace("#work_mem = ", "work_mem = 77MB #", 1))
    server.start()
    assert settings(server, "work_mem") == ["77MB"]
