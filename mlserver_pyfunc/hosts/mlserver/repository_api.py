"""Who may load and unload models by the repository API, over REST and gRPC."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

from mlserver.errors import MLServerError
from mlserver.rest.endpoints import ModelRepositoryEndpoints
from mlserver.settings import Settings
from starlette.types import ASGIApp, Receive, Scope, Send

from mlserver_pyfunc.settings import REPOSITORY_API, repository_api

_FORWARDED = ("x-forwarded-for", "forwarded")


def guard_grpc(stock: Any) -> Any:
    """Refuses to load and unload models for clients that may not, over gRPC.

    Without it, everybody who reaches the port of gRPC loads and unloads models, whatever
    `MLSERVER_PYFUNC_REPOSITORY_API` says.

    gRPC's server has taken the bound method before a model is loaded. So the patch sets a variable
    of MLServer's decorator, as `allow_empty_streams` does.
    """

    async def f(self: Any, request: Any, context: Any) -> Any:
        kind, _, address = unquote(context.peer()).partition(":")
        host = None if kind == "unix" else address.rpartition(":")[0].strip("[]")
        headers = (key for key, _ in context.invocation_metadata() or ())
        _require_allowed(self._data_plane._settings, host, headers)
        return await stock(self, request, context)

    return f


def guard_rest(stock: Any) -> Any:
    """Refuses to load and unload models for clients that may not, over REST.

    Without it, everybody who reaches the port of REST loads and unloads models, whatever
    `MLSERVER_PYFUNC_REPOSITORY_API` says.

    MLServer builds its application before it loads a model, and calls this method for each model
    before it loads it.
    """

    async def add_custom_handlers(self: Any, model: Any) -> Any:
        if not getattr(self._app.state, "guards_repository_api", False):
            self._app.state.guards_repository_api = True
            for route in self._app.routes:
                owner = getattr(getattr(route, "endpoint", None), "__self__", None)
                is_of_repository = isinstance(owner, ModelRepositoryEndpoints)
                if is_of_repository and route.name in ("load", "unload"):
                    route.app = partial(_guarded, route.app, self._settings)
        return await stock(self, model)

    return add_custom_handlers


async def _guarded(
    stock: ASGIApp, settings: Settings, scope: Scope, receive: Receive, send: Send
) -> None:
    host = (scope.get("client") or (None,))[0]
    _require_allowed(settings, host, (key.decode("latin-1") for key, _ in scope["headers"]))
    await stock(scope, receive, send)


def _require_allowed(settings: Settings, host: str | None, headers: Iterable[str]) -> None:
    """Checks that a client may load and unload models.

    Args:
        settings: Settings of the server.
        host: Address of the client; None for a Unix socket.
        headers: Names of the headers of its request, in lower case.
    """
    mode = repository_api()
    if mode == "open":
        return
    # Whoever starts a server without models, as Seldon's agent does, loads them all from outside.
    if mode == "loopback" and not settings.load_models_at_startup:
        return
    # A proxy on this machine passes on requests of others.
    is_forwarded = not set(headers).isdisjoint(_FORWARDED)
    if mode == "loopback" and not is_forwarded and (host is None or _is_loopback(host)):
        return
    shown = "a forwarded request" if is_forwarded else f"one from {host}"
    expected = {
        "loopback": "expected a request from this machine (127.0.0.1 or ::1)",
        "off": "expected no request",
    }.get(mode, "expected open, loopback or off there")
    raise MLServerError(
        f"loading and unloading models is restricted ({REPOSITORY_API}={mode}): {expected}, got "
        f"{shown}; set {REPOSITORY_API}=open to allow it to all who reach the port",
        403,
    )


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
