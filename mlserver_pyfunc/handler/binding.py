"""Binds a handler's parameters to inputs and reserved names, once, when a function is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import numpy as np

from mlserver_pyfunc.errors import BindError, ContractError
from mlserver_pyfunc.protocol.contract import TensorSpec, decode
from mlserver_pyfunc.protocol.names import parameter_name
from mlserver_pyfunc.protocol.nulls import masked
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.types import TensorError, listed

from .annotations import Record, Value
from .call import InferenceCall
from .frames import frame_of
from .signature import Signature, called

Kind = Literal["sync", "async", "generator", "async generator"]
Getter = Callable[[InferenceCall], Any]
Setting = Callable[[InferenceCall, Any], Any]
"""Makes the handler's value of a parameter of the request."""
Match = tuple[Getter, tuple[str, ...]]
"""The getter of a parameter, and the names of the inputs that it takes."""

RESERVED: dict[str, Getter] = {
    "request": lambda call: call.request,
    "context": lambda call: call.context,
    "inputs": lambda call: call.inputs,
    "parameters": lambda call: call.parameters,
    "headers": lambda call: call.headers,
    "event": lambda call: call.event,
    "cancelled": lambda call: call.cancelled,
    "project": lambda call: getattr(call.context, "project", None),
    "run": lambda call: getattr(call.context, "run", None),
}
"""Parameter names that get something other than an input, with the function that returns it."""

_FIELDS = ("request", "parameters", "headers", "event", "cancelled")
"""Reserved names that need more of the request than its tensors."""


@dataclass(frozen=True)
class CallPlan:
    """The way to call a handler. Made by `bind`.

    A keyword has its name, its getter, and the optional inputs without all of which it keeps its
    default, or None.
    """

    function: Callable[..., Any]
    kind: Kind
    positional: tuple[Getter, ...]
    keywords: tuple[tuple[str, Getter, frozenset[str] | None], ...]
    spread: tuple[tuple[str, Getter], ...]  # inputs of `**kwargs`
    reserved: Mapping[str, Getter]
    settings: Mapping[str, Setting] = field(default_factory=dict)  # read the request's parameters
    taken: frozenset[str] = frozenset()

    @property
    def required_fields(self) -> frozenset[str]:
        """Fields and parameters of the request that the handler asks for besides its tensors."""
        getters = [*self.positional, *(getter for _, getter, _ in self.keywords)]
        needed = {name for name in _FIELDS if self.reserved[name] in getters}
        return frozenset(needed | {"parameters", *self.settings} if self.settings else needed)

    def __call__(self, call: InferenceCall) -> Any:
        """Calls the handler. Returns its result, awaitable or generator."""
        if call.trace:
            call.trace.enter()
        inputs = call.inputs
        keywords = {
            name: get(call)
            for name, get, optional in self.keywords
            if optional is None or not optional.isdisjoint(inputs)
        }
        for name, get in self.spread:
            if name in inputs:
                keywords[name] = get(call)
        if self.settings:
            for name, value in call.parameters.items():
                if name in self.settings and name not in keywords and value is not None:
                    keywords[name] = self.settings[name](call, value)
        return self.function(*[get(call) for get in self.positional], **keywords)


def bind(
    function: Callable[..., Any],
    inputs: Iterable[TensorSpec],
    reserved: Mapping[str, Getter] = RESERVED,
    signature: Signature | None = None,
) -> CallPlan:
    """Matches a handler's parameters to the declared inputs and the reserved names.

    An annotated parameter gets the value that its annotation names, if the input can give it.
    Raises a BindError if a required parameter matches nothing.
    """
    specs = {spec.name: spec for spec in inputs}
    signature = signature or Signature.of(function)
    parameters = signature.parameters.values()
    matches = _matches(signature, specs, reserved)
    positional: list[Getter] = []
    keywords: list[tuple[str, Getter, frozenset[str] | None]] = []
    for parameter in parameters:
        match = matches.get(parameter.name)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(_or_default(parameter, match))
        elif match is not None:
            getter, taken = match
            has_default = parameter.default is not parameter.empty
            is_optional = has_default and taken and all(specs[name].optional for name in taken)
            keywords.append((parameter.name, getter, frozenset(taken) if is_optional else None))
    reached = frozenset(name for _, taken in matches.values() for name in taken)
    has_spread = any(p.kind is p.VAR_KEYWORD for p in parameters)
    left = {name: spec for name, spec in specs.items() if has_spread and name not in reached}
    spread = tuple((name, _input(spec, None)) for name, spec in left.items())
    settings = _settings(signature, matches, specs)
    kind = _kind(function)
    return CallPlan(
        function, kind, tuple(positional), tuple(keywords), spread, reserved, settings, reached
    )


