"""Source tree to module objects, isolated per load of a function.

Each load gets a package of its own, `_pyfunc_<n>_<model>`, whose path is the source
tree. Its modules carry an `__import__` of their own that looks into that package first,
so absolute imports of siblings work, at any time, and no two functions, versions or
reloads ever see each other's modules. Nothing is added to `sys.path`.

Needs only the standard library.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import linecache
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
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


class FunctionPackage:
    """A function's modules in this process, from import to `close`.

    Args:
        model_name: For the package's name, which tracebacks show.
        root: The source tree's folder.
        inline: Source text by module name; such a module hides a file of the same name.
    """

    def __init__(self, model_name: str, root: Path, inline: Mapping[str, str]) -> None:
        self.name = f"{PREFIX}{next(_serial)}_{re.sub(r'[^0-9a-zA-Z_]', '_', model_name)}"
        self._finder = _TreeFinder(self.name, root, inline)

    def load(self, module: str) -> ModuleType:
        """Imports a module of the tree by its dotted path.

        Raises:
            ModuleNotFoundError: The tree has no such module.
            ImportError: It has a module of this package's own name.
            BaseException: Whatever its code raises.
        """
        if self._finder.is_sibling(PACKAGE):
            raise ImportError(
                f'the source has a module "{PACKAGE}", which hides the runtime: rename it'
            )
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)
            sibling_aliases.add(self.name, self._finder.is_sibling)
        return importlib.import_module(f"{self.name}.{module}")

    def close(self) -> None:
        """Forgets the modules. What still holds them, a call in flight, keeps working."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
            sibling_aliases.remove(self.name)
        for name in [n for n in sys.modules if n == self.name or n.startswith(f"{self.name}.")]:
            del sys.modules[name]
        for filename in self._finder.inline_files:
            linecache.cache.pop(filename, None)


class _TreeFinder(MetaPathFinder):
    """Finds the modules of one function's package, and of no other."""

    def __init__(self, package: str, root: Path, inline: Mapping[str, str]) -> None:
        self._package = package
        self._root = root
        self._inline = {f"{package}.{name}": code for name, code in inline.items()}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._siblings: dict[str, bool] = {}
        self.inline_files: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._package:
            return self._package_spec()
        if not fullname.startswith(f"{self._package}."):
            return None
        if fullname in self._inline:
            return self._inline_spec(fullname)
        if any(name.startswith(f"{fullname}.") for name in self._inline):
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [
                str(Path(entry, fullname.rpartition(".")[2])) for entry in path or ()
            ]
            return spec
        return self._file_spec(fullname, path or ())

    def _package_spec(self) -> ModuleSpec | None:
        init = self._root / "__init__.py"
        locations = [str(self._root)]
        if not init.is_file():
            spec = ModuleSpec(self._package, None, is_package=True)
            spec.submodule_search_locations = locations
            return spec
        loader = _FileLoader(self._package, str(init), self._builtins)
        return spec_from_file_location(
            self._package, init, loader=loader, submodule_search_locations=locations
        )

    def _inline_spec(self, fullname: str) -> ModuleSpec | None:
        code = self._inline[fullname]
        filename = f"<{fullname.removeprefix(f'{self._package}.')} of {self._package}>"
        # A traceback shows inline lines only if linecache knows them.
        linecache.cache[filename] = (len(code), None, code.splitlines(True), filename)
        self.inline_files.append(filename)
        return spec_from_loader(fullname, _TextLoader(filename, code, self._builtins))

    def _file_spec(self, fullname: str, path: Sequence[str]) -> ModuleSpec | None:
        loader = cast("type[_FileLoader]", partial(_FileLoader, namespace=self._builtins))
        for entry in path:
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
        """Imports as the statement does, but siblings before anything installed."""
        top = name.partition(".")[0]
        if level or not self.is_sibling(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if isinstance(fromlist, list):
            # Pickle, written in C, imports so and then looks in sys.modules: for an alias.
            return importlib.import_module(name)
        inside = f"{self._package}.{name}"
        module = builtins.__import__(inside, globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{self._package}.{top}"]

    def is_sibling(self, top: str) -> bool:
        """Whether an absolute import of a name finds a module of the tree."""
        known = self._siblings.get(top)
        if known is None:
            known = self._siblings[top] = self._has_module(top)
        return known

    def _has_module(self, top: str) -> bool:
        fullname = f"{self._package}.{top}"
        if fullname in self._inline:
            return True
        if top in sys.builtin_module_names:
            return False
        spec = self._file_spec(fullname, [str(self._root)])
        if spec is not None and spec.origin and Path(spec.origin).parent.resolve() == _OURS:
            return False  # a clone of the runtime's own repository
        if spec is None:
            return any(name.startswith(f"{fullname}.") for name in self._inline)
        # A folder without __init__.py comes after anything installed, as in Python itself.
        return spec.loader is not None or not _is_installed(top)


_OURS = Path(__file__).resolve().parents[1]


def _is_installed(top: str) -> bool:
    # An alias stands for siblings alone, and its finder would ask here again.
    if top in sys.modules:
        return not sibling_aliases.is_alias(sys.modules[top])
    finders = [finder for finder in sys.meta_path if finder is not sibling_aliases.finder]
    try:
        return any(finder.find_spec(top, None) is not None for finder in finders)
    except (AttributeError, ImportError, ValueError):
        return False


class _TextLoader(SourceLoader):
    """Compiles source text, never cached bytecode: a reload must run the new code."""

    def __init__(self, filename: str, code: str, namespace: dict[str, Any]) -> None:
        self._filename = filename
        self._code = code
        self._builtins = namespace

    def get_filename(self, fullname: str) -> str:
        return self._filename

    def get_data(self, path: str) -> bytes:
        return self._code.encode()

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._builtins
        super().exec_module(module)


class _FileLoader(_TextLoader):
    """As `_TextLoader`, from a file."""

    def __init__(self, fullname: str, filename: str, namespace: dict[str, Any]) -> None:
        super().__init__(filename, "", namespace)
        self.name = fullname
        self.path = filename

    def get_data(self, path: str) -> bytes:
        return Path(path).read_bytes()
