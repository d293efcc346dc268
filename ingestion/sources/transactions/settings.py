"""Constants of the transactions source: fields, reasons, limits."""

from __future__ import annotations

from typing import Any

from ingestion.errors import UserError

DATASET = "raw_transactions"

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
IDS = ("transaction_id", "user_id")
MAX_ID_LENGTH = 255  # characters
# Texts that stand for no value, in exactly this spelling: what databases and data frames write.
NULL_WORDS = ("\\N", "NULL", "null", "None", "NaN", "nan", "<NA>", "#N/A")
TEXT_FIELDS = FIELDS[4:]

# Why a line can be refused. Business rules (a negative amount, an unknown status) are no reason:
# such rows land, and dbt marks them.
REASONS = {
    "not_utf8": "the line is not UTF-8",  # of JSON and Parquet; CSV is read as Windows-1252 then
    "not_json": "the line is not JSON",
    "not_object": "the line is JSON, but not an object",
    "deleted": "the line says that a transaction was deleted, which lands no row",
    "duplicate_field": "the line has a field of the contract twice",
    "not_csv": "the line is not CSV",
    "column_count": "the line has another number of columns than the header",
    "missing_field": "a mandatory field is absent or null",
    "bad_transaction_id": "transaction_id is not text of 1 to 255 characters, or a whole number",
    "bad_timestamp": "event_ts is not an ISO 8601 date with a time of day",
    "bad_user_id": "user_id is not text of 1 to 255 characters, or a whole number",
    "bad_amount": "amount is not a number that numeric(18,4) holds exactly",
    "ambiguous_amount": "amount can be read with thousands or decimals, and the file does not say",
    "wrong_type": "a text field is not text",
    "bad_text": "text with a NUL or half a surrogate pair, which PostgreSQL cannot store",
}

BATCH_ROWS, BATCH_SECONDS = 50_000, 0.5  # of a stream, where dlt's places do not say
NAMED = 8  # unknown fields that a report names
MAX_REJECT_SHARE = 0.5  # default of `sources.transactions.max_reject_share`

# Files of a folder that are read; other names are read when they are given one by one.
_PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
PATTERNS = (
    *(f"*.{kind}{pack}" for kind in ("jsonl", "ndjson", "json", "csv", "tsv") for pack in _PACKED),
    *("*.parquet", "*.zip", "*.xlsx", "*.xlsm", "*.xlsb", "*.xls", "*.ods"),
)

HEADER_WITHIN = 50  # lines of CSV among which its header is looked for
CHUNK_BYTES = 8 << 20  # read and typed at a time; the reader's memory is a few times this
MAX_LINE_BYTES = 64 << 20  # beyond this it is no line but a file without line ends
# Lines of CSV that a quoted value joins to one record. Longer texts than a letter are no part of a
# card transaction; without a limit, one quote left open could take lines up to the next quote.
MAX_RECORD_LINES = 1_000
MAX_RECORD_BYTES = 1 << 20
HELD_ROWS = 50_000  # of a file in memory until its share of rejects is known; more are sent before
MIN_FREE_BYTES = 512 << 20  # room on the disk that copies leave
COPY_AHEAD = 2  # pieces on their way to the server while the next one is read


def max_reject_share() -> float:
    """The share of rejects up to which a file, or the beginning of a topic, lands.

    Raises:
        UserError: what is configured is no share.
    """
    return _configured("max_reject_share", MAX_REJECT_SHARE, 0, 1)


def batches() -> tuple[int, float]:
    """When a batch of a stream lands: at so many rows, or once its first message waited so long.

    Returns:
        Rows, and seconds.

    Raises:
        UserError: what is configured is no such number.
    """
    rows = _configured("batch_rows", BATCH_ROWS, 1, 10_000_000)
    return int(rows), _configured("batch_seconds", BATCH_SECONDS, 0.01, 3_600)


def _configured(name: str, default: float, least: float, most: float) -> float:
    import dlt

    value: Any = dlt.config.get(f"sources.transactions.{name}")
    try:
        number = float(default if value is None else value)
    except (TypeError, ValueError):
        number = least - 1
    if not least <= number <= most:
        raise UserError(
            f"sources.transactions.{name} is {value!r}.\n"
            f"It must be from {least:,} to {most:,}, as {default:,}."
        )
    return number
