"""The one kind of error that a user is meant to see."""

import click


class UserError(click.ClickException):
    """Something the user can mend: one or two lines that say what is wrong and what to do.

    Click prints it as ``Error: ...`` on standard error and exits with code 1, without a traceback.
    """
