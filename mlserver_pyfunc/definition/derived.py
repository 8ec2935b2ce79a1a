"""Completes a definition by what the handler's signature tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from mlserver_pyfunc.errors import DefinitionError
from mlserver_pyfunc.handler.binding import RESERVED
from mlserver_pyfunc.handler.signature import OUTPUT, Derived, Signature, derive

from .models import FunctionDefinition, TensorDefinition


def with_signature(definition: FunctionDefinition, signature: Signature) -> FunctionDefinition:
    """Returns a definition with the tensors that a signature tells, or raises as `derive` does."""
    inputs = [tensor.spec for tensor in definition.inputs]
    outputs = [tensor.spec for tensor in definition.outputs]
    return completed(definition, derive(signature, inputs, outputs, definition.written, RESERVED))


def completed(definition: FunctionDefinition, derived: Derived) -> FunctionDefinition:
    """Returns a definition with the derived tensors, or raises if an annotation is inconsistent."""
    if not derived.inputs and not derived.outputs:
        return definition
    about, of_inputs, of_output = _descriptions([derived.doc, *derived.docs])
    inputs = _tensors("inputs", derived.inputs, of_inputs)
    outputs = _tensors("outputs", derived.outputs, {OUTPUT: of_output, **of_inputs})
    update: dict[str, Any] = {
        "inputs": [*definition.inputs, *inputs],
        "outputs": [*definition.outputs, *outputs],
        "description": definition.description or about or None,
    }
    return definition.model_copy(update=update)


def _tensors(
    kind: str, derived: Iterable[Mapping[str, Any]], descriptions: Mapping[str, str]
) -> list[TensorDefinition]:
    tensors = []
    for keys in derived:
        name = keys["name"]
        described = {"description": text} if (text := descriptions.get(name)) else {}
        try:
            tensors.append(TensorDefinition.model_validate({**described, **keys}))
        except ValidationError as error:
            [problem, *_] = error.errors(include_url=False)
            where = ".".join(map(str, problem["loc"]))
            raise DefinitionError(
                f'{kind}: "{name}", by its annotation: {where or "tensor"}: {problem["msg"]}'
            ) from None
    return tensors


def _descriptions(docstrings: Iterable[str]) -> tuple[str, dict[str, str], str]:
    """Returns what docstrings say of a function, of its parameters, and of its result."""
    about = result = ""
    parameters: dict[str, str] = {}
    for index, text in enumerate(docstrings):
        if not text:
            continue
        from docstring_parser import ParseError, parse

        try:
            found = parse(text)
        except ParseError:
            continue
        if index == 0:
            about = found.short_description or ""
            result = _one_line(found.returns.description) if found.returns else ""
        for each in found.params:
            parameters.setdefault(each.arg_name, _one_line(each.description))
    return about, {name: text for name, text in parameters.items() if text}, result


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
