"""Siblings by their bare names for code that looks them up in `sys.modules`.

An import statement in a function's module finds siblings by itself. Pickle and
`importlib.import_module` do not run such a statement: a model pickled with a class of
`features.py` asks `sys.modules` for "features". What they find there is an alias, which
looks at whose code is asking and gives the attributes of that function's own module.

Needs only the standard library.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HasModule = Callable[[str], bool]


class _Alias(ModuleType):
    """Stands for the modules of one name in all functions that have one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name != "__all__":
            raise AttributeError(name)
        package = finder.calling_package(self.__name__)
        if package is None:
            raise AttributeError(
                f"module {self.__name__!r} belongs to a function, not to the caller"
            )
        return getattr(importlib.import_module(f"{package}.{self.__name__}"), name)


class _AliasLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _AliasFinder(MetaPathFinder):
    """The last to be asked: finds what nothing else does, for code of a function that has it."""

    def __init__(self) -> None:
        self._packages: dict[str, HasModule] = {}

    def add(self, package: str, has_module: HasModule) -> None:
        if not self._packages:
            sys.meta_path.append(self)
        self._packages[package] = has_module

    def remove(self, package: str) -> None:
        if self._packages.pop(package, None) is None or self._packages:
            return
        sys.meta_path.remove(self)
        for name in [n for n, module in sys.modules.items() if type(module) is _Alias]:
            del sys.modules[name]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.calling_package(fullname) is None:
            return None
        return ModuleSpec(fullname, _AliasLoader(), is_package=True)

    def calling_package(self, fullname: str) -> str | None:
        """The package of the innermost function on the stack, if it has the module."""
        frame = sys._getframe(1)
        while frame is not None:
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            has_module = self._packages.get(package)
            if has_module is not None:
                return package if has_module(fullname.partition(".")[0]) else None
            frame = frame.f_back  # type: ignore[assignment]
        return None


finder = _AliasFinder()
add = finder.add
remove = finder.remove


def is_alias(module: ModuleType) -> bool:
    """Whether a module only stands for siblings."""
    return type(module) is _Alias
