"""Routes for calls of models of this runtime, put before MLServer's: see docs/architecture.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from mlserver.errors import MLServerError
from mlserver.rest.endpoints import Endpoints
from mlserver.rest.requests import Request
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common import text_generation
from mlserver_pyfunc.hosts.common.rest_request import (
    BINARY_EXTENSION,
    Departure,
    read_body,
    read_payload,
)
from mlserver_pyfunc.hosts.common.rest_response import Form, event_stream
from mlserver_pyfunc.serving import tracing

from . import data_plane, models
from .errors import to_host_error

CALLS = ("infer", "infer_stream")
"""Names of the endpoints of MLServer that call a model."""

model_parameters: dict[str, bool] = {}
"""What the metadata of each function says about the server's routes for it."""
_PREPARED = "_prepared_by_pyfunc"
_TRACE = "pyfunc.trace"


def once_for_app(prepare: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Makes a patch of `RESTServer.add_custom_handlers` that prepares the REST server once.

    MLServer builds its application before it loads a model, and so before this runtime is
    imported. It calls that method for each model before it loads it. All routes are there then.
    """

    def patch(stock: Any) -> Any:
        async def add_custom_handlers(self: Any, model: Any) -> Any:
            prepared = vars(self).setdefault(_PREPARED, set())
            if prepare.__name__ not in prepared:
                prepared.add(prepare.__name__)
                prepare(self)
            return await stock(self, model)

        return add_custom_handlers

    patch.__name__, patch.__doc__ = prepare.__name__, prepare.__doc__
    return patch


@once_for_app
def add_rest_routes(server: Any) -> None:
    routes = server._app.router.routes
    routes[:0] = [InferenceRoute(route) for route in routes if calls_model(route)]
    announce(server, BINARY_EXTENSION)
    model_parameters[BINARY_EXTENSION] = True


def announce(server: Any, *extensions: str) -> None:
    settings = server._data_plane._settings
    settings.extensions = list(dict.fromkeys([*settings.extensions, *extensions]))


def calls_model(route: Any) -> bool:
    endpoint: Any = getattr(route, "endpoint", None)
    is_own = isinstance(getattr(endpoint, "__self__", None), Endpoints)
    return is_own and endpoint.__name__ in CALLS


class InferenceRoute(Route):
    """Serves the calls of one of MLServer's routes to models of this runtime, and no others."""

    def __init__(self, stock: Route) -> None:
        super().__init__(stock.path, stock.endpoint, methods=["POST"])
        self._data_plane = stock.endpoint.__self__._data_plane  # type: ignore[attr-defined]
        self._registry = self._data_plane._model_registry
        self._streams = stock.endpoint.__name__ == "infer_stream"
        self._name = f"POST {self.path}"
        self._step = "stream" if self._streams else "encode"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.FULL:
            name = child_scope["path_params"]["model_name"]
            if models.is_ours(self._registry, name):
                return match, child_scope
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a call. Gives it up if its client leaves meanwhile."""
        names = [*scope["path_params"].values()]
        begin = tracing.active and tracing.active.request
        with begin(self._name, scope["headers"], names[0]) if begin else tracing.OFF as trace:
            scope[_TRACE] = trace
            request = Request(scope, receive)
            try:
                body = await read_body(request)
                with Departure(receive) as departure:
                    if text_generation.is_text_call(self.path, body):
                        response = await self._generate(request, body, *names)
                    else:
                        response = await self._call(request, body, None, *names)
            except RequestError as error:
                raise to_host_error(error) from None
            if not departure.has_left:
                with trace.below(self._step) if trace else tracing.OFF:
                    await response(scope, receive, send)

    async def _generate(self, request: Request, body: Any, *names: str) -> Any:
        try:
            _, definition = await models.function(self._registry, *names)
            body = text_generation.to_request(body, names[0], definition)
            return await self._call(request, body, text_generation.to_response, *names)
        except (MLServerError, RequestError) as error:
            host_error = to_host_error(error) if isinstance(error, RequestError) else error
            status = host_error.status_code
            host_error.status_code = text_generation.STATUSES.get(status, status)
            raise host_error from None

    async def _call(self, request: Request, body: Any, form: Form, *names: str) -> Any:
        specs = partial(models.declared_inputs, self._registry, *names)
        payload: Any = read_payload(request, body, names[0], specs)
        payload.trace = request.scope[_TRACE]
        if self._streams:
            items = self._data_plane.infer_stream(stream_of(payload), *names)
            return await event_stream(items, form)
        response = await data_plane.infer(self._data_plane, payload, *names)
        response.form = form
        return response


async def stream_of(request: Any) -> AsyncIterator[Any]:
    """Returns a stream of one request."""
    yield request
