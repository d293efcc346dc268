"""What counts as white space around a value, for every source."""

from __future__ import annotations

# All that leaves no ink, as the macro trim_text has it (a test holds both equal): control
# characters but NUL, blanks of every width, zero-width spaces, marks of direction, byte order
# marks; but not the joiners, which shape the letter before them. First and last code point of
# each stretch.
_RANGES = (
    (0x0001, 0x0020),
    (0x007F, 0x00A0),
    (0x00AD, 0x00AD),
    (0x061C, 0x061C),
    (0x1680, 0x1680),
    (0x180E, 0x180E),
    (0x2000, 0x200B),
    (0x200E, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x2064),
    (0x2066, 0x206F),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xFEFF, 0xFEFF),
)
WHITE_SPACE = "".join(chr(code) for first, last in _RANGES for code in range(first, last + 1))


def trim(text: str) -> str:
    """The text without the white space around it."""
    return text.strip(WHITE_SPACE)
