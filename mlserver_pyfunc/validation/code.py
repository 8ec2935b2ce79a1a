"""Checks the code by its syntax tree, without importing or running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.static import FunctionNode
from mlserver_pyfunc.sources import SourceTree

from .document import Document
from .findings import Finding
from .signatures import context_mismatches, handler_mismatches


@dataclass(frozen=True)
class Module:
    """A parsed module."""

    file: Path
    tree: ast.Module
    before: int = 0


@dataclass(frozen=True)
class Found:
    """A function that was found."""

    module: Module
    function: FunctionNode
    is_bound: bool = False


class _AbsentError(Exception):
    """A finding that ends the search for a callable."""

    def __init__(self, rule: str, message: str, file: Path, line: int) -> None:
        super().__init__(message)
        self.finding = Finding(rule, message, file, line)


def check(
    definition: FunctionDefinition, tree: SourceTree, document: Document, keys: Sequence[str]
) -> Iterator[Finding]:
    """Checks the functions that a definition names."""
    search = _Search(tree, document, keys)
    source = definition.source
    roles = {
        "handler": source.handler,
        "init_function": source.init_function,
        "unload_function": source.unload_function,
    }
    for role, path in roles.items():
        if path is None:
            continue
        try:
            found = search.find(role, path)
        except _AbsentError as absent:
            yield absent.finding
            continue
        if found is None:
            if role == "handler" and not {"inputs", "outputs"} <= set(definition.written):
                message = f'only a run can tell the tensors of the handler: what "{path}" is'
                yield Finding("C409", message, document.path, document.line([*keys, role]))
            continue
        file, line = found.module.file, found.module.before + found.function.lineno
        function, is_bound = found.function, found.is_bound
        if role == "handler":
            findings = handler_mismatches(
                definition, found.module.tree, function, is_bound=is_bound
            )
        else:
            findings = context_mismatches(definition, function, path, file.parent, is_bound)
        yield from (Finding(rule, message, file, line) for rule, message in findings)


class _Search:
    """Finds callables in a source tree by their paths, as the loader does."""

    def __init__(self, tree: SourceTree, document: Document, keys: Sequence[str]) -> None:
        self._tree = tree
        self._document = document
        self._keys = keys

    def find(self, role: str, path: str) -> Found | None:
        """Returns the function's syntax tree; None if only a run of the code could tell."""
        name, separator, dotted = path.rpartition(":")
        line = self._document.line([*self._keys, role])
        module_name = name if separator else self._tree.module
        if module_name is None:
            message = (
                f'{role}: "{path}" names no module, expected "module.path:callable" '
                "if the source is a folder"
            )
            raise _AbsentError("C402", message, self._document.path, line)
        module = self._module(module_name)
        if module is None:
            message = f'{role}: the source has no module "{module_name}"{self._offers()}'
            raise _AbsentError("C402", message, self._document.path, line)
        return self._member(role, module, dotted.split("."), line)

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

    def _member(self, role: str, module: Module, names: list[str], line: int) -> Found | None:
        body: Sequence[ast.stmt] = module.tree.body
        for depth, name in enumerate(names):
            is_last = depth == len(names) - 1
            found = _definition_of(body, name)
            if found is None:
                if _may_have_more(body):
                    return None
                owner = ".".join(names[:depth]) or module.file.name
                message = f'{role}: {owner} has no "{name}"{_callables(body)}'
                raise _AbsentError("C403", message, self._document.path, line)
            if isinstance(found, ast.ClassDef):
                if is_last:
                    return self._instance_call(role, module, found, line)
                if found.bases and _definition_of(found.body, names[depth + 1]) is None:
                    return None
                body = found.body
                continue
            if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
                if not is_last:
                    message = f'{role}: "{name}" is a function, it has no "{names[depth + 1]}"'
                    raise _AbsentError("C403", message, self._document.path, line)
                return Found(module, found, depth > 0 and not _is_static(found))
            if isinstance(found, ast.Assign | ast.AnnAssign) and isinstance(
                found.value, ast.Constant | ast.List | ast.Dict | ast.Tuple | ast.Set
            ):
                message = f'{role}: "{name}" is not callable, it is a value'
                raise _AbsentError("C404", message, module.file, module.before + found.lineno)
            return None
        return None

    def _instance_call(
        self, role: str, module: Module, cls: ast.ClassDef, line: int
    ) -> Found | None:
        call = _definition_of(cls.body, "__call__")
        if isinstance(call, ast.FunctionDef | ast.AsyncFunctionDef):
            return Found(module, call, is_bound=True)
        if cls.bases or cls.keywords or role != "handler":
            return None
        message = f'{role}: instances of "{cls.name}" are not callable, it has no __call__'
        raise _AbsentError("C404", message, module.file, module.before + cls.lineno)


def _parsed(text: str, file: Path, before: int = 0) -> Module:
    try:
        return Module(file, ast.parse(text), before)
    except SyntaxError as error:
        message = f"syntax error: {error.msg}"
        raise _AbsentError("C401", message, file, before + (error.lineno or 1)) from None
    except ValueError as error:
        raise _AbsentError("C401", str(error), file, before + 1) from None


def _definition_of(body: Sequence[ast.stmt], name: str) -> ast.stmt | None:
    """Returns the statement that binds a name at this level, or in an if, try or with there.

    Functions and classes win over values: a value is often the fallback of a failed import.
    """
    bindings = list(_bindings(body, name))
    code = [found for found in bindings if isinstance(found, FunctionNode | ast.ClassDef)]
    return (code or bindings or [None])[-1]


def _bindings(body: Sequence[ast.stmt], name: str) -> Iterator[ast.stmt]:
    for statement in body:
        if name in _bound(statement):
            yield statement
        for inner in _blocks(statement):
            yield from _bindings(inner, name)


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    return {
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    }


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for field in ("body", "orelse", "finalbody"):
        block = getattr(statement, field, None)
        if isinstance(block, list):
            yield block
    for handler in getattr(statement, "handlers", ()):
        yield handler.body


def _may_have_more(body: Sequence[ast.stmt]) -> bool:
    """Whether the code may define names that its syntax tree does not show."""
    for statement in body:
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            return True
        if isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
            return True
        if isinstance(statement, ast.Expr) and "globals" in ast.dump(statement):
            return True
    return False


def _callables(body: Sequence[ast.stmt]) -> str:
    names = [
        statement.name
        for statement in body
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not statement.name.startswith("_")
    ]
    return f", it has {', '.join(names[:10])}" if names else ""


def _is_static(method: FunctionNode) -> bool:
    return any(
        getattr(decorator, "id", "") == "staticmethod" for decorator in method.decorator_list
    )
