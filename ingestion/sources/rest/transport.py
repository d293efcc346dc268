"""dlt's HTTP session, with limits: how many answers, how large, how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ingestion.errors import PassingError, UserError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from ingestion.sources.rest.settings import Settings

_PIECE = 1 << 16  # bytes


class Limits:
    """Looks at each answer before dlt reads it.

    Attributes:
        last: where was asked last, without query.
    """

    def __init__(self, settings: Settings) -> None:
        self.last = ""
        self._settings, self._answers = settings, 0

    def session(self) -> Any:
        """A session of dlt's: it waits and tries again after 429 (Retry-After) and 5xx."""
        from dlt.sources.helpers.requests import Client

        client: Any = Client(raise_for_status=False)
        client.configure()  # [runtime] request_max_attempts and the like
        session = client.session
        send = session.send

        def limited(request: PreparedRequest, **options: Any) -> Response:
            self.last = _place(str(request.url))
            response = send(request, **{**options, "stream": True})
            self._read(response)
            return response

        session.send = limited
        return session

    def _read(self, response: Response) -> None:
        """Read an answer to its end.

        Raises:
            UserError: it is one too many, or has no end.
        """
        self._answers += 1
        if self._answers > self._settings.max_requests:
            raise self._beyond("max_requests", f"{self._settings.max_requests:,} answers")
        began, size, pieces = time.monotonic(), 0, []
        for piece in response.iter_content(_PIECE):
            size += len(piece)
            pieces.append(piece)
            if size > self._settings.max_body_mb * 1e6:
                raise self._beyond("max_body_mb", f"{self._settings.max_body_mb:g} MB in an answer")
            if time.monotonic() - began > self._settings.timeout:
                raise self._beyond("timeout", f"{self._settings.timeout:g} s for an answer")
        response._content = b"".join(pieces)

    def _beyond(self, setting: str, limit: str) -> UserError:
        kind = PassingError if setting == "timeout" else UserError
        return kind(
            f"{self.last} has no end within {limit}; nothing has landed.\n"
            f"Check the paginator, or raise {setting} below [sources.rest.{self._settings.name}]."
        )


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
