"""Writes a typed Python client of a function: one module that needs NumPy and tritonclient."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition.rendering import render
from mlserver_pyfunc.protocol.tensors import DATATYPES


def client_module(definition: FunctionDefinition, name: str) -> str:
    """Writes the source of a client module, which is clean under strict mypy."""
    # In Python, parameters with a default come after those without one.
    inputs = sorted(definition.inputs, key=lambda tensor: tensor.optional)
    return render(
        "client/typed_client.py.jinja",
        model_name=name,
        inputs=dict(zip(_identifiers(inputs), inputs, strict=True)),
        outputs=dict(zip(_identifiers(definition.outputs), definition.outputs, strict=True)),
        dtype=_dtype,
        description=_description,
    )


def _dtype(tensor: TensorDefinition) -> str:
    name = DATATYPES[tensor.datatype].dtype.name
    return f"np.{name}_" if name in ("object", "bool") else f"np.{name}"


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
