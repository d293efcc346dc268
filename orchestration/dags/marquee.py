"""Marquee, every night: land each source, build and test the models, hand the marts on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.http.notifications.http import HttpNotifier
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    DAG,
    AsyncCallback,
    CronDataIntervalTimetable,
    Param,
    TaskGroup,
    TriggerRule,
)
from marquee_tasks import (
    PASSING_FAULTS_ONLY,
    STATE,
    MarqueeOperator,
    configured_sources,
    dbt_models,
    deadline,
    marts,
    own_or_sample,
    settings,
)

SETTINGS = settings()
SELECT = SETTINGS.get("select", [])  # which of dbt's nodes; all of them by default
WEBHOOK = "marquee_webhook"  # the connection that alerts go to
POOL = "marquee"  # has one slot: what writes to the warehouse does so one at a time
DAY = Param(None, type=["null", "string"], format="date")


def window(usual: str = "''") -> list[str]:
    """The days that a run is about: those it was asked for, or its own in a backfill, or none."""
    own = f"(ds if dag_run.run_type == 'backfill' else {usual})"
    return [f"--{end}={{{{ params.{end} or {own} }}}}" for end in ("since", "until")]


failed = HttpNotifier(
    http_conn_id=WEBHOOK,
    json={
        "event": "task failed",
        "text": "{{ dag.dag_id }}.{{ ti.task_id }} failed. {{ exception }}",
        "task": "{{ ti.task_id }}",
        "run": "{{ run_id }}",
        "log": "{{ ti.log_url }}",
    },
)
late = deadline(
    interval=timedelta(minutes=SETTINGS.get("deadline_minutes", 180)),
    callback=AsyncCallback(
        HttpNotifier,
        {
            "http_conn_id": WEBHOOK,
            "json": {
                "event": "run late",
                "text": "{{ dag_run.dag_id }} has not ended in time.",
                "run": "{{ dag_run.dag_run_id }}",
            },
        },
    ),
)

with DAG(
    dag_id="marquee",
    description="Land every source, build and test the models, export the marts.",
    schedule=CronDataIntervalTimetable(SETTINGS.get("schedule", "0 2 * * *"), timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    deadline=late,
    params={"since": DAY, "until": DAY},
    default_args={
        "owner": "marquee",
        "pool": POOL,
        "retries": 5,
        "retry_delay": timedelta(seconds=SETTINGS.get("retry_seconds", 60)),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(hours=1),
        "retry_policy": PASSING_FAULTS_ONLY,
        "execution_timeout": timedelta(minutes=SETTINGS.get("timeout_minutes", 120)),
        "on_failure_callback": failed,
    },
):
    prepare = MarqueeOperator(
        task_id="prepare",
        arguments=["prepare"],
        execution_timeout=timedelta(minutes=15),
    )

    with TaskGroup("ingest") as ingest:
        films = MarqueeOperator(task_id="tmdb", arguments=["ingest", "tmdb", *window()])
        for part in ("brands", "releases"):
            MarqueeOperator(task_id=part, arguments=["ingest", *own_or_sample(part)]) >> films
        own = own_or_sample("transactions")
        days = window("ds") if "%" in str(own) else []  # a path with a day in it
        MarqueeOperator(task_id="transactions", arguments=["ingest", *own, *days])
        for kind, name in configured_sources():
            days = window() if name in SETTINGS.get("by_day", []) else []
            MarqueeOperator(task_id=name, arguments=["ingest", kind, name, *days])

    if SETTINGS.get("dbt") == "models":
        dbt = dbt_models("dbt", SELECT, pool=POOL)
    else:
        dbt = MarqueeOperator(
            task_id="dbt", arguments=["dbt", "build", *(f"--select={name}" for name in SELECT)]
        )

    freshness = MarqueeOperator(
        task_id="freshness",
        arguments=["dbt", "source", "freshness"],
        trigger_rule=TriggerRule.ALL_DONE,  # a load that failed is why a source is stale
        execution_timeout=timedelta(minutes=15),
    )
    new_marts = EmptyOperator(task_id="marts", outlets=marts())
    export = MarqueeOperator(
        task_id="export",
        arguments=["export", "marts", "--to", SETTINGS.get("export", f"{STATE}/export")],
    )
    metrics = MarqueeOperator(
        task_id="metrics",
        arguments=["metrics", "--output", SETTINGS.get("metrics", f"{STATE}/marquee.prom")],
        execution_timeout=timedelta(minutes=5),
    )

    prepare >> ingest >> dbt >> new_marts >> export
    ingest >> freshness
    [export, freshness] >> metrics.as_teardown()  # also where something has failed
