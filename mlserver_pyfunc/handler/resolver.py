"""Finds the callables that a definition names, and calls init and unload functions.

What cannot be found, or not be called with what there is, raises BindError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from mlserver_pyfunc.errors import BindError

from .context import Context

CONTEXT_NAMES = frozenset({"context", "ctx", "_context", "_ctx", "_"})
"""Parameter names that get the context in an init or unload function.

A parameter annotated `Context` gets it too.
"""


class Resolver:
    """Finds callables by their path, and keeps one instance of each class among them."""

    def __init__(
        self, load: Callable[[str], ModuleType], default_module: str | None, context: Context
    ) -> None:
        self._load = load
        self._default_module = default_module
        self._context = context
        self._instances: dict[type, Any] = {}

    def module_of(self, path: str) -> str:
        """Returns the module part of a path `module.path:callable`."""
        module, separator, _ = path.partition(":")
        if separator:
            return module
        if self._default_module is None:
            raise BindError(
                f'"{path}" names no module, expected "module.path:callable" '
                "where the source is a folder"
            )
        return self._default_module

    def resolve(self, path: str) -> Callable[..., Any]:
        """Returns the callable of a path. A class is replaced by its instance, in a method too."""
        module = self.module_of(path)
        names = path.rpartition(":")[2].split(".")
        target: Any = self._load(module)
        for name in names:
            member = inspect.getattr_static(target, name, None)
            if inspect.isclass(target) and inspect.isfunction(member):
                target = self._instance(target)
            try:
                target = getattr(target, name)
            except AttributeError:
                offers = [n for n, v in vars(target).items() if n[0] != "_" and callable(v)]
                raise BindError(
                    f'module "{module}" has no "{".".join(names)}", '
                    f"it has {', '.join(offers) or 'no callables'}"
                ) from None
        if not callable(target):
            raise BindError(f'"{path}" is not callable, it is a {type(target).__name__}')
        found: Callable[..., Any] = self._instance(target) if inspect.isclass(target) else target
        if not callable(found):
            raise BindError(
                f'"{path}" is a class whose instances cannot be called, '
                f'expected a method, "{path}.name", or a __call__ of its own'
            )
        return found

    def call_with_context(self, function: Callable[..., Any]) -> Any:
        """Calls an init function, unload function or class with context and init parameters."""
        name = getattr(function, "__qualname__", str(function))
        context = self._context
        bound = with_context(name, _signature(function), context.init_parameters, context)
        return function(*bound.args, **bound.kwargs)

    def _instance(self, cls: type) -> Any:
        if cls not in self._instances:
            self._instances[cls] = self.call_with_context(cls)
        return self._instances[cls]


def with_context(
    function: str,
    signature: inspect.Signature,
    init_parameters: Mapping[str, Any],
    context: Context | None,
) -> inspect.BoundArguments:
    """Binds the context and init parameters to a function, or raises a BindError."""
    given: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given[name] = {k: v for k, v in init_parameters.items() if k not in given}
        elif parameter.kind is parameter.VAR_POSITIONAL:
            given[name] = ()
        elif name in init_parameters:
            given[name] = init_parameters[name]
        elif _is_context(parameter):
            given[name] = context
        elif parameter.default is not parameter.empty:
            given[name] = parameter.default
        else:
            offers = ", ".join([*init_parameters, "context"])
            raise BindError(
                f'"{function}" requires "{name}", which is not in init_parameters: {offers}'
            )
    return inspect.BoundArguments(signature, given)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Returns a function's signature; an empty one if it is written in C and has none."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature()


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.name in CONTEXT_NAMES:
        return True
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.strip("'\"").rpartition(".")[2] == "Context"
