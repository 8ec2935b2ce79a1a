"""Serve any Python function through MLServer, with its tensor contract enforced.

MLServer reloads this file on every access to `settings.implementation`, and a worker
imports it where MLServer is absent: names are therefore looked up only when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DependencyError, InferenceError
from .handler.shadowing import prefer_installed

if TYPE_CHECKING:
    from .definition import FunctionDefinition
    from .hosts.mlserver.runtime import PyFuncRuntime

__version__ = "0.1.0"
__all__ = ["FunctionDefinition", "InferenceError", "PyFuncRuntime", "__version__"]

_LAZY = {"FunctionDefinition": "definition", "PyFuncRuntime": "hosts.mlserver.runtime"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        with prefer_installed():
            module = import_module(f".{_LAZY[name]}", __name__)
    except ImportError as error:
        # MLServer takes an ImportError from here for "no such implementation".
        raise DependencyError(str(error)) from error
    return getattr(module, name)
