"""Reads a handler's signature from the syntax tree of its module, without running the module.

Annotations are evaluated with the names that the module imports from a few known packages, and
with its own classes, of which only the fields are built. So `handler/signature.py` derives the
same contract from the result as it does from the loaded function.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlserver_pyfunc.handler.signature import Signature

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_PACKAGES = {
    "PIL", "annotated_types", "collections", "dataclasses", "datetime", "enum", "jaxtyping",
    "decimal", "mlserver_pyfunc", "numpy", "pandas", "pandera", "pathlib", "polars", "pyarrow",
    "pydantic", "torch", "typing", "typing_extensions",
}  # fmt: skip
_CALLS = {
    "Columns", "Doc", "Field", "Ge", "Gt", "Interval", "Le", "Len", "Lt", "MaxLen", "MinLen",
    "NamedTuple", "NewType", "Tensor", "TypedDict", "dataclass", "field",
    # dtypes of NumPy, pandas, polars and pyarrow
    "BooleanDtype", "CategoricalDtype", "DatetimeTZDtype", "StringDtype", "dtype",
    *(f"{kind}{bits}Dtype" for kind in ("Int", "UInt", "Float") for bits in (8, 16, 32, 64)),
    "Categorical", "Datetime", "Decimal", "Enum",
    *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)),
    "binary", "bool_", "date32", "date64", "decimal128", "dictionary", "large_binary",
    "large_string", "string", "string_view", "timestamp",
}  # fmt: skip
_PLAIN = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Dict, ast.Constant, ast.BinOp,
    ast.BitOr, ast.UnaryOp, ast.USub, ast.keyword, ast.NamedExpr, ast.Load, ast.Store, ast.Call,
)  # fmt: skip
_METHODS = {"staticmethod", "classmethod"}
_BUILTINS = {
    name: getattr(builtins, name)
    for name in ("bool", "bytes", "dict", "float", "int", "list", "object", "set", "str", "tuple")
} | {"__build_class__": builtins.__build_class__}


def is_static(method: FunctionNode) -> bool:
    """Returns whether a function of a class is decorated as a static one."""
    return any(getattr(each, "id", "") == "staticmethod" for each in method.decorator_list)


def bound(statement: ast.stmt) -> set[str]:
    """Returns the names that a statement binds, but for those in its blocks."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    nodes = (node for target in targets for node in ast.walk(target))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


class UnknownError(Exception):
    """Only a run of the code can tell what a signature means."""


def signature_of(
    module: ast.Module, function: FunctionNode, *, is_bound: bool, strict: bool = True
) -> Signature:
    """Returns the signature of a function.

    `is_bound` leaves out the first parameter, as Python does for a method. If not `strict`, an
    annotation that cannot be evaluated stays text.

    Raises UnknownError if a decorator may change it, or an annotation cannot be evaluated.
    """
    if any(getattr(d, "id", None) not in _METHODS for d in function.decorator_list):
        raise UnknownError("a decorator may change the signature")
    with _module() as names:
        _learn(module.body, names)
        for each in module.body:
            if isinstance(each, ast.ClassDef) and function in each.body:
                _learn(each.body, names)
        return _signature(function, names, is_bound=is_bound, strict=strict)


def _signature(
    function: FunctionNode, names: dict[str, Any], *, is_bound: bool, strict: bool
) -> Signature:
    stub = ast.FunctionDef("stub", deepcopy(function.args), function.body[:1], [], function.returns)
    if not isinstance(stub.body[0], ast.Expr) or not isinstance(stub.body[0].value, ast.Constant):
        stub.body = [ast.Pass()]
    given = stub.args
    if is_bound and (positional := given.posonlyargs or given.args):
        del positional[0]
    given.defaults = [_known(each, names) or ast.Constant(None) for each in given.defaults]
    given.kw_defaults = [
        each and (_known(each, names) or ast.Constant(None)) for each in given.kw_defaults
    ]
    annotated: list[Any] = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    for holder, key in [(each, "annotation") for each in annotated] + [(stub, "returns")]:
        hint = getattr(holder, key)
        if hint is not None and _known(hint, names) is None:
            if strict:
                _evaluated(hint, names)
            setattr(holder, key, ast.Constant(ast.unparse(hint)))
    _run(ast.Module([ast.fix_missing_locations(stub)], []), "exec", names)
    from mlserver_pyfunc.handler.signature import Signature

    return Signature.of(names["stub"])


def _known(node: ast.expr, names: dict[str, Any]) -> ast.expr | None:
    """Returns an expression if it can be evaluated, else None."""
    try:
        _evaluated(node, names)
    except UnknownError:
        return None
    return node


@contextmanager
def _module() -> Iterator[dict[str, Any]]:
    """Makes a module for what is evaluated, where classes look for the names of their fields."""
    module = ModuleType("static")
    module.__name__ = f"static_{id(module)}"
    vars(module)["__builtins__"] = _BUILTINS
    sys.modules[module.__name__] = module
    try:
        yield vars(module)
    finally:
        del sys.modules[module.__name__]


def _learn(body: list[ast.stmt], names: dict[str, Any]) -> None:
    """Adds what the names that statements define mean, as far as it can be told."""
    for statement in body:
        try:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names.update(_imported(statement))
            elif isinstance(statement, ast.ClassDef):
                # Without its methods: a class of fields and of classes such.
                code = ast.Module([ast.fix_missing_locations(_fields(statement))], [])
                _run(code, "exec", names)
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                names[statement.targets[0].id] = _evaluated(statement.value, names)
        except (UnknownError, ImportError):
            continue


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


def _fields(statement: ast.ClassDef) -> ast.ClassDef:
    kept: list[ast.stmt] = []
    for each in statement.body:
        is_doc = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        if isinstance(each, ast.ClassDef):
            kept.append(_fields(each))
        elif isinstance(each, ast.AnnAssign | ast.Assign) or is_doc:
            kept.append(each)
            _require_plain(each)
    for part in (*statement.bases, *statement.keywords, *statement.decorator_list):
        _require_plain(part)
    return ast.ClassDef(**{**vars(statement), "body": kept or [ast.Pass()]})


def _evaluated(node: ast.expr, names: dict[str, Any]) -> Any:
    _require_plain(node)
    return _run(ast.Expression(node), "eval", names)


def _run(code: ast.Module | ast.Expression, mode: str, names: dict[str, Any]) -> Any:
    try:
        return eval(compile(code, "<annotation>", mode, dont_inherit=True), names)
    except Exception as error:
        raise UnknownError(f"{type(error).__name__}: {error}") from None


def _require_plain(node: ast.AST) -> None:
    """Checks that an evaluation calls nothing but what declares fields and tensors.

    Text is checked too: it may be an annotation, which is evaluated later.
    """
    statements = (ast.AnnAssign, ast.Assign, ast.Expr)
    for each in ast.walk(node):
        called = each.func if isinstance(each, ast.Call) else None
        name = getattr(called, "attr", getattr(called, "id", None))
        if not isinstance(each, (*_PLAIN, *statements)) or (called and name not in _CALLS):
            raise UnknownError(f'"{ast.unparse(node)[:80]}" is more than a type')
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            with suppress(SyntaxError, ValueError):
                _require_plain(ast.parse(each.value, mode="eval").body)
