"""What the DAG is made of: tasks that run `marquee`, its settings, dbt's models as tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowException
from airflow.plugins_manager import AirflowPlugin
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import (
    Asset,
    BaseDeadlineReference,
    BaseOperator,
    DeadlineAlert,
    ExceptionRetryPolicy,
    RetryAction,
    RetryRule,
    TaskGroup,
    Variable,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

PROJECT = Path(os.environ.get("MARQUEE_PROJECT_DIR") or Path(__file__).resolve().parents[2])
PROGRAMS = Path(os.environ.get("MARQUEE_PROGRAMS") or PROJECT / ".venv" / "bin")
STATE = Path(os.environ.get("MARQUEE_STATE_DIR") or PROJECT / ".marquee")
TARGET = os.environ.get("MARQUEE_TARGET")  # of profiles.yml; its default without this
PASSES = 75  # exit code: the same command may succeed later


class CommandFailed(AirflowException):
    """A command of Marquee's ended with an error that somebody has to look at."""


class PassingFault(AirflowException):
    """A command of Marquee's met what passes by itself: another load, a server that is away."""


PASSING_FAULTS_ONLY = ExceptionRetryPolicy(
    [RetryRule(PassingFault, RetryAction.RETRY)], default=RetryAction.FAIL
)


class MarqueeOperator(BaseOperator):
    """Runs `marquee ARGUMENTS`; the run's id in Airflow is the run's id in its evidence, too.

    Args:
        arguments: of the command. An empty one, and an option whose value is empty, is left out.
    """

    template_fields: Sequence[str] = ("arguments",)
    ui_color = "#dbeafe"

    def __init__(self, *, arguments: Sequence[str], **settings: Any) -> None:
        super().__init__(**settings)
        self.arguments = list(arguments)
        self.hook = SubprocessHook()

    def execute(self, context: Context) -> None:
        given = [text for text in self.arguments if text and not re.fullmatch("--[a-z-]+=", text)]
        if TARGET:
            given += ["--target", TARGET]
        done = self.hook.run_command(
            [str(PROGRAMS / "marquee"), *given], environment(context["run_id"]), cwd=str(PROJECT)
        )
        said = f"marquee {' '.join(given)}: exit code {done.exit_code}. {done.output}"
        if done.exit_code == PASSES:
            raise PassingFault(said)
        if done.exit_code:
            raise CommandFailed(said)

    def on_kill(self) -> None:
        if self.hook.sub_process and self.hook.sub_process.poll() is None:
            self.hook.send_sigterm()


class RunMade(BaseDeadlineReference):
    """The moment in which a run is made; runs of a backfill, which wait for one another, have none.

    Airflow 3.3 has DAGRUN_QUEUED_AT, with which a run that has failed can never be cleared.
    """

    required_kwargs = frozenset({"run_id"})

    def _evaluate_with(self, *, run_id: str, **_: Any) -> datetime | None:
        return None if run_id.startswith("backfill__") else datetime.now(timezone.utc)


class MarqueePlugin(AirflowPlugin):
    """What Airflow has to know of this module."""

    name = "marquee"
    deadline_references = (RunMade,)


def deadline(**settings: Any) -> DeadlineAlert | None:
    """An alert for a run that has not succeeded in time.

    There is none in `marquee airflow dags test`: Airflow 3.3 cannot end such a run with a deadline.
    """
    if os.environ.get("MARQUEE_DAGS_TEST"):
        return None
    return DeadlineAlert(reference=RunMade(), **settings)


def environment(run_id: str) -> dict[str, str]:
    """The environment of a command: this one, without what is Airflow's alone."""
    ours = ("AIRFLOW", "_AIRFLOW", "PYTHONPATH")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return kept | {"MARQUEE_RUN_ID": run_id}


@cache
def settings() -> dict[str, Any]:
    """The Airflow variable `marquee`, a JSON object; what it can say is in docs/operations.md."""
    found: dict[str, Any] = Variable.get("marquee", default={}, deserialize_json=True)
    return found


def own_or_sample(part: str) -> list[str]:
    """What `marquee ingest` lands: files that the settings name, or else the sample."""
    files = settings().get(part)
    if not files:
        return ["sample", part]
    return [part, *([files] if isinstance(files, str) else files)]


def marts() -> list[Asset]:
    """An asset for all marts together, and one for each of them."""
    names = sorted(path.stem for path in (PROJECT / "models" / "marts").rglob("*.sql"))
    return [Asset("marts", group="marquee"), *(Asset(f"marts.{n}", group="marquee") for n in names)]


def configured_sources() -> list[tuple[str, str]]:
    """REST APIs and databases that dlt's configuration files name, such as ("rest", "rates")."""
    found: dict[tuple[str, str], None] = {}
    for name in ("config.toml", "secrets.toml"):
        path = PROJECT / ".dlt" / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for kind, source in re.findall(r"^\[+sources\.(rest|databases)\.(\w+)", text, re.MULTILINE):
            found[kind.removesuffix("s"), source] = None
    return list(found)


def dbt_models(group_id: str, select: Sequence[str] = (), **arguments: Any) -> TaskGroup:
    """One task per model, by cosmos: a single `dbt build` runs, and each task waits for its model.

    Args:
        group_id: of the group of tasks.
        select: which models, in dbt's words; all of them by default.
        arguments: of the task that runs dbt.
    """
    from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
    from cosmos.constants import ExecutionMode, LoadMode, TestBehavior

    profiles = Path(os.environ.get("DBT_PROFILES_DIR") or PROJECT)
    target = Path(os.environ.get("DBT_TARGET_PATH") or "target")
    return DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(
            PROJECT,
            manifest_path=PROJECT / target / "manifest.json",
            install_dbt_deps=False,
        ),
        profile_config=ProfileConfig(
            profile_name="marquee",
            target_name=TARGET or "dev",
            profiles_yml_filepath=profiles / "profiles.yml",
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            select=list(select),
            test_behavior=TestBehavior.NONE,  # the build runs them
            emit_datasets=False,
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            dbt_executable_path=PROGRAMS / "dbt",
            setup_operator_args=arguments,
        ),
        operator_args={
            "pool": "default_pool",  # they wait; the one that runs dbt is in the DAG's pool
            "env": {"MARQUEE_RUN_ID": "{{ run_id }}"},
            "append_env": True,
        },
    )
