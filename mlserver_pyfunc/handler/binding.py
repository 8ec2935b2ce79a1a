"""Binds a handler's parameters to inputs and reserved names, once, when a function is loaded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.names import parameter_name

from .call import InferenceCall

Kind = Literal["sync", "async", "generator", "async generator"]
Getter = Callable[[InferenceCall], Any]

RESERVED: dict[str, Getter] = {
    "request": lambda call: call.request,
    "context": lambda call: call.context,
    "inputs": lambda call: call.inputs,
    "parameters": lambda call: call.parameters,
    "headers": lambda call: call.headers,
    "event": lambda call: call.event,
    "project": lambda call: getattr(call.context, "project", None),
    "run": lambda call: getattr(call.context, "run", None),
}
"""Parameter names that get something other than an input, with the function that returns it."""

_FIELDS = ("request", "parameters", "headers", "event")
"""Reserved names that need a field of the request besides its tensors."""


@dataclass(frozen=True)
class CallPlan:
    """The way to call a handler. Made by `bind`.

    Attributes:
        function: The handler.
        kind: Whether the handler is called, awaited or iterated.
        positional: Getters of its positional-only parameters, in order.
        keywords: Name and getter of each other parameter, and the name of an optional input
            without which the parameter keeps its default, or None.
        spread: Names of the inputs for `**kwargs`.
        reserved: Reserved names with their getters.

    Examples:
        >>> from mlserver_pyfunc.protocol.tensors import DATATYPES
        >>> x = TensorSpec("x-1", DATATYPES["FP32"], (-1,))
        >>> def scale(x_1, parameters, factor=10):
        ...     return [value * factor for value in x_1]
        >>> plan = bind(scale, [x])
        >>> plan.kind
        'sync'
        >>> plan.required_fields
        frozenset({'parameters'})
        >>> plan(InferenceCall(context=None, inputs={"x-1": [1, 2]}, specs={"x-1": x}))
        [10, 20]
        >>> bind(lambda x_1, y: x_1, [x])
        Traceback (most recent call last):
        mlserver_pyfunc.errors.BindError: handler parameter "y" matches nothing, expected
        one of x_1, request, context, inputs, parameters, headers, event, project, run
    """

    function: Callable[..., Any]
    kind: Kind
    positional: tuple[Getter, ...]
    keywords: tuple[tuple[str, Getter, str | None], ...]
    spread: tuple[str, ...]
    reserved: Mapping[str, Getter]

    @property
    def streams(self) -> bool:
        """Whether the handler is a generator, whose items are sent as a stream."""
        return self.kind in ("generator", "async generator")

    @property
    def required_fields(self) -> frozenset[str]:
        """Fields of the request that the handler asks for besides its tensors."""
        getters = [*self.positional, *(getter for _, getter, _ in self.keywords)]
        return frozenset(name for name in _FIELDS if self.reserved[name] in getters)

    def __call__(self, call: InferenceCall) -> Any:
        """Calls the handler. Returns its result, awaitable or generator."""
        inputs = call.inputs
        keywords = {
            name: get(call)
            for name, get, optional in self.keywords
            if optional is None or optional in inputs
        }
        for name in self.spread:
            if name in inputs:
                keywords[name] = inputs[name]
        return self.function(*[get(call) for get in self.positional], **keywords)


def bind(
    function: Callable[..., Any],
    inputs: Iterable[TensorSpec],
    reserved: Mapping[str, Getter] = RESERVED,
) -> CallPlan:
    """Matches a handler's parameters to the declared inputs and the reserved names.

    Raises:
        BindError: A required parameter matches nothing.
    """
    specs = {spec.name: spec for spec in inputs}
    signature = _signature(function)
    matches = _matches(signature, specs, reserved)
    positional: list[Getter] = []
    keywords: list[tuple[str, Getter, str | None]] = []
    for parameter in signature.parameters.values():
        match = matches.get(parameter.name)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(_or_default(parameter, match))
        elif match is not None:
            getter, spec = match
            has_default = parameter.default is not parameter.empty
            optional = spec.name if spec and spec.optional and has_default else None
            keywords.append((parameter.name, getter, optional))
    taken = {spec.name for _, spec in matches.values() if spec}
    has_spread = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    spread = tuple(name for name in specs if name not in taken) if has_spread else ()
    kind = _kind(function)
    return CallPlan(function, kind, tuple(positional), tuple(keywords), spread, reserved)


def _matches(
    signature: inspect.Signature,
    specs: Mapping[str, TensorSpec],
    reserved: Mapping[str, Getter],
) -> dict[str, tuple[Getter, TensorSpec | None]]:
    """Returns the getter of each matched parameter, and the input if it gets one."""
    by_identifier = {parameter_name(name): spec for name, spec in specs.items()}
    matches: dict[str, tuple[Getter, TensorSpec | None]] = {}
    free: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in by_identifier:
            spec = by_identifier[parameter.name]
            matches[parameter.name] = (_input(spec.name), spec)
        elif parameter.name in reserved:
            matches[parameter.name] = (reserved[parameter.name], None)
        elif parameter.default is parameter.empty:
            free.append(parameter)
    if len(specs) == len(free) == 1 and free[0].kind is not free[0].KEYWORD_ONLY:
        [(identifier, spec)] = by_identifier.items()
        if identifier not in matches:
            matches[free.pop().name] = (_input(spec.name), spec)
    if free:
        offers = ", ".join([*by_identifier, *RESERVED])
        names = ", ".join(f'"{parameter.name}"' for parameter in free)
        raise BindError(f"handler parameter {names} matches nothing, expected one of {offers}")
    return matches


def _input(name: str) -> Getter:
    return lambda call: call.inputs.get(name)


def _or_default(
    parameter: inspect.Parameter, match: tuple[Getter, TensorSpec | None] | None
) -> Getter:
    """Returns the getter of a positional-only parameter.

    It cannot be left out, as a keyword can, because later parameters would move forward.
    """
    default = None if parameter.default is parameter.empty else parameter.default
    if match is None:
        return lambda call: default
    getter, spec = match
    return getter if spec is None else lambda call: call.inputs.get(spec.name, default)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        # Some functions written in C, such as `max`, have no signature.
        only = inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)
        return inspect.Signature([only])


def _kind(function: Callable[..., Any]) -> Kind:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner) and callable(inner):
        inner = type(inner).__call__
    if inspect.isasyncgenfunction(inner):
        return "async generator"
    if inspect.iscoroutinefunction(inner):
        return "async"
    if inspect.isgeneratorfunction(inner):
        return "generator"
    return "sync"
