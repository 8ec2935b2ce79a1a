"""A pod and what a kubelet does to it: start, probe, restart, stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from .cluster import Cluster, Object
from .container import Container, make_volumes
from .network import Network

TICK = 0.05
# A kubelet's seconds in one of ours: between probes and restarts there is nothing to see. What
# a container is given (timeouts, time to start, grace) is given in full.
SPEED = 5
BACK_OFF = 10 / SPEED
KINDS = {"startupProbe", "livenessProbe", "readinessProbe"}


@dataclass(frozen=True)
class End:
    """How a container ended.

    Attributes:
        why: "exit", "liveness", "startup" or "termination".
        code: Its exit code.
        killed: Whether it outlived its grace period.
        seconds: From the first step of its end.
    """

    why: str
    code: int
    killed: bool = False
    seconds: float = 0.0


@dataclass
class Probe:
    """One of a container's probes and its state."""

    kind: str
    spec: Object
    due: float
    successes: int = 0
    failures: int = 0
    failing_since: float = 0.0
    pending: Future[str | None] | None = None
    answers: list[str | None] = field(default_factory=list)

    def poll(self, run: Callable[[Object], Future[str | None]]) -> bool | None:
        """Runs it when due; True or False when a threshold is reached, None before."""
        if self.pending is None:
            if time.monotonic() >= self.due:
                self.due = time.monotonic() + self.spec.get("periodSeconds", 10) / SPEED
                self.pending = run(self.spec)
            return None
        if not self.pending.done():
            return None
        problem, self.pending = self.pending.result(), None
        self.answers.append(problem)
        if self.failures == 0:
            self.failing_since = time.monotonic()
        self.successes, self.failures = (
            (self.successes + 1, 0) if problem is None else (0, self.failures + 1)
        )
        if self.successes >= self.spec.get("successThreshold", 1):
            return True
        return False if self._has_failed() else None

    def _has_failed(self) -> bool:
        """After as many failures, and in as much time, as a kubelet would take."""
        threshold, period = self.spec.get("failureThreshold", 3), self.spec.get("periodSeconds", 10)
        seconds = time.monotonic() - self.failing_since
        return self.failures >= threshold and seconds >= (threshold - 1) * period


