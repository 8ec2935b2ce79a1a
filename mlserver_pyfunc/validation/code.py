"""Checks the code by its syntax tree, without importing or running it."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.static import (
    FunctionNode,
    UnknownError,
    bound,
    is_static,
    signature_of,
)
from mlserver_pyfunc.errors import BindError, DefinitionError
from mlserver_pyfunc.handler.resolver import CONTEXT_NAMES, with_context
from mlserver_pyfunc.handler.shadowing import PACKAGE
from mlserver_pyfunc.protocol.names import parameter_name
from mlserver_pyfunc.sources import SourceTree

from .document import Document
from .findings import Finding

_HERE = {*sys.stdlib_module_names, "__main__", "numpy", PACKAGE}
_WHOLE_REQUEST = {"inputs", "request", "event"}
_READERS = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "read_csv", "read_parquet"}


@dataclass(frozen=True)
class Module:
    """A parsed module. Inline code has lines of the file `before` it, and columns of its own."""

    file: Path
    tree: ast.Module
    before: int | None = None

    def finding(self, rule: str, message: str, node: Any) -> Finding:
        """Makes a finding about a part of the code; about the first line of a longer one."""
        line = (self.before or 0) + node.lineno
        if self.before is not None:
            return Finding(rule, message, self.file, line)
        end = node.end_col_offset + 1 if node.end_lineno == node.lineno else 0
        return Finding(rule, message, self.file, line, node.col_offset + 1, end)


Found = tuple[Module, FunctionNode, bool]
"""A function that was found, and whether its first parameter is bound."""


class _AbsentError(Exception):
    """A finding, its only argument, ends the search for a callable."""


def check(
    definition: FunctionDefinition, tree: SourceTree, document: Document, keys: Sequence[str]
) -> Iterator[Finding]:
    """Checks the functions that a definition names, and the modules that they are in."""
    search = _Search(tree, document, keys)
    modules = {}
    for role in ("handler", "init_function", "unload_function"):
        path = getattr(definition.source, role)
        if path is None:
            continue
        try:
            found = search.find(role, path)
        except _AbsentError as absent:
            yield absent.args[0]
            continue
        if found is None:
            if role == "handler" and not {"inputs", "outputs"} <= set(definition.written):
                message = f'only a run can tell the tensors of the handler: what "{path}" is'
                yield document.finding("C409", message, [*keys, role])
            continue
        module, function, is_bound = found
        modules[module.file] = module
        if role != "handler":
            findings = _context_mismatches(definition, function, path, is_bound=is_bound)
        elif not is_bound and [each.arg for each in function.args.args[:1]] == ["self"]:
            message = (
                f'"{path}" is a function of no class, so nothing is passed as "self": remove it'
            )
            yield module.finding("C412", message, function.args.args[0])
            continue
        else:
            findings = _handler_mismatches(definition, module.tree, function, is_bound=is_bound)
        yield from (module.finding(rule, message, function) for rule, message in findings)
    for module in modules.values():
        for rule, message, node in _habits(definition, tree.root, module.tree):
            yield module.finding(rule, message, node)


class _Search:
    """Finds callables in a source tree by their paths, as the loader does."""

    def __init__(self, tree: SourceTree, document: Document, keys: Sequence[str]) -> None:
        self._tree = tree
        self._document = document
        self._keys = keys

    def find(self, role: str, path: str) -> Found | None:
        """Returns the function's syntax tree; None if only a run of the code could tell."""
        name, separator, dotted = path.rpartition(":")
        module_name = name if separator else self._tree.module
        if module_name is None:
            message = f'"{path}" names no module, expected "module.path:callable" '
            raise self._absent("C402", role, f"{message}if the source is a folder")
        module = self._module(module_name)
        if module is None:
            message = f'the source has no module "{module_name}"{self._offers()}'
            raise self._absent("C402", role, message)
        return self._member(role, module, dotted.split("."))

    def _absent(self, rule: str, role: str, message: str) -> _AbsentError:
        location = [*self._keys, role]
        return _AbsentError(self._document.finding(rule, f"{role}: {message}", location))

    def _module(self, name: str) -> Module | None:
        if name in self._tree.inline:
            before = self._document.code_line([*self._keys, "code"])
            return _parsed(self._tree.inline[name], self._document.path, before)
        base = self._tree.root.joinpath(*name.split("."))
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return _parsed(file.read_text(encoding="utf-8", errors="replace"), file)
        return None

    def _offers(self) -> str:
        names = sorted(file.stem for file in self._tree.root.glob("*.py"))
        return f", it has {', '.join(names[:10])}" if names else ""

    def _member(self, role: str, module: Module, names: list[str]) -> Found | None:
        body: Sequence[ast.stmt] = module.tree.body
        for depth, name in enumerate(names):
            is_last = depth == len(names) - 1
            found = _definition_of(body, name)
            if found is None:
                if _may_have_more(body):
                    return None
                owner = ".".join(names[:depth]) or module.file.name
                message = f'{owner} has no "{name}"{_callables(body)}'
                raise self._absent("C403", role, message)
            if isinstance(found, ast.ClassDef):
                if is_last:
                    return _instance_call(role, module, found)
                if found.bases and _definition_of(found.body, names[depth + 1]) is None:
                    return None
                body = found.body
                continue
            if isinstance(found, FunctionNode):
                if not is_last:
                    message = f'"{name}" is a function, it has no "{names[depth + 1]}"'
                    raise self._absent("C403", role, message)
                return module, found, depth > 0 and not is_static(found)
            if isinstance(found, ast.Assign | ast.AnnAssign) and isinstance(
                found.value, ast.Constant | ast.List | ast.Dict | ast.Tuple | ast.Set
            ):
                message = f'{role}: "{name}" is not callable, it is a value'
                raise _AbsentError(module.finding("C404", message, found))
            return None
        return None


