"""What a mapping says: from which columns of a file each field of the contract comes, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

from ingestion.errors import UserError
from ingestion.sources.transactions.mapping.document import Node, plain, read_document
from ingestion.sources.transactions.mapping.names import Names, word
from ingestion.sources.transactions.settings import FIELDS, IDS, MANDATORY

UNITS = {
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "seconds": 1_000_000,
    "milliseconds": 1_000,
    "microseconds": 1,
    "nanoseconds": 0.001,
}
_EXAMPLE = datetime(2024, 12, 31, 23, 59, 58, tzinfo=timezone.utc)
MARKS = (".", ",")
_TEXT_KEYS = ("from", "constant", "default", "values")
_MOMENT_KEYS = ("from", "join", "format", "timezone", "timezone_from", "unit", "origin")
_AMOUNT_KEYS = (
    *("from", "debit", "credit", "direction", "refund_values", "decimal", "thousands", "symbols"),
    *("spending", "refund_status", "divide_by"),
)


@dataclass(frozen=True)
class Text:
    """A field that is text.

    Attributes:
        sources: columns; the first that has a value counts.
        default: where none has one; a constant is the default of no column.
        values: what to write instead of some values, which are compared without case.
        key: columns of which an id is made.
    """

    sources: tuple[str, ...] = ()
    default: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """``event_ts``.

    Attributes:
        sources: columns; the first that has a value counts.
        join: columns whose values are joined by a blank instead.
        formats: as ``strptime`` takes them; ISO 8601 where there is none.
        timezone: of times that do not say theirs.
        timezone_from: column with the time zone of each row.
        unit: of numbers, counted from ``origin``.
        origin: a local time; None: 1970 in UTC.
    """

    sources: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    timezone: str = "UTC"
    timezone_from: str | None = None
    unit: str | None = None
    origin: datetime | None = None


@dataclass(frozen=True)
class Amount:
    """``amount``, which the warehouse has positive for money that was spent.

    Attributes:
        sources: columns; the first that has a value counts.
        debit, credit: columns for money that goes out and comes back instead, one of them filled.
        direction: column that says which of both a row is.
        refund_values: what it says of money that comes back.
        decimal: the mark before decimals; None: the file decides (see ``amounts``).
        thousands: what stands between groups of digits, of whatever length.
        symbols: texts around the number, such as ``€``.
        spending: the sign that money spent has in the file.
        refund_status: status of rows with money that comes back, whose amount then is positive;
            None: it is negative.
        divide_by: 100 where the file counts cents.
    """

    sources: tuple[str, ...] = ()
    debit: tuple[str, ...] = ()
    credit: tuple[str, ...] = ()
    direction: str | None = None
    refund_values: tuple[str, ...] = ()
    decimal: str | None = None
    thousands: str | None = None
    symbols: tuple[str, ...] = ()
    spending: str = "positive"
    refund_status: str | None = None
    divide_by: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns with numbers."""
        return (*self.sources, *self.debit, *self.credit)


