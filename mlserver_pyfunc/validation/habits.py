"""Checks the code for what works on one machine only: imports and files."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.handler.shadowing import PACKAGE

_HERE = {*sys.stdlib_module_names, "__main__", "numpy", PACKAGE}
_READERS = {"open", "load", "loadtxt", "genfromtxt", "fromfile", "read_csv", "read_parquet"}


def check(
    definition: FunctionDefinition, root: Path, module: ast.Module
) -> Iterator[tuple[str, str, ast.AST]]:
    """Yields rule, message and place of each fault of a module."""
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
