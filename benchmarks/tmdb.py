"""How much of TMDB's request rate the client uses: against the stand-in with 100 ms latency.

Both sides in one run: the client as it is, and the same client with one thread, each asking for the
details of as many films. The stand-in counts strictly and answers 429 to what is above the rate.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace

from ingestion.sources.tmdb.client import TmdbClient
from ingestion.sources.tmdb.settings import TmdbSettings
from ingestion.sources.tmdb.standin import StandIn

RATE, LATENCY = 40.0, 0.1  # requests a second (TMDB's own limit), seconds an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=600)
    films = parser.parse_args().films
    command = [sys.executable, "-m", "ingestion.sources.tmdb.standin", "--port", "0"]
    command += ["--latency", str(LATENCY), "--requests-per-second", str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            base_url = server.stdout.readline().split(" at ")[1].split(" ")[0]
            settings = TmdbSettings(base_url=base_url, requests_per_second=RATE)
            with StandIn.of_sample() as sample, TmdbClient("any", _at(settings, sample)) as client:
                ids = client.discover(None, None)[:films]
            print(f"{'':<24} {'requests/s':>10} {'of the rate':>12}")
            for name, threads in (("one thread", 1), ("as it is", settings.concurrency)):
                asked = ids if threads > 1 else ids[: len(ids) // 6]
                rate = _measure(_with(settings, threads), asked)
                print(f"{name:<24} {rate:>10.1f} {rate / RATE:>12.2f}")
        finally:
            server.terminate()


def _measure(settings: TmdbSettings, ids: list[int]) -> float:
    with TmdbClient("any", settings) as client:
        started = time.monotonic()
        got = sum(film is not None for _, film in client.films(ids))
        return got / (time.monotonic() - started)


def _with(settings: TmdbSettings, threads: int) -> TmdbSettings:
    return replace(settings, concurrency=threads)


def _at(settings: TmdbSettings, server: StandIn) -> TmdbSettings:
    return replace(settings, base_url=server.base_url, requests_per_second=0.0)


if __name__ == "__main__":
    main()
