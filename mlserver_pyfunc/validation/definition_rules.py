"""Checks the definition itself: its keys, values, tensors, requirements and inline code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, Problem, parse, problems
from mlserver_pyfunc.definition.fields import parsed
from mlserver_pyfunc.environments.environment import unmet_needs
from mlserver_pyfunc.errors import DefinitionError
from mlserver_pyfunc.protocol.names import parameter_name

from .document import Document
from .findings import Finding


def check(document: Document) -> Iterator[Finding]:
    """Checks the text of a definition."""
    path, value = document.path, document.value()
    if not isinstance(value, Mapping):
        kind = "nothing" if value is None else type(value).__name__
        yield Finding("D002", f"expected a mapping, got {kind}", path, document.line())
        return
    for line, key in document.repeated_keys:
        yield Finding("D003", f'"{key}" is given twice in one mapping', path, line)
    try:
        listed = problems(value)
    except DefinitionError as error:
        yield Finding("D002", str(error), path, document.line(["kind"]))
        return
    keys = ["spec"] if "spec" in value else []
    for problem in listed:
        yield Finding(_rule(problem), problem.message, path, _line(document, keys, problem, value))
    spec: Any = value.get("spec", value)
    is_empty = "outputs" in spec and not spec["outputs"]
    if not listed and is_empty and parse(value).contract.responses == "enforce":
        message = "outputs: expected at least one tensor, got none"
        yield Finding("D106", message, path, document.line([*keys, "outputs"]))
    if not listed:
        yield from _inline_code(document, keys, spec)
        yield from _serving(document, keys, parse(value))


def source_keys(document: Document) -> list[str]:
    """Returns the keys that lead to the definition's `source` mapping."""
    value = document.value()
    return ["spec", "source"] if "spec" in value else ["source"]


def _rule(problem: Problem) -> str:
    by_kind = {"extra_forbidden": "D101", "missing": "D102"}
    if problem.location[:1] == ("deployment",):
        return "D109"
    if problem.kind in by_kind:
        return by_kind[problem.kind]
    if problem.location[:1] == ("requirements",):
        return "R501"
    if problem.location == ("source",) and problem.kind == "value_error":
        return "D104"
    return "D105" if not problem.location else "D103"


def _line(document: Document, keys: list[str], problem: Problem, value: Mapping[str, Any]) -> int:
    location = problem.location
    if location:
        return document.line([*keys, *location])
    # A problem without a location is about two tensors of one name.
    spec = value.get("spec", value)
    kind = problem.message.partition(":")[0]
    seen = set()
    for index, tensor in enumerate(parsed(spec.get(kind)) or ()):
        name = tensor.get("name") or ""
        name = parameter_name(name) if kind == "inputs" else name
        if name in seen:
            return document.line([*keys, kind, index])
        seen.add(name)
    return document.line([*keys, kind])


def _serving(
    document: Document, keys: list[str], definition: FunctionDefinition
) -> Iterator[Finding]:
    serving = definition.serving
    if serving.batch is not None:
        tensors = (*definition.inputs, *definition.outputs)
        rows = {size for t in tensors for size in t.shape[:1] if isinstance(size, str)}
        for kind in ("inputs", "outputs"):
            for index, tensor in enumerate(getattr(definition, kind)):
                if tensor.sizes[:1] != [-1]:
                    message = (
                        f'{kind}: "{tensor.name}": expected a shape with a leading -1, as '
                        f"serving.batch combines requests, got {tensor.shape_text}"
                    )
                elif later := rows.intersection(tensor.shape[1:]):
                    message = (
                        f'{kind}: "{tensor.name}": expected axis "{later.pop()}" first in each '
                        "shape, as it counts the rows that serving.batch combines"
                    )
                else:
                    continue
                line = document.line([*keys, kind, index])
                yield Finding("D107", message, document.path, line)
    if serving.isolation == "none" or (serving.isolation == "auto" and not unmet_needs(definition)):
        for key in serving.for_processes:
            message = (
                f"serving.{key}: takes effect only in processes of the function's own, and this "
                "function would run in the server's: set serving.isolation to process"
            )
            yield Finding("D108", message, document.path, document.line([*keys, "serving", key]))


def _inline_code(document: Document, keys: list[str], spec: Mapping[str, Any]) -> Iterator[Finding]:
    source = spec["source"]
    if not isinstance(source, Mapping):
        return
    code = source.get("code")
    if isinstance(code, str) and "{{" in code:
        offset = code[: code.index("{{")].count("\n") + 1
        message = "KServe reads {{ }} as its own template: give the code as base64"
        line = document.code_line([*keys, "source", "code"]) + offset
        yield Finding("K601", message, document.path, line)
