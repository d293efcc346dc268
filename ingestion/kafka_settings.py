"""Where a Kafka topic is, and with which of librdkafka's settings it is reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

from ingestion.errors import PassingError, UserError, install_command

SECTION = ("sources", "transactions", "kafka")
VARIABLE = "__".join(SECTION).upper()
PORT = 9092  # Kafka's own default
_FORM = "Write it as kafka://HOST[:PORT][,HOST[:PORT]]/TOPIC."
_SCHEME = re.compile(r"kafka:/{0,2}", re.IGNORECASE)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>\d{1,5}))?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # what brokers take


class Address(NamedTuple):
    """A topic of a cluster.

    Attributes:
        bootstrap: ``host:port[,host:port]``, as ``bootstrap.servers`` takes it.
        topic: its name.
    """

    bootstrap: str
    topic: str


class Unreachable(PassingError):
    """No broker answers, for now."""


def is_kafka(given: str) -> bool:
    """Whether a text is meant as the URL of a topic."""
    return _SCHEME.match(given) is not None


def parse(url: str) -> Address:
    """The topic that ``kafka://host[:port][,host[:port]]/topic`` names.

    Raises:
        UserError: it is no such URL, or there are credentials in it.
    """
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    servers, _, topic = rest.partition("/")
    if "@" in url or "?" in url:  # said without the URL: there may be a secret in it
        raise UserError(
            "URLs of kafka:// are servers and a topic, without credentials and settings.\n"
            f"These stand in [{'.'.join(SECTION)}] in .dlt/secrets.toml, by librdkafka's names."
        )
    if not scheme or scheme[0].lower() != "kafka://":
        raise UserError(f"{url} is no URL of a Kafka topic.\n{_FORM}")
    if not servers or not topic:
        raise UserError(f"{url} names no {'topic' if servers else 'server'}.\n{_FORM}")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UserError(
            f"{topic} is no name of a topic.\n"
            "It has up to 249 letters of a to z, digits, dots, _ and -, and is no pattern."
        )
    return Address(",".join(_server(server, url) for server in servers.split(",")), topic)


def _server(text: str, url: str) -> str:
    found = _SERVER.fullmatch(text)
    port = int((found and found["port"]) or PORT)
    if not found or not 0 < port < 65_536:
        raise UserError(f"{text!r} in {url} is no server.\n{_FORM}")
    return f"{found['host']}:{port}"


def settings() -> dict[str, str]:
    """What dlt's places say for librdkafka, by its own names, such as ``sasl.password``.

    They are ``[sources.transactions.kafka]`` in ``.dlt/config.toml``, the same in
    ``.dlt/secrets.toml``, and ``SOURCES__TRANSACTIONS__KAFKA__SASL__PASSWORD`` and the like in the
    environment; what comes later in this list wins. In TOML a name is one quoted key.

    Raises:
        UserError: a file cannot be read.
    """
    import dlt
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

    *sections, key = SECTION
    found: dict[str, str] = {}
    try:
        dlt.config.get(".".join(SECTION))  # opens the places
        providers = Container()[PluggableRunContext].providers.providers
        for provider in reversed(providers):  # dlt lists first what wins
            value, _ = provider.get_value(key, dict, "", *sections)
            if isinstance(value, dict):
                found |= _flat(value)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The settings of Kafka cannot be read: {type(error).__name__}.\n"
            "Correct .dlt/config.toml and .dlt/secrets.toml: they are TOML."
        ) from None
    return found | _from_environment()


def _flat(values: dict[str, Any], above: str = "") -> dict[str, str]:
    """Tables in tables are what TOML makes of names with dots that are not quoted."""
    found: dict[str, str] = {}
    for name, value in values.items():
        whole = f"{above}{name}"
        found |= _flat(value, f"{whole}.") if isinstance(value, dict) else {whole: _text(value)}
    return found


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _from_environment() -> dict[str, str]:
    return dict(_variables(f"{VARIABLE}__"))


def _variables(beginning: str) -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.startswith(beginning) and len(name) > len(beginning):
            yield name[len(beginning) :].lower().replace("__", "."), value


def library() -> ModuleType:
    """The module ``confluent_kafka``, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise UserError(
            f"kafka:// needs the package confluent-kafka.\nInstall it: {install_command('kafka')}"
        ) from error
    return confluent_kafka
