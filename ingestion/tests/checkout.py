"""A checkout beside the one under test, with programs that another user can run too."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from ingestion.warehouse.paths import PROJECT_DIR

STRANGER = 10001  # nobody here has this number
_NOT_SOURCE = shutil.ignore_patterns(
    *(".venv*", ".git", ".marquee", "dbt_packages", "target", "logs", "profiles.yml", ".user.yml"),
    *("package-lock.yml", "*.egg-info", "__pycache__", ".*_cache", ".env", "images"),
    *(".monitoring", "*.duckdb*", "secrets"),
)


@dataclass
class Checkout:
    """A copy of the project's files, with a ``.venv`` whose programs use the packages of this one.

    Attributes:
        folder: where it is.
        environment: variables of all that runs there.
        user: who runs it; None is the one who runs the tests.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None

    def make(self) -> Checkout:
        shutil.copytree(PROJECT_DIR, self.folder, ignore=_NOT_SOURCE)
        self.folder.chmod(0o755)
        programs = self.folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(_python())
        self.write_programs()
        return self

    def write_programs(self) -> None:
        """Write ``.venv/bin/marquee`` and ``dbt`` as pip does, with this folder's name in them."""
        packages = {"marquee": ("ingestion.cli", "main"), "dbt": ("dbt.cli.main", "cli")}
        for name, (module, function) in packages.items():
            path = self.folder / ".venv" / "bin" / name
            path.write_text(
                f"#!{path.with_name('python')}\nimport sys\n"
                f"sys.path[:0] = [sys.path[0] + '/../..', {str(_packages())!r}]\n"
                f"from {module} import {function}\nsys.exit({function}())\n"
            )
            path.chmod(0o755)

    def run(self, program: str, *args: str, **variables: str) -> subprocess.CompletedProcess:
        """Run one of its programs, with nothing of this process's environment."""
        account = {} if self.user is None else {"user": self.user, "group": self.user}
        return subprocess.run(
            [self.folder / ".venv" / "bin" / program, *args],
            cwd=self.folder,
            env={"PATH": os.defpath} | self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            **account,
            **({} if self.user is None else {"extra_groups": []}),
        )

    def marquee(self, *args: str, **variables: str) -> str:
        """Run ``marquee``; returns what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = self.run("marquee", *args, **variables)
        assert done.returncode == 0, f"{args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@cache
def _packages() -> Path:
    """The packages of this environment, where every user may read them."""
    packages = Path(sysconfig.get_paths()["purelib"])
    if _open_to_all(packages):
        return packages
    copy = Path(tempfile.mkdtemp(prefix="marquee-packages-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(packages, copy, copy_function=_link, dirs_exist_ok=True, symlinks=True)
    copy.chmod(0o755)
    return copy


def _link(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:  # on another disk
        shutil.copy2(source, copy)


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in path.parents)


def _python() -> Path:
    """A Python of this version that every user may run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable).resolve(), Path(f"/usr/bin/{version}")):
        if path.exists() and _open_to_all(path):
            return path
    if os.geteuid():
        return Path(sys.executable).resolve()
    return pytest.skip(f"no {version} here that another user may run")
