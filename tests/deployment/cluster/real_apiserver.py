"""Deploys to a real kube-apiserver, and prints what came of each step: see real_apiserver.sh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserver_pyfunc.deployment.cluster.apply import apply, targets
from mlserver_pyfunc.deployment.cluster.errors import ClusterError
from mlserver_pyfunc.deployment.cluster.kubeconfig import connect
from tests.deployment.manifests.cases import CASES, made
from tests.places import DOCS, EXAMPLES, IRIS

from .conftest import IMAGE, PROGRAM, Said
from .control_plane import ControlPlane, control_plane

KSERVE = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/iris"

Object = dict[str, Any]
Step = Callable[[ControlPlane], str]


def deploy(plane: ControlPlane, user: str, platform: str, *args: object) -> Said:
    """Runs the command line as a user of the cluster."""
    command = [PROGRAM, "deploy", platform, IRIS, "--image", IMAGE, *args]
    done = subprocess.run(
        [*map(str, command), "--kubeconfig", str(plane.kubeconfig(user))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def expect(said: Said, code: int, *texts: str) -> str:
    everything = said.out + said.err
    assert said.code == code, everything
    for text in texts:
        assert text in everything, f"expected {text!r} in\n{everything}"
    return everything.strip()


def without_crds(plane: ControlPlane) -> str:
    return expect(
        deploy(plane, "admin", "kserve", "--no-wait"),
        1,
        "has no InferenceService",
        "install KServe",
    )


def crds(plane: ControlPlane) -> str:
    return "\n".join(plane.install_crds())


def every_manifest(plane: ControlPlane) -> str:
    """Has the server check every manifest, and keep every field of it."""
    cluster = connect(plane.kubeconfig("admin"))
    checked, kinds = 0, set()
    try:
        for found in (*_made(), *_examples()):
            kinds |= {one["kind"] for one in found}
            for one in found:
                one["metadata"]["namespace"] = "default"
            for applied in apply(cluster, targets(cluster, found), force=False, dry_run=True):
                lost = list(_lost(applied.target.wanted, applied.live, applied.target.kind))
                assert not lost, f"the server dropped {lost}"
                checked += 1
    finally:
        cluster.close()
    return f"{checked} objects accepted whole, of {', '.join(sorted(kinds))}"


def _made() -> Iterator[list[Object]]:
    for platform, shape, case in CASES:
        yield made(platform, shape, case)


def _examples() -> Iterator[list[Object]]:
    for file in sorted((EXAMPLES / "kubernetes").rglob("*.yaml")):
        yield [found for found in yaml.safe_load_all(file.read_text()) if found]


def _lost(wanted: Any, live: Any, path: str) -> Iterator[str]:
    """What was asked for and is not there: a server drops unknown fields silently."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name, part in wanted.items():
            # What is empty, zero or false is as good as none.
            if name in live or part in ({}, [], "", 0, None):
                yield from _lost(part, live.get(name), f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _lost(one, other, f"{path}[{index}]")


def create(plane: ControlPlane) -> str:
    text = expect(
        deploy(plane, "admin", "kserve", "--no-wait", "--env", "MODE=fast"),
        0,
        "InferenceService/iris in default: created",
    )
    again = deploy(plane, "admin", "kserve", "--no-wait", "--env", "MODE=fast")
    return f"{text}\n{expect(again, 0, 'InferenceService/iris in default: unchanged')}"


def update(plane: ControlPlane) -> str:
    said = deploy(plane, "admin", "kserve", "--no-wait", "--memory", "3Gi")
    text = expect(said, 0, "InferenceService/iris in default: updated")
    container = plane.request("GET", KSERVE)["spec"]["predictor"]["containers"][0]
    assert container["resources"]["requests"]["memory"] == "3Gi"
    assert "MODE" not in {entry["name"] for entry in container["env"]}
    return f"{text}\nmemory is 3Gi, and the variable that is no longer asked for is gone"


def wait(plane: ControlPlane) -> str:
    """No controller runs here: the status is what one would write, a little later."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("PredictorReady", "Ready")
    ]
    status = {
        "conditions": conditions,
        "url": "http://iris-default.example.com",
        "address": {"url": "http://iris-predictor.default.svc.cluster.local"},
        "modelStatus": {"transitionStatus": "UpToDate", "copies": {"failedCopies": 0}},
    }

    arguments = ["--memory", "3Gi", "--timeout", "60"]
    command = [PROGRAM, "deploy", "kserve", str(IRIS), "--image", IMAGE, *arguments]
    with subprocess.Popen(
        [*command, "--kubeconfig", str(plane.kubeconfig("admin"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        shown = process.stderr.readline()
        kind = "application/merge-patch+json"
        plane.request("PATCH", f"{KSERVE}/status", {"status": status}, kind)
        out, err = process.communicate(timeout=60)
    return expect(
        Said(process.returncode, out, shown + err),
        0,
        "InferenceService/iris: waiting for its controller",
        "iris is ready",
        "http://iris-default.example.com/v2/models/iris/infer",
    )


def late(plane: ControlPlane) -> str:
    said = deploy(plane, "admin", "seldon-v1", "--timeout", 1)
    return expect(said, 1, "SeldonDeployment/iris: not ready after 1 s")


def conflict(plane: ControlPlane) -> str:
    body = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris"},
        "spec": {"predictor": {"minReplicas": 4}},
    }
    plane.apply(KSERVE, body, "the-other-team")
    refused = deploy(plane, "admin", "kserve", "--no-wait", "--replicas", 2)
    text = expect(refused, 1, 'conflict with "the-other-team"', ".minReplicas", "--force-conflicts")
    forced = deploy(plane, "admin", "kserve", "--no-wait", "--replicas", 2, "--force-conflicts")
    expect(forced, 0, "InferenceService/iris in default: updated")
    assert plane.request("GET", KSERVE)["spec"]["predictor"]["minReplicas"] == 2
    return f"{text}\nwith --force-conflicts: {forced.out.strip()}"


def forbidden(plane: ControlPlane) -> str:
    said = deploy(plane, "dev", "kserve", "--no-wait")
    return expect(said, 1, 'User "dev" cannot get resource "inferenceservices"')


def allowed(plane: ControlPlane) -> str:
    """With the role of docs/deploy.md, and no more, all of it works."""
    role = next(yaml.safe_load_all(_documented_role()))
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    plane.request("POST", f"{rbac}/roles", role)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "dev"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": role["metadata"]["name"],
        },
        "subjects": [{"kind": "User", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    plane.request("POST", f"{rbac}/rolebindings", binding)
    texts = []
    for platform, args in _PLATFORMS.items():
        name = f"dev-{platform}"
        said = deploy(plane, "dev", platform, "--no-wait", "--name", name, *args)
        texts.append(expect(said, 0, "created"))
        late = deploy(plane, "dev", platform, "--name", name, "--timeout", 1, *args)
        expect(late, 1, "not ready after 1 s")
        gone = deploy(plane, "dev", platform, "--delete", "--no-wait", "--name", name, *args)
        texts.append(expect(gone, 0, "deleted"))
    return "\n".join(texts)


_PLATFORMS: Mapping[str, tuple[str, ...]] = {
    "kserve": ("--storage-uri", "gs://models/iris"),
    "seldon-v1": (),
    "seldon-v2": ("--storage-uri", "gs://models/iris"),
    "kubernetes": (),
}


def _documented_role() -> str:
    from tests.docs.markdown import blocks

    found = blocks(DOCS / "deploy.md")
    return next(block.text for block in found if "kind: Role" in block.text)


def invalid(plane: ControlPlane) -> str:
    cluster = connect(plane.kubeconfig("admin"))
    broken = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "broken"},
        "spec": {"predictor": {"minReplicas": "two"}},
    }
    try:
        with pytest.raises(ClusterError, match=r"spec\.predictor\.minReplicas") as caught:
            list(apply(cluster, targets(cluster, [broken]), force=False, dry_run=False))
    finally:
        cluster.close()
    return str(caught.value)


def no_namespace(plane: ControlPlane) -> str:
    said = deploy(plane, "admin", "kserve", "--no-wait", "-n", "nowhere")
    return expect(said, 1, 'the cluster has no namespace "nowhere"')


def unauthorized(plane: ControlPlane) -> str:
    command = [PROGRAM, "deploy", "kserve", str(IRIS), "--image", IMAGE, "--kubeconfig"]
    path = str(plane.kubeconfig("nobody", "wrong"))
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    return expect(Said(done.returncode, done.stdout, done.stderr), 1, "(401)")


def delete(plane: ControlPlane) -> str:
    """Without a garbage collector, so what is deleted in the foreground would stay."""
    said = deploy(plane, "admin", "kserve", "--delete", "--no-wait")
    text = expect(said, 0, "InferenceService/iris in default: deleted")
    again = deploy(plane, "admin", "kserve", "--delete")
    expect(again, 0, "InferenceService/iris in default: was not there")
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "iris"},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    }
    plane.apply("/api/v1/namespaces/default/services/iris", body, "kubectl")
    foreign = deploy(plane, "admin", "kubernetes", "--delete", "--no-wait")
    return f"{text}\n{expect(foreign, 1, 'was not made by this command')}"


STEPS: tuple[Step, ...] = (
    without_crds,
    crds,
    every_manifest,
    create,
    update,
    wait,
    late,
    conflict,
    forbidden,
    allowed,
    invalid,
    no_namespace,
    unauthorized,
    delete,
)


def main(binaries: Path) -> int:
    failures = 0
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as work, control_plane(binaries, Path(work)) as plane:
        version = plane.request("GET", "/version")["gitVersion"]
        print(f"kube-apiserver {version}", flush=True)
        for step in STEPS:
            started = time.monotonic()
            try:
                text, mark = step(plane), "ok"
            except (AssertionError, ClusterError) as error:
                text, mark = str(error), "FAILED"
                failures += 1
            print(f"\n{mark}: {step.__name__} ({time.monotonic() - started:.1f} s)")
            print("\n".join(f"    {line}" for line in text.splitlines()), flush=True)
    print(json.dumps({"steps": len(STEPS), "failed": failures}))
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
