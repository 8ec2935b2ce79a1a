"""The pytest plugin: `pyfunc_function`, `pyfunc_server` and which folder they serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlserver_pyfunc.serving.local import LocalFunction

    from .server import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("pyfunc_folder", "Folder of the function under test.", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "pyfunc(folder): the function that pyfunc_function and pyfunc_server load, "
        "for a module's pytestmark",
    )


@pytest.fixture(scope="module")
def pyfunc_folder(request: pytest.FixtureRequest) -> Path:
    """The function's folder: a parameter, the module's `pyfunc` mark, the `pyfunc_folder`
    setting, or pytest's root where it holds function.yaml. Override it for any other."""
    parameter = getattr(request, "param", None)
    mark = request.node.get_closest_marker("pyfunc")
    setting = request.config.getini("pyfunc_folder")
    chosen = parameter or (mark and mark.args[0]) or setting or "."
    folder = request.config.rootpath / chosen
    if chosen != "." or (folder / "function.yaml").is_file():
        return Path(folder)
    raise pytest.UsageError(
        "pyfunc_folder: no function.yaml in the root folder; set pyfunc_folder in the pytest "
        'settings, or pytestmark = pytest.mark.pyfunc("FOLDER") in the module'
    )


@pytest.fixture(scope="module")
def pyfunc_function(pyfunc_folder: Path) -> Iterator[LocalFunction]:
    """The function, loaded in this process: call it with tensors by name."""
    from mlserver_pyfunc.serving.local import load

    with load(pyfunc_folder) as function:
        yield function


@pytest.fixture(scope="module")
def pyfunc_server(pyfunc_folder: Path) -> Iterator[Server]:
    """A real MLServer on free ports that serves the function."""
    from .server import Server

    with Server(pyfunc_folder) as server:
        yield server
