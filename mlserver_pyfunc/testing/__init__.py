"""The test kit: tests a function without a server, on a real one, and by generated requests.

pytest imports this package as a plugin in every run, so it imports the rest only on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlserver_pyfunc.deployment.server_process import Server as Server
    from mlserver_pyfunc.deployment.server_process import ServerError as ServerError
    from mlserver_pyfunc.serving.local import LocalFunction as LocalFunction
    from mlserver_pyfunc.serving.local import load as load

    from .strategies import requests_for as requests_for

_LAZY = {
    "LocalFunction": "mlserver_pyfunc.serving.local",
    "Server": "mlserver_pyfunc.deployment.server_process",
    "ServerError": "mlserver_pyfunc.deployment.server_process",
    "load": "mlserver_pyfunc.serving.local",
    "requests_for": ".strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
