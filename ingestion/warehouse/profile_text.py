"""Texts of ``profiles.yml``, rendered as dbt renders them.

What profiles are made of, ``env_var`` within plain text, is put in here, for dbt takes a second to
import. Any other Jinja is dbt's own to render, in its sandbox: what it refuses is refused.
"""

from __future__ import annotations

import os
import re

from ingestion.errors import UserError

_TEXT = r"""(?:'([^'"\\{}]*)'|"([^'"\\{}]*)")"""
_ENV_VAR = re.compile(
    rf"\{{\{{\s*env_var\(\s*{_TEXT}\s*(?:,\s*{_TEXT}\s*)?\)\s*(?:\|\s*(as_\w+)\s*)?\}}\}}"
)
_FILTERS = {"port": {None, "as_number"}}  # those that give here what they give there, by key


def render(value: object, key: str) -> object:
    """One value of a profile, as dbt reads it.

    Args:
        value: as it is in the file.
        key: its name: dbt takes a password that is no valid Jinja as it stands.

    Raises:
        UserError: a variable that it asks for is not set, or dbt does not take it.
    """
    if not isinstance(value, str) or not re.search(r"\{[{%#]", value):
        return value
    found = [match[5] for match in _ENV_VAR.finditer(value)]
    plain = not re.search(r"\{[{%#]|[}%#]\}", _ENV_VAR.sub("", value))
    if plain and set(found) <= _FILTERS.get(key, {None, "as_text"}):
        return _ENV_VAR.sub(_variable, value)
    return _as_dbt(value, key)


def _variable(match: re.Match[str]) -> str:
    name, default = match[1] or match[2], match[3] if match[3] is not None else match[4]
    found = os.environ.get(name, default)
    if found is None:
        raise UserError(f"profiles.yml asks for the environment variable {name}, which is not set.")
    return found


def _as_dbt(value: str, key: str) -> str | int:
    from dbt.config.renderer import ProfileRenderer
    from dbt_common.context import get_invocation_context, set_invocation_context
    from dbt_common.exceptions import DbtBaseException
    from jinja2 import TemplateError

    try:
        get_invocation_context()
    except LookupError:
        set_invocation_context(dict(os.environ))
    try:
        rendered = ProfileRenderer({}).render_value(value, (key,))
    except (DbtBaseException, TemplateError, TypeError, ValueError, ArithmeticError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise _refusal(key, (said or ["no reason given"])[-1]) from error
    if not isinstance(rendered, int if key == "port" else str):
        raise _refusal(key, f"it is {type(rendered).__name__}")
    return rendered


def _refusal(key: str, why: str) -> UserError:
    return UserError(
        f"dbt does not take what profiles.yml says as {key}: {why}\n"
        "Compare it with profiles.yml.example."
    )
