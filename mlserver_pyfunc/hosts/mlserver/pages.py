"""REST routes besides the protocol's: the OpenAPI document and the playground of a model.

Their code is imported at the first request to one of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import FunctionDefinition

from . import models

SWITCH = "MLSERVER_PYFUNC_PLAYGROUND"
"""Variable that switches the playground off: its pages then answer 404."""

_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"


def _route(path: str, answer: Callable[..., Awaitable[Response]]) -> Any:
    """Makes a method of a runtime that MLServer registers as a route of the REST server."""

    async def route(self: Any, request: Request) -> Response:
        return await answer(request, *request.path_params.values())

    return custom_handler(rest_path=path, rest_method="GET")(route)


async def _openapi(request: Request, name: str, version: str | None = None) -> Response:
    from mlserver_pyfunc.client.openapi import document

    model, definition = await _ours(request, name, version)
    prefix = request.scope.get("root_path", "")
    return JSONResponse(document(definition, name, model.version, prefix))


async def _playground(request: Request, name: str, version: str | None = None) -> Response:
    from mlserver_pyfunc.client import playground

    _require_switched_on()
    model, definition = await _ours(request, name, version)
    page = playground.model_page(
        definition,
        name,
        model.version,
        model.provenance,
        streams=model.streams,
        is_versioned_address=version is not None,
    )
    return HTMLResponse(page.body, headers=dict(page.headers))


async def _list(request: Request) -> Response:
    from mlserver_pyfunc.client import playground

    _require_switched_on()
    registered = await models.registry_of(request.app).get_models()
    entries = [
        {
            "name": model.name,
            "version": model.version,
            "is_ready": models.is_available(model),
            "definition": model.definition if models.is_pyfunc(model) else None,
        }
        for model in sorted(registered, key=lambda model: (model.name, model.version or ""))
    ]
    page = playground.list_page(entries)
    return HTMLResponse(page.body, headers=dict(page.headers))


async def _ours(request: Request, name: str, version: str | None) -> tuple[Any, FunctionDefinition]:
    """Returns a model of this runtime and its definition."""
    model: Any = await models.registry_of(request.app).get_model(name, version)
    if not models.is_pyfunc(model) or model.definition is None:
        raise MLServerError(f'model "{name}" is not served by mlserver-pyfunc', 404)
    return model, model.definition


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
