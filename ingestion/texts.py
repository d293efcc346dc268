"""What counts as one spelling of a text, for every source: the macro normalize_text in Python.

A test holds both equal.
"""

from __future__ import annotations

import re
import unicodedata

# All that leaves no ink: control characters but NUL, blanks of every width, zero-width spaces and
# joiners, fillers, marks of direction, byte order marks. First and last code point of each stretch.
_RANGES = (
    (0x0001, 0x0020),
    (0x007F, 0x00A0),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180E, 0x180E),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x2064),
    (0x2066, 0x206F),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF9, 0xFFFB),
)
WHITE_SPACE = "".join(chr(code) for first, last in _RANGES for code in range(first, last + 1))
# Of these, what parts words: white space by Unicode, and the separators of ASCII.
BLANKS = "".join(sign for sign in WHITE_SPACE if sign.isspace())
_RUN = re.compile(f"[{WHITE_SPACE}]*[{BLANKS}][{WHITE_SPACE}]*")


def trim(text: str) -> str:
    """The text without the white space around it."""
    return text.strip(WHITE_SPACE)


def normalize(text: str) -> str:
    """The text in NFC, trimmed, and with one space for each run of white space."""
    return trim(_RUN.sub(" ", unicodedata.normalize("NFC", text)))
