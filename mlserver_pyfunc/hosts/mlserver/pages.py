"""REST routes besides the protocol's: the OpenAPI document and the playground of a model."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from mlserver_pyfunc import settings

from . import models

if TYPE_CHECKING:
    from mlserver_pyfunc.client.playground import Page

SWITCH = "MLSERVER_PYFUNC_PLAYGROUND"
"""Variable that switches the playground off: its pages then answer 404."""

_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"


def _route(path: str, answer: Callable[..., Awaitable[Response]]) -> Any:
    async def route(self: Any, request: Request) -> Response:
        return await answer(request, *request.path_params.values())

    return custom_handler(rest_path=path, rest_method="GET")(route)


async def _openapi(request: Request, name: str, version: str | None = None) -> Response:
    from mlserver_pyfunc.client.openapi import document

    model, definition = await models.function(models.registry_of(request.app), name, version)
    prefix = request.scope.get("root_path", "")
    return JSONResponse(document(definition, name, model.version, prefix))


async def _playground(request: Request, name: str, version: str | None = None) -> Response:
    from mlserver_pyfunc.client import playground

    _require_switched_on()
    model, definition = await models.function(models.registry_of(request.app), name, version)
    page = playground.model_page(
        definition,
        name,
        model.version,
        model.provenance,
        streams=model.streams,
        is_versioned_address=version is not None,
    )
    return _html(request, page)


async def _list(request: Request) -> Response:
    from mlserver_pyfunc.client import playground

    _require_switched_on()
    return _html(request, playground.page("list.html.jinja", models=await _entries(request)))


async def show_docs(request: Request, name: str = "", version: str = "") -> Response:
    """Answers with Swagger UI for a model's OpenAPI document, and links to those of the others."""
    from mlserver_pyfunc.client import playground

    entries = await _entries(request)
    if name:
        await models.registry_of(request.app).get_model(name, version or None)
    shown = [each for each in entries if not name or each["name"] == name]
    document = "docs/dataplane.json"
    if shown and all(each["definition"] for each in shown):
        path = f"models/{quote(shown[0]['name'], safe='')}/"
        document = f"{'' if name else path}openapi.json"
    root = "../../../../" if version else "../../" if name else "./"
    # Swagger UI sets styles itself.
    styles, values = "'self' 'unsafe-inline'", {"name": name, "document": document, "root": root}
    return _html(request, playground.page("docs.html.jinja", styles, models=entries, **values))


def _html(request: Request, page: Page) -> Response:
    headers = {**page.headers, "Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return HTMLResponse(page.body, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return HTMLResponse(gzip.compress(page.body.encode(), 6), headers=headers)


async def _viewer(request: Request, name: str) -> Response:
    headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=86400"}
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return Response(_compressed(name), media_type=kind, headers=headers)


@cache
def _compressed(name: str) -> bytes:
    if name not in ("swagger-ui-bundle.js", "swagger-ui.css"):
        raise MLServerError(f'the viewer has no file "{name}"', 404)
    return gzip.compress((files("fastapi_offline") / "static" / name).read_bytes())


def _redirect(path: str) -> Callable[..., Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return RedirectResponse(path)

    return answer


async def _entries(request: Request) -> list[dict[str, Any]]:
    registered = await models.registry_of(request.app).get_models()
    return [
        {
            "name": model.name,
            "version": model.version,
            "is_ready": models.is_available(model),
            "definition": model.definition if models.is_pyfunc(model) else None,
        }
        for model in sorted(registered, key=lambda model: (model.name, model.version or ""))
    ]


def _require_switched_on() -> None:
    if not settings.is_enabled(SWITCH):
        raise MLServerError(f"the playground is switched off ({SWITCH})", 404)


class Pages:
    """The routes, as methods that a runtime inherits.

    MLServer adds them once for each model, and the routes of the first model answer for all. So
    each looks up the model that the path names, as the protocol's own routes do.
    """

    openapi_of_model = _route(f"{_MODEL}/openapi.json", _openapi)
    openapi_of_version = _route(f"{_VERSION}/openapi.json", _openapi)
    playground_of_model = _route(f"{_MODEL}/playground", _playground)
    playground_of_version = _route(f"{_VERSION}/playground", _playground)
    playgrounds = _route("/v2/playground", _list)
    viewer = _route("/v2/docs/{name}", _viewer)
    docs = _route("/docs", _redirect("v2/docs"))
    start = _route("/", _redirect("v2/playground"))