def _matches(
    signature: Signature, specs: Mapping[str, TensorSpec], reserved: Mapping[str, Getter]
) -> dict[str, Match]:
    by_identifier = {parameter_name(name): spec for name, spec in specs.items()}
    matches: dict[str, Match] = {}
    free: list[inspect.Parameter] = []
    forms = {name: signature.forms.get(name) for name in signature.parameters}
    # A frame whose columns nothing tells takes the inputs that are left, so it comes last.
    for parameter in sorted(signature.parameters.values(), key=lambda p: _is_rest(forms[p.name])):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        form = forms[parameter.name]
        if _is_rest(form) and (columns := _left(parameter.name, specs, matches)):
            fields = {name: Value({}, table=form.table) for name in columns}
            rest = Record(fields, frame_of(form.table, fields), is_many=True, is_table=True)
            matches[parameter.name] = (_object(rest, columns), tuple(columns))
        elif isinstance(form, Record) and _has_fields(form, specs):
            given = {name: specs[name] for name in form.fields if name in specs}
            has_default = parameter.default is not parameter.empty
            needed = [n for n in given if has_default and not form.fields[n].tensor.get("optional")]
            matches[parameter.name] = (_object(form, given, needed), tuple(given))
        elif parameter.name in by_identifier:
            spec = by_identifier[parameter.name]
            matches[parameter.name] = (_input(spec, form), (spec.name,))
        elif parameter.name in reserved:
            matches[parameter.name] = (reserved[parameter.name], ())
        elif parameter.default is parameter.empty:
            free.append(parameter)
    if len(specs) == len(free) == 1 and free[0].kind is not free[0].KEYWORD_ONLY:
        [(identifier, spec)] = by_identifier.items()
        if identifier not in matches:
            name = free.pop().name
            matches[name] = (_input(spec, signature.forms.get(name)), (spec.name,))
    if free:
        names = ", ".join(f'"{parameter.name}"' for parameter in free)
        tables = {axis for spec in specs.values() for axis in spec.axes}
        is_table = not tables.isdisjoint(parameter.name for parameter in free)
        hint = "; annotate a table as its frame, such as pandas.DataFrame" if is_table else ""
        offers = f"{', '.join([*by_identifier, *RESERVED])}{hint}"
        raise BindError(f"handler parameter {names} matches nothing, expected one of {offers}")
    return matches


def _input(spec: TensorSpec, form: Value | Record | None) -> Getter:
    name, is_nullable = spec.name, spec.companion is not None
    convert = form.converter(spec) if isinstance(form, Value) else None
    if convert is None and not is_nullable:
        return lambda call: call.inputs.get(name)
    is_list = isinstance(form, Value) and form.rank and form.admits_none
    nan_is_none = is_list and spec.datatype.dtype.kind == "f"

    def get(call: InferenceCall) -> Any:
        array = call.inputs.get(name)
        if array is None:
            return None
        if is_nullable:
            array = masked(call.inputs, name)
        elif nan_is_none and (nan := np.isnan(array)).any():
            array = np.ma.MaskedArray(array, nan)
        try:
            return array if convert is None else convert(array)
        except Exception as error:  # a TensorError, or one of the type that is annotated
            raise _breach(call, "input", name, _located(error, convert, array)) from None

    return get


