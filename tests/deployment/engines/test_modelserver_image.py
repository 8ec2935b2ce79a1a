"""The image of KServe's ModelServer, built by podman and run with a function's folder mounted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.places import EXAMPLES, ROOT

from .container import HARDENED, Container
from .engines import Engine

TAG = "localhost/pyfunc-tests/modelserver"
DOCKERFILE = EXAMPLES / "kubernetes" / "modelserver" / "Dockerfile"
FAHRENHEIT = {"name": "fahrenheit", "datatype": "FP64", "shape": [2], "data": [32.0, 212.0]}
MOUNT = f"--volume={EXAMPLES / 'many' / 'celsius'}:/mnt/models:ro"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image(builder: Engine) -> str:
    builder.base("3.13")
    builder.build(ROOT, TAG, DOCKERFILE)
    return TAG


@pytest.fixture
def container(builder: Engine, image: str) -> Iterator[Container]:
    with builder.running(image, *HARDENED, MOUNT) as container:
        container.wait_until_ready("models")  # the name of the folder
        yield container


def test_serves_the_mounted_folder_without_mlserver(container: Container) -> None:
    celsius = {"celsius": [0.0, 100.0]}
    assert container.infer("models", [FAHRENHEIT]) == {"rest": celsius, "grpc": celsius}
    assert container.get("/v1/models/models") == (200, '{"name":"models","ready":true}\n')
    code = "import importlib.util as u, os; print(u.find_spec('mlserver'), os.access('/mnt', 2))"
    assert container.exec("python", "-c", code).strip() == "None False"
    assert container.stop() == 0, container.log
    assert "Traceback" not in container.log
