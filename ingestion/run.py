"""``marquee run``: from nothing to a tested warehouse, and again to an up-to-date one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg2

from ingestion import interrupts, progress, raw_tables
from ingestion.errors import UserError, error_line
from ingestion.pipeline import LoadReport
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access, roles
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.fitness import refuse_unfit
from ingestion.warehouse.paths import (
    PROJECT_DIR,
    STATE_DIR,
    dbt_command,
    make_state_dir,
    packages_dir,
    writable,
)
from ingestion.warehouse.profiles import write_profiles
from ingestion.warehouse.state import is_superuser
from ingestion.warehouse.target import Target, marts_schema, profiles_path

SAMPLE_ROWS = 100_000
SAMPLE_SEED = 42
PACKAGES = packages_dir()
INDENT = " " * 33
STAND_IN_TITLE = "# dbt_utils, the stand-in"  # of its README
REBUILT = " is rebuilt in full"  # in what macros/fingerprints.sql logs
HUB_PATIENCE = 2  # seconds; `dbt deps` itself would try for ten and more


@dataclass
class Steps:
    """What has been done so far, for the summary."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time one step and print it; the first thing put into the list beside it, others below."""
        said: list[str] = []
        started = time.monotonic()
        yield said
        self.seconds[name] = time.monotonic() - started
        what, *notes = said or [""]
        echo(f"{name:<22} {self.seconds[name]:>5.1f} s  {what}")
        for note in notes:
            safe = one_line(note, None)
            echo(textwrap.fill(safe, 100, initial_indent=INDENT, subsequent_indent=INDENT))


def run_all(target_name: str | None) -> None:
    """Start the server, land every source, build and test the models, write the docs page.

    Raises:
        UserError: a step failed. What the earlier ones did stays; the next run goes on from there.
    """
    steps = Steps()
    with steps.step("Start PostgreSQL") as said:
        target = access.ready(target_name)
        with closing(target.connect()) as connection:  # better said now than after minutes
            refuse_unfit(connection, target)
        said.append(target.place)
    with steps.step("Install dbt packages") as said:
        said.append(install_packages())
    reports = land_everything(roles.acting_as("loader", target), steps)
    with steps.step("Build and test models") as said:
        rebuilt: list[str] = []
        built = dbt("build", target, label="Building", rebuilt=rebuilt)
        said.append(built)
        if rebuilt:
            said.append(f"What these are built from has changed, so in full: {', '.join(rebuilt)}")
    if is_superuser(target):  # a profile of the user's own
        access.open_to_roles(Server(), again=True)
    with steps.step("Write the docs page") as said:
        said.extend(write_docs(target))
    _summarise(target, reports, built, steps)


def write_docs(target: Target) -> list[str]:
    """Write dbt's docs page, and lineage by column where `make lineage` has installed it.

    Returns:
        Where they are; or why the second is not there, which is no reason to stop.
    """
    from ingestion import lineage

    page = _relative(target_path() / "static_index.html")
    generate = ("generate", "--static")
    if not lineage.COLIBRI.exists():
        dbt("docs", target, *generate, "--no-compile", label="Documenting")
        return [page]
    dbt("docs", target, *generate, label="Documenting")
    try:
        return [page, lineage.write_page(target_path())]
    except UserError as error:
        return [page, f"Lineage by column is missing: {error.message}"]


def land_everything(target: Target, steps: Steps) -> list[LoadReport]:
    """Land brands, transactions, films: in this order, as TMDB is asked for titles of brands.

    Where files of the user's own have landed, that part of the sample is left out.
    """
    from ingestion.sources import brands, tmdb, transactions

    lands = {
        "Land brands": (
            lambda: brands.ingest_brands(None, target),
            own_file(target, "brands", "brands"),
        ),
        "Land brand releases": (
            lambda: brands.ingest_releases(None, target),
            own_file(target, "brands", "brand_releases"),
        ),
        "Land transactions": (
            lambda: transactions.ingest([sample_transactions()], target),
            own_file(target, "transactions"),
        ),
        "Land TMDB films": (lambda: tmdb.ingest(target), None),
    }
    reports = []
    if added := raw_tables.bring_forward(target):
        with steps.step("Raw tables") as said:
            said.append(f"get the columns of this release: {', '.join(added)}")
    for name, (land, own) in lands.items():
        with steps.step(name) as said:
            if own:
                said.append(f"no sample, for {own} has landed")
                continue
            report = land()
            said.append(f"{sum(report.rows.values()):,} rows")
            if report.rejected:
                said.append(f"{report.rejected:,} lines put aside in raw_{report.source}.rejects")
            said.extend(report.notes)
            reports.append(report)
    return reports


def own_file(target: Target, source: str, kind: str | None = None) -> str | None:
    """Name of the file landed last that is not the sample's; None when there is none."""
    sample = str(sample_path()) if source == "transactions" else "ingestion/sample/"
    query = (
        f"select _file_name from raw_{source}.files"  # noqa: S608 - names of ours
        " where not starts_with(_file_name, %s) and (%s is null or to_jsonb(files) ->> 'kind' = %s)"
        " order by landed_at desc limit 1"
    )
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(query, (sample, kind, kind))
        except psycopg2.errors.UndefinedTable:
            return None
        found = cursor.fetchone()
        return found and found[0]


def sample_path() -> Path:
    """Where the made-up transactions of the sample are."""
    return STATE_DIR / "sample" / "transactions.jsonl"


