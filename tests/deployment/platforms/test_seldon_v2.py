"""Seldon Core v2: a server without models, and models by the agent and the repository API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from . import seldon_v2
from .cluster import Cluster, Object, StoredImage
from .conftest import Run
from .deployments import IMAGE, printed
from .functions import (
    BROKEN,
    CODE,
    OUTPUTS,
    REASON,
    ask_by_rest,
    check_answers,
    check_drains,
    inline,
    write_definition,
    write_folder,
)
from .kubelet import Pod

URI = "s3://models/iris"
SETTINGS: dict[str, Any] = {"name": "iris", "platform": "python", "debug": True}


@dataclass(frozen=True)
class Seldon:
    """A running Server, its agent and the Model that was printed with it."""

    pod: Pod
    agent: seldon_v2.Agent
    model: Object
    folder: Path


@pytest.fixture(params=["storage", "inline"])
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seldon(shape: str, run_pod: Run, tmp_path: Path, stock_image: StoredImage) -> Seldon:
    folder = tmp_path / "artifacts" / "iris"
    if shape == "inline":
        objects = printed("seldon-v2", write_definition(tmp_path / "own", inline()),
                          "--shape", shape, "--storage-uri", URI, "--name", "iris")  # fmt: skip
        # The artifact says no more than who serves it.
        write_folder(folder, **SETTINGS)
        (folder / "function.yaml").unlink()
        (folder / "model.py").unlink()
    else:
        write_folder(folder, **SETTINGS)
        objects = printed("seldon-v2", folder, "--storage-uri", URI)
    cluster = Cluster(objects, {IMAGE: stock_image}, storage={URI: folder})
    agent_folder = tmp_path / "agent"
    pod = run_pod(cluster, seldon_v2.pod(cluster, agent_folder))
    pod.wait_until_ready()
    agent = seldon_v2.Agent(cluster, pod, agent_folder)
    return Seldon(pod, agent, cluster.only("Model"), folder)


def test_a_model_is_served_under_its_versioned_name(seldon: Seldon) -> None:
    answer = seldon.agent.load(seldon.model, 1)
    assert answer.status_code == 200, f"{answer.text}\n{seldon.pod.log}"
    check_answers(seldon.pod, seldon_v2.HTTP, seldon_v2.GRPC, "iris_1")


@pytest.mark.parametrize("shape", ["storage"], indirect=True)
def test_a_server_is_drained_after_its_agent(seldon: Seldon) -> None:
    assert seldon.agent.load(seldon.model, 1).status_code == 200
    with seldon_v2.drainer(seldon.pod) as asked:
        check_drains(seldon.pod, seldon_v2.HTTP, seldon_v2.GRPC, "iris_1")
        assert asked == ["/terminate"]


@pytest.mark.parametrize("shape", ["storage"], indirect=True)
def test_a_second_version_is_served_beside_the_first_which_then_goes(seldon: Seldon) -> None:
    assert seldon.agent.load(seldon.model, 1).status_code == 200
    (seldon.folder / "model.py").write_text(CODE.replace("* context.factor", "* 10"))
    assert seldon.agent.load(seldon.model, 2).status_code == 200
    old, new = (_ask(seldon, f"iris_{version}") for version in (1, 2))
    assert old == OUTPUTS
    assert new == {**OUTPUTS, "sum": [30.0, 70.0]}
    assert seldon.agent.unload(seldon.model, 1).status_code == 200
    assert "closed after iris_1" in seldon.pod.log
    assert _ask(seldon, "iris_2") == new
    with pytest.raises(AssertionError, match="404"):
        _ask(seldon, "iris_1")


@pytest.mark.parametrize("shape", ["storage"], indirect=True)
def test_a_broken_model_is_refused_and_leaves_the_others_alone(seldon: Seldon) -> None:
    assert seldon.agent.load(seldon.model, 1).status_code == 200
    (seldon.folder / "model.py").write_text(BROKEN)
    answer = seldon.agent.load(seldon.model, 2)
    assert answer.status_code == 500
    assert REASON in answer.text
    assert REASON in seldon.pod.log
    assert not _is_ready(seldon, "iris_2")
    assert _ask(seldon, "iris_1") == OUTPUTS
    # Seldon does without the model, not without the server.
    seldon.pod.wait_until(lambda: len(_liveness(seldon)) > 2, "probed")
    assert set(_liveness(seldon)) == {None}
    assert seldon.pod.ready
    assert not seldon.pod.ends


def _ask(seldon: Seldon, model: str) -> dict[str, Any]:
    return seldon.pod.network.run(ask_by_rest, seldon.pod, seldon_v2.HTTP, model)


def _is_ready(seldon: Seldon, model: str) -> bool:
    url = f"http://{seldon.pod.network.ip}:{seldon_v2.HTTP}/v2/models/{model}/ready"
    return seldon.pod.network.run(httpx.get, url).status_code == 200


def _liveness(seldon: Seldon) -> list[str | None]:
    (probe,) = [each for each in seldon.pod.probes if each.kind == "livenessProbe"]
    return probe.answers
