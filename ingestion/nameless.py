"""PostgreSQL's set-up for a user whom nobody knows, as containers have them (``--user 10001``).

``initdb`` wants a name for whoever runs it; the server itself does not. Where the system lets
ordinary users have namespaces of their own, it is run as a user of one who has a name.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress

from ingestion.errors import UserError


def wrapper() -> list[str]:
    """What to put in front of a command that asks for its user's name; nothing where there is one.

    Raises:
        UserError: there is none, and no way around.
    """
    with suppress(KeyError):
        pwd.getpwuid(os.geteuid())
        return []
    named = max((entry for entry in pwd.getpwall() if entry.pw_uid), key=lambda entry: entry.pw_uid)
    if program := shutil.which("unshare"):
        group = f"--map-group={named.pw_gid}"
        command = [program, "--user", f"--map-user={named.pw_uid}", group, "--"]
        if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            return command
    uid = os.geteuid()
    raise UserError(
        f"PostgreSQL cannot be set up by a user without a name, and user {uid} has none here.\n"
        f"Give it one (as root: useradd -u {uid} marquee), or name a server of your own by PGHOST."
    )
