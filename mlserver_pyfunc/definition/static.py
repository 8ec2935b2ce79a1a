"""Reads a handler's signature from the syntax tree of its module, without running the module.

Annotations are evaluated with the names that the module imports from a few known packages, and
with its own classes, of which only the fields are built. So `handler/signature.py` derives the
same contract from the result as it does from the loaded function.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mlserver_pyfunc.handler.signature import Signature

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_PACKAGES = {
    "PIL", "annotated_types", "collections", "dataclasses", "datetime", "enum", "jaxtyping",
    "mlserver_pyfunc", "numpy", "pathlib", "pydantic", "torch", "typing", "typing_extensions",
}  # fmt: skip
_CALLS = {
    "Doc", "Field", "Ge", "Gt", "Interval", "Le", "Len", "Lt", "MaxLen", "MinLen", "NamedTuple",
    "NewType", "Tensor", "TypedDict", "dataclass", "field",
}  # fmt: skip
_PLAIN = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Dict, ast.Constant, ast.BinOp,
    ast.BitOr, ast.UnaryOp, ast.USub, ast.keyword, ast.NamedExpr, ast.Load, ast.Store, ast.Call,
)  # fmt: skip
_BUILTINS = {
    name: getattr(builtins, name)
    for name in ("bool", "bytes", "dict", "float", "int", "list", "object", "set", "str", "tuple")
} | {"__build_class__": builtins.__build_class__}


class UnknownError(Exception):
    """Only a run of the code can tell what a signature means."""


def signature_of(
    module: ast.Module, function: FunctionNode, *, is_bound: bool, strict: bool = True
) -> Signature:
    """Returns the signature of a function.

    `is_bound` leaves out the first parameter, as Python does for a method. If not `strict`, an
    annotation that cannot be evaluated stays text.

    Raises:
        UnknownError: A decorator may change it, or an annotation cannot be evaluated.
    """
    if any(getattr(d, "id", None) not in _METHODS for d in function.decorator_list):
        raise UnknownError("a decorator may change the signature")
    names = _names(module)

    def evaluate(node: ast.expr) -> Any:
        try:
            return _evaluated(node, names)
        except UnknownError:
            if strict:
                raise
            return ast.unparse(node)

    parameters = [*_parameters(function.args, evaluate)]
    result = inspect.Signature.empty if function.returns is None else evaluate(function.returns)
    stub = _stub(inspect.Signature(parameters[1:] if is_bound else parameters), names, result)
    stub.__doc__ = ast.get_docstring(function)
    return Signature.of(stub)


_METHODS = {"staticmethod", "classmethod"}


def _stub(signature: inspect.Signature, names: dict[str, Any], result: Any) -> Callable[..., Any]:
    stub = eval("lambda: None", names)  # its globals evaluate annotations that are text
    vars(stub)["__signature__"] = signature.replace(return_annotation=result)
    return stub  # type: ignore[no-any-return]


def _parameters(
    given: ast.arguments, evaluate: Callable[[ast.expr], Any]
) -> Iterator[inspect.Parameter]:
    kind = inspect.Parameter

    def one(argument: ast.arg, which: Any, value: ast.expr | None) -> inspect.Parameter:
        hint = kind.empty if argument.annotation is None else evaluate(argument.annotation)
        default = kind.empty if value is None else _default(value, evaluate)
        return kind(argument.arg, which, default=default, annotation=hint)

    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults]
    for index, (argument, value) in enumerate(zip(positional, defaults, strict=True)):
        is_only = index < len(given.posonlyargs)
        yield one(argument, kind.POSITIONAL_ONLY if is_only else kind.POSITIONAL_OR_KEYWORD, value)
    if given.vararg:
        yield kind(given.vararg.arg, kind.VAR_POSITIONAL)
    for argument, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield one(argument, kind.KEYWORD_ONLY, value)
    if given.kwarg:
        yield kind(given.kwarg.arg, kind.VAR_KEYWORD)


def _default(value: ast.expr, evaluate: Callable[[ast.expr], Any]) -> Any:
    try:
        return evaluate(value)
    except UnknownError:
        return None


def _names(module: ast.Module) -> dict[str, Any]:
    """Returns what the names of a module mean, as far as it can be told."""
    names: dict[str, Any] = {"__builtins__": _BUILTINS, "__name__": "static"}
    for statement in module.body:
        try:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names.update(_imported(statement))
            elif isinstance(statement, ast.ClassDef):
                names[statement.name] = _class(statement, names)
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                names[statement.targets[0].id] = _evaluated(statement.value, names)
        except (UnknownError, ImportError):
            continue
    return names


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Any]]:
    for alias in statement.names:
        path = alias.name if isinstance(statement, ast.Import) else statement.module or ""
        is_relative = isinstance(statement, ast.ImportFrom) and statement.level > 0
        if path.partition(".")[0] not in _PACKAGES or is_relative:
            continue
        module = importlib.import_module(path)
        if isinstance(statement, ast.ImportFrom):
            if alias.name != "*" and not hasattr(module, alias.name):
                importlib.import_module(f"{path}.{alias.name}")
            if alias.name == "*":
                yield from ((name, getattr(module, name)) for name in module.__all__)
                continue
            yield alias.asname or alias.name, getattr(module, alias.name)
        elif alias.asname:
            yield alias.asname, module
        else:
            top = path.partition(".")[0]
            yield top, importlib.import_module(top)


def _class(statement: ast.ClassDef, names: dict[str, Any]) -> Any:
    """Builds a class of fields, without its methods."""
    kept: list[ast.stmt] = [
        each
        for each in statement.body
        if isinstance(each, ast.AnnAssign | ast.Assign)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
    ]
    parts = [*statement.bases, *statement.keywords, *statement.decorator_list, *kept]
    for part in parts:
        _require_plain(part)
    fields = ast.ClassDef(**{**vars(statement), "body": kept or [ast.Pass()]})
    code = ast.Module([ast.fix_missing_locations(fields)], [])
    _run(code, "exec", names)
    return names[statement.name]


def _evaluated(node: ast.expr, names: dict[str, Any]) -> Any:
    _require_plain(node)
    return _run(ast.Expression(node), "eval", names)


def _run(code: ast.Module | ast.Expression, mode: str, names: dict[str, Any]) -> Any:
    try:
        return eval(compile(code, "<annotation>", mode, dont_inherit=True), names)
    except Exception as error:
        raise UnknownError(f"{type(error).__name__}: {error}") from None


def _require_plain(node: ast.AST) -> None:
    """Checks that an evaluation calls nothing but what declares fields and tensors."""
    statements = (ast.AnnAssign, ast.Assign, ast.Expr)
    for each in ast.walk(node):
        called = each.func if isinstance(each, ast.Call) else None
        name = getattr(called, "attr", getattr(called, "id", None))
        if not isinstance(each, (*_PLAIN, *statements)) or (called and name not in _CALLS):
            raise UnknownError(f'"{ast.unparse(node)[:80]}" is more than a type')
