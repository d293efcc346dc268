"""Names of columns: the same word in any case, with spaces, dashes or in camelCase is the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache


class NamedTwice(Exception):
    """Two columns bear the name that is wanted once: ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@lru_cache(maxsize=10_000)
def word(name: str) -> str:
    """The letters and digits of a name, in lower case: what two spellings of it share.

    dlt's naming conventions are no help: they keep ASCII only, so two Chinese headers are one.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum()) or name


class Names:
    """The columns that are wanted of a file.

    Args:
        wanted: their names. One with dots can be a path into JSON objects: ``card.brand``.
        kept: those that the extra fields keep as well.
    """

    def __init__(self, wanted: Iterable[str], kept: Iterable[str] = ()) -> None:
        self.wanted, self.kept = tuple(dict.fromkeys(wanted)), frozenset(kept)
        self._by_word: dict[str, str] = {}
        for name in self.wanted:
            self._by_word.setdefault(word(name), name)
        self._layouts: dict[tuple[str, ...], tuple[str | None, ...]] = {}
        self.paths = tuple(
            (name, tuple(name.split("."))) for name in self.wanted if "." in name.strip(".")
        )

    def __contains__(self, name: object) -> bool:
        return name in self.wanted

    def layout(self, names: Sequence[str]) -> tuple[str | None, ...]:
        """For each name of a record: which wanted one it is, or None.

        The very name comes before another spelling of it, which then is a column like any other.

        Raises:
            NamedTwice: two are the same wanted one.
        """
        key = tuple(names)
        if key not in self._layouts:
            if len(self._layouts) > 1_000:  # each line with names of its own
                self._layouts.clear()
            self._layouts[key] = self._lay_out(key)
        return self._layouts[key]

    def _lay_out(self, names: tuple[str, ...]) -> tuple[str | None, ...]:
        exact = {name for name in names if name in self.wanted}
        found: list[str | None] = []
        for name in names:
            wanted = name if name in exact else self._by_word.get(word(name))
            if wanted is not None and name not in exact and wanted in exact:
                wanted = None
            if wanted is not None and wanted in found:
                raise NamedTwice(wanted)
            found.append(wanted)
        return tuple(found)
