"""What is done inside Superset's own environment: make its tables, take assets in, give them out.

`marquee superset` calls it; what goes in and comes out is JSON on standard input and output.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable

from superset.app import create_app

ADMIN = "admin"


def prepare(bundle: dict[str, str], password: str | None) -> None:
    """Bring the metadata up to date and import the assets, over those of the same UUIDs.

    Args:
        bundle: YAML text by path, as Superset's export has it.
        password: for the user ``admin``, who is made when there is none; None leaves it as it is.
    """
    from flask_migrate import upgrade
    from superset import appbuilder, security_manager
    from superset.commands.exceptions import CommandInvalidError, ImportFailedError
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    upgrade()
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    if password:
        set_password(password)
    with override_user(security_manager.find_user(ADMIN), force=True):
        try:
            ImportAssetsCommand(bundle).run()
        except ImportFailedError as error:
            refused = error.__cause__
            if isinstance(refused, CommandInvalidError):
                sys.exit(f"the assets are refused: {refused.normalized_messages()}")
            raise


def set_password(password: str) -> None:
    """Give the user ``admin`` a password; made when there is none."""
    from superset import db, security_manager

    if admin := security_manager.find_user(ADMIN):
        security_manager.reset_password(admin.id, password)
        db.session.commit()
    else:
        role = security_manager.find_role("Admin")
        security_manager.add_user(ADMIN, "Marquee", "Admin", "admin@localhost", role, password)


def export() -> dict[str, str]:
    """All assets, YAML text by path."""
    from superset import security_manager
    from superset.commands.export.assets import ExportAssetsCommand
    from superset.utils.core import override_user

    with override_user(security_manager.find_user(ADMIN), force=True):
        return {name: content() for name, content in ExportAssetsCommand().run()}


TASKS: dict[str, Callable[..., object]] = {
    "prepare": prepare,
    "set_password": set_password,
    "export": export,
}


def main() -> None:
    # standard output is for the answer alone; whatever prints goes to the log
    answer, sys.stdout = sys.stdout, sys.stderr
    task, arguments = sys.argv[1], json.load(sys.stdin)
    app = create_app()
    logging.getLogger().setLevel(logging.ERROR)
    with app.app_context():
        result = TASKS[task](**arguments)
    json.dump(result, answer)
    answer.flush()  # Superset's threads end the process before Python does


if __name__ == "__main__":
    main()
