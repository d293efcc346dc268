"""Checkouts that are renamed or copied: the warehouse goes along, and the original's is safe."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.tests.checkout import Checkout
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.test_server import as_root

MARK = "create table if not exists kept as select 'mine'::text as whose"
ASK = "select whose from kept"


@pytest.fixture(params=[0o711, pytest.param(0o700, marks=as_root)], ids=["inside", "outside"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where checkouts are: root keeps data outside of what its user cannot reach."""
    folder = reachable_folder()
    folder.chmod(request.param)
    yield folder
    for state in folder.glob("*/.marquee"):
        checkout = Checkout(state.parent)
        checkout.write_programs()
        code = "from ingestion.warehouse.embedded import Server; Server().delete()"
        checkout.run("python", "-c", code, PYTHONPATH=_path(checkout))
    shutil.rmtree(folder)


def _path(checkout: Checkout) -> str:
    import sysconfig

    return f"{checkout.folder}:{sysconfig.get_paths()['purelib']}"


@pytest.fixture
def original(place: Path) -> Checkout:
    """One with a running server and a table in it."""
    checkout = Checkout(place / "original", {"HOME": str(place)}).make()
    checkout.marquee("db", "start", "--port", str(unused_port()))
    psql(checkout, MARK)
    return checkout


def psql(checkout: Checkout, statement: str) -> str:
    return checkout.marquee("db", "psql", "--role", "admin", "-Atqc", statement).strip()


def settings(checkout: Checkout) -> dict:
    return json.loads((checkout.folder / ".marquee" / "server.json").read_text())


def copy(original: Checkout, name: str = "copy") -> Checkout:
    folder = original.folder.with_name(name)
    subprocess.run(["cp", "-a", str(original.folder), str(folder)], check=True)
    checkout = Checkout(folder, original.environment)
    checkout.write_programs()
    return checkout


def rename(original: Checkout) -> Checkout:
    folder = original.folder.rename(original.folder.with_name("renamed"))
    checkout = Checkout(folder, original.environment)
    checkout.write_programs()
    return checkout


@pytest.mark.parametrize("stopped", [True, False])
def test_a_renamed_checkout_keeps_its_warehouse(original: Checkout, stopped: bool) -> None:
    if stopped:
        original.marquee("db", "stop")
    renamed = rename(original)
    said = renamed.marquee("db", "start")
    assert ("started" in said, "running already" in said) == (stopped, not stopped)
    assert psql(renamed, ASK) == "mine"
    # a new checkout where it was has a warehouse of its own
    fresh = Checkout(original.folder, original.environment).make()
    fresh.marquee("db", "start", "--port", str(unused_port()))
    assert psql(fresh, "select to_regclass('kept')") == ""
    assert psql(renamed, ASK) == "mine"
    renamed.marquee("db", "stop")
    renamed.marquee("db", "start")
    assert psql(renamed, ASK) == "mine"


def test_a_copy_of_a_running_one_is_refused_and_the_remedy_works(original: Checkout) -> None:
    one = copy(original)
    for command in (
        ["ingest", "brands"],
        ["db", "url"],
        ["db", "status"],
        ["db", "stop"],
        ["db", "start"],
        ["db", "start", "--port", str(unused_port())],
        ["rejects"],
    ):
        done = one.run("marquee", *command)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), command
        assert f"is a copy of {original.folder}/.marquee" in done.stderr
        assert "marquee db reset" in done.stderr
    assert "is a copy of" in one.run("marquee", "doctor").stdout
    assert psql(original, ASK) == "mine"

    one.marquee("db", "reset", "--yes")  # what the message says
    assert psql(one, "select to_regclass('kept')") == ""
    assert psql(original, ASK) == "mine"
    assert settings(one)["port"] != settings(original)["port"]
    assert "45 rows" in one.marquee("ingest", "brands")
    one.marquee("db", "stop")
    assert psql(original, ASK) == "mine"


def test_a_copy_of_a_stopped_one_never_touches_the_original(original: Checkout) -> None:
    original.marquee("db", "stop")
    one = copy(original)
    done = one.run("marquee", "db", "start")
    if Path(settings(original)["data"]).is_absolute():  # it has no data of its own
        assert "whose data it would work on" in done.stderr
        one.marquee("db", "reset", "--yes")
    else:
        assert "is a copy of" in done.stderr
        assert psql(one, ASK) == "mine"
    original.marquee("db", "start")
    assert settings(one)["port"] != settings(original)["port"]
    for each, whose in ((one, "the copy's"), (original, "mine")):
        psql(each, f"drop table if exists kept; create table kept as select $${whose}$$ as whose")
    one.marquee("db", "reset", "--yes")
    assert psql(original, ASK) == "mine"
    assert psql(one, "select to_regclass('kept')") == ""


def test_make_clean_in_a_copy_leaves_the_original(original: Checkout) -> None:
    one = copy(original)
    (one.folder / ".venv" / ".ready").touch()
    subprocess.run(
        ["make", "clean"],
        cwd=one.folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": _path(one)},
        check=True,
        capture_output=True,
    )
    assert not (one.folder / ".marquee").exists()
    assert psql(original, ASK) == "mine"


def test_a_port_is_kept_once_the_server_is_up_on_it(original: Checkout) -> None:
    before = settings(original)
    configuration = next(
        path / "postgresql.conf"
        for path in (original.folder / ".marquee" / before["data"], Path(before["data"]))
        if path.is_absolute() and path.exists()
    )
    text = configuration.read_text()
    original.marquee("db", "stop")
    configuration.write_text(text + "shared_buffers = lots\n")
    done = original.run("marquee", "db", "start", "--port", str(unused_port()))
    assert "does not start" in done.stderr
    assert settings(original)["port"] == before["port"]
    configuration.write_text(text)
    original.marquee("db", "start")
    assert psql(original, ASK) == "mine"


def test_a_profile_that_is_behind_follows(original: Checkout) -> None:
    """Killed between the server's move to another port and the profile's."""
    profile = original.folder / "profiles.yml"
    before = profile.read_text()
    original.marquee("db", "start", "--port", str(unused_port()))
    profile.write_text(before)
    assert psql(original, ASK) == "mine"
    assert "running already" in original.marquee("db", "start")
    assert profile.read_text() != before


def test_programs_of_the_original_do_not_work_in_a_copy(place: Path) -> None:
    original = Checkout(place / "original").make()
    one = Checkout(place / "copy")
    subprocess.run(["cp", "-a", str(original.folder), str(one.folder)], check=True)
    program = one.folder / ".venv" / "bin" / "marquee"
    # an editable install leads to the original's code from anywhere
    text, theirs = program.read_text(), repr(str(original.folder))
    program.write_text(text.replace("sys.path[0] + '/../..'", theirs))
    done = one.run("marquee", "db", "reset", "--yes")
    assert f"are those of {original.folder}, of which it is a copy" in done.stderr
    assert f"make -C '{one.folder}' setup" in done.stderr


def test_make_makes_an_environment_anew_that_names_another_folder(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "my checkout").make()

    def wanted() -> bool:
        command = ["make", "--dry-run", "setup"]
        done = subprocess.run(command, cwd=checkout.folder, stdout=subprocess.PIPE, check=True)
        return b"rm -rf .venv" in done.stdout

    for earlier in (True, False):  # versions that noted nothing
        ready = checkout.folder / ".venv" / ".ready"
        ready.write_text("" if earlier else f"{checkout.folder}\n")
        assert not wanted()
        checkout.folder = checkout.folder.rename(tmp_path / f"other {earlier}")
        assert wanted()
        checkout.write_programs()
