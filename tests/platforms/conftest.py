from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dockerfile import parse

from .cluster import Cluster, Object, StoredImage
from .kubelet import Pod
from .network import ROOT
from .validation import check

TOOLS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "ip")

Run = Callable[[Cluster, Object], Pod]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "run_pod" in item.fixturenames:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where pods cannot be simulated."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"pods are simulated with {', '.join(missing)}, which this machine lacks")
    if os.geteuid() != 0:
        pytest.skip("pods are simulated in namespaces, which takes root")
    probe = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "true"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces can be made here: {tried.stderr.strip()}")


@pytest.fixture
def run_pod(namespaces: None, tmp_path: Path) -> Iterator[Run]:
    """Starts pods under a kubelet; nothing of them is left after the test."""
    with contextlib.ExitStack() as stack:

        def run(cluster: Cluster, pod: Object) -> Pod:
            # Users other than root are to see the folders of the test.
            for folder in (tmp_path, *list(tmp_path.parents)[:2]):
                folder.chmod(folder.stat().st_mode | 0o055)
            running = Pod(cluster, check(pod), tmp_path / "pod")
            stack.callback(running.close)
            return running

        yield run


@pytest.fixture(scope="session")
def stock_image() -> StoredImage:
    """The image of the repository's Dockerfile."""
    return StoredImage(parse((ROOT / "Dockerfile").read_text()))
