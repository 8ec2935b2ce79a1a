from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployment.image.dockerfile import parse
from tests.needs import require
from tests.places import ROOT

from .cluster import Cluster, Object, StoredImage
from .deployments import built_image
from .kubelet import Pod
from .validation import check

Run = Callable[[Cluster, Object], Pod]
Images = Callable[[str], StoredImage]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "run_pod" in getattr(
            item, "fixturenames", ()
        ):
            item.add_marker(pytest.mark.server)


@pytest.fixture
def run_pod(tmp_path: Path) -> Iterator[Run]:
    """Starts pods under a kubelet; nothing of them is left after the test."""
    require("pods")
    with contextlib.ExitStack() as stack:

        def run(cluster: Cluster, pod: Object) -> Pod:
            running = Pod(cluster, check(pod), readable(tmp_path) / "pod")
            stack.callback(running.close)
            return running

        yield run


@pytest.fixture(scope="session")
def stock_image() -> StoredImage:
    """The image of the repository's Dockerfile."""
    return StoredImage(parse((ROOT / "Dockerfile").read_text()))


@pytest.fixture(scope="session")
def function_image(tmp_path_factory: pytest.TempPathFactory) -> StoredImage:
    """An image of the function, by what `mlserver-pyfunc build` writes for it."""
    return built_image(readable(tmp_path_factory.mktemp("image")))


def readable(folder: Path) -> Path:
    """Lets users other than root see a folder of the test's."""
    for each in (folder, *list(folder.parents)[:2]):
        each.chmod(each.stat().st_mode | 0o055)
    return folder


@pytest.fixture
def image_for(request: pytest.FixtureRequest) -> Images:
    """The image that a shape of manifest runs."""

    def find(shape: str) -> StoredImage:
        name = "function_image" if shape == "image" else "stock_image"
        image: StoredImage = request.getfixturevalue(name)
        return image

    return find
