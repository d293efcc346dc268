"""The MCP server: marts and metrics for assistants, over standard input and output.

Whoever starts it can read the profile, and needs no key. Rows are read as the API reads them: as
the reporter, on connections that cannot write. There is no tool for SQL.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from typing import Any

import mcp_types as types
import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from ingestion import __version__
from ingestion.warehouse.paths import PROJECT_DIR
from serving.api.mcp_tools import TOOLS, call
from serving.api.problems import ProblemError
from serving.api.rates import Rates
from serving.api.settings import Settings
from serving.api.state import State

ABOUT = """Marts (tables) and metrics (defined figures) of the warehouse Marquee, to be read only.
Begin with list_metrics for totals, rates and trends, or with list_marts and describe_mart for rows.
Amounts of several currencies do not add up. An error says what to do."""
PATIENCE = 5.0  # seconds that the first call waits for the warehouse
_CHECKS = {name: Draft202012Validator(schema) for name, (_, schema) in TOOLS.items()}


def run(settings: Settings) -> None:
    """Become the server, until its standard input ends.

    Args:
        settings: as those of the API.
    """
    settings.to_environment()
    os.chdir(PROJECT_DIR)
    os.execv(sys.executable, [sys.executable, "-m", "serving.api.mcp_server"])  # noqa: S606


async def _serve() -> None:
    with tempfile.TemporaryDirectory(prefix="marquee-mcp-") as folder:
        settings = replace(Settings.of_environment(), folder=folder)
        Rates.make(settings.rates)
        state = State(settings)
        await state.open()
        try:
            server = _server(state)
            async with stdio_server() as (read, write):
                await server.run(read, write, server.create_initialization_options())
        finally:
            await state.close()


def _server(state: State) -> Server:
    async def list_tools(*_: Any) -> types.ListToolsResult:
        reads = types.ToolAnnotations(
            read_only_hint=True, destructive_hint=False, open_world_hint=False
        )
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=name, description=description, input_schema=schema, annotations=reads
                )
                for name, (description, schema) in TOOLS.items()
            ]
        )

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await _answer(state, params.name, params.arguments or {})

    return Server(
        "marquee",
        version=__version__,
        title="Marquee",
        instructions=ABOUT,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _answer(state: State, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    if name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"There is no tool {name!r}: {', '.join(TOOLS)}.")
    if wrong := best_match(_CHECKS[name].iter_errors(arguments)):
        where = ".".join(map(str, wrong.absolute_path))
        return _said(f"{where or name}: {wrong.message}", is_error=True)
    await state.builds.first_look(PATIENCE)
    try:
        found = await call(state, name, arguments)
    except ProblemError as problem:
        about = f"{problem.parameter}: " if problem.parameter else ""
        return _said(f"{about}{problem.detail}\n{problem.remedy}", is_error=True)
    return _said(found if isinstance(found, str) else orjson.dumps(found).decode())


def _said(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], is_error=is_error
    )


if __name__ == "__main__":
    asyncio.run(_serve())
