"""A mapping's YAML as values that know their place, so that a message names line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ingestion.errors import UserError


class Marked(dict):
    """A mapping of YAML; ``lines`` has the 1-based line of each key."""

    lines: dict[str, int]


class _Loader(yaml.BaseLoader):
    """All scalars are text: ``no`` is Norway, ``007`` keeps its zeros."""


def _construct(loader: _Loader, node: yaml.MappingNode) -> Marked:
    found, lines = Marked(), {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str) or key in found:
            what = f"the key {key} is there twice" if isinstance(key, str) else "a key is no text"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
        lines[key] = key_node.start_mark.line + 1
    found.lines = lines
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _construct)


def read_document(text: str, name: str) -> Node:
    """The document of a YAML text.

    Raises:
        UserError: it is no YAML, or no mapping.
    """
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - knows text, lists and mappings only
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name}{line}: {error.problem}.\nCorrect the YAML.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name} is no YAML: {error}.\nCorrect it.") from error
    if not isinstance(value, Marked):
        raise UserError(f"{name} has no keys.\nIt needs `columns:`, see docs/your-data.md.")
    return Node(value, name, "", 1)


@dataclass(frozen=True)
class Node:
    """A value of a mapping.

    Attributes:
        value: text, a list, or ``Marked``.
        file: the mapping's file.
        path: its key with those above, as ``columns.amount.decimal``.
        line: 1-based.
    """

    value: Any
    file: str
    path: str
    line: int

    def error(self, problem: str, remedy: str) -> UserError:
        where = f"{self.path}: " if self.path else ""
        return UserError(f"{self.file}, line {self.line}: {where}{problem}.\n{remedy}")

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        """The keys with their values."""
        if not isinstance(self.value, Marked):
            raise self.error("this is not a mapping of keys", "Write key: value, indented below.")
        for key, value in self.value.items():
            path = f"{self.path}.{key}" if self.path else key
            yield key, Node(value, self.file, path, self.value.lines[key])

    def keys_among(self, known: tuple[str, ...]) -> dict[str, Node]:
        """The same; there must be no others."""
        found = dict(self)
        for key, node in found.items():
            if key not in known:
                raise node.error("there is no such key", f"The keys here are: {', '.join(known)}.")
        return found

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.error("this is not a text", "Write one value, in quotes if need be.")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """One text, or a list of them."""
        if isinstance(self.value, str):
            return (self.text(),)
        if not isinstance(self.value, list) or not self.value:
            raise self.error("this is neither a text nor a list", "Write [first, second].")
        return tuple(Node(each, self.file, self.path, self.line).text() for each in self.value)

    def pairs(self) -> dict[str, str]:
        """Texts by text."""
        return {key: node.text() for key, node in self}

    def one_of(self, choices: tuple[str, ...]) -> str:
        if self.value not in choices:
            raise self.error(f"{self.value!r} is not known", f"Choose: {', '.join(choices)}.")
        return self.text()

    def pattern(self) -> tuple[str, ...]:
        """Regular expressions that compile."""
        for text in self.texts():
            try:
                re.compile(text)
            except re.error as error:
                raise self.error(
                    f"{text!r} is no regular expression ({error})", "Correct it."
                ) from error
        return self.texts()


def plain(value: Any) -> Any:
    """The same without lines, as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value
