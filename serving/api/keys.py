"""Keys of the API: hashed at rest, compared in constant time, revoked within a second.

They are in ``api_keys.json`` in the state folder (mode 0600), not in the warehouse: keys are
checked while the database is away, too. A key has 256 random bits, so one round of SHA-256 is
enough.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from ingestion.errors import UserError
from ingestion.warehouse.paths import make_state_dir, write_private

RATE = 100  # requests a second that a key may send
CHECK_EVERY = 0.5  # seconds after which the file is looked at again
LOG = logging.getLogger("marquee.api")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True)
class Key:
    """A key, without the key.

    Attributes:
        key_id: begins the key, and names it in lists.
        name: whose it is.
        digest: SHA-256 of the whole key, in hexadecimal digits.
        rate: requests a second; 0 is no limit.
        number: of the key among all, from 0.
        created_at: in UTC.
        revoked_at: in UTC, or None while it holds.
    """

    key_id: str
    name: str
    digest: str
    rate: int
    number: int
    created_at: str
    revoked_at: str | None = None


class Keys:
    """The keys of one warehouse.

    Args:
        folder: of the state.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "api_keys.json"
        self._known: dict[str, Key] = {}
        self._seen: tuple[int, int] | None = None
        self._looked = -CHECK_EVERY

    def all(self) -> list[Key]:
        """All keys, revoked ones too.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            return [Key(**row) for row in json.loads(self.path.read_text("utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read: {error}\nCorrect it, or remove it and make new keys."
            ) from error

    def create(self, name: str, rate: int = RATE) -> str:
        """Make a key; returns it, which nobody can do later."""
        key_id = secrets.token_hex(4)
        key = f"mq_{key_id}_{secrets.token_urlsafe(32)}"
        with self._locked():
            keys = self.all()
            made = Key(key_id, name, _digest(key.encode()), rate, len(keys), _now())
            self._write([*keys, made])
        return key

    def revoke(self, key_id: str) -> Key:
        """Let a key hold no longer.

        Raises:
            UserError: there is no such key.
        """
        with self._locked():
            keys = {key.key_id: key for key in self.all()}
            if key_id not in keys:
                raise UserError(f"There is no key {key_id}.\nList them: marquee api key list")
            if not keys[key_id].revoked_at:
                keys[key_id] = replace(keys[key_id], revoked_at=_now())
            self._write(list(keys.values()))
        return keys[key_id]

    def check(self, given: bytes) -> Key | None:
        """The key that holds, if what is given is one."""
        self._refresh()
        found = self._known.get(given[3:11].decode("latin-1"))
        digest = found.digest if found else _NOBODY
        fits = hmac.compare_digest(_digest(given), digest)
        return found if found and fits else None

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < CHECK_EVERY:
            return
        self._looked = now
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._known = None, {}
            return
        if (found.st_mtime_ns, found.st_ino) != self._seen:
            try:
                self._known = {key.key_id: key for key in self.all() if not key.revoked_at}
            except UserError as error:
                LOG.error("The keys of before still hold: %s", error.message)  # noqa: TRY400
            self._seen = (found.st_mtime_ns, found.st_ino)

    def _write(self, keys: list[Key]) -> None:
        write_private(self.path, json.dumps([asdict(key) for key in keys], indent=2) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_state_dir(self.path.parent)
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