class Pod:
    """A running pod of one container.

    Args:
        cluster: Where it is.
        pod: Its metadata and spec.
        work: For its volumes and its log.
    """

    def __init__(self, cluster: Cluster, pod: Object, work: Path) -> None:
        (self.spec,) = pod["spec"]["containers"]
        self.pod = pod
        self._cluster = cluster
        self._volumes = make_volumes(cluster, pod, work / "volumes")
        self._log_file = work / "container.log"
        self.ready = False
        self.was_ready = False
        self.ends: list[End] = []
        self.probes: list[Probe] = []
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self.container = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def network(self) -> Network:
        return self.container.network

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def port(self, name: str | int) -> int:
        if isinstance(name, int):
            return name
        (number,) = [p["containerPort"] for p in self.spec["ports"] if p.get("name") == name]
        return int(number)

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._error is not None:
                raise self._error
            probed = {probe.kind: probe.answers[-3:] for probe in self.probes}
            assert time.monotonic() < deadline, (
                f"not {what} after {seconds:g} s; ends {self.ends}, probes {probed}\n{self.log}"
            )
            time.sleep(TICK)

    def wait_until_ready(self, seconds: float = 120) -> None:
        self.wait_until(lambda: self.ready, "ready", seconds)

    def terminate(self) -> End:
        """The end of a pod that is deleted: preStop, SIGTERM, and SIGKILL after the grace."""
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._end("termination")

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.container.close()

    def _start(self) -> Container:
        container = Container(
            self._cluster, self.pod, self.spec["name"], self._volumes, self._log_file
        )
        now = time.monotonic()
        self.probes = [
            Probe(kind, spec, now + spec.get("initialDelaySeconds", 0) / SPEED)
            for kind, spec in self.spec.items()
            if kind in KINDS
        ]
        return container

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(TICK):
                self._step()
        except BaseException as error:
            self._error = error
            self.ready = False

    def _step(self) -> None:
        code = self.container.poll()
        if code is not None:
            self._restart(End("exit", code))
            return
        by_kind = {probe.kind: probe for probe in self.probes}
        startup = by_kind.get("startupProbe")
        if startup is not None:
            reached = startup.poll(self._probe)
            if reached:
                self.probes.remove(startup)
                for each in self.probes:
                    each.due = time.monotonic()
            elif reached is False:
                self._restart(self._end("startup"))
            return
        if "livenessProbe" in by_kind and by_kind["livenessProbe"].poll(self._probe) is False:
            self._restart(self._end("liveness"))
            return
        readiness = by_kind.get("readinessProbe")
        reached = readiness.poll(self._probe) if readiness else True
        if reached is not None:
            self.ready = reached
            self.was_ready = self.was_ready or reached

    def _restart(self, end: End) -> None:
        self.ready = False
        self.ends.append(end)
        self.container.close()
        self._stopping.wait(BACK_OFF)
        self.container = self._start()

    def _end(self, why: str) -> End:
        self.ready = False
        started = time.monotonic()
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook is not None:
            self._pre_stop(hook, grace)
        self.container.signal(signal.SIGTERM)
        code = self.container.wait(grace - (time.monotonic() - started))
        if code is not None:
            return End(why, code, seconds=time.monotonic() - started)
        self.container.signal(signal.SIGKILL)
        assert self.container.wait(60) is not None, "the container outlived SIGKILL"
        # What unshare makes of it is 1.
        return End(why, 128 + signal.SIGKILL, killed=True, seconds=time.monotonic() - started)

    def _pre_stop(self, hook: Object, grace: float) -> None:
        if "sleep" in hook:
            time.sleep(hook["sleep"]["seconds"])
            return
        problem = self._probe({**hook, "timeoutSeconds": grace}).result()
        assert problem is None, f"preStop failed: {problem}"

    def _probe(self, spec: Object) -> Future[str | None]:
        for kind, run in ACTIONS.items():
            if kind in spec:
                return self.network.submit(run, self, spec[kind], spec.get("timeoutSeconds", 1))
        raise NotImplementedError(f"probe of another kind: {spec}")


def _http(pod: Pod, spec: Object, seconds: float) -> str | None:
    scheme, port = spec.get("scheme", "HTTP").lower(), pod.port(spec["port"])
    host = spec.get("host", pod.network.ip)
    path = "/" + spec.get("path", "").lstrip("/")
    headers = {each["name"]: each["value"] for each in spec.get("httpHeaders", [])}
    try:
        answer = httpx.get(f"{scheme}://{host}:{port}{path}", headers=headers, timeout=seconds)
    except httpx.HTTPError as error:
        return str(error)
    return None if 200 <= answer.status_code < 400 else f"{answer.status_code} {answer.text}"


def _tcp(pod: Pod, spec: Object, seconds: float) -> str | None:
    address = (spec.get("host", pod.network.ip), pod.port(spec["port"]))
    try:
        socket.create_connection(address, seconds).close()
    except OSError as error:
        return str(error)
    return None


def _exec(pod: Pod, spec: Object, seconds: float) -> str | None:
    try:
        done = pod.container.run(spec["command"], seconds)
    except subprocess.TimeoutExpired:
        return f"no end within {seconds:g} s"
    return None if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr}"


def _grpc(pod: Pod, spec: Object, seconds: float) -> str | None:
    service = spec.get("service") or ""
    answer = pod.network.grpc(spec["port"], "health", service=service, seconds=seconds)
    return None if answer["healthy"] else str(answer.get("error", "not serving"))


ACTIONS = {"httpGet": _http, "tcpSocket": _tcp, "exec": _exec, "grpc": _grpc}
