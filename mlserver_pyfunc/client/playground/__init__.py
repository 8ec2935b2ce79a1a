"""The playground: a page per model, and a list of the models.

A page refers to nothing outside itself, and is made when it is requested.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition.rendering import render
from mlserver_pyfunc.protocol.samples import examples


class Page(NamedTuple):
    """A page and the headers to send it with."""

    body: str
    headers: Mapping[str, str]


def model_page(
    definition: FunctionDefinition,
    name: str,
    version: str | None,
    provenance: Mapping[str, Any],
    *,
    streams: bool,
    is_versioned_address: bool = False,
) -> Page:
    """Makes the page of one model. An address that names the version is two folders deeper."""
    serving = definition.serving
    model = {
        "name": name,
        "version": version,
        "streams": streams,
        "inputs": [_shown(tensor) for tensor in definition.inputs],
        "outputs": [_shown(tensor) for tensor in definition.outputs],
        "description": definition.description or "",
        "details": {
            "calls at a time": serving.concurrency,
            "waiting at most": serving.max_queue,
            "time limit": f"{serving.timeout:g} s",
            "isolation": serving.isolation,
            "handler": definition.source.handler,
            **provenance,
        },
    }
    return page(
        "page.html.jinja",
        root="../../../../" if is_versioned_address else "../../",
        metadata=version if is_versioned_address and version else name,
        asset=_asset,
        model=model,
    )


def page(template: str, styles: str = "", **values: Any) -> Page:
    """Makes a page by a template of this folder. `styles` is what may set them, if not the page."""
    nonce = secrets.token_urlsafe(16)
    styles = styles or f"'nonce-{nonce}'"
    body = render(f"client/playground/{template}", nonce=nonce, style=_asset("page.css"), **values)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src {styles}; "
        "img-src 'self' data: blob:; media-src data: blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Page(body, headers)


def _shown(tensor: TensorDefinition) -> dict[str, Any]:
    shape = {"shape": tensor.sizes, "shape_text": tensor.shape_text}
    shown = {**tensor.model_dump(exclude_none=True), **shape}
    value = tensor.default if tensor.example is None else tensor.example
    if value is not None or tensor.spec.limits is not None:
        # Elements as JSON text: JavaScript would round 64-bit integers.
        [example] = examples([tensor.spec], {} if value is None else {tensor.name: value})
        shown["example"] = {**example, "data": [json.dumps(each) for each in example["data"]]}
    return shown


@cache
def _asset(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")
