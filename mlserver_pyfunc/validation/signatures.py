"""Compares the signatures of functions, as their syntax trees show them, with the definition."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterator

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.static import FunctionNode, UnknownError, signature_of
from mlserver_pyfunc.errors import BindError, DefinitionError
from mlserver_pyfunc.handler.resolver import CONTEXT_NAMES, with_context
from mlserver_pyfunc.protocol.names import parameter_name

_WHOLE_REQUEST = {"inputs", "request", "event"}


def handler_mismatches(
    definition: FunctionDefinition, module: ast.Module, function: FunctionNode, *, is_bound: bool
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each mismatch between a handler's parameters and the inputs."""
    is_written = {"inputs", "outputs"} <= set(definition.written)
    named = {parameter_name(tensor.name) for tensor in definition.inputs}
    if is_written and _plain_names(function, is_bound=is_bound) - {"context"} == named:
        return
    # Imported here, since they bring NumPy, which takes as long as all else.
    from mlserver_pyfunc.definition.derived import completed
    from mlserver_pyfunc.handler.binding import RESERVED, bind
    from mlserver_pyfunc.handler.signature import derive

    try:
        signature = signature_of(module, function, is_bound=is_bound, strict=not is_written)
    except UnknownError as error:
        if not is_written:
            yield "C409", f"only a run can tell the tensors of the handler: {error}"
        return
    inputs = [tensor.spec for tensor in definition.inputs]
    outputs = [tensor.spec for tensor in definition.outputs]
    try:
        derived = derive(signature, inputs, outputs, definition.written, RESERVED)
        specs = [tensor.spec for tensor in completed(definition, derived).inputs]
        plan = bind(lambda: None, specs, signature=signature)
    except (BindError, DefinitionError) as error:
        yield "C405", str(error)
        return
    names = set(signature.parameters)
    if plan.spread or names & _WHOLE_REQUEST or plan.positional:
        return
    for spec in specs:
        if spec.name not in plan.taken:
            yield "C407", f'input "{spec.name}" reaches no parameter of the handler'


def context_mismatches(
    definition: FunctionDefinition, function: FunctionNode, path: str, *, is_bound: bool
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each parameter that an init or unload function cannot get."""
    given = set(definition.init_parameters)
    if given <= _plain_names(function, is_bound=is_bound) <= given | CONTEXT_NAMES:
        return
    try:
        signature = signature_of(ast.Module([], []), function, is_bound=is_bound, strict=False)
    except UnknownError:
        return
    name = path.rpartition(":")[2]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in definition.init_parameters:
        near = difflib.get_close_matches(key, signature.parameters, n=1, cutoff=0.75)
        if near and near[0] not in definition.init_parameters and not takes_all:
            message = f'init_parameters: "{key}" is no parameter of "{name}"'
            yield "C408", f'{message}, did you mean "{near[0]}"?'
    try:
        parameters = inspect.Signature([*signature.parameters.values()])
        with_context(name, parameters, definition.init_parameters, None)
    except BindError as error:
        yield "C406", str(error)


def _plain_names(function: FunctionNode, *, is_bound: bool) -> set[str]:
    """Returns the parameters of a function that has no others than required, unannotated ones."""
    given = function.args
    special = [given.posonlyargs, given.kwonlyargs, given.defaults, function.decorator_list]
    if any((*special, given.vararg, given.kwarg, *(each.annotation for each in given.args))):
        return {""}
    return {each.arg for each in given.args[is_bound:]}
