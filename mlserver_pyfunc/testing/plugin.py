"""The pytest plugin: the fixtures `pyfunc_function` and `pyfunc_server`, and their folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlserver_pyfunc.deployment.server_process import Server
    from mlserver_pyfunc.serving.local import LocalFunction


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the setting `pyfunc_folder`."""
    parser.addini("pyfunc_folder", "Folder of the function under test.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Declares the mark `pyfunc`."""
    config.addinivalue_line(
        "markers",
        "pyfunc(folder): folder of the function that pyfunc_function and pyfunc_server load; "
        "set it as the pytestmark of a module",
    )


@pytest.fixture(scope="module")
def pyfunc_folder(request: pytest.FixtureRequest) -> Path:
    """Finds the folder of the function under test.

    The first of these that is given: the parameter of an indirect parametrization, the module's
    `pyfunc` mark, the setting `pyfunc_folder`, and pytest's root folder if it holds
    function.yaml. Override the fixture for any other folder.
    """
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
    """Loads the function in this process. Call it with tensors by name."""
    from mlserver_pyfunc.serving.local import load

    with load(pyfunc_folder) as function:
        yield function


@pytest.fixture(scope="module")
def pyfunc_server(pyfunc_folder: Path) -> Iterator[Server]:
    """Serves the function by a real MLServer on free ports."""
    from mlserver_pyfunc.deployment.server_process import Server

    with Server(pyfunc_folder) as server:
        yield server
