"""Every shape with every set of options, deployed to a real API server behind KServe's webhooks.

`make test-apiserver` builds the server and runs these tests, which CI leaves out.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition import kubernetes_names as names
from tests.deployment.manifests.cases import CASES, IMAGE, SHAPES, option_sets
from tests.needs import require
from tests.places import IRIS
from tests.waiting import wait_until

from . import kserve_webhook
from .conftest import Said
from .control_plane import ControlPlane, control_plane
from .controllers import APPS, KSERVE, Controllers
from .webhook_server import Webhooks, webhooks

Object = dict[str, Any]

PROMETHEUS = ("--prometheus", "http://prometheus.monitoring:9090")
# Options by the platform that has them, for every shape of it.
MORE: dict[str, tuple[str, ...]] = {
    "kserve": (
        "--cpu 2",
        "--cpu 500m --cpu-limit 4 --memory 512Mi",
        "--cpu 2 --max-replicas 8 --min-replicas 2 --target-cpu 50",
        f"--max-replicas 8 --scale-on utilization {' '.join(PROMETHEUS)}",
        f"--max-replicas 8 --scale-on utilization --target-utilization 60 {' '.join(PROMETHEUS)}",
        "--mode knative --cpu 2 --max-replicas 4 --min-replicas 0",
        "--mode knative --protocol grpc --replicas 2",
        "--gpus 2 --gpu-resource amd.com/gpu",
    ),
    "seldon-v1": ("--cpu 2", "--max-replicas 4 --min-replicas 2 --target-cpu 60"),
    "seldon-v2": ("--cpu 2 --memory 4Gi", "--max-replicas 4 --min-replicas 2"),
    "kubernetes": (
        "--cpu 2",
        "--service-type Headless",
        "--service-type NodePort --service-name other",
        "--max-replicas 8 --scale-on utilization",
        f"--max-replicas 8 --scale-on utilization {' '.join(PROMETHEUS)}",
    ),
}
ASKED = [(platform, shape, text) for platform, shape in SHAPES for text in MORE[platform]]


@dataclass(frozen=True)
class Place:
    """A server with KServe's webhooks, and all controllers."""

    plane: ControlPlane
    webhooks: Webhooks
    controllers: Controllers

    def deploy(self, platform: str, folder: Path, *args: object) -> Said:
        """Runs the command line as a user who may do everything."""
        return self.call("deploy", platform, folder, "--timeout", 60, *args)

    def call(self, command: str, platform: str, folder: Path, *args: object) -> Said:
        words = [command, platform, folder, "--image", IMAGE, *args]
        done = CliRunner().invoke(
            main,
            [*map(str, words)],
            env={"KUBECONFIG": str(self.plane.kubeconfig("admin"))},
            prog_name="mlserver-pyfunc",
        )
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert self.controllers.error is None, self.controllers.error
        return Said(done.exit_code, done.stdout, done.stderr)

    def deployments(self, namespace: str = "default") -> list[Object]:
        path = f"{APPS}/namespaces/{namespace}/deployments"
        found: list[Object] = self.plane.request("GET", path)["items"]
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    require("kube-apiserver", "CRD schemas", "openssl")
    work = tmp_path_factory.mktemp("plane")
    binaries = Path(os.environ["KUBE_APISERVER"])
    with control_plane(binaries, work) as plane, webhooks(work) as hooks:
        plane.install_crds()
        for path, body in hooks.configurations():
            plane.request("POST", path, body)
        team = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}
        plane.request("POST", "/api/v1/namespaces", team)
        with Controllers(plane) as controllers:
            yield Place(plane, hooks, controllers)


@pytest.fixture
def at(place: Place) -> Iterator[Place]:
    assert place.controllers.error is None, place.controllers.error
    place.webhooks.installation = kserve_webhook.CURRENT
    return place


_numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example with a name of its own, so that nothing of another test is in the way."""
    return copy(tmp_path, lambda definition: None)


def copy(into: Path, change: Callable[[Object], None]) -> Path:
    folder = into / "function"
    shutil.copytree(IRIS, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    path = folder / "function.yaml"
    definition = yaml.safe_load(path.read_text())
    definition["model_name"] = f"iris-{next(_numbers)}"
    change(definition)
    path.write_text(yaml.safe_dump(definition, sort_keys=False))
    return folder


def rolls_out(
    at: Place, platform: str, folder: Path, *args: object, namespace: str = "default"
) -> None:
    """Deploys, deploys again, which changes nothing, and removes it."""
    said = at.deploy(platform, folder, *args)
    assert said.code == 0, said.out + said.err + str(at.controllers.refused)
    assert "is ready" in said.out
    changes = [line for line in said.out.splitlines() if line.endswith(": created")]
    for live in at.deployments(namespace):
        fits(live)
        assert live["status"].get("updatedReplicas", 0) == live["spec"]["replicas"]
    again = at.deploy(platform, folder, *args)
    assert again.code == 0, again.out + again.err
    assert again.out.count(": unchanged") == len(changes), again.out
    gone = at.deploy(platform, folder, *args, "--delete")
    assert gone.code == 0, gone.out + gone.err
    assert gone.out.count(": deleted") == len(changes), gone.out
    wait_until(lambda: at.deployments(namespace) == [])


def words(platform: str, shape: str) -> list[str]:
    """The options of a shape."""
    given = SHAPES[platform, shape]
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def fits(live: Object) -> None:
    """Containers may use what they ask for."""
    for container in live["spec"]["template"]["spec"]["containers"]:
        resources = container["resources"]
        for name, limit in resources.get("limits", {}).items():
            assert names.amount(resources["requests"][name]) <= names.amount(limit)


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_a_preset_rolls_out(
    platform: str, shape: str, case: str, at: Place, tmp_path: Path
) -> None:
    options = {**SHAPES[platform, shape], **option_sets(platform, shape)[case]}
    folder = copy(tmp_path, lambda found: found.update(deployment={"presets": {case: options}}))
    if options.get("with_runtime", True):
        namespace = options.get("namespace", "default")
        rolls_out(at, platform, folder, "--preset", case, namespace=namespace)
        return
    shared = ("--storage-uri", "gs://models/iris")
    first = copy(tmp_path / "first", lambda found: None)
    assert at.deploy(platform, first, *shared).code == 0
    said = at.deploy(platform, folder, "--preset", case)
    assert said.code == 0, said.out + said.err
    assert ": created" in said.out
    assert at.deploy(platform, folder, *shared, "--delete").code == 0
    assert at.deploy(platform, first, *shared, "--delete").code == 0


@pytest.mark.parametrize(("platform", "shape", "text"), ASKED)
def test_options_roll_out(platform: str, shape: str, text: str, at: Place, folder: Path) -> None:
    rolls_out(at, platform, folder, *words(platform, shape), *text.split())


@pytest.mark.parametrize("name", ["HARDENED", "OLD"])
@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
@pytest.mark.parametrize("text", MORE["kserve"])
def test_options_roll_out_on_other_installations_of_kserve(
    name: str, shape: str, text: str, at: Place, folder: Path
) -> None:
    at.webhooks.installation = getattr(kserve_webhook, name)
    rolls_out(at, "kserve", folder, *words("kserve", shape), *text.split())


def test_an_edit_of_inline_code_rolls_out(at: Place, folder: Path) -> None:
    options = ("--shape", "inline")
    assert at.deploy("kserve", folder, *options).code == 0
    (before,) = at.deployments()
    code = folder / "model.py"
    code.write_text(f"{code.read_text()}\n# edited\n")
    said = at.deploy("kserve", folder, *options)
    assert said.code == 0, said.err
    assert said.out.count(": updated") == 2
    (after,) = at.deployments()
    assert after["metadata"]["generation"] > before["metadata"]["generation"]
    assert after["status"]["observedGeneration"] == after["metadata"]["generation"]
    assert at.deploy("kserve", folder, *options, "--delete").code == 0


def test_what_the_api_server_refuses_of_a_platform_is_told(at: Place, folder: Path) -> None:
    """As manifests were before they had a limit: the webhook's own limit is below the request."""
    said = at.deploy("kserve", folder)
    assert said.code == 0, said.err
    name = yaml.safe_load((folder / "function.yaml").read_text())["model_name"]
    path = f"{KSERVE}/namespaces/default/inferenceservices/{name}"
    container = at.plane.request("GET", path)["spec"]["predictor"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "2"}}
    body = {"spec": {"predictor": {"containers": [container]}}}
    at.plane.request("PATCH", path, body, "application/merge-patch+json")
    wait_until(lambda: name in at.controllers.refused)
    state = at.call("status", "kserve", folder)
    assert state.code != 0
    assert "must be less than or equal to cpu limit" in state.out + state.err
    said = at.deploy("kserve", folder, "--memory", "2Gi", "--force-conflicts", "--timeout", 20)
    assert said.code == 0, said.err
    assert at.deploy("kserve", folder, "--delete").code == 0


def test_the_mode_of_a_service_stays(at: Place, folder: Path) -> None:
    assert at.deploy("kserve", folder).code == 0
    said = at.deploy("kserve", folder, "--mode", "knative")
    assert said.code == 1
    assert "deploymentMode cannot be changed from 'Standard' to 'Knative'" in said.err
    assert at.deploy("kserve", folder, "--delete").code == 0


def test_replicas_become_those_of_an_autoscaler(at: Place, folder: Path) -> None:
    def replicas(*options: object) -> int:
        assert at.deploy("kubernetes", folder, *options).code == 0
        (live,) = at.deployments()
        return int(live["spec"]["replicas"])

    assert replicas("--replicas", 5) == 5
    assert replicas("--min-replicas", 5, "--max-replicas", 9) == 5
    assert replicas("--min-replicas", 5, "--max-replicas", 9, "--memory", "2Gi") == 5
    assert replicas("--replicas", 3) == 3
    assert at.deploy("kubernetes", folder, "--delete").code == 0
