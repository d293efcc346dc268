"""The id of a run: the same for a command and all that it starts, and in its evidence and logs."""

from __future__ import annotations

import os
import re
import uuid

from ingestion.errors import UserError

VARIABLE = "MARQUEE_RUN_ID"  # a scheduler may set it, so that several commands are one run
_VALID = re.compile(r"[\w.:+@/~-]{1,250}")


def settle() -> str:
    """The id of this run, from now on in the environment.

    Raises:
        UserError: the one that the environment gives cannot be one.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        os.environ[VARIABLE] = str(uuid.uuid4())
    elif not _VALID.fullmatch(given):
        raise UserError(
            f"{VARIABLE} is no id of a run: up to 250 letters, digits and . : + @ / ~ _ -\n"
            "Set another one, or unset it."
        )
    return os.environ[VARIABLE]
