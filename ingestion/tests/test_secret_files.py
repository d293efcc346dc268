"""``NAME_FILE`` names a file with a secret, as containers mount them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ingestion.tests.built import BIN
from ingestion.tests.test_read_only import as_root
from ingestion.warehouse.target import Target

SECRET = "p\u00e9 @:/%'\"Kk9Zz7"


def marquee(*args: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BIN / "marquee", *args],
        env={"PATH": os.defpath} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    return file


def without_password(database: Target) -> dict[str, str]:
    return {name: value for name, value in database.libpq_env().items() if name != "PGPASSWORD"}


def test_a_password_in_a_file_opens_the_warehouse(database: Target, tmp_path: Path) -> None:
    """Of the commands here, and of dbt, which they start."""
    file = tmp_path / "password"
    file.write_text(f"{database.password}\n")
    state = {"MARQUEE_STATE_DIR": str(tmp_path), "DBT_PROFILES_DIR": str(tmp_path)}
    env = without_password(database) | state
    assert "no password supplied" in marquee("metrics", **env).stderr
    env |= {"PGPASSWORD_FILE": str(file)}
    done = marquee("metrics", **env)
    assert (done.returncode, "marquee_up 1" in done.stdout) == (0, True), done.stderr
    done = marquee("dbt", "debug", "--connection", **env)
    assert "Connection test: [OK" in done.stdout.replace("\x1b[32m", ""), done.stdout
    assert database.password not in (tmp_path / "profiles.yml").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "TMDB_API_TOKEN",
        "SOURCES__TMDB__API_TOKEN",  # dlt's own
        "DBT_ENV_SECRET_PROD_PASSWORD",
        "WAREHOUSE_PASSWORD",  # of a profile's env_var
        "AWS_SECRET_ACCESS_KEY",
    ],
)
def test_what_is_started_gets_the_secret(name: str, secret: Path) -> None:
    print_it = f"import os, sys; sys.stdout.buffer.write(os.environ['{name}'].encode())"
    child = f"from ingestion import cli; cli._settle(); {print_it}"
    done = subprocess.run(
        [BIN / "python", "-c", child],
        env={"PATH": os.defpath, f"{name}_FILE": str(secret)},
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode() == SECRET, done.stderr


@pytest.mark.parametrize("name", ["SSL_CERT", "AWS_WEB_IDENTITY_TOKEN", "LOG", "VAULT_TOKEN"])
def test_files_of_other_programs_are_left_alone(name: str) -> None:
    done = marquee("--version", **{f"{name}_FILE": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_gives_no_secret_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, why in (
        ("/nowhere", "cannot be read: no such file"),
        (str(tmp_path), "cannot be read: is a directory"),
        (str(empty), "is empty"),
        (str(binary), "cannot be read"),
    ):
        done = marquee("doctor", PGPASSWORD_FILE=path)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: PGPASSWORD_FILE names ")
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 2


def test_two_that_differ_are_refused_and_neither_is_printed(secret: Path) -> None:
    done = marquee("doctor", PGPASSWORD="other", PGPASSWORD_FILE=str(secret))
    assert done.returncode == 1
    assert "PGPASSWORD and PGPASSWORD_FILE are both set" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert "other" not in done.stderr
    same = marquee("--help", PGPASSWORD=SECRET, PGPASSWORD_FILE=str(secret))
    assert same.returncode == 0


@as_root
def test_another_users_secret_cannot_be_read(secret: Path) -> None:
    secret.parent.chmod(0o755)
    secret.chmod(0o600)
    child = "from ingestion.warehouse.secret_files import os, settle; os.setuid(10001); settle()"
    done = subprocess.run(
        [BIN / "python", "-c", child],
        env={"PGPASSWORD_FILE": str(secret)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ermission denied" in done.stderr
