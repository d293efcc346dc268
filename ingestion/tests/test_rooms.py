"""The rooms of the Python code: who may import whom, without a circle and without private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ingestion.warehouse.paths import PROJECT_DIR

ROOTS = ("ingestion", "bi", "orchestration", "serving")
LONGEST = 400  # lines of a module that a reader holds at once
SOURCES = ("brands", "databases", "rest", "tmdb", "transactions")  # none imports another
TRANSACTIONS = "ingestion.sources.transactions"
# A room to what it must not import, also within a function.
CLOSED = {
    "ingestion.warehouse": (
        *("ingestion.cli", "ingestion.sources", "ingestion.sample", "ingestion.pipeline"),
        *("ingestion.dbt_runner", "ingestion.run", "bi", "orchestration", "serving"),
    ),
    "ingestion.sources": (
        *("ingestion.cli", "ingestion.dbt_runner", "ingestion.run"),
        *("ingestion.lake", "ingestion.watch", "bi", "orchestration", "serving"),
    ),
    # a watch is given what lands; a lake is a destination that sources do not know
    "ingestion.watch": ("ingestion.cli", "ingestion.lake", "ingestion.run", "bi", "serving"),
    "ingestion.lake": (
        *("ingestion.cli", "ingestion.watch", "ingestion.run", "bi", "serving"),
        *(f"{TRANSACTIONS}.inputs", f"{TRANSACTIONS}.formats"),
    ),
    **{
        f"ingestion.sources.{source}": tuple(
            f"ingestion.sources.{other}" for other in SOURCES if other != source
        )
        for source in SOURCES
    },
    # a stream has the contract and the COPY, without the files
    **{
        f"{TRANSACTIONS}.{module}": tuple(f"{TRANSACTIONS}.{room}" for room in closed)
        for module, closed in {
            **dict.fromkeys(("contract", "tables", "encoding"), ("inputs", "formats", "landing")),
            **dict.fromkeys(("landing.copy", "landing.load"), ("inputs", "formats")),
            "inputs": ("formats", "landing"),
            "formats": ("landing", "ledger"),
        }.items()
    },
    "ingestion.databases": (
        *("ingestion.cli", "ingestion.sources", "ingestion.run"),
        *("bi", "orchestration", "serving"),
    ),
    "ingestion.run": ("ingestion.cli", "bi", "orchestration", "serving"),
    "serving": ("ingestion.cli", "ingestion.sources", "bi", "orchestration"),
    "bi": ("ingestion.cli", "ingestion.sources", "orchestration", "serving"),
    "orchestration": ("ingestion.cli", "ingestion.sources", "bi", "serving"),
}


def files() -> Iterator[Path]:
    for root in ROOTS:
        for path in sorted((PROJECT_DIR / root).rglob("*.py")):
            if "tests" not in path.parts:
                yield path


def name_of(path: Path) -> str:
    parts = path.relative_to(PROJECT_DIR).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in files()}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, except those that are there for type checkers only."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from nodes(child)


@cache
def imports(module: str) -> set[str]:
    """The modules of ours that a module imports, also within a function."""
    found = set()
    for node in nodes(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules() else str(node.module))
    return found & modules().keys()


def within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


@pytest.mark.parametrize("room", CLOSED)
def test_a_room_imports_nothing_of_those_that_build_on_it(room: str) -> None:
    assert any(within(module, room) for module in modules())
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        if within(module, room)
        for other in imports(module)
        if any(within(other, closed) for closed in CLOSED[room])
    ]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    done: set[str] = set()

    def follow(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in sorted(imports(module)):
                follow(other, (*above, module))
            done.add(module)

    for module in modules():
        follow(module, ())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_a_name_with_an_underscore_stays_in_its_module() -> None:
    wrong = []
    for path in (*files(), *sorted((PROJECT_DIR / "ingestion/tests").glob("*.py"))):
        tree = ast.parse(path.read_text("utf-8"))
        ours: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ROOTS:
                wrong += [f"{path.name}: {a.name}" for a in node.names if is_private(a.name)]
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                ours |= {name.rpartition(".")[2] for name in names if name in modules()}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr):
                continue
            if isinstance(node.value, ast.Name) and node.value.id in ours:
                wrong.append(f"{path.name}: {node.value.id}.{node.attr}")
    assert wrong == []


def test_no_module_is_longer_than_a_reader_holds() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}
