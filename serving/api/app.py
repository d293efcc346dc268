"""The application of one process: what is served, put together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ingestion import __version__
from serving.api import openapi, routes
from serving.api.answers import SMALLEST_PACKED
from serving.api.gate import Gate
from serving.api.problems import ProblemError
from serving.api.settings import Settings
from serving.api.state import State

ROUTERS = (routes.router,)  # each is called, and returns a router of FastAPI
ABOUT = """
Rows of the marts, as JSON, JSON lines, CSV or Arrow. Send `Authorization: Bearer KEY`.

**Filters** are columns: `city_name=Paris`, `city_name__in=Paris&city_name__in=Lyon`,
`amount__gte=5`, `amount__lt=10` (also `__gt`, `__lte`), `city_name__null=true`.
**Pages**: `limit`, then `cursor` with `next` of the page before. Times are in UTC.
All rows of a large mart: `marquee export marts`.

**Metrics** mean the same in every tool: `/v1/metrics/transaction_count?group_by=month,city_name`.
"""
EXPOSED = ("ETag", "Link", "Next-Cursor", "Warehouse-Build", "Age", "Warning", "Retry-After")


def create() -> Any:
    """The application, for uvicorn; its settings are in the environment."""
    settings = Settings.of_environment()
    state = State(settings)

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        await state.open()
        yield
        await state.close()

    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs-files",
        title="Marquee",
        version=__version__,
        description=ABOUT,
        lifespan=living,
        swagger_ui_parameters={"docExpansion": "list", "defaultModelsExpandDepth": 0},
    )
    app.state.marquee = state
    for router in ROUTERS:
        app.include_router(router())
    _describe(app, state)
    app.add_exception_handler(ProblemError, _told)
    app.add_exception_handler(HTTPException, _of_starlette)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(GZipMiddleware, minimum_size=SMALLEST_PACKED)
    proxies = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # as uvicorn has it
    gate = Gate(ProxyHeadersMiddleware(app, trusted_hosts=proxies), state)
    if not settings.origins:
        return gate
    return CORSMiddleware(
        gate,
        allow_origins=settings.origins,
        allow_methods=["GET"],
        allow_headers=["Authorization", "If-None-Match"],
        expose_headers=EXPOSED,
    )


def _describe(app: Any, state: State) -> None:
    plain = app.openapi
    made: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        marts = state.marts
        if made.get("marts") is not marts:  # they may be read anew
            app.openapi_schema = None
            made["marts"], made["document"] = (
                marts,
                openapi.complete(plain(), marts, state.metrics),
            )
        return made["document"]

    app.openapi = described


async def _told(_: Request, problem: Any) -> Any:
    headers = {name.decode(): value.decode() for name, value in problem.headers()}
    return Response(problem.body(), problem.status, headers)


async def _of_starlette(request: Request, error: Any) -> Any:
    remedy = "GET /v1/marts lists the marts; /docs shows all paths."
    if error.status_code == 405:
        return await _told(request, ProblemError(405, "It can only be read.", "Send GET."))
    return await _told(request, ProblemError(error.status_code, str(error.detail), remedy))


async def _invalid(request: Request, error: Any) -> Any:
    first = error.errors()[0]
    parameter = str(first["loc"][-1])
    problem = ProblemError(400, f"{parameter}: {first['msg']}.", "See /docs.", parameter)
    return await _told(request, problem)
