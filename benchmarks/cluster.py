"""A Deployment played with real processes: its controller, the kubelet and the endpoints.

What Kubernetes would do is read from the objects that `mlserver-pyfunc manifest` prints: variables,
probes, the hook before SIGTERM, the time to end, and how many pods a rollout may add.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil
import yaml

from mlserver_pyfunc.deployment.server_settings import Ports, free_ports

BIN = Path(sys.executable).parent
ENDPOINTS_SECONDS = 1.0
"""Time until balancers know that a pod is ready, or that it is to end."""

Object = dict[str, Any]


class Watcher(Protocol):
    """What hears of pods: balancers, and Prometheus."""

    def add(self, name: str, ports: Ports) -> None:
        """Takes a pod that is ready."""

    def remove(self, name: str) -> None:
        """Forgets a pod that is to end."""


def write_function(folder: Path, definition: Object) -> Path:
    """Writes a function's folder."""
    folder.mkdir(parents=True)
    (folder / "function.yaml").write_text(yaml.safe_dump(definition))
    settings = {"implementation": "mlserver_pyfunc.PyFuncRuntime"}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return folder


def manifest(folder: Path, *options: str, platform: str = "kubernetes") -> dict[str, Object]:
    """Returns the objects that `mlserver-pyfunc manifest` prints, by kind."""
    command = [BIN / "mlserver-pyfunc", "manifest", platform, folder, "--image", "example/image:1"]
    done = subprocess.run(
        [*map(str, command), *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


class Pod:
    """A server in a process of its own, started, asked and ended as a kubelet does.

    Attributes:
        name: Name of the pod, which the function reads from the variable POD.
        ports: Ports on the loopback interface.
        was_killed: Whether it did not end within its time.
    """

    def __init__(
        self, name: str, deployment: Object, folder: Path, work: Path, pace: float
    ) -> None:
        self.name = name
        self.ports = Ports(*free_ports(3))
        self.was_killed = False
        self._spec = deployment["spec"]["template"]["spec"]
        (self._container,) = self._spec["containers"]
        self._folder = folder
        self._work = work / name
        self._pace = pace
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, variables: Object) -> None:
        """Starts the server, and waits until its probe succeeds."""
        self._work.mkdir(parents=True)
        printed = {each["name"]: each["value"] for each in self._container["env"]}
        own = {name: str(self._work) for name, value in printed.items() if value.startswith("/tmp")}
        env = {**os.environ, **printed, **own, **self.ports.variables(), **variables}
        env |= {"MLSERVER_HOST": "127.0.0.1", "POD": self.name}
        with (self._work / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                BIN / "mlserver", "start", self._folder,
                cwd=self._work, env=env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        probe = self._container["startupProbe"]
        url = f"http://127.0.0.1:{self.ports.http}{probe['httpGet']['path']}"
        async with aiohttp.ClientSession() as session:
            for _ in range(probe["failureThreshold"]):
                await asyncio.sleep(probe["periodSeconds"] / self._pace)
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                if self._process.returncode is not None:
                    break
        raise RuntimeError(
            f"{self.name} did not start:\n{(self._work / 'log').read_text()[-3000:]}"
        )

    async def end(self) -> None:
        """Runs the hook, sends SIGTERM, and SIGKILL after the time that the manifest gives."""
        assert self._process is not None
        program, seconds = self._container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        hook = float(seconds)
        await asyncio.sleep(hook / self._pace)
        self._process.send_signal(signal.SIGTERM)
        grace = (self._spec["terminationGracePeriodSeconds"] - hook) / self._pace
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except asyncio.TimeoutError:
            self.was_killed = True
        await self.kill()

    async def kill(self) -> None:
        """Leaves nothing of it running."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds that its processes have used."""
        assert self._process is not None
        total = 0.0
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += sum(each.cpu_times()[:2])
        return total


class Deployment:
    """Keeps a number of pods, and tells watchers of them.

    Attributes:
        starting: Pods that are not ready yet.
        pods: Pods that are ready, the oldest first.
        ended: Pods that were to end, and did.
    """

    def __init__(
        self,
        printed: Object,
        folder: Path,
        work: Path,
        watchers: Sequence[Watcher],
        variables: Object | None = None,
        pace: float = 1,
    ) -> None:
        self.starting: list[Pod] = []
        self.pods: list[Pod] = []
        self.ended: list[Pod] = []
        self._make = partial(Pod, deployment=printed, folder=folder, work=work, pace=pace)
        self._strategy = printed["spec"]["strategy"]["rollingUpdate"]
        self._watchers = watchers
        self._variables = variables or {}
        self._pace = pace
        self._numbers = count(1)
        self._all: list[Pod] = []
        self._changes: list[asyncio.Task[None]] = []

    @property
    def replicas(self) -> int:
        return len(self.starting) + len(self.pods)

    def scale(self, replicas: int) -> None:
        """Begins to start pods, or to end the newest."""
        for _ in range(self.replicas, replicas):
            self._begin(self._bring_up(self._new()))
        for pod in self.pods[replicas - self.replicas :] if replicas < self.replicas else []:
            self._take_down(pod)

    async def roll(self) -> None:
        """Replaces all pods, as the strategy of the manifest has it."""
        assert self._strategy == {"maxUnavailable": 0, "maxSurge": 1}
        for old in tuple(self.pods):
            await self._bring_up(self._new())
            self._take_down(old)

    async def settle(self) -> None:
        """Waits until the pods have started or ended that were to."""
        await asyncio.gather(*self._changes)

    async def close(self) -> None:
        """Leaves nothing running."""
        for change in self._changes:
            change.cancel()
        await asyncio.gather(*[pod.kill() for pod in self._all])

    def _new(self) -> Pod:
        pod = self._make(f"pod-{next(self._numbers)}")
        self._all.append(pod)
        self.starting.append(pod)
        return pod

    async def _bring_up(self, pod: Pod) -> None:
        await pod.start(self._variables)
        await asyncio.sleep(ENDPOINTS_SECONDS / self._pace)
        for watcher in self._watchers:
            watcher.add(pod.name, pod.ports)
        self.starting.remove(pod)
        self.pods.append(pod)

    def _take_down(self, pod: Pod) -> None:
        self.pods.remove(pod)
        self._begin(self._end(pod))

    async def _end(self, pod: Pod) -> None:
        # The kubelet and the endpoints hear of it at the same time, and do not wait for each other.
        ending = asyncio.create_task(pod.end())
        await asyncio.sleep(ENDPOINTS_SECONDS / self._pace)
        for watcher in self._watchers:
            watcher.remove(pod.name)
        await ending
        self.ended.append(pod)

    def _begin(self, change: Coroutine[Any, Any, None]) -> None:
        self._changes.append(asyncio.create_task(change))
