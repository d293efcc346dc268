"""What becomes of a record: the contract's own columns as they are, or those of a mapping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from ingestion.errors import UserError
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import NO_FILE, Decimals
from ingestion.sources.transactions.mapping import in_sql, values
from ingestion.sources.transactions.mapping.names import NamedTwice, Names
from ingestion.sources.transactions.mapping.spec import Mapping
from ingestion.sources.transactions.settings import IDS, MANDATORY, NULL_WORDS

_REMEDY = (
    "Name the columns in the first line as the contract does, or let Marquee write a mapping:"
    " marquee ingest transactions FILE --suggest"
)


class Rules(Protocol):
    """How the records of a file become rows.

    Attributes:
        names: the columns that are read.
        ids: those among them that are an id by themselves.
        amounts: those that are amounts.
        decimal: the mark before decimals, where it is known beforehand.
        mapping: None for the contract's own columns.
        nulls: texts that stand for no value.
        makes_ids: whether ids are made of columns, so that equal rows have to be told apart.
    """

    names: Names
    makes_ids: bool
    nulls: tuple[str, ...]
    ids: tuple[str, ...]
    amounts: tuple[str, ...]
    decimal: str | None
    mapping: Mapping | None

    def row(
        self,
        found: dict[str, Any],
        extra: Sequence[tuple[str, Any]] = (),
        decimals: Decimals = NO_FILE,
    ) -> tuple | None:
        """The typed row of a record; None where it is to be left out. Raises ``Refused``."""

    def query(self, decimals: Decimals, numbers: frozenset[str]) -> str | None:
        """SQL that types the records beyond doubt; None where there are none."""

    def bare_amount(self, text: str) -> str:
        """Digits and marks of an amount as it is written."""

    def leaves_out(self, line: bytes) -> bool:
        """Whether a line of CSV is none of a transaction, as a footer."""

    def check(self, names: list[str], file: str) -> None:
        """Raise ``UserError`` where a file with these columns cannot be read."""


class ContractRules:
    """The contract's own columns."""

    names = contract.NAMES
    ids: tuple[str, ...] = IDS
    amounts: tuple[str, ...] = ("amount",)
    decimal: str | None = None
    mapping: Mapping | None = None
    makes_ids = False
    nulls: tuple[str, ...] = NULL_WORDS

    def row(
        self,
        found: dict[str, Any],
        extra: Sequence[tuple[str, Any]] = (),
        decimals: Decimals = NO_FILE,
    ) -> tuple | None:
        return contract.row_of_fields(found, extra, decimals)

    def query(self, decimals: Decimals, numbers: frozenset[str]) -> str | None:
        return contract.typed_by(contract.pieces(decimals, are_numbers="amount" in numbers))

    def bare_amount(self, text: str) -> str:
        return text

    def leaves_out(self, line: bytes) -> bool:  # noqa: ARG002
        return False

    def check(self, names: list[str], file: str) -> None:
        there = _layout(self.names, names, file)
        missing = [name for name in MANDATORY if name not in there]
        if missing:
            raise UserError(
                f"{file} has no column {', '.join(missing)}; it has: {', '.join(names)[:200]}.\n"
                f"{_REMEDY}"
            )


class MappedRules:
    """The columns of a mapping."""

    nulls: tuple[str, ...] = ("", *NULL_WORDS)

    def __init__(self, mapping: Mapping) -> None:
        self.mapping: Mapping | None = mapping
        self._mapping = mapping
        self.names, self.amounts = mapping.names, mapping.amount.columns
        self.ids = tuple(name for each in IDS for name in mapping.fields[each].sources)
        self.decimal = mapping.amount.decimal
        self._decimals = Decimals.fixed(self.decimal) if self.decimal else None
        self.makes_ids = bool(mapping.fields["transaction_id"].key)
        self._footers = [re.compile(pattern) for pattern in mapping.skip_lines]

    def row(
        self,
        found: dict[str, Any],
        extra: Sequence[tuple[str, Any]] = (),
        decimals: Decimals = NO_FILE,
    ) -> tuple | None:
        return values.row_of(self._mapping, found, extra, self._decimals or decimals)

    def query(self, decimals: Decimals, numbers: frozenset[str]) -> str | None:
        pieces = in_sql.pieces(self._mapping, decimals, numbers)
        return contract.typed_by(pieces) if pieces else None

    def bare_amount(self, text: str) -> str:
        return values.bare_number(self._mapping.amount, text)[0]

    def leaves_out(self, line: bytes) -> bool:
        text = line.decode(errors="replace")
        return any(pattern.search(text) for pattern in self._footers)

    def check(self, names: list[str], file: str) -> None:
        _layout(self.names, names, file)
        lacking = self._mapping.lacks(names)
        if lacking:
            raise UserError(
                f"{file} does not fit the mapping {self._mapping.name}: there is no column for"
                f" {', '.join(lacking)}; it has: {', '.join(names)[:200]}.\n"
                "Add its columns to the mapping, or choose another one."
            )


CONTRACT = ContractRules()


def _layout(wanted: Names, names: list[str], file: str) -> tuple[str | None, ...]:
    try:
        return wanted.layout(names)
    except NamedTwice as twice:
        raise UserError(f"{file} has the column {twice.name} twice.\nLeave one of them.") from twice
