"""Derives a function's contract from the signature of its handler.

The tensors are mappings with the keys of a definition, as if function.yaml had them. So a worker
can report them to the server, which reads them as it reads a definition.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from mlserver_pyfunc.errors import BindError, describe
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.names import parameter_name
from mlserver_pyfunc.protocol.types import listed

from .annotations import Record, Value, read, read_result, resolved, with_default

Tensors = list[dict[str, Any]]

OUTPUT = "output"
"""Name of the one output of a result that has no names."""

_STREAMS = ("Iterator", "Generator", "AsyncIterator", "AsyncGenerator", "AsyncIterable")
_RESULT = "the result of the handler"
_ARRAY = "Annotated[NDArray[np.float32], Tensor(-1, 4)]"


@dataclass(frozen=True)
class Signature:
    """A handler's parameters and result, with what their annotations mean."""

    parameters: Mapping[str, inspect.Parameter]
    forms: Mapping[str, Value | Record]  # of annotated parameters
    result: Value | Record | None  # that of an item, if the handler streams
    doc: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            # Some functions written in C, such as `max`, have no signature.
            only = inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)
            signature = inspect.Signature([only])
        inner = called(function)
        inner = inspect.unwrap(getattr(inner, "__func__", inner))
        given = {name: each.annotation for name, each in signature.parameters.items()}
        given["return"] = signature.return_annotation
        annotated = {name: each for name, each in given.items() if each is not inspect._empty}
        hints = resolved(annotated, inner)
        result = hints.pop("return", inspect._empty)
        return cls(
            signature.parameters,
            {name: _form(hint) for name, hint in hints.items()},
            _result(result, inspect.isgeneratorfunction(inner)),
            inspect.getdoc(inner) or "",
        )


