"""Errors as answers: problem details (RFC 9457), with the parameter at fault and what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson

CONTENT_TYPE = b"application/problem+json"


class ProblemError(Exception):
    """A request that gets no data.

    Attributes:
        status: of HTTP.
        detail: what is wrong.
        remedy: what to do.
        parameter: of the query, if one is at fault.
        retry_after: seconds, where the same request may succeed later.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        remedy: str,
        parameter: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.remedy = status, detail, remedy
        self.parameter, self.retry_after = parameter, retry_after

    def body(self) -> bytes:
        """The JSON object that is sent."""
        told: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
        }
        if self.parameter is not None:
            told["parameter"] = self.parameter
        return orjson.dumps(told)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer."""
        found = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
        if self.retry_after is not None:
            found.append((b"retry-after", str(self.retry_after).encode()))
        if self.status == HTTPStatus.UNAUTHORIZED:
            found.append((b"www-authenticate", b"Bearer"))
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            found.append((b"allow", b"GET, HEAD"))
        return found


def bad(parameter: str, detail: str, remedy: str) -> ProblemError:
    """A parameter that cannot be used."""
    return ProblemError(400, detail, remedy, parameter)
