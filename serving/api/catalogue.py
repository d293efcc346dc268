"""What is served: public models with an enforced contract, as dbt's manifest describes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson

from ingestion.errors import UserError
from ingestion.warehouse.target import Target, schema_name

# PostgreSQL's names of types, which contracts write in several ways
_SAME = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "bool": "boolean",
    "decimal": "numeric",
    "float": "double precision",
    "float8": "double precision",
    "float4": "real",
    "string": "text",
    "varchar": "text",
    "character varying": "text",
    "timestamp without time zone": "timestamp",
    "timestamptz": "timestamp with time zone",
}


@dataclass(frozen=True)
class Column:
    """A column of a mart.

    Attributes:
        name: as in the database.
        type: PostgreSQL's name of the type, with precision and scale of decimals.
        description: what it means; Markdown.
        nullable: whether the database lets it be null.
    """

    name: str
    type: str
    description: str
    nullable: bool

    @property
    def kind(self) -> str:
        """The type without precision and scale."""
        return self.type.partition("(")[0]

    @cached_property
    def quoted(self) -> str:
        return quoted(self.name)


@dataclass(frozen=True)
class Mart:
    """A model that is served.

    Attributes:
        name: of the model, and of the path.
        relation: schema and table, quoted.
        relation_name: the same as ``ops.mart_builds`` has it.
        description: what it holds; Markdown.
        columns: by name, in the order of the contract.
        key: columns of which no two rows have the same values; all columns where no test names any.
        is_live: a view, whose rows change without a build.
    """

    name: str
    relation: str
    relation_name: str
    description: str
    columns: dict[str, Column]
    key: tuple[Column, ...]
    is_live: bool


def quoted(*names: str) -> str:
    """An identifier in SQL."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def read(path: Path, target: Target, schema: str | None = None) -> dict[str, Mart]:
    """The marts that a manifest names, by name.

    Args:
        path: of dbt's manifest.json.
        target: whose schemas are meant, whichever target dbt wrote the manifest for.
        schema: of all marts, where generate_schema_name is one of your own.

    Raises:
        UserError: there is no manifest, or it is none.
    """
    try:
        manifest = orjson.loads(path.read_bytes())
        nodes = manifest["nodes"]
        keys = _keys(nodes)
        marts = [
            _mart(node, target, schema, keys.get(node["unique_id"], []))
            for node in nodes.values()
            if node["resource_type"] == "model"
            and node.get("access") == "public"
            and node["config"]["contract"]["enforced"]
        ]
    except FileNotFoundError:
        raise UserError(
            f"There is no {path}, which describes the marts.\nBuild them: marquee run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no manifest of dbt: {error}\nMake it anew: marquee dbt parse"
        ) from error
    return {mart.name: mart for mart in sorted(marts, key=lambda mart: mart.name)}


def shape(marts: dict[str, Mart], metrics: bytes) -> str:
    """A short text that is another one when the same request may mean something else.

    Args:
        marts: as they are served.
        metrics: what defines them.
    """
    found = hashlib.blake2b(metrics, digest_size=8)
    for mart in marts.values():
        columns = [(one.name, one.type, one.nullable) for one in mart.columns.values()]
        key = [column.name for column in mart.key]
        found.update(repr((mart.name, mart.relation, columns, key, mart.is_live)).encode())
    return found.hexdigest()


def _mart(node: dict, target: Target, schema: str | None, keys: list[tuple[str, ...]]) -> Mart:
    is_live = node["config"]["materialized"] == "view"
    columns = {
        column["name"]: Column(
            column["name"],
            plain_type(column["data_type"] or "text"),
            column["description"].strip(),
            is_live or "not_null" not in {rule["type"] for rule in column["constraints"]},
        )
        for column in node["columns"].values()
    }
    known = [[columns[name] for name in key] for key in keys if set(key) <= columns.keys()]
    # the shortest, and of those one that cannot be null
    known.sort(key=lambda key: (len(key), any(column.nullable for column in key)))
    place = schema or schema_name(node["config"]["schema"] or target.schema, target)
    return Mart(
        name=node["name"],
        relation=quoted(place, node["alias"]),
        relation_name=f"{place}.{node['alias']}",
        description=node["description"].strip(),
        columns=columns,
        key=tuple(known[0] if known else columns.values()),
        is_live=is_live,
    )


def plain_type(written: str) -> str:
    """PostgreSQL's name of a type that contracts write in several ways."""
    name, bracket, rest = " ".join(written.lower().split()).partition("(")
    plain = _SAME.get(name.strip(), name.strip())
    if plain == "numeric" and bracket:
        return f"{plain}({re.sub(' ', '', rest)}"
    return plain


def _keys(nodes: dict) -> dict[str, list[tuple[str, ...]]]:
    """What tests of a model say is unique, by the model's unique_id."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for model, key in _tested(nodes):
        found.setdefault(model, []).append(key)
    return found


def _tested(nodes: dict) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in nodes.values():
        test = node.get("test_metadata") or {}
        if node["config"].get("where") or not node.get("attached_node"):
            continue
        given = test.get("kwargs") or {}
        if test.get("name") == "unique" and given.get("column_name"):
            yield node["attached_node"], (given["column_name"],)
        elif test.get("name") == "unique_combination_of_columns":
            yield node["attached_node"], tuple(given["combination_of_columns"])
