"""The days of a backfill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from ingestion.errors import UserError

_MOST = 3660


@dataclass(frozen=True)
class Days:
    """Days in UTC, one after the other; the first and the last are included."""

    first: date
    last: date

    @property
    def ends(self) -> tuple[date, date]:
        """The first day, and the day after the last."""
        return self.first, self.last + timedelta(days=1)

    def __iter__(self) -> Iterator[date]:
        count = (self.last - self.first).days + 1
        return (self.first + timedelta(days=number) for number in range(count))


def asked(since: date | None, until: date | None) -> Days | None:
    """The days that the options --since and --until ask for; None where neither is given.

    Raises:
        UserError: there is no first day, or none up to the last, or there are too many.
    """
    if since is None and until is None:
        return None
    if since is None:
        raise UserError("--until needs a first day.\nGive --since YYYY-MM-DD.")
    until = until or datetime.now(timezone.utc).date()
    if since > until:
        raise UserError(f"{since} is later than {until}.\nGive the earlier day first.")
    count = (until - since).days + 1
    if count > _MOST:
        raise UserError(
            f"From {since} to {until} are {count:,} days, more than {_MOST:,}.\nGive fewer at once."
        )
    return Days(since, until)
