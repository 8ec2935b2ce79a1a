"""The playground: pages that are whole in themselves, made when they are asked for."""

from __future__ import annotations

import html
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition

_SCRIPTS = ("dom.js", "inputs.js", "answer.js", "snippets.js", "page.js")


@dataclass(frozen=True)
class Page:
    """A page and the headers to send it with."""

    body: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """A model of the list.

    Attributes:
        name: As served.
        version: As served; None without one.
        is_ready: Whether a call could run now.
        has_page: Whether it has a playground: other runtimes' models have none.
    """

    name: str
    version: str | None
    is_ready: bool
    has_page: bool


def model_page(
    definition: FunctionDefinition,
    name: str,
    version: str | None,
    provenance: Mapping[str, Any],
    *,
    streams: bool,
    is_versioned_address: bool = False,
) -> Page:
    """The page of one model.

    Args:
        definition: Declares the tensors and the limits.
        name: As served.
        version: As served; None without one.
        provenance: Where its code came from.
        streams: Whether its handler is a generator.
        is_versioned_address: The page is asked for by version, two folders further down.
    """
    facts = {
        "name": name,
        "version": version,
        "streams": streams,
        "inputs": [tensor.model_dump(exclude_none=True) for tensor in definition.inputs],
        "outputs": [tensor.model_dump(exclude_none=True) for tensor in definition.outputs],
        "facts": _facts(definition, provenance),
    }
    up = "../../../../" if is_versioned_address else "../../"
    return _page(
        "page.html",
        title=html.escape(name),
        models=f"{up}playground",
        metadata=f"../{quote(version if is_versioned_address and version else name, safe='')}",
        script="\n".join(_asset(script) for script in _SCRIPTS),
        # A "</script>" in a description must not end the block that it stands in.
        facts=json.dumps(facts).replace("<", "\\u003c"),
    )


def list_page(entries: Sequence[Entry]) -> Page:
    """The list of the server's models."""
    items = "".join(_item(entry) for entry in entries)
    return _page("list.html", items=items or "<li>No model is loaded.</li>")


def _item(entry: Entry) -> str:
    name = html.escape(entry.name)
    if entry.has_page:
        path = f"models/{quote(entry.name, safe='')}"
        if entry.version:
            path += f"/versions/{quote(entry.version, safe='')}"
        name = f'<a href="{path}/playground">{name}</a>'
    version = ""
    if entry.version:
        version = f'<span class="badge">version {html.escape(entry.version)}</span> '
    kind, state = ("good", "ready") if entry.is_ready else ("bad", "not ready")
    return f'<li>{name} {version}<span class="badge {kind}">{state}</span></li>'


def _page(template: str, **values: str) -> Page:
    nonce = secrets.token_urlsafe(16)
    values = {"style": _asset("page.css"), "nonce": nonce, **values}
    # In one pass, so that what is put in is never looked through.
    body = re.sub(r"@(\w+)@", lambda match: values[match[1]], _asset(template))
    return Page(body, _headers(nonce))


def _headers(nonce: str) -> dict[str, str]:
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _facts(definition: FunctionDefinition, provenance: Mapping[str, Any]) -> dict[str, Any]:
    serving = definition.serving
    return {
        "calls at a time": serving.concurrency,
        "waiting at most": serving.max_queue,
        "time limit": f"{serving.timeout:g} s",
        "isolation": serving.isolation,
        "handler": definition.source.handler,
        **provenance,
    }


@cache
def _asset(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")
