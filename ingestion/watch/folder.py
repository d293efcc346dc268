"""Looks at a place again and again, and lands the files in it that are new and finished."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from ingestion.errors import UserError, error_line, is_passing
from ingestion.kafka_settings import is_kafka
from ingestion.pipeline import LoadReport
from ingestion.sources.transactions import NotLandedError
from ingestion.sources.transactions.inputs.database import is_database
from ingestion.sources.transactions.inputs.files import (
    Found,
    Input,
    LocalFile,
    NoFileError,
    RemoteFile,
    find_files,
)
from ingestion.watch.memory import Memory
from ingestion.watch.telling import NOTHING, Teller, merged

RETRY_SECONDS = 60.0  # until who could not be told is called again, if nothing lands before


class Watch:
    """Lands what is new at a place, file by file, once.

    A file is new if it was not dealt with in the version that is there. It is finished once nobody
    has changed its size or time for a while; an object of a store is there as a whole, or not yet.

    Args:
        path: a folder, a glob, a prefix of a store.
        land: lands files, as ``transactions.ingest`` does.
        memory: what earlier watches have dealt with.
        tellers: who is told of what has landed.
        settle: seconds in which a file must not have changed.
        say: gets each line.
    """

    def __init__(
        self,
        path: str,
        land: Callable[[Found], LoadReport],
        memory: Memory,
        *,
        tellers: dict[str, Teller],
        settle: float,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._land_files, self._memory = path, land, memory
        self._tellers, self._settle, self._say = tellers, settle, say
        self._since: dict[str, tuple[str, float]] = {}  # since when a version was there, by place
        self._notes: list[str] = []
        self._refused: dict[str, str] = {}  # by this watch
        self._next_try = 0.0
        memory.owed = {who: news for who, news in memory.owed.items() if who in tellers}

    def once(self, stop: Event) -> None:
        """Land what is finished now, or soon; tell; end.

        Raises:
            UserError: some file was refused, or somebody could not be told.
        """
        if self.step():
            stop.wait(self._settle)
            if left := self.step():
                self._say(f"{left:,} files are still being written; the next watch lands them.")
        told = self._tell()
        if self._refused:
            first = next(iter(self._refused.values()))
            others = len(self._refused) - 1
            more = f"\nSo are {others:,} others, for the reasons above." if others else ""
            raise UserError(f"{first}{more}")
        if told:
            raise told
        if stay := len(self._memory.refused):
            self._say(f"{stay:,} files stay refused until they change.")

    def follow(self, every: float, stop: Event) -> None:
        """Go on until ``stop``; what passes by itself is waited for.

        Args:
            every: seconds from look to look.
            stop: ends it.

        Raises:
            UserError: nothing can land.
        """
        said = ""
        while not stop.is_set():
            waiting = 0
            try:
                waiting = self.step()
                if error := self._tell():
                    self._say(f"{_now()}  {error.message}")
                said = ""
            except Exception as error:
                if not is_passing(error) or stop.is_set():
                    raise
                if said != (said := error_line(error)):
                    self._say(f"{_now()}  {said} Waiting.")
            stop.wait(min(every, self._settle) if waiting else every)

    def step(self) -> int:
        """Look once, and land what is finished.

        Returns:
            How many files are new and may not be finished.

        Raises:
            UserError: nothing can be read or land there.
        """
        found, now = self._find(), time.monotonic()
        versions = {file.place: version for file in found if (version := version_of(file))}
        self._memory.keep(set(versions))
        self._since = {place: then for place, then in self._since.items() if place in versions}
        ready: list[Input] = []
        waiting = 0
        for file in found:
            version = versions.get(file.place)
            if version is None or self._memory.knows(file.place, version):
                continue
            known, since = self._since.get(file.place, ("", now))
            if known != version:
                since = now
                self._since[file.place] = version, now
            comes_whole = isinstance(file, RemoteFile) and file.comes_whole
            if comes_whole or now - since >= self._settle:
                ready.append(file)
            else:
                waiting += 1
        if ready:
            self._land(ready, versions)
        return waiting

    def _find(self) -> Found:
        try:
            found = find_files([self._path])
        except NoFileError:
            return Found([], [])
        if found.notes != self._notes:
            self._notes = found.notes
            for note in found.notes:
                self._say(note)
        return found

    def _land(self, ready: list[Input], versions: dict[str, str]) -> None:
        began = time.monotonic()
        refused: dict[str, str] = {}
        passing: set[str] = set()
        # whoever is killed between landing and telling tells when started again
        owed_before = self._memory.owed
        self._memory.owed = {who: owed_before.get(who, NOTHING) for who in self._tellers}
        self._memory.save()
        try:
            report = self._land_files(Found(ready, []))
        except NotLandedError as error:
            report, refused, passing = error.report, error.refused, error.passing
        for file in ready:
            if file.place not in passing:
                self._memory.settle(file.place, versions[file.place], refused.get(file.place))
        news: dict[str, Any] = {
            "files": report.rows["files"],
            "rows": report.rows["transactions"],
            "rejected": report.rejected,
            "refused": refused,
        }
        self._memory.owed = {
            who: merged(owed_before.get(who, NOTHING), news)
            for who in self._tellers
            if who in owed_before or self._is_news(who, news)
        }
        self._memory.save()
        self._refused |= refused
        self._next_try = 0.0
        self._report(report, refused, time.monotonic() - began)

    @staticmethod
    def _is_news(who: str, news: dict[str, Any]) -> bool:
        """Whether it is worth telling: to a command, which builds, only what has landed."""
        return bool(news["files"] or (who == "webhook" and news["refused"]))

    def _tell(self) -> UserError | None:
        """Tell those who are owed news; returns why one of them could not be told."""
        failed: UserError | None = None
        if time.monotonic() < self._next_try:
            return None
        for who in list(self._memory.owed):
            try:
                self._tellers[who](self._memory.owed[who])
            except UserError as error:
                failed = failed or error
                self._next_try = time.monotonic() + RETRY_SECONDS
            else:
                del self._memory.owed[who]
                self._memory.save()
        return failed

    def _report(self, report: LoadReport, refused: dict[str, str], seconds: float) -> None:
        for note in report.notes:
            self._say(note)
        for message in refused.values():
            self._say(f"Refused: {message}")
        if report.rows["files"]:
            self._say(
                f"{_now()}  {report.rows['files']:,} files, {report.rows['transactions']:,} rows,"
                f" {report.rejected:,} rejects have landed in {seconds:.1f} s"
            )


def version_of(file: Input) -> str | None:
    """What tells one version of a file from another without reading it; None where it is gone."""
    if isinstance(file, RemoteFile):
        return f"{file.bytes} {file.etag}"
    if not isinstance(file, LocalFile):
        return None
    try:
        status = file.path.stat()
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _now() -> str:
    return time.strftime("%H:%M:%S")


def watchable(path: str) -> None:
    """Refuse what is no place to which files come.

    Raises:
        UserError: it is none, or there is no such folder.
    """
    if path == "-" or is_kafka(path) or is_database(path):
        raise UserError(
            "Folders and prefixes of stores are watched.\n"
            "For a topic: marquee ingest transactions --follow; for a table, a schedule."
        )
    if "://" not in path and not glob.has_magic(path) and not Path(path).expanduser().is_dir():
        raise UserError(f"There is no folder {path}.\nMake it, or check the path.")
