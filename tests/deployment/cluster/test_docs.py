"""The commands of docs/deploy.md, run one after the other against a fake cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlserver_pyfunc.deployment.cluster import errors
from tests.docs.console import looks_like, steps
from tests.docs.markdown import blocks
from tests.places import DOCS, IRIS

from . import schemas, stories
from .conftest import Cli
from .fake_api import FakeCluster, Object

DOCUMENT = DOCS / "deploy.md"
POD = "iris-predictor-7d9f-abcde"
CONTAINER = "kserve-container"


def controller(cluster: FakeCluster, live: Object, age: float) -> None:
    """What becomes of a service is told by its image's name."""
    image = live["spec"]["predictor"]["containers"][0]["image"]
    labels = {"serving.kserve.io/inferenceservice": "iris"}
    waits = {"reason": "Pending", "message": ""}
    live["status"] = {"conditions": [{"type": "Ready", "status": "Unknown", **waits}]}
    if "typo" in image:
        message = f'Failed to pull image "{image}": not found'
        status = stories.waiting("ImagePullBackOff")
        cluster.event(POD, message)
    elif "broken" in image:
        status = stories.crashing()
        cluster.logs[f"{POD}/{CONTAINER}/previous"] = (
            "Traceback (most recent call last):\n"
            '  File "/srv/model.py", line 3, in <module>\n'
            'function "iris" failed to load: import: ModuleNotFoundError: '
            "No module named 'sklearn'\n"
        )
    else:
        stories.serves(seconds=1)(cluster, live, age)
        return
    status["containerStatuses"][0]["name"] = CONTAINER
    cluster.pod(POD, labels, status)


@pytest.mark.heavy
def test_the_document_replays(cli: Cli, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.stories["InferenceService"] = controller
    shutil.copytree(IRIS, tmp_path / "iris")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(cli.kubeconfig)}
    found = steps(DOCUMENT.read_text())
    assert len(found) >= 7
    for command, expected in found:
        done = subprocess.run(
            ["bash", "-c", f"{command} 2>&1"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert looks_like(done.stdout, expected), f"$ {command}\n{done.stdout}\nis not\n{expected}"


def test_the_role_is_one() -> None:
    (role,) = [yaml.safe_load(b.text) for b in blocks(DOCUMENT) if b.language == "yaml"]
    role["metadata"]["namespace"] = "default"
    assert role["kind"] == "Role"
    assert not schemas._core_problems(role)


CALL = ("Deployment/iris", "https://c")
FORBIDDEN = 'deployments.apps is forbidden: User "dev" cannot patch resource "deployments"'
CONFLICT = 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
INVALID = 'Deployment.apps "iris" is invalid: spec.replicas: must be a number'


@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (
            errors.missing_kind("serving.kserve.io/v1beta1", "InferenceService"),
            "the cluster has no InferenceService of",
        ),
        (errors.refused(401, "", *CALL), "does not accept these credentials (401)"),
        (
            errors.refused(404, 'namespaces "models" not found', *CALL),
            'the cluster has no namespace "',
        ),
        (errors.refused(403, FORBIDDEN, *CALL), '" cannot '),
        (errors.refused(409, CONFLICT, *CALL), 'conflict with "'),
        (errors.refused(422, INVALID, *CALL), "the cluster refused it (422): "),
    ],
)
def test_the_table_has_the_messages_of_the_code(error: errors.ClusterError, phrase: str) -> None:
    assert phrase in str(error)
    assert phrase in DOCUMENT.read_text()
