"""Imports the modules of a source tree, isolated from those of all other functions.

Each load of a function makes a package of its own, `_pyfunc_<n>_<model>`, whose search path is
the source tree. Modules of this package import through their own `__import__`, which looks into
the package first. So absolute imports of siblings work at any time, and functions, versions and
reloads never see each other's modules. `sys.path` does not change. The design and
its limits are in docs/design/import-isolation.md.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import itertools
import linecache
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec
from importlib.util import spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from . import sibling_aliases
from .shadowing import PACKAGE

PREFIX = "_pyfunc_"
_serial = itertools.count(1)
_OUR_PARENT = Path(__file__).resolve().parents[1]


class FunctionPackage(MetaPathFinder):
    """The modules of one loaded function, from the first import to `close`: finds no others."""

    def __init__(self, model_name: str, root: Path, inline: Mapping[str, str]) -> None:
        self.name = f"{PREFIX}{next(_serial)}_{re.sub(r'[^0-9a-zA-Z_]', '_', model_name)}"
        self._root = root
        self._inline = {f"{self.name}.{name}": code for name, code in inline.items()}
        self._inline_files: list[str] = []
        # Whether an absolute import of a top-level name finds a module of the tree.
        self._is_sibling = functools.cache(self._has_module)
        # The import statement takes `__import__` from the `__builtins__` of its own module's
        # globals, and functions remember the builtins of the module that defined them.
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, module: str) -> ModuleType:
        """Imports a module of the source tree, and raises what its code raises."""
        if self._is_sibling(PACKAGE):
            raise ImportError(
                f'the source has a module "{PACKAGE}", which hides the runtime: rename it'
            )
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
            sibling_aliases.add(self.name, self._is_sibling)
        return importlib.import_module(f"{self.name}.{module}")

    def close(self) -> None:
        """Removes the modules from the interpreter. Calls in flight keep their references."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            sibling_aliases.remove(self.name)
        for name in [n for n in sys.modules if n == self.name or n.startswith(f"{self.name}.")]:
            del sys.modules[name]
        for filename in self._inline_files:
            linecache.cache.pop(filename, None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module of the package. The import system calls it."""
        if fullname == self.name:
            return self._package_spec()
        if not fullname.startswith(f"{self.name}."):
            return None
        if fullname in self._inline:
            return self._inline_spec(fullname)
        if any(name.startswith(f"{fullname}.") for name in self._inline):
            name = fullname.rpartition(".")[2]
            return _namespace_spec(fullname, [str(Path(entry, name)) for entry in path or ()])
        return self._file_spec(fullname, path or ())

    def _package_spec(self) -> ModuleSpec | None:
        init = self._root / "__init__.py"
        if not init.is_file():
            return _namespace_spec(self.name, [str(self._root)])
        loader = _Loader(self.name, str(init), self._builtins)
        return spec_from_file_location(
            self.name, init, loader=loader, submodule_search_locations=[str(self._root)]
        )

    def _inline_spec(self, fullname: str) -> ModuleSpec | None:
        code = self._inline[fullname]
        filename = f"<{fullname.removeprefix(f'{self.name}.')} of {self.name}>"
        # Tracebacks read source lines by linecache, which finds no file of this name. An entry
        # whose time is None is never checked against a file.
        linecache.cache[filename] = (len(code), None, code.splitlines(True), filename)
        self._inline_files.append(filename)
        return spec_from_loader(fullname, _Loader(fullname, filename, self._builtins, code))

    def _file_spec(self, fullname: str, path: Sequence[str]) -> ModuleSpec | None:
        loader = cast("type[_Loader]", functools.partial(_Loader, namespace=self._builtins))
        for entry in path:
            # A new finder each time: a finder keeps the listing of its folder, and notices a
            # new file only by the folder's modification time, which can be seconds coarse.
            finder = FileFinder(entry, (ExtensionFileLoader, EXTENSION_SUFFIXES), (loader, [".py"]))
            spec = finder.find_spec(fullname)
            if spec is not None:
                return spec
        return None

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Imports like the built-in `__import__`, but prefers siblings to installed modules."""
        top = name.partition(".")[0]
        if level or not self._is_sibling(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if isinstance(fromlist, list):
            # Not an import statement, but PyImport_Import, by which the C version of pickle
            # imports: it looks the name up in sys.modules, so leave an alias there.
            # https://docs.python.org/3/c-api/import.html#c.PyImport_Import
            return importlib.import_module(name)
        inside = f"{self.name}.{name}"
        module = builtins.__import__(inside, globals, locals, fromlist or (), 0)
        # `import a.b` binds `a`, `from a.b import c` reads c from `a.b`.
        return module if fromlist else sys.modules[f"{self.name}.{top}"]

    def _has_module(self, top: str) -> bool:
        fullname = f"{self.name}.{top}"
        if fullname in self._inline:
            return True
        if top in sys.builtin_module_names:
            return False
        spec = self._file_spec(fullname, [str(self._root)])
        if spec is None:
            return any(name.startswith(f"{fullname}.") for name in self._inline)
        if spec.origin and Path(spec.origin).parent.resolve() == _OUR_PARENT:
            return False  # the source tree is a clone of this package's own repository
        # A folder without __init__.py comes after installed modules, as in Python (PEP 420).
        return spec.loader is not None or not _is_installed(top)


def _is_installed(top: str) -> bool:
    # An alias stands for siblings only. Its finder would call `_has_module` and so this again.
    if top in sys.modules:
        return not sibling_aliases.is_alias(sys.modules[top])
    finders = [finder for finder in sys.meta_path if finder is not sibling_aliases.finder]
    try:
        return any(finder.find_spec(top, None) is not None for finder in finders)
    except (AttributeError, ImportError, ValueError):
        return False


def _namespace_spec(fullname: str, locations: list[str]) -> ModuleSpec:
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = locations
    return spec


class _Loader(SourceLoader):
    """Compiles a module from its file or from inline text, and gives it our builtins."""

    def __init__(
        self, fullname: str, path: str, namespace: dict[str, Any], code: str | None = None
    ) -> None:
        self.path = path
        self._builtins = namespace
        self._code = code

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return Path(path).read_bytes() if self._code is None else self._code.encode()

    def exec_module(self, module: ModuleType) -> None:
        # `exec` adds the usual builtins only to globals that have none.
        vars(module)["__builtins__"] = self._builtins
        super().exec_module(module)
