"""Reads a function's signature from its syntax tree, and compares it with the definition."""

from __future__ import annotations

import ast
import difflib
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.handler.binding import bind
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.resolver import Resolver
from mlserver_pyfunc.protocol.names import parameter_name

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_WHOLE_REQUEST = {"inputs", "request", "event"}


def signature_of(function: FunctionNode, *, is_bound: bool) -> inspect.Signature | None:
    """Returns a function's signature; None if a decorator may have changed it."""
    known = {"staticmethod", "classmethod"}
    if any(getattr(d, "id", None) not in known for d in function.decorator_list):
        return None
    given = function.args
    kind = inspect.Parameter
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    parameters = []
    for index, argument in enumerate(positional):
        which = (
            kind.POSITIONAL_ONLY if index < len(given.posonlyargs) else kind.POSITIONAL_OR_KEYWORD
        )
        default = kind.empty if index < required else None
        parameters.append(
            kind(argument.arg, which, default=default, annotation=_annotation(argument))
        )
    if given.vararg:
        parameters.append(kind(given.vararg.arg, kind.VAR_POSITIONAL))
    for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        default = kind.empty if value is None else None
        parameters.append(
            kind(argument.arg, kind.KEYWORD_ONLY, default=default, annotation=_annotation(argument))
        )
    if given.kwarg:
        parameters.append(kind(given.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(parameters[1:] if is_bound else parameters)


def _annotation(argument: ast.arg) -> Any:
    if argument.annotation is None:
        return inspect.Parameter.empty
    return ast.unparse(argument.annotation)


def handler_mismatches(
    definition: FunctionDefinition, signature: inspect.Signature
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each mismatch between a handler's parameters and the inputs."""
    specs = [tensor.spec for tensor in definition.inputs]
    try:
        plan = bind(_stub(signature), specs)
    except BindError as error:
        yield "C405", str(error)
        return
    names = set(signature.parameters)
    if plan.spread or names & _WHOLE_REQUEST or plan.positional:
        return
    taken = {name for name, _, _ in plan.keywords}
    for spec in specs:
        if parameter_name(spec.name) not in taken and not (len(specs) == 1 and taken - {"context"}):
            message = f'input "{spec.name}" reaches no parameter of the handler'
            yield "C407", message


def context_mismatches(
    definition: FunctionDefinition, signature: inspect.Signature, path: str, folder: Path
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each parameter that an init or unload function cannot get."""
    context = Context(
        logger=logging.getLogger(__name__),
        model_name="",
        model_version=None,
        definition={},
        source_dir=folder,
        init_parameters=definition.init_parameters,
    )
    resolver = Resolver(_no_module, None, context)
    stub = _stub(signature)
    stub.__qualname__ = path.rpartition(":")[2]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in definition.init_parameters:
        near = difflib.get_close_matches(name, signature.parameters, n=1, cutoff=0.75)
        if near and near[0] not in definition.init_parameters and not takes_all:
            message = f'init_parameters: "{name}" is no parameter of "{stub.__qualname__}"'
            yield "C408", f'{message}, did you mean "{near[0]}"?'
    try:
        resolver.call_with_context(stub)
    except BindError as error:
        yield "C406", str(error)


def _stub(signature: inspect.Signature) -> Callable[..., Any]:
    """Returns a function with this signature that does nothing."""

    def stub(*_: Any, **__: Any) -> None:
        return None

    vars(stub)["__signature__"] = signature
    return stub


def _no_module(name: str) -> ModuleType:
    raise BindError(f"{name} is not imported")
