"""Where things are: the checkout, and what is written on the way.

All is written into the checkout: the state (``.marquee``), profiles.yml, dbt's packages, target and
logs. Where it cannot be (it is read-only, or another user's), all of it goes into the state folder,
which then is MARQUEE_STATE_DIR or, without that, below the user's home.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from ingestion.errors import UserError

PROJECT_DIR = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT_DIR / "profiles.yml.example"


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder that is there."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def home() -> Path | None:
    """The user's home; None for users without one, as containers have them."""
    with suppress(RuntimeError):  # HOME is not set, and nobody knows this user
        return Path.home()
    return None


def _state_dir() -> Path:
    if told := os.environ.get("MARQUEE_STATE_DIR"):
        return Path(told).absolute()
    inside = PROJECT_DIR / ".marquee"
    if writable(PROJECT_DIR) or writable(inside):
        return inside
    if told := os.environ.get("XDG_STATE_HOME"):
        return Path(told).absolute() / "marquee"
    user_home = home()
    return user_home / ".local" / "state" / "marquee" if user_home else inside


STATE_DIR = _state_dir()


def make_state_dir(folder: Path | None = None) -> Path:
    """The state folder, made when it is not there.

    Raises:
        UserError: nothing can be written there.
    """
    folder = folder or STATE_DIR
    why = "permission denied"
    with suppress(FileExistsError):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
    if writable(folder):
        return folder
    raise UserError(
        f"Nothing can be written to {folder}: {why}.\n"
        "Name a folder that you may write to: export MARQUEE_STATE_DIR=..."
    )


def profiles_home() -> Path:
    """The folder for a new profiles.yml."""
    return PROJECT_DIR if writable(PROJECT_DIR) else STATE_DIR


def packages_dir() -> Path:
    """Where dbt's packages are, or are to be put."""
    inside = PROJECT_DIR / "dbt_packages"
    there = os.access(inside / "dbt_utils" / "dbt_project.yml", os.R_OK)
    if writable(PROJECT_DIR) or writable(inside):
        return inside
    return inside if there and not os.environ.get("MARQUEE_DBT_UTILS") else STATE_DIR / inside.name


def _temporary() -> list[str]:
    """Where programs put temporary files: in a container all of it may be read-only."""
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    return [place for place in named if place] + ["/tmp", "/var/tmp"]  # noqa: S108


def settle() -> None:
    """Lead dbt, dlt and this process away from a checkout that cannot be written to.

    They are led by their own environment variables, which are left alone where they are set.
    """
    os.environ.setdefault("DLT_PROJECT_DIR", str(PROJECT_DIR))  # dlt's own settings, from anywhere
    user_home = home()
    if user_home is None:
        os.environ["HOME"] = str(STATE_DIR)
    if user_home is None or not writable(user_home):
        os.environ.setdefault("DLT_DATA_DIR", str(STATE_DIR / "dlt"))
    if not any(writable(Path(place)) for place in _temporary()):
        with suppress(OSError):  # make_state_dir says what is wrong with the state folder
            (STATE_DIR / "tmp").mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(STATE_DIR / "tmp")
    if writable(PROJECT_DIR):
        return
    for variable, name in (("DBT_TARGET_PATH", "target"), ("DBT_LOG_PATH", "logs")):
        if not writable(PROJECT_DIR / name):
            os.environ.setdefault(variable, str(STATE_DIR / name))
    os.environ.setdefault("MARQUEE_DBT_PACKAGES", str(packages_dir()))


def dbt_command() -> str:
    """How to call dbt from the checkout so that it finds what is here."""
    return ".venv/bin/dbt" if writable(PROJECT_DIR) else "marquee dbt"


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as possible: a killed ``initdb`` may still be writing into it."""
    shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file, all or nothing, for its owner only."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)
