"""What a watch has dealt with, in a file that outlives it.

The ledger of the landing says what has landed. This only saves work: a file that has not changed is
not read again, neither one that landed nor one that was refused. Without it every file is looked
at once more, and none lands twice.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.pipeline import working_dir
from ingestion.warehouse.paths import make_state_dir

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target


@dataclass
class Memory:
    """What is known of the files of one place.

    Attributes:
        file: where it is kept.
        seen: which version of each file was dealt with, by place.
        refused: why it did not land, by place.
        owed: what the command or the webhook has still to be told, by which of them.
    """

    file: Path
    seen: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    owed: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target, *watched: str) -> Memory:
        """What an earlier watch has left, or nothing.

        Args:
            target: the warehouse.
            watched: the place, and whatever makes its files land otherwise.

        Raises:
            UserError: nothing can be written to the state folder.
        """
        name = hashlib.sha256("\n".join(watched).encode(errors="surrogateescape")).hexdigest()[:16]
        file = make_state_dir(working_dir(target) / "watch") / f"{name}.json"
        with suppress(OSError, ValueError, TypeError):  # there is none, or it is of no use
            return cls(file, **json.loads(file.read_bytes()))
        return cls(file)

    def knows(self, place: str, version: str) -> bool:
        return self.seen.get(place) == version

    def keep(self, places: set[str]) -> None:
        """Forget files that are no longer there."""
        self.seen = {place: found for place, found in self.seen.items() if place in places}
        self.refused = {place: why for place, why in self.refused.items() if place in places}

    def settle(self, place: str, version: str, why: str | None) -> None:
        """A version was dealt with; ``why`` it did not land, if it did not."""
        self.seen[place] = version
        self.refused.pop(place, None)
        if why is not None:
            self.refused[place] = why

    def save(self) -> None:
        """Write it down, all or nothing."""
        content = asdict(self)
        del content["file"]
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(content))
        fresh.replace(self.file)
