"""The image, built and run without an engine: by buildah, and in a chroot with a read-only root.

Its base is made of Debian's packages by mmdebstrap, as where no registry can be reached.
`make test-image` asks for it; MARQUEE_IMAGE_BASE names a base that is there already, a tar file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from ingestion.tests.conftest import execute, reachable_folder
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

USER = 10001
PROGRAMS = ("buildah", "mmdebstrap", "unshare", "setpriv")
INCLUDED = "python3,python3-venv,ca-certificates"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

pytestmark = [
    pytest.mark.skipif("MARQUEE_IMAGE" not in os.environ, reason="asked for: make test-image"),
    pytest.mark.timeout(1800),
]


@dataclass
class Image:
    """An image, and its file system, mounted."""

    store: Path

    def buildah(self, *args: str) -> str:
        places = [f"--root={self.store}/root", f"--runroot={self.store}/run"]
        done = subprocess.run(
            ["buildah", *places, "--storage-driver=vfs", *args],
            cwd=PROJECT_DIR,
            env={**os.environ, "HOME": str(self.store)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        tar = os.environ.get("MARQUEE_IMAGE_BASE") or f"{self.store}/base.tar"
        if not Path(tar).exists():
            debian = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}"]
            subprocess.run([*debian, _suite(), tar], check=True, cwd=self.store)
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, tar, "/")
        self.buildah("commit", "--quiet", "--rm", container, "base")

    def build(self) -> None:
        """Build it as README says, with this machine's index and certificates as secrets."""
        secrets = []
        if index := os.environ.get("PIP_INDEX_URL"):
            settings = self.store / "pip.conf"
            settings.write_text(f"[global]\nindex-url = {index}\n")
            secrets.append(f"--secret=id=pip.conf,src={settings}")
        certificates = os.environ.get("PIP_CERT") or CERTIFICATES
        if Path(certificates).exists():
            secrets.append(f"--secret=id=ca.pem,src={certificates}")
        how = ["--isolation=chroot", "--network=host", "--layers=false", "--format=docker"]
        what = ["--build-arg=BASE=localhost/base", "--build-arg=REVISION=tested"]
        file = ["--file=deploy/Dockerfile", "--target=marquee", "--tag=marquee", "."]
        self.buildah("build", "--quiet", *how, *what, *secrets, *file)

    @cached_property
    def settings(self) -> dict:
        """What an engine is told: environment, user, entrypoint, labels."""
        said = json.loads(self.buildah("inspect", "--type=image", "marquee"))["Docker"]
        return said["config"]

    @cached_property
    def root(self) -> Path:
        return Path(self.buildah("mount", self.buildah("from", "--pull-never", "marquee")))

    def run(self, state: Path, *args: str, **variables: str) -> subprocess.CompletedProcess:
        """Run it as an engine does with `--read-only` and one volume, without capabilities."""
        mounts = (
            f"mount --bind {self.root} {self.root} && mount -o remount,bind,ro {self.root}"
            f" && mount --bind {state} {self.root}/state"
            f" && mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
        )
        account = (
            f"setpriv --reuid={USER} --regid=0 --clear-groups --bounding-set=-all --no-new-privs"
        )
        inside = f'exec chroot "$0" {account} sh -c \'cd /app && exec "$0" "$@"\' "$@"'
        env = dict(pair.split("=", 1) for pair in self.settings["Env"])
        confined = ["unshare", "--mount", "sh", "-c", f"{mounts} && {inside}", str(self.root)]
        return subprocess.run(
            [*confined, *self.settings["Entrypoint"], *args],
            env=env | variables,
            capture_output=True,
            text=True,
            check=False,
        )


