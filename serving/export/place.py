"""Where an export goes, a folder or a prefix in a store, and which exports are there."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ingestion.errors import UserError
from ingestion.storage import Storage

MANIFEST = "manifest.json"
LATEST = "latest"
MADE_BY = "marquee export marts"
STAMP = "%Y%m%dT%H%M%SZ"
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
ABANDONED = timedelta(days=1)  # in a store, an unfinished export may be one that is under way


class Place(Storage):
    """Where the files go: a folder on a disk, or a prefix in a store."""

    def __init__(self, to: str, made_by: str = MADE_BY) -> None:
        super().__init__(to, "export", "exported to")
        self.made_by = made_by

    def publish(self, version: str, manifest: dict) -> None:
        """Make an export the last one: from here on readers find it."""
        text = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
        with self.as_user_error():
            self.put(f"{version}/{MANIFEST}", text)
            self.put(MANIFEST, text)
            self._point_at(version)

    def _point_at(self, version: str) -> None:
        if self.local:
            fresh = Path(self.root, f".{LATEST}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(version)
            fresh.replace(Path(self.root, LATEST))

    # What is there

    def tidy(self) -> None:
        """Remove what earlier exports left: all but the last whole one.

        Raises:
            UserError: the folder is not one of exports.
        """
        with self.as_user_error():
            manifest = self._last()
            if manifest:
                self._point_at(manifest["version"])
            for version in self._versions():
                if version == (manifest or {}).get("version"):
                    continue
                begun = datetime.strptime(version.partition("-")[0], STAMP)
                age = datetime.now(timezone.utc) - begun.replace(tzinfo=timezone.utc)
                whole = self.exists(f"{version}/{MANIFEST}")
                if self.local or whole or age > ABANDONED:
                    self.remove(version)

    def give_back(self, version: str) -> None:
        """Remove an export that was interrupted, and let nothing more be written of it."""
        self.ended = True
        for _ in range(3):  # a file may just have been opened
            self.remove(version)
            time.sleep(0.1)

    def _last(self) -> dict | None:
        """The manifest of the last whole export."""
        try:
            found = json.loads(self.read(MANIFEST))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        known = isinstance(found, dict) and found.get("made_by") == self.made_by
        if not known or not VERSION.fullmatch(str(found.get("version"))):
            raise UserError(
                f"{self.name} has a {MANIFEST} of something else.\nExport to another place."
            )
        return found

    def _versions(self) -> list[str]:
        return [name for name in self.names() if VERSION.fullmatch(name)]
