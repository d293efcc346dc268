"""What a file's columns may be: by their names, and by the values in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product

from ingestion.sources.transactions.amounts import plain, readings
from ingestion.sources.transactions.contract import Refused, in_utc
from ingestion.sources.transactions.mapping.names import word
from ingestion.sources.transactions.mapping.spec import Amount
from ingestion.sources.transactions.mapping.values import bare_number, zone_named
from ingestion.texts import trim

# Names by which a field goes in other files, the likeliest first.
_KNOWN = {
    "transaction_id": (
        "transaction id, transactionid, txn id, trans id, trans num, transaction number,"
        " transaction reference, payment id, charge id, reference number, reference, uuid,"
        " order id, invoice no, event id, id"
    ),
    "event_ts": (
        "event ts, timestamp, event time, event timestamp, transaction time, transaction timestamp,"
        " transaction datetime, transaction date, trans date trans time, trans date, created at,"
        " created utc, created, datetime, date time, txn date, booking date, buchungstag,"
        " buchungsdatum, posting date, post date, date, datum, fecha, data, time, unix time, ts"
    ),
    "user_id": (
        "user id, customer id, client id, account id, cardholder id, member id, customer, user,"
        " client, cc num, card number, card no, card id, card, account number, account, iban,"
        " customer email, email, name orig"
    ),
    "amount": (
        "amount, transaction amount, amt, gross, total, total amount, value, betrag, montant,"
        " importe, importo, bedrag, price, sum"
    ),
    "merchant": (
        "merchant, merchant name, payee, vendor, store, shop, seller, counterparty, empfänger,"
        " libellé, description, narrative, details, verwendungszweck, name, memo"
    ),
    "category": "category, merchant category, mcc, kategorie, catégorie, type, transaction type",
    "city": "city, merchant city, location, town, ort, stadt, ville, ciudad",
    "status": "status, transaction status, state, payment status, result, outcome",
    "payment_method": "payment method, payment type, method, card type, card brand, channel",
    "currency": "currency, currency code, ccy, curr, währung, devise, moneda, valuta",
}
KNOWN = {name: tuple(map(str.strip, names.split(","))) for name, names in _KNOWN.items()}
_DEBIT = "debit, debit amount, withdrawal, withdrawals, soll, belastung, débit, cargo, money out"
_CREDIT = "credit, credit amount, deposit, deposits, haben, gutschrift, crédit, abono, money in"
DEBIT, CREDIT = _DEBIT.split(", "), _CREDIT.split(", ")
STATUSES = {
    "APPROVED": "approved, success, successful, succeeded, completed, complete, paid, settled, ok,"
    " captured, cleared, posted, accepted, done",
    "DECLINED": "declined, failed, failure, denied, rejected, error, canceled, cancelled, expired,"
    " blocked, voided, void, unsuccessful",
    "PENDING": "pending, processing, in progress, authorized, authorised, open, held, uncleared,"
    " initiated, requires capture",
    "REFUNDED": "refunded, refund, reversed, reversal, chargeback, returned, disputed",
}
MEANING = {word(text): status for status, texts in STATUSES.items() for text in texts.split(",")}
CURRENCIES = {"€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₺": "TRY", "zł": "PLN"}
_CODES = ("EUR", "USD", "GBP", "CHF", "PLN", "INR", "JPY")
SYMBOLS = (*CURRENCIES, "$", "¥", *_CODES, "US$", "Rs.", "kr")

_DAYS = (
    "%d.%m.%Y|%d/%m/%Y|%m/%d/%Y|%d-%m-%Y|%m-%d-%Y|%Y/%m/%d|%Y.%m.%d|%d.%m.%y|%d/%m/%y|%m/%d/%y"
    "|%d-%m-%y|%Y-%m-%d|%Y%m%d|%d %b %Y|%b %d, %Y|%d-%b-%Y|%d-%b-%y|%d %B %Y|%B %d, %Y|%b %d %Y"
)
_CLOCKS = (
    "| %H:%M:%S| %H:%M| %I:%M:%S %p| %I:%M %p| %H:%M:%S.%f|, %H:%M:%S|T%H:%M:%S|T%H:%M|, %H:%M"
    "|, %I:%M %p"
)
FORMATS = tuple(day + clock for day, clock in product(_DAYS.split("|"), _CLOCKS.split("|")))
_MOST = 0.8  # share of the values that are what a column is: a footer is something else
_EPOCHS = {
    "seconds": (9, 10),
    "milliseconds": (12, 13),
    "microseconds": (15, 16),
    "nanoseconds": (18, 19),
}


@dataclass
class Column:
    """A column of a file, by its first values.

    Attributes:
        name: as it is in the file.
        values: those that are there, as text; numbers of JSON too.
    """

    name: str
    values: list[str] = field(default_factory=list)

    def is_number(self) -> bool:
        """Whether nearly all values are amounts, with whatever is around them."""
        return _most(map(is_amount, self.values))

    def formats(self) -> list[str]:
        """Formats that read most values, and no other one reads more."""
        counts = {form: sum(fits(value, form) for value in self.values) for form in self._forms()}
        best = max(counts.values(), default=0)
        enough = best and best >= _MOST * len(self.values)
        return [form for form, count in counts.items() if enough and count == best]

    def _forms(self) -> set[str]:
        """Those that read one of a few values: there are many, and most read none."""
        some = self.values[:: max(1, len(self.values) // 10)]
        return {form for form in FORMATS if any(fits(value, form) for value in some)}

    def is_iso(self) -> bool:
        """Whether the contract reads these times as they are."""
        return _most(map(_is_iso, self.values))

    def unit(self) -> str | None:
        """The unit of numbers that count from 1970."""
        lengths = {len(value.partition(".")[0]) for value in self.values if plain(value)}
        if not self.values or not all(plain(value) for value in self.values):
            return None
        fitting = [unit for unit, digits in _EPOCHS.items() if lengths.issubset(digits)]
        return fitting[0] if fitting else None

    def is_time(self) -> bool:
        return bool(self.values) and bool(self.is_iso() or self.unit() or self.formats())

    def is_unique(self) -> bool:
        return bool(self.values) and len(set(self.values)) == len(self.values)


def named(columns: Iterable[Column], names: Sequence[str]) -> list[Column]:
    """The columns that bear one of some names, in the order of the names."""
    by_word = {word(column.name): column for column in columns}
    return [by_word[word(name)] for name in names if word(name) in by_word]


def is_amount(value: str) -> bool:
    """Whether a text shows a number, in whatever way."""
    return bool(readings(bare_number(Amount(symbols=SYMBOLS), trim(value))[0]))


def symbols_in(values: Iterable[str]) -> tuple[str, ...]:
    """Those around the numbers."""
    found = {symbol for value in values for symbol in SYMBOLS if symbol in value}
    return tuple(symbol for symbol in SYMBOLS if symbol in found)


def is_zone(value: str) -> bool:
    try:
        zone_named(trim(value))
    except Refused:
        return False
    return True


def _most(found: Iterable[bool]) -> bool:
    listed = list(found)
    return bool(listed) and sum(listed) >= _MOST * len(listed)


def fits(value: str, form: str) -> bool:
    """Whether a format reads a text."""
    try:
        datetime.strptime(trim(value), form)
    except ValueError:
        return False
    return True


def _is_iso(value: str) -> bool:
    try:
        in_utc(trim(value), zone_named("UTC"))
    except Refused:
        return False
    return True


DAY_FIRST = re.compile(r"%d([./-])%m")


def is_negative(value: str) -> bool:
    """Whether an amount is, in whatever way it says so."""
    return bare_number(Amount(symbols=SYMBOLS), trim(value))[1]
