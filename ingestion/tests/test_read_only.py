"""A checkout that cannot be written to: another user's, or read-only. All goes elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.tests.checkout import STRANGER, Checkout
from ingestion.tests.conftest import reachable_folder
from ingestion.warehouse.target import Target

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = reachable_folder()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(place: Path) -> Checkout:
    return Checkout(place / "checkout").make()


@pytest.fixture
def state(place: Path) -> Iterator[Path]:
    """A folder of the stranger's."""
    folder = place / "state"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stranger(source: Checkout) -> Checkout:
    """Root's checkout in the hands of a user without a name and without a home."""
    return Checkout(source.folder, user=STRANGER)


@as_root
def test_a_stranger_runs_it_all_on_the_embedded_server(stranger: Checkout, state: Path) -> None:
    before = stranger.files()
    stranger.environment = {"MARQUEE_STATE_DIR": str(state)}
    try:
        assert "tests passed" in stranger.marquee("run")
        assert "embedded" in stranger.marquee("db", "status")
        assert "dbt_utils" in stranger.marquee("deps")
        stranger.marquee("doctor")
        stranger.marquee("export", "marts", "--to", str(state / "out"), "--select", "dim_date")
        stranger.marquee("dbt", "run", "--select", "stg_brands__brands")
        stranger.marquee("db", "reset", "--yes")
    finally:
        stranger.run("marquee", "db", "stop")
    assert stranger.files() == before


@as_root
def test_a_stranger_lands_in_a_server_that_the_environment_names(
    stranger: Checkout, state: Path, database: Target
) -> None:
    before = stranger.files()
    stranger.environment = database.libpq_env() | {"XDG_STATE_HOME": str(state)}
    stranger.marquee("deps")
    stranger.marquee("ingest", "brands")
    stranger.marquee("dbt", "run", "--select", "stg_brands__brands")
    stranger.marquee("scratch", "true")
    assert {path.name for path in (state / "marquee").iterdir()} >= {
        *("profiles.yml", "dbt_packages", "target", "logs", "dlt")
    }
    assert not list(state.glob("marquee/pgdata"))
    assert stranger.files() == before


@as_root
@pytest.mark.parametrize("home", ["/", "/nowhere", None])
def test_without_any_place_to_write_to_two_lines_say_so(
    stranger: Checkout, home: str | None, database: Target
) -> None:
    stranger.environment = database.libpq_env() | ({"HOME": home} if home else {})
    for command in (["run"], ["ingest", "brands"], ["deps"]):
        done = stranger.run("marquee", *command)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: Nothing can be written to ")
        assert "MARQUEE_STATE_DIR" in done.stderr.splitlines()[1]
        assert len(done.stderr.splitlines()) == 2
    done = stranger.run("marquee", "doctor")
    assert "FAIL  state" in done.stdout
    assert stranger.run("marquee", "--help").returncode == 0


@as_root
def test_what_root_made_in_the_checkout_is_not_the_strangers(
    place: Path, state: Path, database: Target
) -> None:
    """Its profile with the password cannot be read, its packages can, its target is not ours."""
    checkout = Checkout(place / "used").make()
    for name in ("target", "logs", "dbt_packages", ".marquee"):
        (checkout.folder / name).mkdir()
    shutil.copytree(
        checkout.folder / "packages", checkout.folder / "dbt_packages", dirs_exist_ok=True
    )
    (checkout.folder / "profiles.yml").write_text("nonsense")
    (checkout.folder / "profiles.yml").chmod(0o600)
    checkout.user = STRANGER
    checkout.environment = database.libpq_env() | {"HOME": str(state)}
    before = checkout.files()
    assert "dbt_utils is there" in checkout.marquee("deps")
    checkout.marquee("ingest", "brands")
    checkout.marquee("dbt", "run", "--select", "stg_brands__brands")
    assert checkout.files() == before
    assert (state / ".local/state/marquee/profiles.yml").exists()


@as_root
def test_a_read_only_mount_is_left_alone_by_root_too(
    source: Checkout, place: Path, state: Path, database: Target
) -> None:
    mounted = place / "mounted"
    mounted.mkdir()
    for command in (
        ["mount", "--bind", str(source.folder), str(mounted)],
        ["mount", "-o", "remount,bind,ro", str(mounted)],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        checkout = Checkout(mounted, database.libpq_env() | {"MARQUEE_STATE_DIR": str(state)})
        for args in (["deps"], ["ingest", "brands"], ["dbt", "parse"]):
            checkout.marquee(*args)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@as_root
def test_dbt_comes_first_and_finds_the_server_that_the_environment_names(
    stranger: Checkout, state: Path, database: Target
) -> None:
    stranger.environment = database.libpq_env() | {"MARQUEE_STATE_DIR": str(state)}
    stranger.marquee("deps")
    assert "Connection test" in stranger.marquee("dbt", "debug", "--connection")
    assert (state / "profiles.yml").stat().st_mode & 0o777 == 0o600


@as_root
def test_all_works_where_no_temporary_folder_can_be_written_to(
    stranger: Checkout, state: Path, database: Target
) -> None:
    """As in a container with a read-only root and one volume."""
    read_only = "".join(
        f"mount --bind {place} {place} && mount -o remount,bind,ro {place} && "
        for place in ("/tmp", "/var/tmp")  # noqa: S108
    )
    if subprocess.run(["unshare", "-m", "sh", "-c", f"{read_only}true"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    before = stranger.files()
    account = f"setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups"
    for args in ("deps", "ingest brands", "ingest releases", "dbt run -s stg_brands__brands"):
        command = f"{read_only} exec {account} {stranger.folder}/.venv/bin/marquee {args}"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", command],
            cwd="/",
            env={"PATH": os.defpath, "HOME": "/nowhere", "MARQUEE_STATE_DIR": str(state)}
            | database.libpq_env(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert stranger.files() == before
