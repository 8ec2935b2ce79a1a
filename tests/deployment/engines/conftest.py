"""Images really built, by engines that keep to a storage of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import require
from tests.places import ROOT

from . import bases
from .engines import ENGINES, Engine
from .storage import Storage

STOCK = "localhost/pyfunc-tests/stock"


@pytest.fixture(scope="session")
def storage(pytestconfig: pytest.Config) -> Iterator[Storage]:
    require("image builds")
    storage = Storage(Path(tempfile.mkdtemp(prefix="pyfunc-containers-", dir="/var/tmp")))
    try:
        assert pytestconfig.cache is not None
        bases.make_debian(storage, pytestconfig.cache.mkdir("debian"))
        yield storage
    finally:
        storage.close()


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, storage: Storage) -> Engine:
    return Engine(request.param, storage)


@pytest.fixture(scope="session")
def builder(storage: Storage) -> Engine:
    """One of them, for what takes long: podman and buildah are of one library."""
    return Engine(ENGINES[0], storage)


@pytest.fixture(scope="session")
def stock_image(engine: Engine) -> str:
    """The image of the repository's own Dockerfile."""
    engine.base("3.12")
    engine.build(ROOT, STOCK)
    return STOCK
