"""What a request for metrics can be told."""

from __future__ import annotations

from ingestion.errors import UserError


class MetricsError(UserError):
    """A request that cannot be answered.

    Attributes:
        parameter: of the request: metrics, group_by, since, until, filters, order or limit.
        problem: what is wrong with it.
        remedy: what to ask instead.
    """

    def __init__(self, parameter: str, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.parameter = parameter
        self.problem = problem
        self.remedy = remedy
