"""What FastAPI answers: lists, descriptions, and how the server is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.api import measures
from serving.api.catalogue import Mart
from serving.api.problems import ProblemError
from serving.api.state import State

STARTED = time.monotonic()


@dataclass
class BuildInfo:
    """The latest build of a mart: dbt's invocation, and when it was."""

    invocation_id: str
    built_at: str


@dataclass
class MartInfo:
    """A mart in the list."""

    name: str
    description: str
    key: list[str]
    columns: int
    is_live: bool
    build: BuildInfo | None


@dataclass
class ColumnInfo:
    """A column: its name, PostgreSQL's type, whether it may be null, what it means."""

    name: str
    type: str
    nullable: bool
    description: str


@dataclass
class MartSchema:
    """A mart with all its columns."""

    name: str
    description: str
    key: list[str]
    columns: list[ColumnInfo]
    is_live: bool
    build: BuildInfo | None


@dataclass
class MetricInfo:
    """A metric in the list.

    ``within`` names what it has to be grouped by, or filtered to one value of.
    """

    name: str
    label: str
    description: str
    type: str
    within: list[str]
    group_by: list[str]
    marts: list[str]


@dataclass
class Health:
    """How the server is.

    ``builds_seconds`` is how long ago the builds of the marts were read; ``stale_seconds`` how old
    answers of the cache may be, 0 while the warehouse answers. ``redis`` is connected, none, or
    why it is away.
    """

    status: str
    warehouse: str
    trouble: str
    builds_seconds: float
    stale_seconds: float
    uptime_seconds: float
    marts: int
    cached_answers: int
    cached_bytes: int
    redis: str


def state_of(request: Request) -> State:
    """The state of this process."""
    return request.app.state.marquee


def marts_of(state: State) -> list[MartInfo]:
    """All marts, as the list has them."""
    return [
        MartInfo(
            mart.name,
            mart.description,
            [column.name for column in mart.key],
            len(mart.columns),
            mart.is_live,
            _build(state, mart),
        )
        for mart in state.marts.values()
    ]


def schema_of(state: State, mart: str) -> MartSchema:
    """A mart with its columns.

    Raises:
        ProblemError: there is no such mart.
    """
    found = state.marts.get(mart)
    if found is None:
        raise ProblemError(404, "There is no such mart.", "GET /v1/marts lists them.")
    columns = [
        ColumnInfo(one.name, one.type, one.nullable, one.description)
        for one in found.columns.values()
    ]
    key = [column.name for column in found.key]
    build = _build(state, found)
    return MartSchema(found.name, found.description, key, columns, found.is_live, build)


def metrics_of(state: State) -> list[MetricInfo]:
    """All metrics, as the list has them."""
    return [
        MetricInfo(
            metric.name,
            metric.label,
            metric.description,
            metric.type,
            list(metric.within),
            metric.group_by,
            metric.marts,
        )
        for metric in (state.metrics.list() if state.metrics else [])
    ]


async def list_marts(request: Request) -> list[MartInfo]:
    """All marts, with their keys and their latest builds."""
    return marts_of(state_of(request))


async def show_schema(request: Request, mart: str) -> MartSchema:
    """The columns of a mart: types, descriptions, what may be null."""
    return schema_of(state_of(request), mart)


async def list_metrics(request: Request) -> list[MetricInfo]:
    """All metrics, with what they can be grouped by."""
    return metrics_of(state_of(request))


async def show_health(request: Request) -> Health:
    """Whether the process is alive, and what it knows of the warehouse."""
    state = state_of(request)
    builds = state.builds
    return Health(
        status="ok" if builds.is_connected and not builds.trouble else "degraded",
        warehouse="connected" if builds.is_connected else "away",
        trouble=builds.trouble,
        builds_seconds=round(builds.looked, 1),
        stale_seconds=round(builds.age, 1),
        uptime_seconds=round(time.monotonic() - STARTED, 1),
        marts=len(state.marts),
        cached_answers=len(state.answers),
        cached_bytes=state.answers.held,
        redis=(state.redis.trouble or "connected") if state.redis else "none",
    )


async def show_ready(request: Request) -> dict[str, str]:
    """Whether requests can be answered from the warehouse."""
    state = state_of(request)
    if not state.builds.is_connected or not state.marts:
        raise ProblemError(503, "The warehouse does not answer.", "See /health.", retry_after=5)
    return {"status": "ready"}


async def show_metrics() -> Response:
    """Figures of all processes of the server, in Prometheus' text format."""
    return Response(measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _build(state: State, mart: Mart) -> BuildInfo | None:
    found = state.builds.known.get(mart.relation_name)
    return BuildInfo(found.invocation_id, found.built_at.isoformat()) if found else None


def router() -> Any:
    """The paths that are not rows of a mart."""
    found = APIRouter()
    keyed: dict[str, Any] = {"tags": ["marts"]}
    found.add_api_route("/v1/marts", list_marts, summary="List marts", **keyed)
    found.add_api_route("/v1/marts/{mart}/schema", show_schema, summary="Describe a mart", **keyed)
    found.add_api_route("/v1/metrics", list_metrics, summary="List metrics", tags=["metrics"])
    found.add_api_route("/health", show_health, tags=["server"], summary="How the server is")
    found.add_api_route("/ready", show_ready, tags=["server"], summary="Ready or not")
    found.add_api_route(
        "/metrics",
        show_metrics,
        tags=["server"],
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    return found
