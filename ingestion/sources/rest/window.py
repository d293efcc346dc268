"""Some days of an API: resources whose cursor is a time, read from the first day to the last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingestion.errors import UserError

if TYPE_CHECKING:
    from datetime import date

    from ingestion.days import Days
    from ingestion.sources.rest.settings import Settings

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(.*)", re.DOTALL)  # what initial_value has to look like


def within(settings: Settings, days: Days) -> tuple[Settings, list[str], list[str]]:
    """The same API for some days. dlt then neither reads nor moves its cursors.

    Returns:
        Its settings; the resources that have days; those that have none.

    Raises:
        UserError: no resource has days.
    """
    resources = [_within(resource, days) for resource in settings.config["resources"]]
    names = [resource["name"] for resource in settings.config["resources"]]
    chosen = [name for name, found in zip(names, resources, strict=True) if found]
    if not chosen:
        raise UserError(
            f"No resource of {settings.name} can be read by days: none has a primary_key and an"
            " incremental whose initial_value is a time.\nLeave out --since and --until."
        )
    both = zip(settings.config["resources"], resources, strict=True)
    config = {**settings.config, "resources": [found or before for before, found in both]}
    return replace(settings, config=config), chosen, [n for n in names if n not in chosen]


def _within(resource: dict[str, Any], days: Days) -> dict[str, Any] | None:
    """A resource for some days; None for one that would be replaced as a whole, or has no time."""
    endpoint: Any = resource.get("endpoint")
    cursor = endpoint.get("incremental") if isinstance(endpoint, Mapping) else None
    if not isinstance(cursor, Mapping) or resource["write_disposition"] != "merge":
        return None
    like = str(cursor.get("initial_value"))
    if not _TIME.fullmatch(like):
        return None
    first, end = (_written(day, like) for day in days.ends)
    ends = {"initial_value": first, "end_value": end}
    return {**resource, "endpoint": {**endpoint, "incremental": {**cursor, **ends}}}


def _written(day: date, like: str) -> str:
    """The beginning of a day, in the form of another time."""
    return day.isoformat() + re.sub(r"\d", "0", like[10:])
