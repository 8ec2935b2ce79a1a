"""The files that `init` writes: a new function, or the definition of a function that exists."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.errors import DefinitionError

from .model_settings import IMPLEMENTATION, MODEL_SETTINGS

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
    """Returns the files of a new function that works, by file name."""
    return {
        "function.yaml": _rendered("starter.yaml", name=name),
        "model.py": _rendered("starter.py"),
        MODEL_SETTINGS: _rendered(MODEL_SETTINGS, implementation=IMPLEMENTATION),
    }


def described(name: str, folder: Path, module: Path, function: str) -> dict[str, str]:
    """Returns a definition of a function that exists, by file name, without running its code.

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
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    optional = _with_default(node)
    definition = _rendered(
        "described.yaml",
        name=name,
        source=json.dumps(source.as_posix()),
        handler=function,
        inputs=[
            _declared(argument.arg, argument.annotation, is_optional=argument.arg in optional)
            for argument in arguments
            if argument.arg not in (*RESERVED, "self", "cls")
        ],
        outputs=_outputs(node.returns),
    )
    settings = _rendered(MODEL_SETTINGS, implementation=IMPLEMENTATION)
    return {"function.yaml": definition, MODEL_SETTINGS: settings}


def name_of(folder: Path) -> str:
    """Makes a model name from the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name) or "function"


def _rendered(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("mlserver_pyfunc.definition"),
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    return environment.get_template(f"{template}.jinja").render(values)


def _functions(tree: ast.Module) -> dict[str, _Function]:
    """Returns the functions that a definition may call, by the path that it gives for them."""
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


def _outputs(annotation: ast.expr | None) -> list[dict[str, Any]]:
    annotation = _meant(annotation)
    elements = _arguments(annotation) if _head(annotation) in ("tuple", "Tuple") else [annotation]
    if len(elements) == 1:
        return [_declared("output", elements[0])]
    return [_declared(f"output_{index}", each) for index, each in enumerate(elements)]


def _declared(
    name: str, annotation: ast.expr | None, *, is_optional: bool = False
) -> dict[str, Any]:
    datatype, shape, is_text = _tensor(annotation)
    return {
        # YAML reads some words as true, false or null.
        "name": name if isinstance(yaml.safe_load(name), str) else json.dumps(name),
        "datatype": datatype,
        "shape": shape,
        "is_text": is_text,
        "is_optional": is_optional,
    }


def _tensor(annotation: ast.expr | None) -> tuple[str | None, str, bool]:
    """Returns datatype, shape and whether elements are text; no datatype if nothing tells it."""
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
    """Strips an annotation of its quotes, `Annotated`, `Optional` and `| None`."""
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
    """Returns the last name of an annotation: `ndarray` of `np.ndarray[...]`."""
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