def _instance_call(role: str, module: Module, cls: ast.ClassDef) -> Found | None:
    call = _definition_of(cls.body, "__call__")
    if isinstance(call, FunctionNode):
        return module, call, True
    if cls.bases or cls.keywords or role != "handler":
        return None
    message = f'{role}: instances of "{cls.name}" are not callable, it has no __call__'
    raise _AbsentError(module.finding("C404", message, cls))


def _parsed(text: str, file: Path, before: int | None = None) -> Module:
    try:
        return Module(file, ast.parse(text), before)
    except (SyntaxError, ValueError) as error:
        line = (before or 0) + (getattr(error, "lineno", None) or 1)
        column = (getattr(error, "offset", None) or 0) if before is None else 0
        message = f"syntax error: {getattr(error, 'msg', error)}"
        raise _AbsentError(Finding("C401", message, file, line, column)) from None


def _definition_of(body: Sequence[ast.stmt], name: str) -> ast.stmt | None:
    """Returns the statement that binds a name at this level, or in an if, try or with there.

    Functions and classes win over values: a value is often the fallback of a failed import.
    """
    bindings = list(_bindings(body, name))
    code = [found for found in bindings if isinstance(found, FunctionNode | ast.ClassDef)]
    return (code or bindings or [None])[-1]


def _bindings(body: Sequence[ast.stmt], name: str) -> Iterator[ast.stmt]:
    for statement in body:
        if name in bound(statement):
            yield statement
        if isinstance(statement, FunctionNode | ast.ClassDef):
            continue
        for block in ("body", "orelse", "finalbody"):
            yield from _bindings(getattr(statement, block, ()), name)
        for handler in getattr(statement, "handlers", ()):
            yield from _bindings(handler.body, name)


