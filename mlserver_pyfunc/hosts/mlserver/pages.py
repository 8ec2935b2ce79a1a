"""REST routes beside the protocol's: a model's OpenAPI document and its playground.

Nothing here costs anything before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import FunctionDefinition

from . import patches

SWITCH = "MLSERVER_PYFUNC_PLAYGROUND"
"""Set to 0, the playground's pages answer 404."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _get(path: str) -> Callable[[Method], Method]:
    """Makes a method of a runtime a route of the REST server."""
    handle: Callable[[Method], Method] = custom_handler(rest_path=path, rest_method="GET")
    return handle


class Pages:
    """The routes, for a runtime to mix in.

    MLServer adds them once per model, and the first to be asked answers for all: so each
    looks up the model that the path names, as the protocol's own routes do.
    """

    @property
    def definition(self) -> FunctionDefinition | None:
        """The function's definition; None where it could not be read."""
        raise NotImplementedError

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where the code came from."""
        raise NotImplementedError

    @property
    def streams(self) -> bool:
        """Whether the handler is a generator."""
        raise NotImplementedError

    @_get("/v2/models/{model_name}/openapi.json")
    async def openapi_route(self, request: Request, model_name: str) -> JSONResponse:
        return await _openapi(request, model_name, None)

    @_get("/v2/models/{model_name}/versions/{model_version}/openapi.json")
    async def openapi_version_route(
        self, request: Request, model_name: str, model_version: str
    ) -> JSONResponse:
        return await _openapi(request, model_name, model_version)

    @_get("/v2/models/{model_name}/playground")
    async def playground_route(self, request: Request, model_name: str) -> HTMLResponse:
        return await _playground(request, model_name, None)

    @_get("/v2/models/{model_name}/versions/{model_version}/playground")
    async def playground_version_route(
        self, request: Request, model_name: str, model_version: str
    ) -> HTMLResponse:
        return await _playground(request, model_name, model_version)

    @_get("/v2/playground")
    async def playground_list_route(self, request: Request) -> HTMLResponse:
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
    models = await patches.served_models(request.app)
    entries = [
        playground.Entry(model.name, model.version, patches.is_up(model), isinstance(model, Pages))
        for model in sorted(models, key=lambda model: (model.name, model.version or ""))
    ]
    page = playground.list_page(entries)
    return HTMLResponse(page.body, headers=dict(page.headers))


async def _ours(request: Request, name: str, version: str | None) -> tuple[Any, FunctionDefinition]:
    """The model that the host serves under a name, where it is one of our runtime.

    Raises:
        MLServerError: There is none, or it is another runtime's: status 404.
    """
    model: Any = await patches.served_model(request.app, name, version)
    if not isinstance(model, Pages) or model.definition is None:
        raise MLServerError(f'model "{name}" is not served by mlserver-pyfunc', 404)
    return model, model.definition


def _require_switched_on() -> None:
    if not settings.is_enabled(SWITCH):
        raise MLServerError(f"the playground is switched off ({SWITCH})", 404)
