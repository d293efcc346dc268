"""A mapping as it is drafted, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ingestion.sources.transactions.amounts import readings
from ingestion.sources.transactions.formats.reader import marks_of_file, records_of
from ingestion.sources.transactions.mapping import guesses
from ingestion.sources.transactions.mapping.guesses import KNOWN, Column, named
from ingestion.sources.transactions.mapping.names import Names, word
from ingestion.sources.transactions.mapping.rules import ContractRules
from ingestion.sources.transactions.mapping.spec import Amount
from ingestion.sources.transactions.mapping.values import bare_number
from ingestion.sources.transactions.settings import FIELDS
from ingestion.texts import trim

if TYPE_CHECKING:
    from ingestion.sources.transactions.inputs.source_file import SourceFile

OPEN = "?"  # to be replaced by the user
KEY_COLUMNS = 8
_CLOCKS = ("time", "transaction time", "uhrzeit", "heure", "hora")


class AllColumns(ContractRules):
    """Every column of a file as it is.

    Args:
        names: of the columns.
        amounts: those that are asked for the marks in them.
        bare: takes off what is around a number.
    """

    def __init__(
        self,
        names: Iterable[str],
        amounts: tuple[str, ...] = (),
        bare: Callable[[str], str] = str,
    ) -> None:
        self.names, self.ids, self.amounts, self._bare = Names(names), (), amounts, bare

    def row(self, *_: Any) -> tuple:
        return ()

    def bare_amount(self, text: str) -> str:
        return self._bare(text)

    def check(self, names: list[str], file: str) -> None:
        """Any columns will do."""


@dataclass
class Draft:
    """The mapping as it grows.

    Attributes:
        file: what it is for.
        columns: of the file, by their first values.
        unsure: a sentence for each thing that the file does not say.
    """

    file: SourceFile
    columns: list[Column]
    unsure: list[str] = field(default_factory=list)
    _parts: dict[str, Any] = field(default_factory=dict)

    def fill(self) -> None:
        """Find a column for each field, and how it is written."""
        self._event_ts()
        self._amount()
        self._transaction_id()
        self._user_id()
        for name in ("merchant", "category", "city", "payment_method"):
            known = self._known(name)
            if known:
                self._parts[name] = known[0].name
        self._currency()
        self._status()

    def text(self) -> str:
        """The mapping as YAML."""
        parts = {name: self._parts[name] for name in FIELDS if name in self._parts}
        said = f"Transactions like those of {Path(self.file.name).name}."
        document = {"description": said, "columns": parts}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)

    def _known(self, name: str) -> list[Column]:
        """Columns that no field has yet, named as a field often is."""
        used: set[str] = set()
        for part in self._parts.values():
            keys = ("from", "join", "debit", "credit", "timezone_from")
            values = [part] if isinstance(part, str) else [part.get(key, []) for key in keys]
            for value in values:
                used |= {value} if isinstance(value, str) else set(value)
        free = (column for column in self.columns if column.values and column.name not in used)
        return named(free, KNOWN[name])

    # Times

    def _event_ts(self) -> None:
        known = named(self.columns, KNOWN["event_ts"])
        others = [column for column in self.columns if column not in known]
        column = next((each for each in (*known, *others) if each.is_time()), None)
        if column is None:
            self._parts["event_ts"] = {"from": known[0].name if known else OPEN, "format": OPEN}
            self.unsure.append(
                "event_ts: no column has times that are known here. Give its format for strptime,"
                " or its unit and origin."
            )
            return
        clock = self._clock_beside(column)
        part: dict[str, Any] = {"from": column.name}
        if clock:
            part = {"join": [column.name, clock.name]}
            column = Column(column.name, _joined(column, clock))
        unit = column.unit()
        if unit:
            part["unit"] = unit
        elif not column.is_iso():
            part["format"] = self._format(column, list(part.get("join", [column.name])))
            self._zone(part)
        self._parts["event_ts"] = _short(part)

    def _clock_beside(self, column: Column) -> Column | None:
        """A column of times of day, for one of days."""
        if column.is_iso() or column.unit() or any("%M" in form for form in column.formats()):
            return None
        clocks = (c for c in named(self.columns, _CLOCKS) if c is not column)
        return next((c for c in clocks if Column("", _joined(column, c)).formats()), None)

    def _format(self, column: Column, names: list[str]) -> str:
        """The format that reads the file; open where two do, and the whole file shows neither."""
        fitting = column.formats()
        for value in self._whole(names) if len(fitting) > 1 else ():
            still = [form for form in fitting if guesses.fits(value, form)]
            fitting = still or fitting  # a footer fits none
            if len(fitting) == 1:
                break
        if len(fitting) == 1:
            return fitting[0]
        self.unsure.append(
            f"event_ts: {column.values[0]} can be read in several ways, and no value of the file"
            f" says in which. Write one: {' or '.join(sorted(fitting))}."
        )
        return OPEN

    def _whole(self, names: list[str]) -> Iterator[str]:
        """The values of the whole file; of several columns, joined by a blank."""
        every = replace(self.file, rules=AllColumns(column.name for column in self.columns))
        for found, _ in records_of(every):
            values = [found.get(name) for name in names]
            if all(isinstance(value, str) and value for value in values):
                yield " ".join(map(str, values))

    def _zone(self, part: dict[str, Any]) -> None:
        for column in self.columns:
            is_zone = "zone" in column.name.casefold() and all(map(guesses.is_zone, column.values))
            if is_zone and column.values:
                part["timezone_from"] = column.name
                return
        if "%M" in part["format"]:
            self.unsure.append(
                "event_ts: the times say no time zone, so they are read as UTC. If they are local,"
                " add timezone: Europe/Berlin, or whichever it is."
            )

    # Amounts

    def _amount(self) -> None:
        debit, credit = (
            [column for column in named(self.columns, names) if column.is_number()]
            for names in (guesses.DEBIT, guesses.CREDIT)
        )
        known = [column for column in self._known("amount") if column.is_number()]
        if debit and credit:
            part: dict[str, Any] = {"debit": debit[0].name, "credit": credit[0].name}
            part["refund_status"] = "REFUNDED"
            self.unsure.append(f"amount: money in {credit[0].name} comes back, as REFUNDED.")
            columns = [debit[0], credit[0]]
        elif known:
            part, columns = {"from": known[0].name}, known[:1]
            if len(known) > 1:
                others = ", ".join(column.name for column in known[1:4])
                self.unsure.append(f"amount: {known[0].name} is taken; it could be {others}.")
            self._sign(part, columns[0])
        else:
            self._parts["amount"] = {"from": OPEN}
            self.unsure.append("amount: no column is surely one. Name it.")
            return
        symbols = guesses.symbols_in(value for column in columns for value in column.values)
        if symbols:
            part["symbols"] = list(symbols)
        self._mark(part, columns)
        self._parts["amount"] = _short(part)

    def _sign(self, part: dict[str, Any], column: Column) -> None:
        negative = sum(map(guesses.is_negative, column.values))
        if not negative:
            return
        sign = "negative" if negative > len(column.values) / 2 else "positive"
        part |= {"spending": sign, "refund_status": "REFUNDED"}
        self.unsure.append(
            f"amount: most are {sign}, so these are read as money spent, and the others as money"
            " that comes back, as REFUNDED."
        )

    def _mark(self, part: dict[str, Any], columns: list[Column]) -> None:
        """The mark before decimals that the whole file shows."""
        amount = Amount(symbols=tuple(part.get("symbols", ())))

        def bare(text: str) -> str:
            return bare_number(amount, text)[0]

        names = tuple(column.name for column in columns)
        every = AllColumns((column.name for column in self.columns), names, bare)
        marks = marks_of_file(replace(self.file, rules=every))
        if len(marks) == 1:
            part["decimal"] = marks.pop()
            return
        values = (bare(trim(value)) for column in columns for value in column.values)
        if any(len(set(readings(value).values())) > 1 for value in values):
            part["decimal"] = OPEN
            why = "the file has both" if marks else "no amount of the file says which"
            self.unsure.append(
                f"amount: points and commas can be before decimals or between thousands; {why}."
                ' Write decimal: "." or decimal: ",".'
            )

    # The others

    def _transaction_id(self) -> None:
        ids = [column for column in self._known("transaction_id") if column.is_unique()]
        if ids:
            self._parts["transaction_id"] = ids[0].name
            return
        key = [column.name for column in self.columns if column.values][:KEY_COLUMNS]
        self._parts["transaction_id"] = {"key": key}
        self.unsure.append(
            "transaction_id: no column is an id, so one is made of columns. Take out those that"
            " change from export to export, such as a balance or a status."
        )

    def _user_id(self) -> None:
        known = self._known("user_id")
        if not known:
            self._parts["user_id"] = {"constant": "unknown"}
            self.unsure.append("user_id: no column says whose it is; it is unknown for all.")
            return
        column, rows = known[0], max(len(each.values) for each in self.columns)
        self._parts["user_id"] = column.name
        if len(column.values) < rows:
            self._parts["user_id"] = {"from": column.name, "default": "unknown"}
            self.unsure.append(f"user_id: where {column.name} is empty, it is unknown.")

    def _currency(self) -> None:
        known = [c for c in self._known("currency") if all(len(trim(v)) == 3 for v in c.values)]
        if known:
            self._parts["currency"] = known[0].name
            return
        part = self._parts["amount"]
        symbols = [] if isinstance(part, str) else part.get("symbols", [])
        codes = {guesses.CURRENCIES.get(symbol, symbol) for symbol in symbols}
        code = codes.pop() if len(codes) == 1 else ""
        if len(code) == 3 and code.isalpha():
            self._parts["currency"] = {"constant": code}
        else:
            self.unsure.append(
                "currency: no column says it, and all are left without. If there is one, add"
                " currency: {constant: EUR}, or whichever it is."
            )

    def _status(self) -> None:
        known = self._known("status")
        if not known:
            self._parts["status"] = {"constant": "APPROVED"}
            self.unsure.append("status: no column says it; all are APPROVED.")
            return
        column = known[0]
        there = dict.fromkeys(map(trim, column.values))
        meaning = {value: guesses.MEANING.get(word(value)) for value in there}
        renamed = {v: status for v, status in meaning.items() if status and status != v.upper()}
        self._parts["status"] = {"from": column.name, "values": renamed} if renamed else column.name
        unknown = [value for value, status in meaning.items() if not status]
        if unknown:
            self.unsure.append(
                f"status: {', '.join(unknown[:5])} is not known. Give it a meaning in values, or"
                " add it to seeds/transaction_statuses.csv."
            )


def _short(part: dict[str, Any]) -> Any:
    """A source alone is written without its key."""
    return part["from"] if list(part) == ["from"] else part


def _joined(day: Column, clock: Column) -> list[str]:
    return [f"{a} {b}" for a, b in zip(day.values, clock.values, strict=False)]
