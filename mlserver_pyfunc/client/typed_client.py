"""Writes a typed Python client of a function: one module that needs NumPy and tritonclient."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition.rendering import render
from mlserver_pyfunc.protocol.tensors import DATATYPES

_DTYPES = {"object": "np.object_", "bool": "np.bool_"}


def client_module(definition: FunctionDefinition, name: str) -> str:
    """Writes the source of a client module, which is clean under strict mypy."""
    # In Python, parameters with a default come after those without one.
    inputs = _fields(sorted(definition.inputs, key=lambda tensor: tensor.optional))
    return render(
        "client/typed_client.py.jinja",
        model_name=name,
        inputs=inputs,
        outputs=_fields(definition.outputs),
        nullable=any(field["is_nullable"] for field in inputs),
        signature=_signature(inputs),
        values=", ".join(f"{field['name']!r}: {field['identifier']}" for field in inputs),
    )


def _fields(tensors: Sequence[TensorDefinition]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "identifier": identifier,
            "datatype": tensor.datatype,
            "dtype": _DTYPES.get(name := DATATYPES[tensor.datatype].dtype.name, f"np.{name}"),
            "description": _description(tensor),
            "is_text": tensor.content_type == "str",
            "is_optional": tensor.optional,
            "is_nullable": tensor.spec.companion is not None,
        }
        for tensor, identifier in zip(tensors, _identifiers(tensors), strict=True)
    ]


def _identifiers(tensors: Iterable[TensorDefinition]) -> list[str]:
    taken = {"self", "inputs"}
    identifiers = []
    for tensor in tensors:
        name = re.sub(r"\W", "_", tensor.name)
        if name[0].isdigit():
            name = f"_{name}"
        while keyword.iskeyword(name) or name in taken:
            name += "_"
        taken.add(name)
        identifiers.append(name)
    return identifiers


def _description(tensor: TensorDefinition) -> str:
    elements = "str" if tensor.content_type == "str" else DATATYPES[tensor.datatype].dtype.name
    elements = "bytes" if elements == "object" else elements
    text = f"{elements} of shape {tensor.shape_text}"
    # The text stands in a docstring: it must be one line and must not end the docstring.
    note = " ".join((tensor.description or "").split()).rstrip(".")
    note = note.replace("\\", "\\\\").replace('"', "'")
    return f"{text}; {note}." if note else f"{text}."


def _signature(inputs: Iterable[dict[str, Any]]) -> str:
    parts = ["self"]
    for field in inputs:
        default = " | None = None" if field["is_optional"] else ""
        parts.append(f"{field['identifier']}: NDArray[{field['dtype']}]{default}")
    line = ", ".join(parts)
    return line if len(line) <= 60 else "\n        " + ",\n        ".join(parts) + ",\n    "
