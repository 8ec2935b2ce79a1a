"""The image of KServe's ModelServer, built by podman and run with a function's folder mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.places import EXAMPLES, ROOT

from .container import HARDENED
from .engines import Engine

TAG = "localhost/pyfunc-tests/modelserver"
DOCKERFILE = EXAMPLES / "kubernetes" / "modelserver" / "Dockerfile"
FAHRENHEIT = {"name": "fahrenheit", "datatype": "FP64", "shape": [2], "data": [32.0, 212.0]}
FLOWER = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image(builder: Engine) -> str:
    builder.base("3.13")
    builder.build(ROOT, TAG, DOCKERFILE)
    return TAG


def _mount(folder: Path) -> str:
    return f"--volume={folder}:/mnt/models:ro"


def test_serves_the_mounted_folder_without_mlserver(builder: Engine, image: str) -> None:
    celsius = {"celsius": [0.0, 100.0]}
    with builder.running(image, *HARDENED, _mount(EXAMPLES / "many" / "celsius")) as container:
        container.wait_until_ready("models")  # the folder has no model_name
        assert container.infer("models", [FAHRENHEIT]) == {"rest": celsius, "grpc": celsius}
        assert container.get("/v1/models/models") == (200, '{"name":"models","ready":true}\n')
        code = (
            "import importlib.util as u, os; print(u.find_spec('mlserver'), os.access('/mnt', 2))"
        )
        assert container.exec("python", "-c", code).strip() == "None False"
        assert container.stop() == 0, container.log
        assert "Traceback" not in container.log


def test_installs_what_a_function_requires(builder: Engine, image: str) -> None:
    options = [each for each in HARDENED if not each.startswith("--network")]
    with builder.running(image, *options, _mount(EXAMPLES / "iris")) as container:
        container.wait_until_ready("iris", seconds=300)
        species = container.infer("iris", [FLOWER])["rest"]["species"]
        assert species == ["setosa"]
