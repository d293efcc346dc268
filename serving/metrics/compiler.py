"""SQL of metrics by MetricFlow, from dbt's semantic_manifest.json alone, without dbt."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from typing import Any

from ingestion.errors import UserError, install_command

_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
# PostgreSQL keeps the rows of a CTE that is read twice, all of them: filters come only after
_CTE = re.compile(r"^(WITH |, )?(\w+_cte) AS \($", re.MULTILINE)


class Compiler:
    """MetricFlow's engine, made at the first query: its import takes a second."""

    def __init__(self, semantic_manifest: dict[str, Any]) -> None:
        self._semantic_manifest = semantic_manifest
        self._engine: Any = None
        self._lock = threading.Lock()  # the engine numbers aliases in a global

    def prepare(self) -> None:
        """Make the engine now rather than at the first query.

        Raises:
            UserError: MetricFlow is not installed.
        """
        with self._lock:
            if self._engine is None:
                self._engine = _engine(self._semantic_manifest)

    def sql(self, metrics: Sequence[str], group_by: Sequence[str], where: Sequence[str]) -> str:
        """A query without order and limit, whose columns have MetricFlow's names.

        Args:
            metrics: names.
            group_by: dimensions with their entity, ``metric_time`` with its grain.
            where: conditions, templates of Jinja: never with text of a user's.
        """
        self.prepare()
        from metricflow.engine.metricflow_engine import MetricFlowQueryRequest

        with self._lock:
            request = MetricFlowQueryRequest.create(
                metric_names=metrics, group_by_names=group_by, where_constraints=where or None
            )
            text: str = self._engine.explain(request).sql_statement.sql
        return _CTE.sub(r"\1\2 AS NOT MATERIALIZED (", _COMMENT.sub("", text))


def _engine(semantic_manifest: dict[str, Any]) -> Any:
    try:
        from metricflow.engine.metricflow_engine import MetricFlowEngine
        from metricflow.protocols.sql_client import SqlEngine
        from metricflow.sql.render.postgres import PostgresSQLSqlPlanRenderer
        from metricflow_semantics.model.dbt_manifest_parser import (
            parse_manifest_from_dbt_generated_manifest,
        )
        from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup
    except ImportError as error:
        raise UserError(
            f"Metrics need the package metricflow.\nInstall it: {install_command('api')}"
        ) from error

    class Renderer:
        """What the engine asks of a client: it writes SQL for it, and runs none here."""

        sql_engine_type = SqlEngine.POSTGRES
        sql_plan_renderer = PostgresSQLSqlPlanRenderer()

    parsed = parse_manifest_from_dbt_generated_manifest(json.dumps(semantic_manifest))
    return MetricFlowEngine(SemanticManifestLookup(parsed), Renderer())