@dataclass(frozen=True)
class Mapping:
    """A mapping that is valid.

    Attributes:
        name: its file's, without ``.yml``.
        fields: the fields that are text, ids included.
        moment, amount: the other two.
        applies_to: columns by which a file of this kind is known; none: it is only used by name.
        skip_lines: regular expressions of lines of CSV that are left out.
        skip_rows: values, by column, of rows that are left out.
        document: the whole as JSON, for the ledger.
    """

    name: str
    fields: dict[str, Text]
    moment: Moment
    amount: Amount
    applies_to: tuple[str, ...]
    skip_lines: tuple[str, ...]
    skip_rows: dict[str, tuple[str, ...]]
    document: str

    @cached_property
    def checksum(self) -> str:
        """Of what it does: another description or comment is no other mapping."""
        return hashlib.sha256(self.document.encode()).hexdigest()

    @cached_property
    def names(self) -> Names:
        """All columns that it reads."""
        moment, amount = self.moment, self.amount
        found = [name for text in self.fields.values() for name in (*text.sources, *text.key)]
        found += [*moment.sources, *moment.join, *amount.columns, *self.skip_rows]
        found += [name for name in (moment.timezone_from, amount.direction) if name]
        of_values = {name for text in self.fields.values() for name in text.sources}
        of_values |= {*moment.sources, *moment.join, *amount.columns}
        return Names(found, kept=set(found) - of_values)

    def lacks(self, names: list[str]) -> list[str]:
        """What a file with these columns has not, each as ``field (its columns)``."""
        there = {word(name) for name in names}

        def has(column: str) -> bool:
            return word(column) in there or word(column.partition(".")[0]) in there

        moment, ids = self.moment, [(name, self.fields[name]) for name in IDS]
        needed = {
            "event_ts": moment.join or moment.sources,
            "amount": self.amount.columns,
            **{name: text.key or text.sources for name, text in ids if text.default is None},
        }
        return [
            f"{field} ({', '.join(columns)})"
            for field, columns in needed.items()
            if not (all if columns == moment.join else any)(map(has, columns))
        ]

    def applies(self, names: list[str]) -> bool:
        """Whether a file with these columns is of this kind."""
        there = {word(name) for name in names}
        return bool(self.applies_to) and all(word(name) in there for name in self.applies_to)


