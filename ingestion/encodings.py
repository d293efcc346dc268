"""Which encoding the bytes of a text file are in, as far as they show it beyond doubt.

Files are UTF-8, else Windows-1252, else they say by a mark or by their zeros that they are UTF-16
or UTF-32. Any other encoding would land as noise if it were read as Windows-1252, for that gives
nearly every byte a character. So what Windows-1252 makes of a file's words is looked at.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from contextlib import suppress

from ingestion.errors import UserError

MARKS = {  # UTF-32 first: the mark of UTF-16 is the beginning of its own
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SAMPLE_BYTES = 1 << 18  # of lines that are not UTF-8: enough to tell what they are
_HEAD_BYTES = 4096
_MANY = 8  # words: with fewer, one encoding looks like another
_SHARE = 0.3  # of the words with a letter beyond ASCII; in Western texts it is about none

# Bytes as Windows-1252 has them
_ACCENTED = rb"\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xc0-\xd6\xd8-\xf6\xf8-\xff"
_LETTER = rb"A-Za-z" + _ACCENTED
_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
# what stands around words in Western texts: quotes, dashes, dots, blanks, the euro sign
_AROUND = b"\x80\x82\x84\x85\x8b\x91\x92\x93\x94\x95\x96\x97\x9b\xa0\xa1\xab\xbb\xbf"
_FOREIGN = re.compile(
    rb"[\x81\x8d\x8f\x90\x9d]"  # no character at all
    rb"|[\x80-\xff]{4}"  # four on end
    # a sign amid a word, other than an apostrophe, a dash, a dot or a soft hyphen
    rb"|["
    + _LETTER
    + rb"](?![\x91\x92\x96\x97\xad\xb4\xb7"
    + _ACCENTED
    + rb"])[\x80-\xff]["
    + _LETTER
    + rb"]"
    # signs that follow no letter, and signs that are followed by none
    rb"|[A-Za-z](?:[\x82-\x84\x86-\x89\x98\xa5\xb1\xb6\xb9\xbc-\xbf]|(?<!m)\xb3)"
    rb"|[\x83\xa3\xa6\xac\xaf\xb1][" + _LETTER + rb"]"
    # a capital amid a word
    rb"|[a-z][\x8a\x8c\x8e\x9f]|[A-Z]\x9f[a-z]|[a-z][\xc0-\xd6\xd8-\xde][A-Za-z]"
)
_ISO_2022 = b"\x1b$B"
_NAMED = {  # what Python calls it: what iconv calls it
    **{"gb18030": "GB18030", "big5": "BIG5", "cp932": "CP932", "euc_jp": "EUC-JP"},
    **{"cp949": "CP949", "cp1251": "CP1251", "koi8_r": "KOI8-R"},
}


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, if a file that begins so is in one of them: by its mark or its zeros.

    Args:
        head: its first bytes, the more the better.
    """
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" not in head[:_HEAD_BYTES]:
        return None
    for encoding in MARKS.values():
        text = codecs.getincrementaldecoder(encoding)("replace").decode(head[:_HEAD_BYTES])
        ascii_ = sum(char.isascii() for char in text)
        if text and "\0" not in text and text[0].isascii() and ascii_ > len(text) / 2:
            return encoding
    return None


def decoded(line: bytes) -> str:
    """A line as text: UTF-8, or else Windows-1252, one by one: files pasted from both exist."""
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)
    return line.decode("latin-1")  # Windows-1252 leaves five bytes undefined


def check_western(chunks: Iterable[bytes], name: str) -> None:
    """See to it that the lines of a file which are not UTF-8 can be Windows-1252.

    A file in UTF-8 of which some lines are broken is no other encoding, and passes.

    Args:
        chunks: of whole lines.
        name: the file as it was given.

    Raises:
        UserError: they are in another encoding.
    """
    sample, size, good = [], 0, 0
    for chunk in chunks:
        if _ISO_2022 in chunk:
            refuse(name, "ISO-2022-JP")
        if chunk.isascii():
            continue
        if _is_utf8(chunk):
            good += chunk.count(b"\n") + 1
            continue
        for line in chunk.split(b"\n"):
            if line.isascii():
                continue
            if _is_utf8(line):
                good += 1
                continue
            sample.append(line)
            size += len(line)
            if size > SAMPLE_BYTES:
                break
        if size > SAMPLE_BYTES:
            break
    words = [word for line in sample for word in _words(line)]
    foreign = sum(bool(_FOREIGN.search(word)) for word in words)
    if good <= len(sample) and foreign and foreign >= _SHARE * len(words):
        refuse(name, _name_of(b"\n".join(sample)) if len(words) >= _MANY else None)


def refuse(name: str, encoding: str | None) -> None:
    """Refuse a file in another encoding, by its name if that is known.

    Raises:
        UserError: always.
    """
    perhaps = f" but {encoding}, it seems" if encoding else ", nor Windows-1252"
    which = "" if encoding else f" (ENCODING: {', '.join(_NAMED.values())}, MACINTOSH, ...)"
    raise UserError(
        f"{name} is not UTF-8{perhaps}.\n"
        f"Convert it: iconv -f {encoding or 'ENCODING'} -t UTF-8 {name} > utf8.csv{which}"
    )


def _words(line: bytes) -> list[bytes]:
    """The words beyond ASCII, without what stands around them, and without those in UTF-8."""
    found = [word for word in _WORD.findall(line) if not _is_utf8(word)]
    return [word for word in (word.strip(_AROUND) for word in found) if not word.isascii()]


def _is_utf8(text: bytes) -> bool:
    """Whether it is UTF-8 with something beyond ASCII; the last character may be cut off."""
    try:
        return not codecs.getincrementaldecoder("utf-8")().decode(text).isascii()
    except UnicodeDecodeError:
        return False


def _name_of(sample: bytes) -> str | None:
    """What iconv calls the encoding of a sample, if its words are all in one script then."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample[: 1 << 14], cp_isolation=list(_NAMED)).best()
    if not best:
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", str(best)) if not word.isascii()]
    mixed = sum(bool(re.search("[A-Za-z]", word)) for word in words)
    return _NAMED.get(best.encoding) if mixed <= len(words) / 10 else None
