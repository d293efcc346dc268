"""Constants of the transactions source: fields, reasons, limits, and the generator's defaults."""

from __future__ import annotations

# The contract's fields, in the order of the raw table. The first four are mandatory.
FIELDS = (
    "transaction_id",
    "event_ts",
    "user_id",
    "amount",
    "merchant",
    "category",
    "city",
    "status",
    "payment_method",
    "currency",
)
MANDATORY = FIELDS[:4]
TEXT_FIELDS = FIELDS[4:]

# Why a line can be refused. Business rules (a negative amount, an unknown status) are no reason:
# such rows land, and dbt marks them.
REASONS = {
    "not_utf8": "the line is not UTF-8",  # of JSON and Parquet; CSV is read as Windows-1252 then
    "not_json": "the line is not JSON",
    "not_object": "the line is JSON, but not an object",
    "duplicate_field": "a field of the contract stands twice in the line",
    "not_csv": "the line is not CSV",
    "column_count": "the line has another number of columns than the header",
    "missing_field": "a mandatory field is absent or null",
    "bad_uuid": "transaction_id is not a UUID",
    "bad_timestamp": "event_ts is not an ISO 8601 date with a time of day",
    "bad_user_id": "user_id is not a whole number of at most 64 bits",
    "bad_amount": "amount is not a number that numeric(18,4) holds exactly",
    "ambiguous_amount": "amount can be read with thousands or decimals, and the file does not say",
    "wrong_type": "a text field is not text",
    "bad_text": "text with a NUL or half a surrogate pair, which PostgreSQL cannot store",
}

MAX_REJECT_SHARE = 0.5  # default of `sources.transactions.max_reject_share`

# Files of a folder that are read; other names are read when they are given one by one.
PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.ndjson", "*.ndjson.gz", "*.json", "*.json.gz")
PATTERNS += ("*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz", "*.parquet")

CHUNK_BYTES = 8 << 20  # read and typed at a time; the reader's memory is a few times this
MAX_LINE_BYTES = 64 << 20  # beyond this it is no line but a file without line ends
# Lines of CSV that a quoted value joins to one record. Longer texts than a letter are no part of a
# card transaction; without a limit, one quote left open could take lines up to the next quote.
MAX_RECORD_LINES = 1_000
MAX_RECORD_BYTES = 1 << 20
HELD_ROWS = 50_000  # of a file in memory until its share of rejects is known; more are sent before
COPY_AHEAD = 2  # pieces on their way to the server while the next one is read

# The generator. Weights are whole numbers, so that a seed gives the same file on every machine.
STATUSES = {"APPROVED": 75, "DECLINED": 10, "PENDING": 10, "REFUNDED": 5}
PAYMENT_METHODS = {"card": 70, "wallet": 20, "bank_transfer": 10}
CITIES = {
    "Paris": 40,
    "Marseille": 16,
    "Lyon": 14,
    "Toulouse": 10,
    "Nice": 8,
    "Nantes": 7,
    "Bordeaux": 5,
}
MERCHANTS = {  # (merchant, category): weight
    ("Carrefour", "grocery"): 26,
    ("Carrefour", "health"): 4,
    ("Carrefour", "electronics"): 2,
    ("Amazon", "electronics"): 9,
    ("Amazon", "fashion"): 4,
    ("Amazon", "entertainment"): 4,
    ("Amazon", "grocery"): 3,
    ("Amazon", "health"): 2,
    ("Uber", "travel"): 8,
    ("Uber", "restaurants"): 12,
    ("Fnac", "entertainment"): 5,
    ("Fnac", "electronics"): 4,
    ("Airbnb", "travel"): 5,
    ("Zara", "fashion"): 7,
    ("Decathlon", "fashion"): 2,
    ("Decathlon", "health"): 3,
}
# Quintiles of amounts in euro cents, by category: a fifth of the rows lies between two neighbours,
# evenly. All from 5 to 750 EUR.
AMOUNTS = {
    "grocery": (500, 1_400, 2_900, 5_200, 9_800, 32_000),
    "restaurants": (500, 1_100, 1_900, 3_100, 5_400, 18_000),
    "entertainment": (500, 1_200, 2_200, 3_900, 7_500, 30_000),
    "health": (500, 1_300, 2_400, 4_500, 9_000, 40_000),
    "fashion": (900, 2_600, 4_900, 8_400, 15_000, 60_000),
    "travel": (800, 2_200, 6_000, 14_000, 30_000, 75_000),
    "electronics": (1_000, 4_500, 11_000, 22_000, 42_000, 75_000),
}
WEEKDAYS = (90, 88, 92, 100, 128, 150, 108)  # Monday first
MONTHS = (96, 90, 95, 96, 99, 102, 104, 84, 98, 100, 118, 142)
HOURS = (8, 5, 3, 2, 2, 4, 12, 28, 44, 52, 60, 72, 92, 80, 62, 60, 66, 82, 100, 96, 78, 56, 34, 18)
OFFSETS = {"Z": 88, "+01:00": 5, "+02:00": 4, "-05:00": 2, "+05:30": 1}  # of event_ts as written
USERS = 20_000