def read_mapping(path: Path) -> Mapping:
    """The mapping in a file.

    Raises:
        UserError: it cannot be read, or is not valid; the message names line and key.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The mapping {path} cannot be read: {error}.\nCheck the path.") from error
    return parse_mapping(text, str(path), path.stem)


def parse_mapping(text: str, file: str, name: str) -> Mapping:
    """The mapping of a YAML text, or of the JSON in the ledger.

    Raises:
        UserError: it is not valid; the message names line and key.
    """
    top = read_document(text, file)
    parts = top.keys_among(("description", "applies_to", "skip_lines", "skip_rows", "columns"))
    if "columns" not in parts:
        raise top.error("the key columns is missing", "Write `columns:`, see docs/your-data.md.")
    columns = parts["columns"].keys_among(FIELDS)
    for needed in MANDATORY:
        if needed not in columns:
            raise parts["columns"].error(
                f"{needed} is missing", f"The fields needed are: {', '.join(MANDATORY)}."
            )
    fields = {
        field_name: _text(node, is_id=field_name == "transaction_id")
        for field_name, node in columns.items()
        if field_name not in ("event_ts", "amount")
    }
    skip_rows = dict(parts["skip_rows"]) if "skip_rows" in parts else {}
    document = {key: plain(node.value) for key, node in parts.items() if key != "description"}
    return Mapping(
        name=name,
        fields=fields,
        moment=_moment(columns["event_ts"]),
        amount=_amount(columns["amount"]),
        applies_to=parts["applies_to"].texts() if "applies_to" in parts else (),
        skip_lines=parts["skip_lines"].pattern() if "skip_lines" in parts else (),
        skip_rows={key: node.texts() for key, node in skip_rows.items()},
        document=json.dumps(document, ensure_ascii=False, sort_keys=True),
    )


def _text(node: Node, *, is_id: bool) -> Text:
    if not isinstance(node.value, dict):
        return Text(node.texts())
    parts = node.keys_among((*_TEXT_KEYS, "key") if is_id else _TEXT_KEYS)
    given = [key for key in ("from", "constant", "key") if key in parts]
    if len(given) != 1:
        wanted = "from, constant or key" if is_id else "from or constant"
        raise node.error("it needs exactly one source", f"Give {wanted}.")
    fixed = parts.get("constant") or parts.get("default")
    return Text(
        sources=parts["from"].texts() if "from" in parts else (),
        default=fixed.text() if fixed else None,
        values=parts["values"].pairs() if "values" in parts else {},
        key=parts["key"].texts() if "key" in parts else (),
    )


def _moment(node: Node) -> Moment:
    if not isinstance(node.value, dict):
        return Moment(node.texts())
    parts = node.keys_among(_MOMENT_KEYS)
    if ("from" in parts) == ("join" in parts):
        raise node.error("it needs exactly one source", "Give from or join.")
    if "unit" in parts and "format" in parts:
        raise parts["unit"].error("a number has no format", "Leave unit or format.")
    if "origin" in parts and "unit" not in parts:
        raise parts["origin"].error("it counts from nowhere", "Give unit, as in unit: hours.")
    found = Moment(
        sources=parts["from"].texts() if "from" in parts else (),
        join=parts["join"].texts() if "join" in parts else (),
        formats=_formats(parts["format"]) if "format" in parts else (),
        timezone=parts["timezone"].text() if "timezone" in parts else "UTC",
        timezone_from=parts["timezone_from"].text() if "timezone_from" in parts else None,
        unit=parts["unit"].one_of(tuple(UNITS)) if "unit" in parts else None,
    )
    try:
        ZoneInfo(found.timezone)
    except (OSError, ValueError, LookupError) as error:
        raise parts["timezone"].error(
            f"there is no time zone {found.timezone}", "Name it as IANA does: Europe/Berlin."
        ) from error
    if "origin" not in parts:
        return found
    try:
        origin = datetime.fromisoformat(parts["origin"].text())
    except ValueError as error:
        raise parts["origin"].error(
            "this is no time", "Write it as 2024-01-31T00:00:00."
        ) from error
    return Moment(**{**vars(found), "origin": origin.replace(tzinfo=None)})


def _formats(node: Node) -> tuple[str, ...]:
    for text in node.texts():
        try:
            datetime.strptime(_EXAMPLE.strftime(text), text)
        except ValueError as error:
            raise node.error(
                f"{text!r} is no format ({error})", "Write it for strptime: %d.%m.%Y %H:%M."
            ) from error
        if not {"%d", "%j", "%c", "%x", "%D"} & {text[n : n + 2] for n in range(len(text))}:
            raise node.error(f"{text!r} has no day", "Write it for strptime: %d.%m.%Y %H:%M.")
    return node.texts()


def _amount(node: Node) -> Amount:
    if not isinstance(node.value, dict):
        return Amount(node.texts())
    parts = node.keys_among(_AMOUNT_KEYS)
    if ("from" in parts) == ("debit" in parts or "credit" in parts):
        raise node.error("it needs exactly one source", "Give from, or debit and credit.")
    if ("debit" in parts) != ("credit" in parts):
        raise node.error("debit and credit belong together", "Give both.")
    if ("direction" in parts) != ("refund_values" in parts):
        raise node.error("direction and refund_values belong together", "Give both.")
    for key in ("spending", "direction"):
        if key in parts and "debit" in parts:
            raise parts[key].error("debit and credit say it already", f"Leave out {key}.")
    if "spending" in parts and "direction" in parts:
        raise parts["spending"].error("direction says it already", "Leave out spending.")
    decimal = parts["decimal"].one_of(MARKS) if "decimal" in parts else None
    thousands = parts["thousands"].text() if "thousands" in parts else None
    if thousands and (thousands == decimal or any(letter.isdigit() for letter in thousands)):
        raise parts["thousands"].error("this is no mark between groups", "Write another one.")
    divide_by = parts["divide_by"].one_of(("1", "10", "100", "1000")) if "divide_by" in parts else 1
    return Amount(
        sources=parts["from"].texts() if "from" in parts else (),
        debit=parts["debit"].texts() if "debit" in parts else (),
        credit=parts["credit"].texts() if "credit" in parts else (),
        direction=parts["direction"].text() if "direction" in parts else None,
        refund_values=parts["refund_values"].texts() if "refund_values" in parts else (),
        decimal=decimal,
        thousands=thousands,
        symbols=parts["symbols"].texts() if "symbols" in parts else (),
        spending=parts["spending"].one_of(("positive", "negative"))
        if "spending" in parts
        else "positive",
        refund_status=parts["refund_status"].text() if "refund_status" in parts else None,
        divide_by=int(divide_by),
    )
