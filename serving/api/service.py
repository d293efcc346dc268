"""The server: uvicorn, in one process or several that share a port."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

from serving.api.rates import Rates
from serving.api.settings import Settings

FACTORY = "serving.api.app:create"


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until stopped. A worker that dies is replaced, and the others go on.

    Args:
        settings: of the server; its folder is made here, for as long as the server runs.
        host: address to listen on.
        port: its port.
        workers: processes that answer requests.
    """
    import uvicorn  # of the extra

    with tempfile.TemporaryDirectory(prefix="marquee-api-") as folder:
        settings = replace(settings, folder=folder)
        Rates.make(settings.rates)
        settings.to_environment()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run(
            FACTORY,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_level="warning",
            server_header=False,
            lifespan="on",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=10,
            limit_concurrency=1000,
        )
