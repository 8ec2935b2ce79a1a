"""Serves any Python function through MLServer, with its tensor contract enforced."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DependencyError
from .errors import InferenceError as InferenceError
from .handler.shadowing import prefer_installed

if TYPE_CHECKING:
    from .api.deployment import Deployment as Deployment
    from .api.function import Function as Function
    from .client.connection import Model as Model
    from .client.connection import connect as connect
    from .definition import FunctionDefinition as FunctionDefinition
    from .deployment.server_process import Server as Server
    from .handler.frames import Columns as Columns
    from .handler.tensor import Tensor as Tensor
    from .hosts.mlserver.runtime import PyFuncRuntime as PyFuncRuntime

__version__ = "0.1.0"

# MLServer reloads this module each time it reads `settings.implementation`, and workers import
# it where MLServer is not installed. Importing these names here would cost time in the first
# case and fail in the second, so `__getattr__` (PEP 562) imports them when they are first used.
_LAZY = {
    "Columns": "handler.frames",
    "Deployment": "api.deployment",
    "Function": "api.function",
    "FunctionDefinition": "definition",
    "Model": "client.connection",
    "PyFuncRuntime": "hosts.mlserver.runtime",
    "Server": "deployment.server_process",
    "Tensor": "handler.tensor",
    "connect": "client.connection",
}
__all__ = ["InferenceError", "__version__", *_LAZY]
# MLServer's own. By this name the server imports the patches before it listens.
_LAZY["SchemalessModelRepository"] = "hosts.mlserver.runtime"


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        with prefer_installed():
            module = import_module(f".{_LAZY[name]}", __name__)
    except ImportError as error:
        # MLServer would report an ImportError as "no such implementation" without the cause.
        raise DependencyError(str(error)) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