def sample_transactions() -> Path:
    """The made-up transactions of the sample, written on first use."""
    from ingestion.sources.transactions import generator

    path = sample_path()
    if not path.exists():
        make_state_dir(path.parent)
        unfinished = path.with_name(f"{os.getpid()}.{path.name}")
        generator.generate(SAMPLE_ROWS, SAMPLE_SEED, unfinished)
        unfinished.replace(path)
    return path


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
        requests.get(hub, timeout=HUB_PATIENCE).raise_for_status()
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


def dbt(
    command: str, target: Target, *args: str, label: str, rebuilt: list[str] | None = None
) -> str:
    """Run dbt in this process, with a progress bar.

    Args:
        command: dbt's command.
        target: the warehouse.
        args: more arguments of the command.
        label: what the progress bar is called.
        rebuilt: gets names of models that are built in full because of what has changed.

    Returns:
        What passed, such as ``46 models, 5 seeds, 344 tests``.

    Raises:
        UserError: something failed; names the first failures.
    """
    from dbt.cli.main import dbtRunner

    # Python's own helper tidies after dbt's threads; after an interrupt it need not say so
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    with progress.task(label, unit="nodes") as advance:

        def follow(event) -> None:
            if event.info.name == "LogStartLine":
                advance(0, total=event.data.total)
            elif event.info.name == "NodeFinished":
                advance(1)
            elif event.info.name == "JinjaLogInfo" and rebuilt is not None:
                name, found, _ = event.info.msg.partition(REBUILT)
                rebuilt.extend([name] if found else [])

        make_state_dir(target_path().parent)
        os.environ.setdefault("DBT_PROFILES_DIR", str(profiles_path().parent))
        os.environ["PGCLIENTENCODING"] = "UTF8"
        os.chdir(PROJECT_DIR)  # dbt looks for the project and profiles.yml where it stands
        outcome = dbtRunner(callbacks=[follow]).invoke(
            ["--quiet", "--no-use-colors", command, *args, "--target", target.name]
        )
    results = getattr(outcome.result, "results", None)
    if outcome.exception:
        lease = getattr(outcome.exception, "msg", "").splitlines()
        if lease and lease[0].startswith("Another dbt "):  # macros/build_lease.sql says it all
            raise UserError("\n".join(lease[:2]))
        why = error_line(outcome.exception)
        raise UserError(f"dbt {command} stopped: {why}\nSee {_relative(log_path())}")
    if not outcome.success:
        failed = [r for r in results or [] if r.status in ("error", "fail", "runtime error")]
        named = ", ".join(r.node.name for r in failed[:5]) or "see above"
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise UserError(
            f"dbt {command} failed: {named}{more}\n"
            f"See {_relative(log_path())}, fix what it says, and run the same command again."
        )
    return _count(results) if command == "build" else ""


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


def _relative(path: Path) -> str:
    return os.path.relpath(path, PROJECT_DIR) if path.is_relative_to(PROJECT_DIR) else str(path)


def _summarise(target: Target, reports: list[LoadReport], built: str, steps: Steps) -> None:
    rows: Counter[str] = Counter()
    for report in reports:
        rows.update({f"raw_{report.source}.{table}": n for table, n in report.rows.items()})
    echo("\nRows landed" if any(rows.values()) else "\nNothing new to land.")
    for table in sorted(+rows):
        echo(f"  {table:<32} {rows[table]:>9,}")
    marts = marts_schema(target)
    reader = roles.acting_as("reporter", target)
    role = " --role reporter" if reader != target else ""
    echo(f"""
Built {built}, in {sum(steps.seconds.values()):.0f} s in all.

Look at it         .venv/bin/marquee db psql -c 'table {marts}.brand_performance'
Browse lineage     make docs, or open {_relative(target_path() / "static_index.html")}
Open dashboards    make superset
Build again        {dbt_command()} build
Connect a BI tool  {reader.place}, schema {marts}; with the password: .venv/bin/marquee db url{role}
Use your own       TMDB token, files, PostgreSQL: see README.md""")


def run_in_scratch(command: Sequence[str]) -> int:
    """Run a command whose warehouse is a throw-away PostgreSQL; returns its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="marquee-scratch-"))
    folder.chmod(0o711)  # the server's user must reach its data when this runs as root
    scratch = Server(folder / "state")
    started: list[subprocess.Popen] = []
    try:
        end = partial(_end_scratch, scratch, folder, started)
        with interrupts.giving_back(end, at_once=scratch.abandon):
            return _run_in_scratch(command, scratch, folder, started)
    except FileNotFoundError as error:
        raise UserError(f"There is no command {command[0]!r}.") from error
    finally:
        scratch.delete()
        shutil.rmtree(folder, ignore_errors=True)


def _run_in_scratch(
    command: Sequence[str], scratch: Server, folder: Path, started: list[subprocess.Popen]
) -> int:
    scratch.start()
    write_profiles(scratch, folder / "profiles.yml")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env |= {
        "DBT_PROFILES_DIR": str(folder),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "MARQUEE_STATE_DIR": str(folder / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
    }
    started.append(subprocess.Popen(list(command), env=env))
    return started[0].wait()


def _end_scratch(scratch: Server, folder: Path, started: list[subprocess.Popen]) -> None:
    """After an interrupt: the command first, which may tidy up, then the server and its data."""
    for process in started:
        if not sys.stdin.isatty():  # there Ctrl-C has reached it, too
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    interrupts.end_programs()
    scratch.abandon()
    shutil.rmtree(folder, ignore_errors=True)
