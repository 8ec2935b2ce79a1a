"""Fills in the templates of this package, which are files of their own kind."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, /, **values: Any) -> str:
    """Fills in one template; a page escapes each value that it shows."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    # Imported here: most commands of the command line need no template.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("mlserver_pyfunc", "client"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"repr": repr, "quote": lambda text: quote(text, safe="")}
    # Jinja sorts keys if not told otherwise, and a page lists the limits in their order.
    environment.policies["json.dumps_kwargs"] = {}
    return environment
