"""The mutants of a module: one small change each, to the code of one function.

Texts are left as they are: a changed word of an error message says nothing about the tests.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
Change = Callable[[Any], ast.AST]
"""Changes a copy of a node, or returns another node in its place."""

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}

# Where the other operator moves a bound by one, this moves it by one the other way.
_OTHER_WAY: dict[type[ast.AST], type[ast.operator]] = {
    ast.Gt: ast.Add,
    ast.LtE: ast.Add,
    ast.Lt: ast.Sub,
    ast.GtE: ast.Sub,
}
_RENAMED = {"all": "any", "any": "all", "min": "max", "max": "min"}
_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True)
class Mutant:
    """A change of one function.

    Attributes:
        path: File of the module, relative to the repository.
        function: Qualified name of the function.
        lines: First and last line of the statement that is changed, without its body.
        change: The changed expression or statement, before and after.
        code: Compiled function.
    """

    path: str
    function: str
    lines: tuple[int, int]
    change: str
    code: CodeType

    @property
    def key(self) -> str:
        """What `equal.txt` knows it by. Line numbers would be out of date soon."""
        return f"{self.path} | {self.function} | {self.change}"


def mutants_of(root: Path, path: str) -> Iterator[Mutant]:
    """Yields the mutants of all functions and methods of a module."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    for name, function in _functions(tree, ""):
        for statement in _statements(function.body):
            for node, change in _changes(statement):
                text, code = _compiled(tree, root / path, function, node, change)
                yield Mutant(path, name, _lines(statement), text, code)


def _functions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in parent.body:
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _statements(body: list[Any]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.stmt) and not isinstance(statement, Function):
            yield statement
        for name in _BODIES:
            yield from _statements(getattr(statement, name, []))


def _lines(statement: ast.stmt) -> tuple[int, int]:
    inner = [
        each.lineno
        for name in _BODIES
        for each in getattr(statement, name, [])[:1]
        if hasattr(each, "lineno")
    ]
    last = min(inner) - 1 if inner else statement.end_lineno or statement.lineno
    return statement.lineno, max(last, statement.lineno)


def _compiled(
    tree: ast.Module, path: Path, function: Function, node: ast.AST, change: Change
) -> tuple[str, CodeType]:
    before = ast.unparse(node)
    memo: dict[int, Any] = {}
    changed_tree = copy.deepcopy(tree, memo)
    old = memo[id(node)]
    new = change(old)
    if new is not old:
        _Replacement(old, ast.copy_location(new, old)).visit(changed_tree)
    ast.fix_missing_locations(changed_tree)
    code = compile(changed_tree, str(path), "exec", dont_inherit=True)
    # The first line of a compiled function is that of its first decorator.
    line = min([function.lineno, *(each.lineno for each in function.decorator_list)])
    return f"{before} => {ast.unparse(new)}", _code_at(code, function.name, line)


def _code_at(code: CodeType, name: str, line: int) -> CodeType:
    waiting = [code]
    while waiting:
        found = waiting.pop()
        if (found.co_name, found.co_firstlineno) == (name, line):
            return found
        waiting += [each for each in found.co_consts if isinstance(each, CodeType)]
    raise LookupError(f"{name} in line {line}")


class _Replacement(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old else self.generic_visit(node)


def _changes(statement: ast.stmt) -> Iterator[tuple[ast.AST, Change]]:
    for change in _changes_of_statement(statement):
        yield statement, change
    if isinstance(statement, ast.If | ast.While):
        yield statement.test, lambda _: ast.Constant(False)
    if isinstance(statement, ast.If):
        yield statement.test, lambda _: ast.Constant(True)
    for node in _expressions(statement):
        for change in _changes_of_expression(node):
            yield node, change


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yields the expressions of a statement, without the statements in it and annotations."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if node is not statement:
            yield node
        for name, value in ast.iter_fields(node):
            if (node is statement and name in _BODIES) or name in ("annotation", "format_spec"):
                continue
            children = value if isinstance(value, list) else [value]
            waiting += [
                each
                for each in children
                if isinstance(each, ast.expr | ast.comprehension | ast.keyword | ast.withitem)
            ]


def _changes_of_statement(statement: ast.stmt) -> Iterator[Change]:
    match statement:
        case (
            ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete()
        ):
            yield lambda _: ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield lambda _: ast.Pass()
        case ast.Return(value=ast.Constant(value=None)) | ast.Return(value=None):
            return
        case ast.Return():
            yield lambda _: ast.Return(ast.Constant(None))
        case ast.Continue():
            yield lambda _: ast.Break()
        case ast.Break():
            yield lambda _: ast.Continue()


def _changes_of_expression(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                yield _with("ops", _SWAPPED[type(operator)](), index)
                if other := _OTHER_WAY.get(type(operator)):
                    bound = ast.BinOp(node.comparators[index], other(), ast.Constant(1))
                    yield _with("comparators", bound, index)
        case ast.BoolOp(op=operator):
            yield _with("op", _SWAPPED[type(operator)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield lambda copied: copied.operand
        case ast.BinOp(op=operator) if type(operator) in _SWAPPED:
            yield _with("op", _SWAPPED[type(operator)]())
        case ast.Constant(value=bool() as value):
            yield _with("value", not value)
        case ast.Constant(value=int() as value):
            yield _with("value", value + 1)
            if value > 1:
                yield _with("value", value - 1)
        case ast.IfExp():
            yield _with("test", ast.Constant(True))
            yield _with("test", ast.Constant(False))
        case ast.comprehension(ifs=[_, *_]):
            yield _with("ifs", [])
        case ast.Call(func=ast.Name(id=name)) if name in _RENAMED:
            yield _with("func", ast.Name(_RENAMED[name], ast.Load()))
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _RENAMED:
            yield _with("func", ast.Attribute(value, _RENAMED[name], ast.Load()))
        case ast.Slice(lower=lower, upper=upper):
            for side, bound in (("lower", lower), ("upper", upper)):
                if bound is not None and not isinstance(bound, ast.Constant):
                    yield _with(side, ast.BinOp(bound, ast.Add(), ast.Constant(1)))


def _with(field: str, value: Any, index: int | None = None) -> Change:
    def change(copied: Any) -> ast.AST:
        if index is None:
            setattr(copied, field, value)
        else:
            getattr(copied, field)[index] = value
        return copied  # type: ignore[no-any-return]

    return change