def _suite() -> str:
    """The release of Debian that this machine has."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME"))


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing or os.geteuid():
        pytest.skip(f"root is needed, and {', '.join(missing or PROGRAMS)}")
    store = Path(tempfile.mkdtemp(prefix="marquee-image-"))
    image = Image(store)
    try:
        image.make_base()
        image.build()
        yield image
    finally:
        image.buildah("umount", "--all")
        shutil.rmtree(store, ignore_errors=True)


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty volume, the user's."""
    folder = reachable_folder()
    os.chown(folder, USER, 0)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def role(database: Target) -> Iterator[Target]:
    """A login with the rights that docs/operations.md names, and no more."""
    from psycopg2 import sql

    name, place = sql.Identifier("in_a_container"), sql.Identifier(database.dbname)
    execute(database, sql.SQL("create role {} login password 'made up'").format(name))
    execute(database, sql.SQL("alter database {} owner to {}").format(place, name))
    try:
        yield replace(database, user="in_a_container", password="made up")
    finally:
        owner = sql.Identifier(database.user)
        execute(database, sql.SQL("reassign owned by {} to {}").format(name, owner))
        execute(database, sql.SQL("drop role {}").format(name))


def test_it_runs_read_only_as_its_user_with_the_environment_alone(
    image: Image, state: Path, role: Target
) -> None:
    env = role.libpq_env()
    first = image.run(state, "run", "--json", **env)
    assert first.returncode == 0, first.stderr[-3000:]
    landed = json.loads(first.stdout)["rows_landed"]
    assert landed["raw_transactions.transactions"] == 99_500
    again = image.run(state, "run", "--json", **env)
    assert again.returncode == 0, again.stderr[-3000:]
    assert set(json.loads(again.stdout)["rows_landed"].values()) <= {0}
    assert image.run(state, "doctor", **env).returncode == 0  # its health check
    # nothing of the volume is needed: another machine goes on from the warehouse alone
    for path in state.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert image.run(state, "dbt", "--quiet", "parse", **env).returncode == 0
    elsewhere = image.run(state, "ingest", "brands", **env)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert "raw_brands.brands                              0 rows" in elsewhere.stdout


def test_what_is_wrong_is_said_in_two_lines_with_an_exit_code(
    image: Image, state: Path, database: Target
) -> None:
    env = database.libpq_env()
    wrong = image.run(state, "run", **env | {"PGPASSWORD": "wrong"})
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 2), wrong.stderr
    assert "password authentication failed" in wrong.stderr
    away = image.run(state, "run", **env | {"PGPORT": "1"})
    assert (away.returncode, len(away.stderr.splitlines())) == (75, 2), away.stderr
    assert image.run(state, "doctor", **env | {"PGPORT": "1"}).returncode == 1
    os.chown(state, 0, 0)  # a volume that is not the user's
    state.chmod(0o755)
    closed = image.run(state, "run", **env)
    assert (closed.returncode, len(closed.stderr.splitlines())) == (1, 2), closed.stderr
    assert "Nothing can be written to /state" in closed.stderr


def test_a_secret_may_be_a_file(image: Image, state: Path, database: Target) -> None:
    file = state / "password"
    file.write_text(f"{database.password}\n")
    os.chown(file, USER, 0)
    env = database.libpq_env()
    del env["PGPASSWORD"]
    done = image.run(state, "metrics", PGPASSWORD_FILE="/state/password", **env)
    assert (done.returncode, "marquee_up 1" in done.stdout) == (0, True), done.stderr


def test_what_an_engine_is_told(image: Image) -> None:
    assert image.settings["User"] == f"{USER}:0"
    assert image.settings["Entrypoint"] == ["marquee"]
    assert "/state" in image.settings["Volumes"]
    assert image.settings["Healthcheck"]["Test"] == ["CMD", "marquee", "doctor"]
    labels = image.settings["Labels"]
    assert labels["org.opencontainers.image.revision"] == "tested"


def test_nothing_of_the_building_machine_is_in_it(image: Image) -> None:
    """Neither in its history and settings, nor in a file: no index, certificates or secrets."""
    (secrets := ["BEGIN CERTIFICATE"]).extend(
        index for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if (index := os.environ.get(name))
    )
    said = image.buildah("inspect", "--type=image", "marquee")
    assert not [secret for secret in secrets if secret in said]
    assert not [path for path in image.root.glob("run/secrets/*") if path.stat().st_size]
    for name in (".git", ".env", "profiles.yml", "ingestion/tests", ".marquee", "target"):
        assert not (image.root / "app" / name).exists()
    for path in (image.root / "app").glob("*"):
        assert path.stat().st_uid == 0
    for folder in ("etc/pip.conf", "root/.config/pip", "root/.cache"):
        assert not (image.root / folder).exists()
