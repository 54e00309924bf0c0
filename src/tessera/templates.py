"""Texts put together from columns: `Question: {goal} Answer:`.

A template names columns in braces, and nothing else: no conversion, no format, no attribute of what a column holds. Two braces
stand for one.
"""

from collections.abc import Mapping
from string import Formatter

from tessera.errors import UserError


def columns(template: str, key: str) -> list[str]:
    """The columns that a template names, each once. `key` is the config key that errors name."""
    found: dict[str, None] = {}
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if name is None:
                continue
            if form or conversion or not name:
                raise ValueError("braces hold the name of a column and nothing else")
            found[name] = None
    except ValueError as error:
        raise UserError(key, f"{template!r} is no template ({error})", "write {column}, and {{ for a brace") from None
    return list(found)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its columns' values in place."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts += [literal, values[name] if name else ""]
    return "".join(parts)
