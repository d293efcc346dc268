"""The MCP server over its real pipes, asked by the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from typing import Any

import pytest

from ingestion.tests.api_server import PATIENCE, SECRET, Api, marts_of, serving, warehouse_of
from ingestion.tests.built import BIN, Built
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target, role_names

for package in ("asyncpg", "metricflow", "orjson"):
    pytest.importorskip(package, reason="make test-api installs it")
mcp = pytest.importorskip("mcp", reason="make test-api installs it")
Work = Callable[[Any], Coroutine[Any, Any, Any]]  # by a client


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with warehouse_of(built, target, tmp_path_factory.mktemp("mcp")) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def api(site: Built) -> Iterator[Api]:
    with serving(site) as one:
        yield one


def asked(site: Built, work: Work, mode: str = "auto") -> Any:
    """What a client finds in a server that it starts."""
    server = mcp.StdioServerParameters(
        command=str(BIN / "marquee"),
        args=["api", "mcp"],
        env=site.environment | {"MARQUEE_REPORTER_PASSWORD": SECRET},
        cwd=PROJECT_DIR,
    )

    async def found() -> Any:
        async with mcp.Client(server, mode=mode, read_timeout_seconds=PATIENCE) as client:
            return await work(client)

    return asyncio.run(found())


def called(site: Built, name: str, arguments: dict[str, Any]) -> str:
    """What a tool says; it is no error."""
    (text,) = several(site, [(name, arguments)])
    return text


def several(
    site: Built, calls: list[tuple[str, dict[str, Any]]], *, wrong: bool = False
) -> list[str]:
    """What calls say, in one session."""

    async def work(client: Any) -> list[str]:
        texts = []
        for name, arguments in calls:
            result = await client.call_tool(name, arguments)
            (content,) = result.content
            assert result.is_error is wrong, (name, arguments, content.text)
            texts.append(content.text)
        return texts

    return asked(site, work)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_tools_are_listed_and_none_of_them_writes(mode: str, site: Built):
    async def work(client: Any) -> Any:
        return client.server_info, client.instructions, (await client.list_tools()).tools

    info, about, tools = asked(site, work, mode)
    assert info.name == "marquee"
    assert "list_metrics" in about
    assert {tool.name for tool in tools} == {
        *("list_marts", "describe_mart", "query_mart", "list_metrics", "query_metrics")
    }
    for tool in tools:
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False


def test_lists_and_descriptions_are_those_of_http(site: Built, api: Api):
    marts, mart, metrics = map(
        json.loads,
        several(
            site,
            [("list_marts", {}), ("describe_mart", {"mart": "dim_city"}), ("list_metrics", {})],
        ),
    )
    assert {one["name"] for one in marts} == marts_of(site).keys()
    assert mart["columns"] == api.get("/v1/marts/dim_city/schema").json()["columns"]
    assert metrics == api.get("/v1/metrics").json()


def test_rows_are_those_of_http(site: Built, api: Api):
    for arguments, params in (
        ({}, {}),
        (
            {
                "select": ["date_day", "city_name", "amount"],
                "filters": {
                    "city_name__in": ["Paris", "Lyon"],
                    "amount__gte": 5.5,
                    "amount_bucket__null": False,
                    "currency_code": "EUR",
                },
                "order": ["-amount", "date_day"],
                "limit": 7,
            },
            {
                "select": "date_day,city_name,amount",
                "city_name__in": ["Paris", "Lyon"],
                "amount__gte": "5.5",
                "amount_bucket__null": "false",
                "currency_code": "EUR",
                "order": "-amount,date_day",
                "limit": 7,
            },
        ),
        ({"filters": {"amount_bucket": None}}, {"amount_bucket__null": "true"}),
    ):
        found = called(site, "query_mart", {"mart": "daily_transactions"} | arguments)
        assert found == api.mart("daily_transactions", params).text
        assert json.loads(found).keys() == {"build", "next", "data"}


def test_pages_are_walked_to_the_end_in_each_format(site: Built):
    rows = site.one("select count(*) from marts.dim_movie")

    async def work(client: Any) -> dict[str, int]:
        found = {}
        for form in ("json", "csv", "ndjson"):
            given = {"mart": "dim_movie", "select": ["title"], "limit": 500, "format": form}
            count, cursor = 0, None
            while cursor or not count:
                more = {"cursor": cursor} if cursor else {}
                text = (await client.call_tool("query_mart", given | more)).content[0].text
                if form == "json":
                    page = json.loads(text)
                    count, cursor = count + len(page["data"]), page["next"]
                    continue
                lines = text.splitlines()
                says = lines[-1].startswith("next: ")
                cursor = lines.pop()[6:] if says else None
                count += len(lines) - (form == "csv")
            found[form] = count
        return found

    assert set(asked(site, work).values()) == {rows}


def test_figures_are_those_of_http(site: Built, api: Api):
    arguments = {
        "metrics": ["amount", "transaction_count"],
        "group_by": ["month", "city_name"],
        "filters": {"currency_code": "EUR", "city_name__ne": "Paris"},
        "since": "2024-02-01",
        "until": "2024-10-31",
        "order": ["-amount"],
        "limit": 12,
    }
    params = {
        "group_by": "month,city_name",
        "currency_code": "EUR",
        "city_name__ne": "Paris",
        "since": "2024-02-01",
        "until": "2024-10-31",
        "order": "-amount",
        "limit": 12,
    }
    found = called(site, "query_metrics", arguments)
    assert found == api.get("/v1/metrics/amount,transaction_count", params).text
    assert len(json.loads(found)["data"]) == 12


WRONG = [
    ("describe_mart", {}, "'mart' is a required property"),
    ("describe_mart", {"mart": "nothing"}, "no such mart"),
    ("describe_mart", {"mart": 1}, "mart: 1 is not of type 'string'"),
    ("query_mart", {"mart": "raw_transactions.transactions"}, "no such mart"),
    (
        "query_mart",
        {"mart": "dim_city", "sql": "drop table marts.dim_city"},
        "'sql' was unexpected",
    ),
    ("query_mart", {"mart": "dim_city", "filters": {"name": "Paris"}}, "Use city_name"),
    ("query_mart", {"mart": "dim_city", "filters": {"limit": 3}}, "beside filters"),
    ("query_mart", {"mart": "dim_city", "filters": {"city_name": ["a", "b"]}}, "city_name__in"),
    ("query_mart", {"mart": "dim_city", "select": ["a; drop table x"]}, "no column"),
    ("query_mart", {"mart": "dim_city", "limit": 10_001}, "limit: 10001 is greater"),
    ("query_mart", {"mart": "dim_city", "limit": "5"}, "limit: '5' is not of type"),
    ("query_mart", {"mart": "dim_city", "format": "arrow"}, "format: 'arrow'"),
    ("query_mart", {"mart": "dim_city", "cursor": "x"}, "cursor"),
    ("query_mart", {"mart": "dim_city", "filters": {"city_name": "x" * 20_000}}, "16384 bytes"),
    ("query_mart", {"mart": "daily_transactions", "filters": {"amount": "much"}}, "amount"),
    ("query_metrics", {"metrics": []}, "metrics: []"),
    ("query_metrics", {"metrics": ["amounts"]}, "Ask for amount"),
    ("query_metrics", {"metrics": ["amount"]}, "currency_code"),
    ("query_metrics", {"metrics": ["amount"], "group_by": ["1); drop table x --"]}, "group_by"),
    ("query_metrics", {"metrics": ["transaction_count"], "since": "yesterday"}, "since"),
]


def test_wrong_arguments_are_errors_that_say_what_to_do(site: Built):
    texts = several(site, [(name, arguments) for name, arguments, _ in WRONG], wrong=True)
    for (name, arguments, said), text in zip(WRONG, texts, strict=True):
        assert said in text, (name, arguments, text)
        assert "Traceback" not in text


def test_a_tool_that_is_none_is_refused_and_the_server_goes_on(site: Built):
    async def work(client: Any) -> bool:
        for name in ("execute", "write_mart", "../query_mart"):
            with pytest.raises(mcp.MCPError, match="query_mart"):
                await client.call_tool(name, {"sql": "delete from marts.dim_city"})
        return (await client.call_tool("list_marts", {})).is_error

    assert asked(site, work) is False


def test_it_reads_as_the_reporter_on_connections_that_cannot_write(site: Built):
    """Values are only values; and what PostgreSQL knows of the session would refuse a write."""
    before = site.one("select count(*) from marts.dim_city")
    attack = "'; delete from marts.dim_city; --"

    async def work(client: Any) -> Any:
        for form in ("json", "csv"):
            arguments = {"mart": "dim_city", "filters": {"city_name": attack}, "format": form}
            assert not (await client.call_tool("query_mart", arguments)).is_error
        with closing(site.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select usename from pg_stat_activity where application_name = 'marquee api'"
            )
            return {name for (name,) in cursor.fetchall()}

    assert asked(site, work) == {role_names()["reporter"]}
    assert site.one("select count(*) from marts.dim_city") == before


def test_nothing_but_the_protocol_is_on_its_output_and_it_ends_with_its_input(site: Built):
    started = {"protocolVersion": "2025-06-18", "capabilities": {}}
    started["clientInfo"] = {"name": "test", "version": "1"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": started}
    with subprocess.Popen(
        [BIN / "marquee", "api", "mcp"],
        cwd="/",
        env=site.environment,  # without the reporter's password it says so
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "marquee"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()


def test_without_a_warehouse_it_says_so_on_its_error_output(site: Built, tmp_path):
    site.variables |= {"DBT_PROFILES_DIR": str(tmp_path), "MARQUEE_STATE_DIR": str(tmp_path / "s")}
    try:
        done = site.marquee("api", "mcp", check=False)
    finally:
        site.variables.clear()
    assert (done.returncode, done.stdout) == (1, "")
    assert "marquee run" in done.stderr
