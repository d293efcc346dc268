"""dbt, run in this process, and the packages that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ingestion import interrupts, logs, progress
from ingestion.errors import PASSING, PassingError, UserError, error_line, is_passing, may_pass
from ingestion.terminal import lines_are_json, one_line
from ingestion.warehouse.paths import PROJECT_DIR, make_state_dir, packages_dir, writable
from ingestion.warehouse.target import Target, profiles_path

PACKAGES = packages_dir()
STAND_IN_TITLE = "# dbt_utils, the stand-in"  # of its README
REBUILT = " is rebuilt in full"  # in what the macro record_fingerprint logs
FOUND = " found: "  # in what the macro say_what_failed logs
BUILDS = ("build", "run", "test", "seed", "snapshot")  # whose run_results.json users look for
HUB_TIMEOUT_SECONDS = 2  # `dbt deps` itself would try for ten and more


def install_packages() -> str:
    """Put dbt's packages in place: from the hub, or the stand-in where it does not answer.

    A package that somebody has put there stays; ``MARQUEE_DBT_UTILS`` names another to copy.

    Returns:
        One line about what was done.

    Raises:
        UserError: there is no package in the folder that ``MARQUEE_DBT_UTILS`` names.
    """
    installed = PACKAGES / "dbt_utils"
    if folder := os.environ.get("MARQUEE_DBT_UTILS"):
        package = Path(folder).expanduser().resolve()
        if not (package / "dbt_project.yml").is_file():
            raise UserError(
                f"MARQUEE_DBT_UTILS names {folder}, which holds no dbt package.\n"
                "Let it name the folder with dbt_utils' dbt_project.yml, or unset it."
            )
        _copy_package(package, installed)
        return f"dbt_utils from {folder}"
    there = (installed / "dbt_project.yml").is_file()
    if there and (not _is_stand_in(installed) or not writable(installed)):
        return "dbt_utils is there"
    if _install_from_hub():
        return "dbt_utils from the dbt package hub"
    _copy_package(PROJECT_DIR / "packages" / "dbt_utils", installed)
    return "the dbt package hub does not answer: the stand-in packages/dbt_utils serves"


def _is_stand_in(package: Path) -> bool:
    readme = package / "README.md"
    return readme.is_file() and readme.read_text(encoding="utf-8").startswith(STAND_IN_TITLE)


def _install_from_hub() -> bool:
    import requests
    from dbt.clients.registry import DEFAULT_REGISTRY_BASE_URL

    hub = f"{DEFAULT_REGISTRY_BASE_URL}api/v1/dbt-labs/dbt_utils.json"
    try:
        requests.get(hub, timeout=HUB_TIMEOUT_SECONDS).raise_for_status()
        with _project_that_takes_a_lock() as project:
            done = subprocess.run(
                [Path(sys.executable).with_name("dbt"), "--quiet", "deps"],
                cwd=project,
                capture_output=True,
                timeout=120,
                check=False,
            )
    except (requests.RequestException, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@contextmanager
def _project_that_takes_a_lock() -> Iterator[Path]:
    """The project's folder, for ``dbt deps``; a copy of what that reads if it cannot write there.

    It writes package-lock.yml beside packages.yml.
    """
    if writable(PROJECT_DIR):
        yield PROJECT_DIR
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("dbt_project.yml", "packages.yml"):
            shutil.copy(PROJECT_DIR / name, folder)
        yield Path(folder)


def _copy_package(package: Path, installed: Path) -> None:
    """Copy beside the place, then rename: a killed run leaves no half package."""
    if package == installed.resolve():
        return
    # not in dbt_packages, where dbt would take half a copy for a package
    make_state_dir(PACKAGES.parent)
    copy = PACKAGES.with_name(f"{PACKAGES.name}.{os.getpid()}")
    unneeded = shutil.ignore_patterns(".git", "integration_tests", "target")
    with interrupts.giving_back(lambda: shutil.rmtree(copy)):
        shutil.copytree(package, copy, ignore=unneeded)
        shutil.rmtree(installed, ignore_errors=True)
        PACKAGES.mkdir(exist_ok=True)
        copy.rename(installed)


def make_roles(target: Target) -> None:
    """Make loader, transformer and reporter by dbt's macro, on a server of the user's own.

    Raises:
        UserError: the login may not make roles; says what it needs.
    """
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
        )
        if not cursor.fetchone()[0]:
            raise UserError(
                f"{target.user} may not make roles at {target.host}:{target.port}.\n"
                f"As a superuser there: alter role {target.user} createrole; then run this again."
            )
    dbt("run-operation", target, "make_roles", label="Making roles")


def manifest(target: Target) -> Any:
    """The project as dbt reads it, to be handed to ``dbt`` again and again.

    Raises:
        UserError: dbt cannot read it.
    """
    found: list[Any] = []
    dbt("parse", target, label="Reading the project", found=found)
    return found[0]


def dbt(
    command: str,
    target: Target,
    *args: str,
    label: str,
    rebuilt: list[str] | None = None,
    manifest: Any = None,
    found: list[Any] | None = None,
    may_fail: bool = False,
) -> str:
    """Run dbt in this process, with a progress bar.

    Args:
        command: dbt's command.
        target: the warehouse.
        args: more arguments of the command.
        label: what the progress bar is called.
        rebuilt: gets names of models that are built in full because of what has changed.
        manifest: the project, if it has been read before.
        found: gets what dbt gives back.
        may_fail: its results may say failure; ``found`` has them.

    Returns:
        What passed, such as ``46 models, 5 seeds, 344 tests``.

    Raises:
        UserError: something failed; names the first failures.
    """
    from dbt.cli.main import dbtRunner

    # Python's own helper tidies after dbt's threads; after an interrupt it need not say so
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    findings: list[str] = []
    with (
        progress.task(label, unit="nodes") as advance,
        _keeping(target_path() / "run_results.json", if_after=command not in BUILDS),
    ):

        def follow(event: Any) -> None:
            logs.follow_dbt(event)
            if event.info.name == "LogStartLine":
                advance(0, total=event.data.total)
            elif event.info.name == "NodeFinished":
                advance(1)
            elif event.info.name == "JinjaLogInfo":
                message = event.info.msg
                if FOUND in message:
                    findings.append(message.partition(FOUND)[2])
                elif REBUILT in message and rebuilt is not None:
                    rebuilt.append(message.partition(REBUILT)[0])

        make_state_dir(target_path().parent)
        os.environ.setdefault("DBT_PROFILES_DIR", str(profiles_path().parent))
        os.environ["PGCLIENTENCODING"] = "UTF8"
        os.chdir(PROJECT_DIR)  # dbt looks for the project and profiles.yml in the working directory
        outcome = dbtRunner(manifest=manifest, callbacks=[follow]).invoke(
            [*quietly(), "--no-use-colors", command, *args, "--target", target.name]
        )
    results = getattr(outcome.result, "results", None)
    if outcome.exception:
        lease = str(getattr(outcome.exception, "msg", None) or "").splitlines()
        if lease and lease[0].startswith("Another dbt "):  # the macro build_lease says it all
            raise PassingError("\n".join(lease[:2]))
        why = error_line(outcome.exception)
        raise UserError(
            f"dbt {command} stopped: {why}\nSee {relative(log_path())}"
        ) from outcome.exception
    if not outcome.success and not (may_fail and results is not None):
        failed = [r for r in results or [] if r.status in ("error", "fail", "runtime error")]
        named = ", ".join(r.node.name for r in failed[:5]) or "see above"
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        remedy = f"See {relative(log_path())}, fix what it says, and run the same command again."
        if findings and len(failed) == 1:
            remedy = one_line(findings[0], None)
        kind = PassingError if _may_pass(failed) else UserError
        raise kind(f"dbt {command} failed: {named}{more}\n{remedy}")
    if found is not None:
        found.append(outcome.result)
    return _count(results or []) if command == "build" else ""


def quietly() -> list[str]:
    """Options by which dbt prints errors only; nothing where our own lines say what it says."""
    return ["--log-level", "none"] if lines_are_json() else ["--quiet"]


def _may_pass(failed: Sequence) -> bool:
    """Whether all that failed, failed for what passes by itself."""
    broken = [r for r in failed if r.status in ("error", "runtime error")]
    return len(broken) == len(failed) > 0 and all(may_pass(str(r.message)) for r in broken)


def as_typed(args: Sequence[str]) -> int:
    """Run dbt with arguments of its own, and have it print; returns an exit code.

    That is dbt's own (1: something failed, 2: it could not run), or 75 for what passes by itself.
    """
    from dbt.cli.exceptions import DbtUsageException
    from dbt.cli.main import dbtRunner

    silent = ["--log-level", "none"] if lines_are_json() else []
    outcome = dbtRunner(callbacks=[logs.follow_dbt]).invoke([*silent, *args])
    if outcome.success:
        return 0
    if (error := outcome.exception) is not None:
        if isinstance(error, DbtUsageException):  # all else dbt has said itself
            UserError(str(error)).show(code=2)
        is_busy = "Another dbt " in str(getattr(error, "msg", error))
        return PASSING if is_busy or is_passing(error) else 2
    failed = [
        result
        for result in getattr(outcome.result, "results", None) or []
        if result.status in ("error", "fail", "runtime error")
    ]
    return PASSING if _may_pass(failed) else 1


@contextmanager
def _keeping(path: Path, *, if_after: bool) -> Iterator[None]:
    """Keep a file as it is, where a command writes its own that is not looked for there."""
    before = path.read_bytes() if if_after and path.is_file() else None

    def put_back() -> None:
        if before is not None and path.read_bytes() != before:
            copy = path.with_name(f".{path.name}.{os.getpid()}")
            copy.write_bytes(before)
            copy.replace(path)

    with interrupts.giving_back(put_back):
        try:
            yield
        finally:
            put_back()


def _count(results: Sequence) -> str:
    kinds = {"model": "models", "seed": "seeds", "snapshot": "snapshots"}
    nodes = [r.node for r in results if r.node.resource_type != "operation"]  # hooks
    counts = Counter(kinds.get(node.resource_type, "tests") for node in nodes)
    warned = [r.node.name for r in results if r.status == "warn"]
    order = ("models", "seeds", "snapshots", "tests")
    text = ", ".join(f"{counts[kind]} {kind}" for kind in order if counts[kind]) + " passed"
    return text + (f" ({len(warned)} with warnings: {', '.join(warned[:3])})" if warned else "")


def target_path() -> Path:
    """Where dbt writes its artifacts."""
    return PROJECT_DIR / os.environ.get("DBT_TARGET_PATH", "target")


def log_path() -> Path:
    """dbt's log."""
    return PROJECT_DIR / os.environ.get("DBT_LOG_PATH", "logs") / "dbt.log"


def relative(path: Path) -> str:
    return os.path.relpath(path, PROJECT_DIR) if path.is_relative_to(PROJECT_DIR) else str(path)
