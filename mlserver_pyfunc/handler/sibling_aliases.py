"""Makes siblings visible in `sys.modules` to code that does not run an import statement.

These are pickle and `importlib.import_module`. `sys.modules`, whose names all functions share, gets
an alias, a module without contents. When an attribute is read, the alias looks at the stack for the
innermost function's code and returns the attribute of that function's own module. The alias finder
comes last in `sys.meta_path`, so an alias never hides an installed module. The design and
its limits are in docs/design/import-isolation.md.
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
    """Stands for the modules of one name in all functions."""

    def __getattr__(self, name: str) -> Any:
        # The import system probes modules for dunder names: it must see none of the sibling's.
        if name.startswith("__") and name.endswith("__") and name != "__all__":
            raise AttributeError(name)
        package = finder.calling_package(self.__name__)
        if package is None:
            raise AttributeError(
                f"module {self.__name__!r} belongs to a function, not to the caller"
            )
        return getattr(importlib.import_module(f"{package}.{self.__name__}"), name)


class _AliasFinder(MetaPathFinder, Loader):
    """Finds an alias for a name that no other finder knows, if the calling function has it."""

    def __init__(self) -> None:
        self._packages: dict[str, HasModule] = {}

    def add(self, package: str, has_module: HasModule) -> None:
        if not self._packages:
            sys.meta_path.append(self)
        self._packages[package] = has_module

    def remove(self, package: str) -> None:
        """Removes a function's package; with the last one, all aliases."""
        if self._packages.pop(package, None) is None or self._packages:
            return
        sys.meta_path.remove(self)
        for name in [n for n, module in sys.modules.items() if is_alias(module)]:
            del sys.modules[name]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.calling_package(fullname) is None:
            return None
        # An alias is a package, so that the import system asks for its submodules too.
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass

    def calling_package(self, fullname: str) -> str | None:
        """Returns the package of the innermost function on the stack, if it has the module."""
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
    """Returns whether a module only stands for siblings."""
    return type(module) is _Alias
