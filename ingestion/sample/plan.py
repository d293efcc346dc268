"""Every line of a made-up file, decided as arrays of whole numbers and spelt out as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from ingestion.sample import settings
from ingestion.sources.transactions.settings import MANDATORY

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


DAY = 86_400_000  # milliseconds
FUTURE = date(2999, 1, 1)
SPAN = date(2024, 1, 1), date(2025, 12, 31)  # first and last day of events, UTC
BROKEN = (
    *("not_json", "missing_field", "bad_transaction_id"),
    *("bad_timestamp", "bad_user_id", "bad_amount"),
)
RULES = (
    "negative_amount",
    "absurd_amount",
    "unknown_status",
    "unknown_currency",
    "future_timestamp",
)


@dataclass(frozen=True)
class Shares:
    """Shares of all lines, from 0 to 1.

    Attributes:
        broken: lines that landing must reject.
        rule_breaking: rows that land and break a business rule.
        late: rows that stand later in the file than rows of a later ``event_ts``.
        repeated: exact copies of an earlier line.
        settled: second events of a transaction, PENDING to APPROVED.
        refunded: second events of a transaction, APPROVED to REFUNDED.
    """

    broken: float = 0.005
    rule_breaking: float = 0.002
    late: float = 0.02
    repeated: float = 0.005
    settled: float = 0.02
    refunded: float = 0.01


class Plan:
    """Every line decided, as arrays of whole numbers; text is made a stretch of lines at a time.

    Arrays are indexed by event: the first events of all transactions in the order of time, then the
    second ones (a changed status), then those that broken lines are made of. ``origin`` is each
    event's transaction, and ``order`` the event that each line of the file shows.
    """

    def __init__(self, rows: int, seed: int, start: date, end: date, shares: Shares) -> None:
        import numpy as np

        self.np, self.seed, self.start = np, seed, start
        self.days = (end - start).days + 1
        broken, repeated = round(rows * shares.broken), round(rows * shares.repeated)
        self.events = rows - broken - repeated

        # the shares of statuses hold over first and second events together
        quota = _quota(self.events, settings.STATUSES)
        settled = min(round(rows * shares.settled), quota["PENDING"])
        refunded = min(round(rows * shares.refunded), quota["REFUNDED"])
        quota["APPROVED"] -= settled
        quota["REFUNDED"] -= refunded
        first = sum(quota.values())
        code = list(settings.STATUSES).index
        status = np.repeat(np.arange(len(quota)), list(quota.values()))
        status = status[self._shuffle("status", first)]

        # rows with a part to play are drawn without overlap, so that every count is exact
        self._drawn = self._shuffle("parts", first)
        self._free = np.ones(first, bool)
        pending = self._draw(settled, status == code("PENDING"))
        approved = self._draw(refunded, status == code("APPROVED"))
        breaking = self._draw(round(rows * shares.rule_breaking))
        copied = self._draw(repeated)

        changed = np.concatenate([pending, approved])
        self.origin = np.concatenate([np.arange(first), changed, first + np.arange(broken)])
        second = [code("APPROVED")] * len(pending) + [code("REFUNDED")] * len(approved)
        self.status = np.concatenate([status, second, [code("APPROVED")] * broken]).astype(np.int64)
        self.rule = np.full(len(self.origin), -1)
        self.rule[breaking] = np.arange(len(breaking)) % len(RULES)
        time = np.sort(self._times("first", first))
        self.time = np.concatenate(
            [time, self._later(time[changed], len(pending)), self._times("broken", broken)]
        )
        late = self._arrange(round(rows * shares.late), copied, broken)
        self._spell_out()
        self.counts = {
            "lines": rows,
            "landed": rows - broken,
            "rejected": broken,
            "transactions": first - len(breaking),
            "late": late,
            "repeated": len(copied),
            "pending_to_approved": len(pending),
            "approved_to_refunded": len(approved),
            **self._count(broken),
        }

    def _draw(self, n: int, allowed: np.ndarray | bool = True) -> np.ndarray:
        """``n`` transactions that play no part yet, at random; fewer where there are no more."""
        picked = self._drawn[(allowed & self._free)[self._drawn]][:n]
        self._free[picked] = False
        return picked

    def _later(self, time: np.ndarray, settled: int) -> np.ndarray:
        """When statuses change: within three days for a payment, three weeks for a refund."""
        np = self.np
        after_payment = 30_000 + self._below("settled", 3 * DAY, settled)
        after_refund = DAY + self._below("refunded", 20 * DAY, len(time) - settled)
        later = time + np.concatenate([after_payment, after_refund])
        return np.maximum(np.minimum(later, self.days * DAY - 1), time + 1)

    def _arrange(self, late: int, copied: np.ndarray, broken: int) -> int:
        """Decide the order of lines: by time, but for late rows, repeats and broken lines.

        Returns:
            How many rows are late.
        """
        np, n = self.np, self.events
        by_time = np.argsort(self.time[:n], kind="stable")
        rank = np.empty(n, np.int64)
        rank[by_time] = np.arange(n)
        reach = max(3, 3 * n // self.days)  # about three days

        # A late row goes from an odd rank to just behind an even one. Even ranks stay where they
        # are, so a late row does stand behind a later event, and makes no other look on time.
        rank_of_first = rank[: len(self._free)]
        behind = rank_of_first + 2 * self._below("late", reach // 2 + 1, len(self._free)) + 1
        passed = by_time[np.minimum(behind, n - 1)]
        late_rows = self._draw(
            late,
            (rank_of_first % 2 == 1)
            & (behind < n)
            & (self.rule[passed] != RULES.index("future_timestamp"))
            & (self.time[passed] > self.time[: len(self._free)]),
        )
        place = 2 * rank
        place[late_rows] = 2 * behind[late_rows] + 1
        places = [
            place,
            place[copied] + 2 * self._below("copies", reach, len(copied)) + 1,
            self._below("places of broken", 2 * n + 1, broken),
        ]
        shown = np.concatenate([np.arange(n), copied, n + np.arange(broken)])
        self.order = shown[np.argsort(np.concatenate(places), kind="stable")]
        return len(late_rows)

    def _count(self, broken: int) -> dict[str, int]:
        np = self.np
        kinds = {
            f"reject.{kind}": len(range(at, broken, len(BROKEN))) for at, kind in enumerate(BROKEN)
        }
        landed = self.order[self.order < self.events]
        rules = np.bincount(self.rule[landed] + 1, minlength=len(RULES) + 1)[1:]
        known = landed[self.rule[landed] != RULES.index("unknown_status")]
        statuses = np.bincount(self.status[known], minlength=len(settings.STATUSES))
        kinds |= {f"rule.{rule}": n for rule, n in zip(RULES, rules.tolist(), strict=True)}
        return kinds | {
            f"status.{name}": n
            for name, n in zip(settings.STATUSES, statuses.tolist(), strict=True)
        }

    # Randomness

    def _words(self, what: str, n: int) -> np.ndarray:
        """``n`` random 64-bit words; each purpose has a stream of its own."""
        seed = [self.seed, *what.encode()]
        return self.np.random.PCG64(self.np.random.SeedSequence(seed)).random_raw(n)

    def _below(self, what: str, limit: int, n: int) -> np.ndarray:
        """``n`` whole numbers from 0 to below ``limit`` (at most 2**31)."""
        words = self._words(what, n) >> self.np.uint64(33)
        return ((words * self.np.uint64(limit)) >> self.np.uint64(31)).astype(self.np.int64)

    def _shuffle(self, what: str, n: int) -> np.ndarray:
        return self.np.argsort(self._words(what, n), kind="stable")

    def _weighted(self, what: str, weights: list[int], n: int) -> np.ndarray:
        """``n`` indexes into ``weights``, each as often as its weight says."""
        edges = self.np.cumsum(self.np.array(weights))
        return self.np.searchsorted(edges, self._below(what, int(edges[-1]), n), side="right")

    def _times(self, what: str, n: int) -> np.ndarray:
        """``n`` event times in milliseconds after the start: by month, weekday and hour."""
        days = [self.start + timedelta(day) for day in range(self.days)]
        weights = [settings.WEEKDAYS[d.weekday()] * settings.MONTHS[d.month - 1] for d in days]
        day = self._weighted(f"{what}: day", weights, n)
        hour = self._weighted(f"{what}: hour", list(settings.HOURS), n)
        return day * DAY + hour * 3_600_000 + self._below(f"{what}: rest", 3_600_000, n)

    # Text

    def _spell_out(self) -> None:
        """Draw what stands in each transaction, and spell out every piece of text of a line."""
        import pyarrow as pa

        np = self.np
        n = int(self.origin.max(initial=-1)) + 1  # transactions, the broken lines' included
        pairs = list(settings.MERCHANTS)
        pair = self._weighted("merchant", list(settings.MERCHANTS.values()), n)
        city = self._weighted("city", list(settings.CITIES.values()), n)
        method = self._weighted("method", list(settings.PAYMENT_METHODS.values()), n)
        self.user = 1 + (
            self._below("user", settings.USERS, n) * self._below("user skew", 1 << 16, n) >> 16
        )
        quintiles = np.array([settings.AMOUNTS[category] for _, category in pairs])
        word = self._below("amount", 5 << 20, n)
        fifth, within = word >> 20, word & ((1 << 20) - 1)
        low, high = quintiles[pair, fifth], quintiles[pair, fifth + 1]
        self.cents = low + ((high - low) * within >> 20)
        self.ids = self._words("id high", n), self._words("id low", n)
        self.offset = self._weighted("offset", list(settings.OFFSETS.values()), len(self.time))

        statuses = [*settings.STATUSES, "LOST"]
        currencies = ["EUR", "EUX"]
        status = np.where(self.rule == RULES.index("unknown_status"), 4, self.status)
        currency = self.rule == RULES.index("unknown_currency")
        shape = (len(pairs), len(settings.CITIES), len(statuses), len(settings.PAYMENT_METHODS), 2)
        of = self.origin
        self.tail = np.ravel_multi_index((pair[of], city[of], status, method[of], currency), shape)
        self.tails = pa.array(
            f', "merchant": "{merchant}", "category": "{category}", "city": "{city}",'
            f' "status": "{status}", "payment_method": "{method}", "currency": "{currency}"}}\n'
            for merchant, category in pairs
            for city in settings.CITIES
            for status in statuses
            for method in settings.PAYMENT_METHODS
            for currency in currencies
        )
        self._name_days()
        self.clock = pa.array(
            f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}."
            for second in range(86_400)
        )
        self.millis = pa.array(f"{ms:03}" for ms in range(1000))
        self.zones = pa.array([f'{zone}", "user_id": ' for zone in settings.OFFSETS])
        self.zone_shift = np.array([_milliseconds(zone) for zone in settings.OFFSETS])
        self.decimals = pa.array(f".{cents:02}" for cents in range(100))

    def _name_days(self) -> None:
        """Spell out the days: one more on either side for offsets; the last one is far ahead."""
        import pyarrow as pa

        days = [self.start + timedelta(day) for day in range(-1, self.days + 2)]
        self.dates = pa.array([f"{day}T" for day in [*days, FUTURE]])

    def keys(self, first: int, last: int) -> list[str]:
        """The transaction of each of these lines, broken ones included, whatever they say."""
        of = self.origin[self.order[first:last]]
        return _uuids(self.ids[0][of], self.ids[1][of]).to_pylist()

    def lines(self, first: int, last: int) -> bytes | memoryview:
        """The lines from ``first`` to before ``last``, 0-based."""
        import pyarrow as pa
        import pyarrow.compute as pc

        np = self.np
        event = self.order[first:last]
        of, rule = self.origin[event], self.rule[event]
        local = self.time[event] + self.zone_shift[self.offset[event]]
        future = rule == RULES.index("future_timestamp")
        day = np.where(future, len(self.dates) - 1, local // DAY + 1)
        cents = self.cents[of]
        cents = np.where(rule == RULES.index("absurd_amount"), cents * 1_000_003, cents)
        sign = (rule == RULES.index("negative_amount")).astype(np.int64)
        text = pc.binary_join_element_wise(
            '{"transaction_id": "',
            _uuids(self.ids[0][of], self.ids[1][of]),
            '", "event_ts": "',
            self.dates.take(pa.array(day)),
            self.clock.take(pa.array(local // 1000 % 86_400)),
            self.millis.take(pa.array(local % 1000)),
            self.zones.take(pa.array(self.offset[event])),
            pc.cast(pa.array(self.user[of]), pa.string()),
            pa.array([', "amount": ', ', "amount": -']).take(pa.array(sign)),
            pc.cast(pa.array(cents // 100), pa.string()),
            self.decimals.take(pa.array(cents % 100)),
            self.tails.take(pa.array(self.tail[event])),
            "",
        )
        broken = np.flatnonzero(event >= self.events)
        if len(broken):
            spoilt = [
                _spoil(text[at].as_py(), int(which) - self.events)
                for at, which in zip(broken.tolist(), event[broken], strict=True)
            ]
            text = pc.replace_with_mask(text, pa.array(event >= self.events), pa.array(spoilt))
        ends = np.frombuffer(text.buffers()[1], np.int32)
        return memoryview(text.buffers()[2])[: ends[text.offset + len(text)]]


def _spoil(line: str, number: int) -> str:
    """The broken form of a line: the kinds take turns."""
    kind, turn = BROKEN[number % len(BROKEN)], number // len(BROKEN)
    if kind == "not_json":
        return line[: 40 + turn % 60] + "\n"
    row = json.loads(line)
    if kind == "missing_field":
        del row[MANDATORY[turn % len(MANDATORY)]]
    elif kind == "bad_transaction_id":
        row["transaction_id"] = ("", turn + 0.5, [row["transaction_id"]])[turn % 3]
    elif kind == "bad_timestamp":
        row["event_ts"] = ("2024-13-45T25:61:00Z", "yesterday", row["event_ts"][:10])[turn % 3]
    elif kind == "bad_user_id":
        row["user_id"] = ("", 12.5, [row["user_id"]])[turn % 3]
    elif kind == "bad_amount":
        row["amount"] = (f"{row['amount']} EUR", "n/a", 0.123456)[turn % 3]
    return json.dumps(row) + "\n"


def _quota(total: int, weights: dict[str, int]) -> dict[str, int]:
    """``total`` split as the weights say; the largest remainders get what rounding leaves."""
    whole = sum(weights.values())
    quota = {name: total * weight // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: -(total * weights[name] % whole))
    for name in by_remainder[: total - sum(quota.values())]:
        quota[name] += 1
    return quota


def _milliseconds(zone: str) -> int:
    at = datetime.fromisoformat(f"2024-01-01T00:00:00{zone.replace('Z', '+00:00')}")
    return int((at.replace(tzinfo=timezone.utc) - at).total_seconds() * 1000)


def _uuids(high: np.ndarray, low: np.ndarray) -> pa.Array:
    """Random UUIDs (version 4) from two words each, as text."""
    import numpy as np
    import pyarrow as pa

    words = np.empty((len(high), 2), ">u8")
    words[:, 0] = high & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x4000)
    words[:, 1] = low & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
    octets = words.view(np.uint8).reshape(-1, 16)
    nibbles = np.empty((len(high), 32), np.uint8)
    nibbles[:, 0::2], nibbles[:, 1::2] = octets >> 4, octets & 15
    letters = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    text = np.full((len(high), 36), ord("-"), np.uint8)
    for at, since, width in ((0, 0, 8), (9, 8, 4), (14, 12, 4), (19, 16, 4), (24, 20, 12)):
        text[:, at : at + width] = letters[:, since : since + width]
    ends = np.arange(len(high) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(len(high), pa.py_buffer(ends), pa.py_buffer(text))
