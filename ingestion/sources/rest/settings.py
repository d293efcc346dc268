"""What ``[sources.rest.<name>]`` says, in all of dlt's configuration places together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingestion.errors import UserError, error_line

RESERVED = ("tmdb", "brands", "transactions")  # schemas of other sources
_TABLES = ("client", "resources", "resource_defaults")
SECRETS = (  # of client.auth, as single variables of the environment
    *("token", "api_key", "username", "password"),
    *("client_id", "client_secret", "access_token"),
)


@dataclass(frozen=True)
class Settings:
    """An API.

    Attributes:
        name: rows land in ``raw_<name>``.
        config: client, resources and their defaults, as dlt's ``rest_api_source`` takes them.
        max_requests: answers that one run may take: a list of pages that never ends is refused.
        max_body_mb: the largest answer.
        timeout: seconds that an answer may take, from first to last byte.
        secrets: texts that no message may have.
    """

    name: str
    config: dict[str, Any] = field(repr=False)
    max_requests: int = 10_000
    max_body_mb: float = 100.0
    timeout: float = 300.0
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def configured(name: str) -> Settings:
    """
    Raises:
        UserError: nothing is configured, or something that cannot be.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name in RESERVED:
        raise UserError(
            f"raw_{name} is no schema for an API: other sources own it, or it is no plain name.\n"
            "Call it otherwise: small letters, digits and _."
        )
    section = f"sources.rest.{name}"
    found = {key: _everywhere(section, key) for key in _TABLES}
    client, resources = found["client"] or {}, found["resources"]
    auth = {key: value for key in SECRETS if (value := _everywhere(f"{section}.client.auth", key))}
    if auth and isinstance(client.get("auth"), Mapping | None):
        client["auth"] = {**(client.get("auth") or {}), **auth}
    if not client.get("base_url") or not resources:
        raise UserError(
            f"{name} is no API that is configured: [{section}] needs client.base_url and"
            " resources.\nWrite them to .dlt/config.toml; docs/databases.md has an example."
        )
    defaults = found["resource_defaults"] or {}
    config = {
        "client": client,
        "resources": [_resource(item, defaults, section) for item in resources],
        **({"resource_defaults": defaults} if defaults else {}),
    }
    limits: dict[str, Any] = {
        key: kind(value)
        for key, kind in (("max_requests", int), ("max_body_mb", float), ("timeout", float))
        if (value := _everywhere(section, key)) is not None
    }
    return Settings(name, config, **limits, secrets=frozenset(_texts(client.get("auth"))))


def _resource(given: Any, defaults: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A resource; with a key its rows are merged, without one they are replaced."""
    found: dict[str, Any] = (
        {"name": given, "endpoint": given} if isinstance(given, str) else dict(given)
    )
    if "name" not in found:
        raise UserError(
            f"A resource below [{section}] has no name.\n"
            f'Begin it with [[{section}.resources]] and name = "...".'
        )
    key = found.get("primary_key", defaults.get("primary_key"))
    if "write_disposition" not in {**defaults, **found}:
        found["write_disposition"] = "merge" if key else "replace"
    endpoint = found.get("endpoint")
    if key and isinstance(endpoint, Mapping) and isinstance(endpoint.get("incremental"), Mapping):
        # merged by key: a row that has changed within the last moment must not be left out
        found["endpoint"] = {
            **endpoint,
            "incremental": {"primary_key": [], **endpoint["incremental"]},
        }
    return found


def _everywhere(section: str, key: str) -> Any:
    """A value; a table may be in several places, as its secrets are in another file."""
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.specs import PluggableRunContext

    merged: Any = None
    try:
        for provider in reversed(Container()[PluggableRunContext].providers.providers):
            value, _ = provider.get_value(key, Any, None, *section.split("."))
            if isinstance(value, str) and key in _TABLES:  # a variable of the environment
                value = json.loads(value)
            merged = merged if value is None else _merged(merged, _plain(value))
    except ValueError as error:
        raise UserError(
            f"{key} below [{section}] cannot be read: {error_line(error)}\nCorrect it."
        ) from error
    return merged


def _merged(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return {**under, **{key: _merged(under.get(key), value) for key, value in over.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for key, item in value.items() if key != "type" for text in _texts(item)]
    return [str(value)] if value is not None and len(str(value)) > 2 else []