def _may_have_more(body: Sequence[ast.stmt]) -> bool:
    """Whether the code may define names that its syntax tree does not show."""
    return any(
        (isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*")
        or (isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__")
        or (isinstance(statement, ast.Expr) and "globals" in ast.dump(statement))
        for statement in body
    )


def _callables(body: Sequence[ast.stmt]) -> str:
    names = [
        statement.name
        for statement in body
        if isinstance(statement, FunctionNode | ast.ClassDef) and not statement.name.startswith("_")
    ]
    return f", it has {', '.join(names[:10])}" if names else ""


def _handler_mismatches(
    definition: FunctionDefinition, module: ast.Module, function: FunctionNode, *, is_bound: bool
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each mismatch between a handler's parameters and the inputs."""
    is_written = {"inputs", "outputs"} <= set(definition.written)
    named = {parameter_name(tensor.name) for tensor in definition.inputs}
    if is_written and _plain_names(function, is_bound=is_bound) - {"context"} == named:
        return
    # Imported here, since they bring NumPy, which takes as long as all else.
    from mlserver_pyfunc.definition.derived import with_signature
    from mlserver_pyfunc.handler.binding import bind

    try:
        signature = signature_of(module, function, is_bound=is_bound, strict=not is_written)
    except UnknownError as error:
        if not is_written:
            yield "C409", f"only a run can tell the tensors of the handler: {error}"
        return
    try:
        specs = [tensor.spec for tensor in with_signature(definition, signature).inputs]
        plan = bind(lambda: None, specs, signature=signature)
    except (BindError, DefinitionError) as error:
        yield "C405", str(error)
        return
    names = set(signature.parameters)
    if plan.spread or names & _WHOLE_REQUEST or plan.positional:
        return
    for spec in specs:
        if spec.name not in plan.taken:
            yield "C407", f'input "{spec.name}" reaches no parameter of the handler'


def _context_mismatches(
    definition: FunctionDefinition, function: FunctionNode, path: str, *, is_bound: bool
) -> Iterator[tuple[str, str]]:
    """Yields rule and message of each parameter that an init or unload function cannot get."""
    given = set(definition.init_parameters)
    if given <= _plain_names(function, is_bound=is_bound) <= given | CONTEXT_NAMES:
        return
    try:
        signature = signature_of(ast.Module([], []), function, is_bound=is_bound, strict=False)
    except UnknownError:
        return
    name = path.rpartition(":")[2]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in definition.init_parameters:
        near = difflib.get_close_matches(key, signature.parameters, n=1, cutoff=0.75)
        if near and near[0] not in definition.init_parameters and not takes_all:
            message = f'init_parameters: "{key}" is no parameter of "{name}"'
            yield "C408", f'{message}, did you mean "{near[0]}"?'
    try:
        parameters = inspect.Signature([*signature.parameters.values()])
        with_context(name, parameters, definition.init_parameters, None)
    except BindError as error:
        yield "C406", str(error)


def _plain_names(function: FunctionNode, *, is_bound: bool) -> set[str]:
    """Returns the parameters of a function that has no others than required, unannotated ones."""
    given = function.args
    special = [given.posonlyargs, given.kwonlyargs, given.defaults, function.decorator_list]
    if any((*special, given.vararg, given.kwarg, *(each.annotation for each in given.args))):
        return {""}
    return {each.arg for each in given.args[is_bound:]}


def _habits(
    definition: FunctionDefinition, root: Path, module: ast.Module
) -> Iterator[tuple[str, str, ast.AST]]:
    for node in _unconditional(module):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names} - _HERE
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {str(node.module).partition(".")[0]} - _HERE
        else:
            continue
        for name in sorted(names):
            is_beside = (root / name).is_dir() or any(root.glob(f"{name}.*"))
            if not is_beside and _is_absent(name, definition):
                message = f'no package "{name}" is installed here: name its package in requirements'
                yield "C410", message, node
    for call in ast.walk(module):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        reader = getattr(call.func, "id", "") or getattr(call.func, "attr", "")
        path = getattr(call.args[0], "value", None)
        if reader in _READERS and isinstance(path, str) and os.path.isfile(root / path):
            message = (
                f'"{path}" is beside the code, but is looked for in the working directory: '
                f'open context.source_dir / "{path}"'
            )
            yield "C411", message, call.args[0]


def _is_absent(name: str, definition: FunctionDefinition) -> bool:
    """Whether it is certain that a package is not installed where the function runs."""
    from mlserver_pyfunc.environments.environment import unmet_needs

    if unmet_needs(definition):
        # The function gets an environment of its own: a requirement may bring any package along.
        return not definition.requirements
    return find_spec(name) is None


def _unconditional(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the parts of the code but those that may be there for another environment."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try | ast.If):
            yield child
            yield from _unconditional(child)
