"""Constants of the brands source: what its two flat files look like and what they land as.

The brand index is Box Office Mojo's (one row a brand); a release list has one row for each film of
a brand, titled as Box Office Mojo prints it. Figures are US dollars, domestic (US and Canada).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SAMPLE_DIR = Path(__file__).resolve().parents[2] / "sample" / "brands"

DELIMITERS = "\t;|,"
HEADER_WITHIN = 50  # lines, blank ones not counted: a title or a note may stand above the header
MAX_BYTES = 32 * 2**20  # an index is a few kilobytes: anything far larger is another file
MAX_LINE = 100_000  # characters; a longer line is not split into fields
WIDE = 100  # delimiters of a line from which on it is read on its own
MAX_COLUMNS = 1_000  # a line with more of them is no header
MAX_EXTRA_DELIMITERS = 12  # a line with more of them is no row with commas in its title

# A brand of one of these names, as `simplified`, is the line of totals below a table.
SUMMARY_NAMES = {"total", "totals", "totaux", "grandtotal", "totalgeneral", "sum", "somme"}

# Rejects that are no sign of a file that cannot be read: they do not count when a file is refused.
HARMLESS = {"above_header", "repeated_header", "duplicate_row"}


Kind = Literal["text", "money", "count", "rank"]


@dataclass(frozen=True)
class Column:
    """One column of a flat file.

    Attributes:
        name: its name in the raw table.
        kind: ``text``; ``money``, at most two decimals; ``count``, a whole number; ``rank``, a
            count that may be written ``#1`` or ``1.``.
        headers: what it may be called, `reader.simplified` (``Revenu à Vie`` is ``revenuavie``).
        required: whether the file must have it, and every row a value in it.
    """

    name: str
    kind: Kind
    headers: frozenset[str]
    required: bool = False


@dataclass(frozen=True)
class FileKind:
    """One kind of flat file.

    Attributes:
        name: value of ``kind`` in the ledger, and the raw table the rows land in.
        what: what to call it in a message.
        columns: its columns; the first is the one that the order of rows stands in for.
        sample: the bundled file.
    """

    name: str
    what: str
    columns: tuple[Column, ...]
    sample: Path


def _column(name: str, kind: Kind, headers: str, required: bool = False) -> Column:
    return Column(name, kind, frozenset(headers.split()), required)


# An accent that was lost on the way leaves `revenuvie` of `Revenu à Vie`.
_BRAND = _column("brand", "text", "brand brands brandname marque marques franchise", required=True)
_LIFETIME = "lifetimegross gross domesticgross revenuavie revenuvie recetteavie recettevie"

BRANDS = FileKind(
    name="brands",
    what="the brand index",
    columns=(
        _column("rank", "rank", "rank rang # position pos"),
        _BRAND,
        _column("total", "money", "total totalgross totalusd", required=True),
        _column("releases", "count", "releases sorties #releases nbsorties nbreleases"),
        _column(
            "top_release",
            "text",
            "#1release 1release no1release toprelease #1sortie 1sortie no1sortie n1sortie",
        ),
        _column("lifetime_gross", "money", _LIFETIME),
    ),
    sample=SAMPLE_DIR / "brands.tsv",
)

BRAND_RELEASES = FileKind(
    name="brand_releases",
    what="the release lists",
    columns=(
        _column("position", "rank", "position pos rank rang #"),
        _BRAND,
        _column("release", "text", "release title film movie sortie titre", required=True),
        _column("gross", "money", _LIFETIME),
    ),
    sample=SAMPLE_DIR / "brand_releases.csv",
)

KINDS = {kind.name: kind for kind in (BRANDS, BRAND_RELEASES)}

# A five-column index without a header is read in this order.
HEADERLESS_BRANDS = ("brand", "total", "releases", "top_release", "lifetime_gross")


def _columns(*columns: str) -> dict[str, dict[str, Any]]:
    """dlt's column hints of texts ``name type``; a type that ends in ``?`` takes nulls."""
    hints: dict[str, dict[str, Any]] = {}
    for column in columns:
        name, kind = column.split()
        hints[name] = {"data_type": kind.rstrip("?"), "nullable": kind.endswith("?")}
        if kind.startswith("decimal"):
            hints[name] |= {"precision": 20, "scale": 2}
    return hints


_FILE = ("_file_name text", "_file_checksum text")
_LINE = (*_FILE, "_file_line bigint")

TABLES: dict[str, Any] = {
    "brands": _columns(
        "brand text",
        "total decimal",
        "releases bigint?",
        "top_release text?",
        "lifetime_gross decimal?",
        "rank bigint",
        "extra_fields json?",
        *_LINE,
    ),
    "brand_releases": _columns(
        "brand text",
        "position bigint",
        "release text",
        "gross decimal?",
        "extra_fields json?",
        *_LINE,
    ),
    "rejects": _columns("kind text", "raw_text text", "reason_code text", "reason text", *_LINE),
    "files": _columns(
        "kind text",
        *_FILE,
        "rows_read bigint",
        "rows_landed bigint",
        "rows_rejected bigint",
        "bytes bigint",
        "landed_at timestamp",
    ),
}
