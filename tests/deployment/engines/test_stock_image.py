"""The stock image, built by podman and run with a model folder mounted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.places import ROOT

from .container import HARDENED, Container
from .engines import Engine

FAHRENHEIT = {"name": "fahrenheit", "datatype": "FP64", "shape": [2], "data": [32.0, 212.0]}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["one two", ""]}
MODELS = ("celsius", "majority", "words")
MOUNT = f"--volume={ROOT / 'examples' / 'many'}:/mnt/models:ro"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["1000:0", "1234567:0"], ids=["its user", "any user"])
def container(
    request: pytest.FixtureRequest, engine: Engine, stock_image: str
) -> Iterator[Container]:
    """Run as the image says, and with a user id of the platform's own choice, as OpenShift does."""
    user = [] if request.param == "1000:0" else [f"--user={request.param}"]
    with engine.running(stock_image, *HARDENED, MOUNT, *user) as container:
        container.wait_until_ready(*MODELS)
        assert container.exec("id", "-u").strip() == request.param.partition(":")[0]
        yield container


def test_answers_over_rest_and_grpc(container: Container) -> None:
    celsius = {"celsius": [0.0, 100.0]}
    assert container.infer("celsius", [FAHRENHEIT]) == {"rest": celsius, "grpc": celsius}
    count = {"count": [2, 0]}
    assert container.infer("words", [TEXT]) == {"rest": count, "grpc": count}


def test_can_write_to_nothing_but_tmp(container: Container) -> None:
    code = "import os; print([p for p in ('/', '/opt', '/mnt/models', '/tmp') if os.access(p, 2)])"
    assert container.exec("python", "-c", code).strip() == "['/tmp']"


def test_ends_in_order_on_sigterm(engine: Engine, stock_image: str) -> None:
    with engine.running(stock_image, *HARDENED, MOUNT) as container:
        container.wait_until_ready(*MODELS)
        started = time.monotonic()
        assert container.stop() == 0, container.log
        assert time.monotonic() - started < 60


def test_is_healthy_only_while_the_server_answers(engine: Engine, stock_image: str) -> None:
    with engine.running(stock_image, *HARDENED, MOUNT) as container:
        container.wait_until_ready(*MODELS)
        assert container.check_health() == 0
        os.kill(container.pid, signal.SIGSTOP)
        try:
            assert container.check_health() != 0
        finally:
            os.kill(container.pid, signal.SIGCONT)
        assert container.check_health() == 0
