"""REST routes besides the protocol's: the OpenAPI document and the playground of a model.

Their code is imported at the first request to one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import FunctionDefinition

from . import models

SWITCH = "MLSERVER_PYFUNC_PLAYGROUND"
"""Variable that switches the playground off: its pages then answer 404."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _get(path: str) -> Callable[[Method], Method]:
    """Registers a method of a runtime as a route of the REST server."""
    handle: Callable[[Method], Method] = custom_handler(rest_path=path, rest_method="GET")
    return handle


class Pages:
    """The routes, as methods that a runtime inherits.

    MLServer adds them once for each model, and the routes of the first model answer for all. So
    each method looks up the model that the path names, as the protocol's own routes do.
    """

    @_get("/v2/models/{model_name}/openapi.json")
    async def openapi_route(self, request: Request, model_name: str) -> JSONResponse:
        """Answers with the OpenAPI document of a model."""
        return await _openapi(request, model_name, None)

    @_get("/v2/models/{model_name}/versions/{model_version}/openapi.json")
    async def openapi_version_route(
        self, request: Request, model_name: str, model_version: str
    ) -> JSONResponse:
        """Answers with the OpenAPI document of a version of a model."""
        return await _openapi(request, model_name, model_version)

    @_get("/v2/models/{model_name}/playground")
    async def playground_route(self, request: Request, model_name: str) -> HTMLResponse:
        """Answers with the playground of a model."""
        return await _playground(request, model_name, None)

    @_get("/v2/models/{model_name}/versions/{model_version}/playground")
    async def playground_version_route(
        self, request: Request, model_name: str, model_version: str
    ) -> HTMLResponse:
        """Answers with the playground of a version of a model."""
        return await _playground(request, model_name, model_version)

    @_get("/v2/playground")
    async def playground_list_route(self, request: Request) -> HTMLResponse:
        """Answers with the list of all models."""
        return await _list(request)


async def _openapi(request: Request, name: str, version: str | None) -> JSONResponse:
    from mlserver_pyfunc.client.openapi import document

    model, definition = await _ours(request, name, version)
    prefix = request.scope.get("root_path", "")
    return JSONResponse(document(definition, name, model.version, prefix))


async def _playground(request: Request, name: str, version: str | None) -> HTMLResponse:
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


async def _list(request: Request) -> HTMLResponse:
    from mlserver_pyfunc.client import playground

    _require_switched_on()
    registered = await models.registry_of(request.app).get_models()
    entries = [
        playground.Entry(
            model.name, model.version, models.is_available(model), models.is_pyfunc(model)
        )
        for model in sorted(registered, key=lambda model: (model.name, model.version or ""))
    ]
    page = playground.list_page(entries)
    return HTMLResponse(page.body, headers=dict(page.headers))


async def _ours(request: Request, name: str, version: str | None) -> tuple[Any, FunctionDefinition]:
    """Returns a model of this runtime and its definition.

    Raises:
        MLServerError: There is no such model, or it is one of another runtime: status 404.
    """
    model: Any = await models.registry_of(request.app).get_model(name, version)
    if not models.is_pyfunc(model) or model.definition is None:
        raise MLServerError(f'model "{name}" is not served by mlserver-pyfunc', 404)
    return model, model.definition


def _require_switched_on() -> None:
    if not settings.is_enabled(SWITCH):
        raise MLServerError(f"the playground is switched off ({SWITCH})", 404)
