"""Who is told that something has landed: a command, a webhook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ingestion import interrupts
from ingestion.errors import PASSING, PassingError, UserError

TIMEOUT_SECONDS = 30
NOTHING: dict[str, Any] = {"files": 0, "rows": 0, "rejected": 0, "refused": {}}  # new

Teller = Callable[[dict[str, Any]], None]


def tellers(command: str | None, url: str | None) -> dict[str, Teller]:
    """Who is to be told, by what it is called in messages.

    Args:
        command: a line of the shell, called without arguments.
        url: gets the news as JSON by POST.

    Raises:
        UserError: the URL is none of http.
    """
    found: dict[str, Teller] = {}
    if command is not None:
        found["command"] = lambda _: _run(command)
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(  # said without the URL: there may be a secret in it
                "The webhook is no http:// or https:// URL.\nWrite it out, with its scheme."
            )
        found["webhook"] = lambda news: _post(url, news)
    return found


def merged(news: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Two pieces of news as one."""
    sums = {name: news[name] + later[name] for name in ("files", "rows", "rejected")}
    return {**sums, "refused": {**news["refused"], **later["refused"]}}


def _run(command: str) -> None:
    """Run a line of the shell; programs of this environment, such as dbt, are found first.

    Raises:
        UserError: it did not end with 0.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,  # noqa: PLW1509 - so that all it starts can be ended as one
    )
    with interrupts.giving_back(lambda: os.killpg(process.pid, signal.SIGTERM)):
        code = process.wait()
    if code:
        kind = PassingError if code == PASSING else UserError
        raise kind(
            f"The command of --then ended with code {code}.\n"
            "What has landed stays. See what it printed; the next watch calls it again."
        )


def _post(url: str, news: dict[str, Any]) -> None:
    """Send the news.

    Raises:
        UserError: it was not taken; that says nothing of the URL, in which a secret may be.
    """
    import requests

    try:
        answer = requests.post(
            url, json={"event": "landed", **news}, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        raise PassingError(
            f"The webhook cannot be reached ({type(error).__name__}).\n"
            "What has landed stays; the next watch calls it again."
        ) from None
    if not answer.ok or answer.is_redirect:
        kind = PassingError if answer.status_code in (429, *range(500, 600)) else UserError
        raise kind(
            f"The webhook answered {answer.status_code}.\n"
            "What has landed stays; the next watch calls it again."
        )
