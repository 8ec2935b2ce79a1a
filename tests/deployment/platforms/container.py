"""A container of a pod, as a process in namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.places import ROOT

from .cluster import Cluster, Object, expand, make_volume, variables
from .network import Network

IP = "10.244.0.5"
START_SECONDS = 60
# What the image is made of here: this interpreter, its packages and the product.
VISIBLE = tuple(dict.fromkeys(map(str, (Path(sys.base_prefix), Path(sys.prefix), ROOT))))
NAMESPACES = ["--mount", "--net", "--pid", "--ipc", "--uts"]


class Container:
    """One run of a container.

    Args:
        cluster: Where the pod is.
        pod: Its metadata and spec.
        name: Of the container.
        volumes: Folders by volume name, shared by the runs of the pod's containers.
        log_file: What it prints, after what is there.
    """

    def __init__(
        self, cluster: Cluster, pod: Object, name: str, volumes: Mapping[str, Path], log_file: Path
    ) -> None:
        (spec,) = [each for each in pod["spec"]["containers"] if each["name"] == name]
        image = cluster.images[spec["image"]]
        given = variables(cluster, pod, spec, IP)
        self.env = {**image.config.env, "HOSTNAME": pod["metadata"]["name"], **given}
        path = os.pathsep.join([str(Path(sys.executable).parent), self.env["PATH"]])
        self._work = Path(tempfile.mkdtemp(prefix="pod-"))
        self._privileges = privileges(pod, spec, image.config.user)
        mounts = [mount(each, volumes) for each in spec.get("volumeMounts", [])]
        baked = [baked_in(target, source) for target, source in image.files.items()]
        context = spec.get("securityContext", {})
        self.plan = {
            "work": str(self._work),
            "ip": IP,
            "hostname": pod["metadata"]["name"],
            "visible": VISIBLE,
            "mounts": baked + sorted(mounts, key=lambda each: each["target"].count("/")),
            "read_only_root": context.get("readOnlyRootFilesystem", False),
            "privileges": self._privileges,
            "working_folder": spec.get("workingDir", image.config.working_folder),
            "env": {**self.env, "PATH": path},
            "argv": command_line(spec, image.config.entrypoint, image.config.command, given),
        }
        with log_file.open("ab") as log:
            self._outer = subprocess.Popen(
                [
                    "unshare", *NAMESPACES, "--fork", "--propagation", "private", "--",
                    sys.executable, Path(__file__).with_name("enter.py"), json.dumps(self.plan),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.pid = _child_of(self._outer)
        self.network = Network(self.pid, IP)

    def poll(self) -> int | None:
        """Its exit code, 128 and the signal's number where one ended it; None while it runs."""
        code = self._outer.poll()
        return code if code is None or code >= 0 else 128 - code

    def wait(self, seconds: float) -> int | None:
        try:
            self._outer.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return None
        return self.poll()

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def run(self, command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as an exec probe does."""
        return subprocess.run(
            [
                "nsenter", f"--target={self.pid}", *NAMESPACES, "--",
                "setpriv", *self._privileges, "--", *command,
            ],
            env=self.plan["env"], capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def close(self) -> None:
        """Ends it, and with it whatever it started and mounted."""
        self.signal(signal.SIGKILL)
        self._outer.wait()
        self.network.close()
        shutil.rmtree(self._work, ignore_errors=True)


def make_volumes(cluster: Cluster, pod: Object, folder: Path) -> dict[str, Path]:
    """A pod's volumes, by name."""
    return {
        volume["name"]: make_volume(cluster, pod, volume, folder / volume["name"])
        for volume in pod["spec"].get("volumes", [])
    }


def command_line(
    spec: Object, entrypoint: Sequence[str], command: Sequence[str], env: Mapping[str, str]
) -> list[str]:
    """The container's command and args over the image's: a command drops the image's CMD."""
    head = spec.get("command") or list(entrypoint)
    tail = spec.get("args") or ([] if spec.get("command") else list(command))
    return [expand(word, env) for word in [*head, *tail]]


def privileges(pod: Object, spec: Object, image_user: str) -> list[str]:
    """Arguments of setpriv, by the pod's and the container's security context."""
    context = {**pod["spec"].get("securityContext", {}), **spec.get("securityContext", {})}
    user, _, group = image_user.partition(":")
    if "runAsUser" in context:
        user, group = str(context["runAsUser"]), "0"
    if context.get("runAsNonRoot") and user == "0":
        raise PermissionError("container has runAsNonRoot and image will run as root")
    group = str(context.get("runAsGroup", group or "0"))
    groups = [str(each) for each in (context.get("fsGroup"),) if each is not None]
    groups += map(str, context.get("supplementalGroups", []))
    found = ["--reuid", user, "--regid", group]
    found += ["--groups", ",".join(groups)] if groups else ["--clear-groups"]
    if "ALL" in context.get("capabilities", {}).get("drop", []):
        found += ["--bounding-set", "-all", "--inh-caps", "-all"]
    if context.get("allowPrivilegeEscalation") is False:
        found += ["--no-new-privs"]
    return found


def mount(volume_mount: Object, volumes: Mapping[str, Path]) -> dict[str, Any]:
    source = volumes[volume_mount["name"]] / volume_mount.get("subPath", "")
    return {
        "source": str(source),
        "target": volume_mount["mountPath"],
        "read_only": volume_mount.get("readOnly", False) or (source / "..data").is_symlink(),
    }


def baked_in(target: str, source: Path) -> dict[str, Any]:
    return {"source": str(source), "target": target, "read_only": True}


def _child_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            found = children.read_text().split()
        except OSError:
            break
        if found:
            return int(found[0])
        time.sleep(0.005)
    raise AssertionError(f"unshare ended with {process.wait()}")
