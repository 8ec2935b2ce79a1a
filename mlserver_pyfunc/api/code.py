"""Writes a module of a function that a notebook's cell or a script defines.

It has the source of the function and of the global names that it uses: imports, functions, classes,
aliases of types, and plain constants. Anything else is an error that names it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
import sys
import sysconfig
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mlserver_pyfunc.definition.static import bound
from mlserver_pyfunc.errors import DefinitionError

_MAIN = "__main__"


def source_of(predict: Callable[..., Any], source: str | Path | None) -> tuple[str, dict[str, str]]:
    """Returns the text of the function's module, and its `source` in the definition.

    Raises:
        DefinitionError: A global cannot be written as source. The message names it.
    """
    name, module = predict.__qualname__, predict.__module__
    if source is not None:
        return "", {"source": str(Path(source).resolve()), "handler": name}
    file = getattr(sys.modules.get(module), "__file__", None)
    of_code = getattr(getattr(predict, "__code__", None), "co_filename", file)
    if module == "__main__" or file is None or of_code != file:
        return _Module(predict).text(), {"source": "model.py", "handler": name}
    if _is_installed(Path(file)):
        return f"from {module} import {name}\n", {"source": "model.py", "handler": name}
    depth = module.count(".") + (Path(file).name == "__init__.py")
    if not depth:
        return "", {"source": str(Path(file).resolve()), "handler": name}
    root = Path(file).resolve().parents[depth]
    return "", {"source": str(root), "handler": f"{module}:{name}"}


def _is_installed(file: Path) -> bool:
    paths = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
    return any(file.resolve().is_relative_to(Path(path).resolve()) for path in paths)


class _Module:
    def __init__(self, function: Any) -> None:
        self._name = function.__name__
        self._module = function.__module__
        own = getattr(inspect.unwrap(function), "__globals__", vars(sys.modules[_MAIN]))
        self._globals = {**own, self._name: function}
        self._imports: dict[str, None] = {}
        self._texts: list[str] = []
        self._known: set[str] = set()
        if self._name == "<lambda>":
            raise DefinitionError("expected a function with a name, got a lambda: define it by def")
        inner = getattr(inspect.unwrap(function), "__closure__", None)
        if inner or "<locals>" in function.__qualname__:
            raise self._failure(self._name, "is defined inside another function")
        self._add(self._name)

    def text(self) -> str:
        imports = "".join(f"{line}\n" for line in sorted(self._imports))
        return "\n\n".join(filter(None, [imports, *self._texts]))

    def _add(self, name: str) -> None:
        """Adds what a global name stands for, after all that it uses itself."""
        if name in self._known or name not in self._globals:
            return
        self._known.add(name)
        value = self._globals[name]
        if isinstance(value, ModuleType):
            alias = "" if name == value.__name__.partition(".")[0] else f" as {name}"
            self._imports[f"import {value.__name__}{alias}"] = None
        elif getattr(value, "__module__", None) == self._module and hasattr(value, "__name__"):
            self._add_source(value.__name__, name)
        elif _is_plain(value):
            self._texts.append(f"{name} = {value!r}\n")
        elif found := _offered(name, value):
            module, original = found
            alias = "" if name == original else f" as {name}"
            self._imports[f"from {module} import {original}{alias}"] = None
        elif typing.get_origin(value) is not None:
            self._add_source(name, name)
        else:
            raise self._failure(name, f"is a {type(value).__name__}")

    def _add_source(self, name: str, alias: str) -> None:
        source = _source(name, self._globals[alias])
        if source is None:
            raise self._failure(alias, "has no source")
        tree = ast.parse(source)
        for used in _globals_of(source):
            self._add(used)
        # `import scipy` alone does not import scipy.stats, which the notebook did.
        for node in ast.walk(tree):
            self._add_submodules(node)
        self._texts.append(source + "\n")
        if alias != name:
            self._texts.append(f"{alias} = {name}\n")

    def _add_submodules(self, node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            names = ast.unparse(node).split(".")
            value = self._globals.get(names[0])
            for name in names[1:]:
                value = getattr(value, name, None) if isinstance(value, ModuleType) else None
                if isinstance(value, ModuleType) and value.__name__ in sys.modules:
                    self._imports[f"import {value.__name__}"] = None

    def _failure(self, name: str, what: str) -> DefinitionError:
        return DefinitionError(
            f'function "{self._name}": "{name}" {what}, and cannot be written as source: make it '
            "in the function or in an init_function, or put the code into a file and give its path "
            'by source="model.py"'
        )


def _is_plain(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return False


def _offered(name: str, value: Any) -> tuple[str, str] | None:
    """Finds the module that offers an object, and its name there."""
    names = dict.fromkeys([name, getattr(value, "__name__", name)])
    own = sys.modules.get(home := getattr(value, "__module__", None) or "")
    root = sys.modules.get(home.partition(".")[0])
    others = [
        module
        for key, module in sys.modules.items()
        if "._" not in key and isinstance(module, ModuleType) and module.__name__ != _MAIN
    ]
    # A module of the standard library rather than one that happens to import from it.
    others.sort(key=_is_far)
    for module in filter(None, (root, own, *others)):
        for each in names:
            # A package may offer a name that it imports only now.
            offered = getattr(module, each, None) if module is root else vars(module).get(each)
            if offered is value:
                return module.__name__, each
    return None


def _is_far(module: ModuleType) -> tuple[bool, int]:
    name = module.__name__
    return name.partition(".")[0] not in sys.stdlib_module_names, name.count(".")


def _source(name: str, value: Any) -> str | None:
    """Returns the statement of a cell or script that last defined a name."""
    code = getattr(inspect.unwrap(value), "__code__", None)
    own = [linecache.getlines(code.co_filename)] if code else []
    for lines in (*own, *_files()):
        source = "".join(lines)
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        for node in reversed(body):
            if name in bound(node):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
                return "".join(lines[first - 1 : node.end_lineno]).rstrip()
    return None


def _files() -> Iterator[list[str]]:
    """Yields the lines of the cells that ran, the last one first, and of the script."""
    # IPython keeps the text of each cell where Python looks for that of a file.
    for name in reversed(list(linecache.cache)):
        if "ipykernel_" in name or "<ipython-input" in name or "<doctest" in name:
            yield linecache.getlines(name)
    script = getattr(sys.modules[_MAIN], "__file__", None)
    if script:
        yield linecache.getlines(script)


def _globals_of(source: str) -> list[str]:
    found: dict[str, None] = {}

    def look(table: symtable.SymbolTable, *, is_top: bool) -> None:
        for symbol in table.get_symbols():
            if symbol.is_global() or (is_top and symbol.is_referenced()):
                found[symbol.get_name()] = None
        for child in table.get_children():
            look(child, is_top=False)

    look(symtable.symtable(source, "cell", "exec"), is_top=True)
    return [name for name in found if not hasattr(builtins, name)]
