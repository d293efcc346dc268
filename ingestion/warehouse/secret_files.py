"""Secrets in files, as containers mount them: ``NAME_FILE`` names a file with the value of NAME."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ingestion.errors import UserError, error_line

# Variables that Marquee, dbt, dlt, libpq and object stores read.
_OURS = re.compile(
    r"(PG|TMDB_|MARQUEE_|DBT_|KAFKA_|SOURCES__|DESTINATION__|CREDENTIALS__)\w+"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)"
)
# What else is called a secret, as a profile or a source's settings may name any variable. What
# other programs read by a name that ends so (AWS_WEB_IDENTITY_TOKEN_FILE) is left to them.
_SECRETS = re.compile(
    r"(?!AWS_|GOOGLE_|AZURE_|SSL_)\w+_(PASSWORD|PASSPHRASE|TOKEN|SECRET|SECRET_KEY|API_KEY|DSN)"
)
_END = "_FILE"


def settle() -> None:
    """Give each variable the value that its file has; what is started from here gets it, too.

    Raises:
        UserError: a file cannot be read or is empty, or the variable itself says something else;
            not of a variable that may be another program's.
    """
    for variable in [name for name in os.environ if name.endswith(_END)]:
        name = variable.removesuffix(_END)
        path = os.environ[variable]
        if path and _OURS.fullmatch(name):
            secret = _read(variable, Path(path))
            if os.environ.get(name) not in (None, "", secret):
                raise UserError(
                    f"{name} and {variable} are both set, and differ.\nUnset one of the two."
                )
            os.environ[name] = secret
        elif path and _SECRETS.fullmatch(name) and not os.environ.get(name):
            with suppress(UserError):
                os.environ[name] = _read(variable, Path(path))


def _read(variable: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error_line(error)
        raise UserError(
            f"{variable} names {path}, which cannot be read: {why.lower()}.\n"
            "Mount the secret there, readable by this user, or unset the variable."
        ) from error
    if not secret or "\0" in secret:
        raise UserError(
            f"{variable} names {path}, which is {'empty' if not secret else 'not a text'}.\n"
            "Write the secret into it, in one line."
        )
    return secret
