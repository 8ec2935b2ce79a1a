"""The files a function starts from, new or read off code that is there."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import yaml

from mlserver_pyfunc.errors import DefinitionError

from .model_settings import IMPLEMENTATION, MODEL_SETTINGS

_SETTINGS = json.dumps({"implementation": IMPLEMENTATION}, indent=2) + "\n"

_STARTER_DEFINITION = """\
model_name: {name}
source:
  source: model.py
  handler: predict
  init_function: init
init_parameters:
  scale: 2.0
inputs:
  - {{name: numbers, datatype: FP32, shape: [-1, 4], description: rows of four numbers}}
outputs:
  - {{name: scaled, datatype: FP32, shape: [-1, 4]}}
  - {{name: total, datatype: FP32, shape: [-1], description: the sum of each row}}
"""

_STARTER_CODE = '''\
"""Scales rows of numbers and adds them up."""


def init(context, scale):
    """Runs once, when the model is loaded: load weights here."""
    context.scale = scale


def predict(numbers, context):
    """Runs once per inference request. `numbers` is a float32 array of shape [n, 4]."""
    scaled = numbers * context.scale
    return {"scaled": scaled, "total": scaled.sum(axis=1)}
'''

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_ONE = "[1]"
_MANY = "[-1]"
_SCALARS = {
    "float": ("FP64", _ONE),
    "int": ("INT64", _ONE),
    "bool": ("BOOL", _ONE),
    "str": ("BYTES", _ONE),
    "bytes": ("BYTES", _ONE),
}
_LISTS = {"list", "List", "Sequence", "Iterable"}
_STREAMS = {"Iterator", "Generator", "AsyncIterator", "AsyncGenerator"}
_DTYPES = {
    "bool": "BOOL", "bool_": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32",
    "uint64": "UINT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "object_": "BYTES", "bytes_": "BYTES", "str_": "BYTES",
}  # fmt: skip


def starter(name: str) -> dict[str, str]:
    """A function that works, by file name."""
    return {
        "function.yaml": _STARTER_DEFINITION.format(name=name),
        "model.py": _STARTER_CODE,
        MODEL_SETTINGS: _SETTINGS,
    }


def described(name: str, folder: Path, module: Path, function: str) -> dict[str, str]:
    """A definition of a function that is there, by file name. Its code is not run.

    Raises:
        DefinitionError: There is no such file or function.
    """
    from mlserver_pyfunc.handler.binding import RESERVED

    try:
        tree = ast.parse(module.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{module}: {error.strerror}") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{module}: not Python: {error}") from None
    functions = _functions(tree)
    if function not in functions:
        names = ", ".join(functions) or "none"
        raise DefinitionError(f'{module}: no function "{function}", it has {names}')
    node = functions[function]
    source = Path(os.path.relpath(module.resolve(), folder.resolve()))
    lines = [f"model_name: {name}", "source:"]
    lines += [f"  source: {json.dumps(source.as_posix())}", f"  handler: {function}", "inputs:"]
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    optional = _with_default(node)
    tensors = [
        _line(argument.arg, argument.annotation, is_optional=argument.arg in optional)
        for argument in arguments
        if argument.arg not in (*RESERVED, "self", "cls")
    ]
    lines += tensors or ["  []"]
    lines += ["outputs:", *_outputs(node.returns)]
    return {"function.yaml": "\n".join(lines) + "\n", MODEL_SETTINGS: _SETTINGS}


def name_of(folder: Path) -> str:
    """A model name made of a folder's."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name) or "function"


def _functions(tree: ast.Module) -> dict[str, _Function]:
    """What a definition may call, by the path that it writes: methods too, and `__call__`."""
    found: dict[str, _Function] = {}
    for node in tree.body:
        if isinstance(node, _Function):
            found[node.name] = node
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if not isinstance(method, _Function):
                continue
            if method.name == "__call__":
                found[node.name] = method
            elif not method.name.startswith("_"):
                found[f"{node.name}.{method.name}"] = method
    return found


def _with_default(node: _Function) -> set[str]:
    positional = [*node.args.posonlyargs, *node.args.args]
    with_default = positional[len(positional) - len(node.args.defaults) :]
    keyword = [
        argument
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is not None
    ]
    return {argument.arg for argument in (*with_default, *keyword)}


def _outputs(annotation: ast.expr | None) -> list[str]:
    annotation = _meant(annotation)
    elements = _arguments(annotation) if _head(annotation) in ("tuple", "Tuple") else [annotation]
    if len(elements) == 1:
        return [_line("output", elements[0])]
    return [_line(f"output_{index}", each) for index, each in enumerate(elements)]


def _line(name: str, annotation: ast.expr | None, *, is_optional: bool = False) -> str:
    datatype, shape, is_text = _tensor(annotation)
    known = datatype is not None
    # YAML takes some words for true, false or null.
    shown = name if isinstance(yaml.safe_load(name), str) else json.dumps(name)
    parts = [f"name: {shown}", f"datatype: {datatype or 'FP32'}", f"shape: {shape}"]
    if is_text:
        parts.append("content_type: str")
    if is_optional:
        parts.append("optional: true")
    line = f"  - {{{', '.join(parts)}}}"
    return line if known else f"{line}  # a guess: nothing is annotated that says more"


def _tensor(annotation: ast.expr | None) -> tuple[str | None, str, bool]:
    """Datatype, shape and whether elements are text; no datatype where nothing tells."""
    annotation = _meant(annotation)
    head = _head(annotation)
    if head in _SCALARS:
        return (*_SCALARS[head], head == "str")
    if head in ("NDArray", "ndarray"):
        names = [_head(node) for argument in _arguments(annotation) for node in _within(argument)]
        dtype = next((name for name in names if name in _DTYPES), "")
        return _DTYPES.get(dtype), _MANY, dtype == "str_"
    elements = _arguments(annotation)
    if head in _LISTS or head in _STREAMS:
        datatype, shape, is_text = _tensor(elements[0] if elements else None)
        if head in _STREAMS and datatype is not None:
            return datatype, shape, is_text
        is_nested = bool(elements) and _head(_meant(elements[0])) in _LISTS
        return datatype, f"[-1, {shape[1:]}" if is_nested else _MANY, is_text
    return None, _MANY, False


def _meant(node: ast.expr | None) -> ast.expr | None:
    """An annotation without its quotes, `Annotated`, `Optional` and `| None`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return _meant(ast.parse(node.value, mode="eval").body)
        except SyntaxError:
            return None
    if _head(node) == "Annotated":
        return _meant(_arguments(node)[0])
    options: list[ast.expr] = []
    if _head(node) in ("Optional", "Union"):
        options = _arguments(node)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        options = [node.left, node.right]
    something = [each for each in options if getattr(each, "value", each) is not None]
    return _meant(something[0]) if len(something) == 1 else node


def _within(node: ast.expr) -> list[ast.expr]:
    return [child for child in ast.walk(node) if isinstance(child, ast.Name | ast.Attribute)]


def _head(node: ast.expr | None) -> str:
    """The last name of an annotation: `ndarray` of `np.ndarray[...]`."""
    if isinstance(node, ast.Subscript):
        return _head(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _arguments(node: ast.expr | None) -> list[ast.expr]:
    if not isinstance(node, ast.Subscript):
        return []
    inner = node.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
