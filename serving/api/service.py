"""The server: uvicorn, in one process or several that share a port."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import replace

from ingestion.warehouse.paths import PROJECT_DIR
from serving.api.rates import Rates
from serving.api.settings import Settings

FACTORY = "serving.api.app:create"


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Become the server, until it is stopped: uvicorn wants the main thread for its signals.

    Args:
        settings: of the server.
        host: address to listen on.
        port: its port.
        workers: processes that answer requests. One that dies is replaced.
    """
    settings.to_environment()
    # large answers go back to the system: glibc would keep a heap for each thread
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(256 * 1024))
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.chdir(PROJECT_DIR)
    command = [sys.executable, "-m", "serving.api.service", host, str(port), str(workers)]
    os.execv(sys.executable, command)  # noqa: S606


def main(host: str, port: int, workers: int) -> None:
    """Serve by the settings of the environment. The server's folder goes with it."""
    import uvicorn  # of the extra

    # uvicorn ends with the signal that it got, which would leave the folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="marquee-api-") as folder:
        settings = replace(Settings.of_environment(), folder=folder)
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
            proxy_headers=False,  # only FastAPI uses them: behind the gate
            lifespan="on",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=10,
            limit_concurrency=1000,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
