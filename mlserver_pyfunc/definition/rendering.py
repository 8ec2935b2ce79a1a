"""Fills in the templates of this package, which are files of their own kind."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, /, **values: Any) -> str:
    """Fills in a template, which its path in this package names. A page escapes all values."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """Returns the settings of all templates."""
    # Imported here: most commands of the command line need no template.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("mlserver_pyfunc", "."),
        autoescape=select_autoescape(["html.jinja"], default_for_string=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"repr": repr, "quote": lambda text: quote(text, safe="")}
    # Jinja sorts keys if not told otherwise, and a page lists the limits in their order.
    made.policies["json.dumps_kwargs"] = {}
    return made