@dataclass
class Derived:
    """The tensors that a handler's signature adds to its definition, with the keys of one."""

    inputs: Tensors = field(default_factory=list)
    outputs: Tensors = field(default_factory=list)
    doc: str = ""  # docstring of the handler, which may describe them
    docs: list[str] = field(default_factory=list)  # those of classes whose fields are tensors

    @property
    def specs(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """The inputs and the outputs, as a contract checks them."""
        return [*map(TensorSpec.of, self.inputs)], [*map(TensorSpec.of, self.outputs)]


def derive(
    signature: Signature,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    written: Collection[str],
    reserved: Collection[str],
) -> Derived:
    """Derives the tensors that a definition leaves out.

    `written` names the lists that the definition has, `inputs` or `outputs`. A list that it has
    is completed only if it names some of the tensors and lacks others that have to be there. A
    BindError shows what to write.
    """
    derived = Derived(doc=signature.doc)
    if "inputs" not in written or _lacks_inputs(signature, inputs, reserved):
        derived.inputs = _inputs(signature, inputs, reserved, derived.docs)
    names = {spec.name for spec in outputs}
    if "outputs" not in written:
        derived.outputs = _outputs(signature, derived.docs)
    elif isinstance(record := signature.result, Record) and names < set(record.fields):
        fields = {name: value for name, value in record.fields.items() if name not in names}
        derived.outputs = [
            {"name": n, **value.tensor} for n, value in fields.items() if not value.problem
        ]
    for kind, tensors in (("input", derived.inputs), ("output", derived.outputs)):
        specs = map(TensorSpec.of, tensors)
        called = [each.name for spec in specs for each in (spec, spec.companion) if each]
        if twice := next((name for name in called if called.count(name) > 1), None):
            text = f'two {kind}s of the handler are called "{twice}"'
            forms = signature.forms if kind == "input" else {}
            owners = [
                name
                for name, form in forms.items()
                if (twice in form.fields if isinstance(form, Record) else twice == name)
            ]
            where = f" (in {listed(owners)})" if len(owners) > 1 else ""
            raise BindError(f"{text}{where}: rename one")
    return derived


def _lacks_inputs(
    signature: Signature, inputs: Sequence[TensorSpec], reserved: Collection[str]
) -> bool:
    """Returns whether declared inputs leave a parameter without a value that it could have."""
    taken = {parameter_name(spec.name) for spec in inputs}
    required = [
        name
        for name, parameter in _named_parameters(signature)
        if name not in taken | set(reserved) and parameter.default is parameter.empty
    ]
    if len(inputs) == len(required) == 1 and taken.isdisjoint(signature.parameters):
        return False  # The one parameter takes the one input, whatever their names.
    forms = [signature.forms.get(name) for name in required]
    values = [form for form in forms if isinstance(form, Value) and not form.problem]
    return bool(inputs) and len(values) == len(required) > 0


def _inputs(
    signature: Signature, declared: Sequence[TensorSpec], reserved: Collection[str], docs: list[str]
) -> Tensors:
    taken = {parameter_name(spec.name) for spec in declared}
    found: Tensors = []
    tables = [f for f in signature.forms.values() if isinstance(f, Record) and f.is_many]
    for name, parameter in _named_parameters(signature):
        form = signature.forms.get(name)
        has_default = parameter.default is not parameter.empty
        if name in taken:
            continue
        if isinstance(form, Record):
            rows = name if len(tables) > 1 else "rows"
            more: dict[str, Any] = {"shape": [rows]} if form.is_many else {}
            more |= {"optional": True} if has_default else {}
            for key, value in form.fields.items():
                if value.problem:
                    raise BindError(_cannot(f'field "{key}" of "{name}"', value.problem, name))
                if key not in taken:
                    found.append({"name": key, **value.tensor, **more})
            docs.append(form.doc)
        elif form is None or form.problem:
            if has_default or name in reserved:
                continue
            problem = form.problem if form else "it has no annotation"
            raise BindError(_cannot(f'handler parameter "{name}"', problem, name))
        else:
            form = with_default(form, parameter.default) if has_default else form
            found.append({"name": name, **form.tensor})
    return found


def _outputs(signature: Signature, docs: list[str]) -> Tensors:
    result = signature.result or Value({}, problem="it has no annotation")
    is_one = isinstance(result, Value)
    if isinstance(result, Value):
        result = Record({OUTPUT: result}, dict)
    for name, value in result.fields.items():
        if value.problem:
            of = "" if is_one else f'of "{name}", '
            raise BindError(_cannot(_RESULT, f"{of}{value.problem}", OUTPUT))
    docs.append(result.doc)
    return [{"name": name, **value.tensor} for name, value in result.fields.items()]


def _named_parameters(signature: Signature) -> Iterator[tuple[str, inspect.Parameter]]:
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield name, parameter


def _cannot(what: str, problem: str, name: str) -> str:
    start, kind = ("->", "outputs") if what == _RESULT else (f"{name}:", "inputs")
    return (
        f"{what}: {problem}; write its type, such as {start} float or {start} {_ARRAY}, "
        f"or add to the definition's {kind} - {{name: {name}, datatype: FP32, shape: [-1]}}"
    )


def _form(hint: Any, reader: Callable[[Any], Value | Record] = read) -> Value | Record:
    try:
        return reader(hint)
    except Exception as error:  # A class may define any attribute that is looked at.
        return Value({}, problem=describe(error))


def _result(hint: Any, is_generator: bool) -> Value | Record | None:
    if hint is inspect.Signature.empty:
        return None
    streams = (*_STREAMS, "Iterable") if is_generator else _STREAMS
    if getattr(get_origin(hint), "__name__", "") in streams and (arguments := get_args(hint)):
        hint = arguments[0]
    return _form(hint, read_result)


def called(function: Any) -> Any:
    """Returns the function or method that runs in a call: of a partial or a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    is_object = not inspect.isroutine(function) and callable(function)
    return type(function).__call__ if is_object else function