def _located(error: Exception, convert: Any, array: Any) -> Exception:
    """Returns an error that tells which element cannot be converted."""
    low, high = 0, len(array) if array.ndim == 1 else 0
    if high < 2 or " at index " in str(error):
        return error
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(array[low:middle])
            low = middle
        except Exception:
            high = middle
    return ValueError(f"{error} at index {low}")


def _has_fields(record: Record, specs: Mapping[str, TensorSpec]) -> bool:
    required = [name for name, field in record.fields.items() if not field.tensor.get("optional")]
    return all(name in specs for name in required) and not specs.keys().isdisjoint(record.fields)


def _object(record: Record, specs: Mapping[str, TensorSpec], needed: Iterable[str] = ()) -> Getter:
    """Returns what makes an object of its inputs. They are all optional if some are `needed`."""
    getters = {name: _input(spec, record.fields[name]) for name, spec in specs.items()}

    def get(call: InferenceCall) -> Any:
        if missing := [name for name in needed if name not in call.inputs]:
            where = f'input {listed(missing)} of model "{call.context.model_name}"'
            has = listed(name for name in getters if name in call.inputs)
            raise ContractError(f"{where}: missing from the request, which has {has}")
        values = {name: each(call) for name, each in getters.items() if name in call.inputs}
        try:
            return record.build(values, specs)
        except TensorError as error:
            raise _breach(call, "input", ", ".join(getters), error) from None

    return get


def _is_rest(form: Value | Record | None) -> TypeGuard[Value]:
    return isinstance(form, Value) and bool(form.table)


def _left(
    table: str, specs: Mapping[str, TensorSpec], matches: Mapping[str, Match]
) -> dict[str, TensorSpec]:
    """Returns the columns of a table, or else the inputs that no parameter takes and could be."""
    if columns := {name: spec for name, spec in specs.items() if spec.axes == (table,)}:
        return columns
    taken = {name for _, names in matches.values() for name in names}
    left = {name: spec for name, spec in specs.items() if name not in taken}
    return left if all(len(spec.shape) == 1 for spec in left.values()) else {}


def _settings(
    signature: Signature, matches: Mapping[str, Match], specs: Mapping[str, TensorSpec]
) -> dict[str, Setting]:
    """Returns the readers of the request's parameters that the handler has parameters for."""
    settings: dict[str, Setting] = {}
    for name, form in signature.forms.items():
        parameter = signature.parameters[name]
        _, taken = matches.get(name, (None, ()))
        is_free = name not in matches or (len(taken) == 1 and specs[taken[0]].optional)
        is_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        has_default = parameter.default is not parameter.empty
        if isinstance(form, Value) and form.is_scalar and is_free and is_keyword and has_default:
            settings[name] = _setting(name, form)
    return settings


def _setting(name: str, form: Value) -> Setting:
    spec = TensorSpec.of({"name": name, **form.tensor, "shape": [1]})
    convert = form.from_array

    def read(call: InferenceCall, value: Any) -> Any:
        try:
            array = decode(spec, RequestInput(name, spec.datatype.name, [1], [value]))
            return array if convert is None else convert(array)
        except TensorError as error:
            raise _breach(call, "parameter", name, error) from None

    return read


def _breach(call: InferenceCall, kind: str, name: str, error: Exception) -> ContractError:
    text = " ".join(str(error).split())
    return ContractError(f'{kind} "{name}" of model "{call.context.model_name}": {text}')


def _or_default(parameter: inspect.Parameter, match: Match | None) -> Getter:
    """Returns the getter of a positional-only parameter, which cannot be left out of a call."""
    default = None if parameter.default is parameter.empty else parameter.default
    if match is None:
        return lambda call: default
    getter, taken = match
    if not taken:
        return getter
    return lambda call: default if call.inputs.keys().isdisjoint(taken) else getter(call)


def _kind(function: Callable[..., Any]) -> Kind:
    inner = called(function)
    if inspect.isasyncgenfunction(inner):
        return "async generator"
    if inspect.iscoroutinefunction(inner):
        return "async"
    if inspect.isgeneratorfunction(inner):
        return "generator"
    return "sync"
