"""The simulated pod itself, with servers of a few lines: it must be as strict as a real one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.deployment.image.dockerfile import Image

from .cluster import Cluster, Object, StoredImage
from .conftest import Run
from .kubelet import Pod

SERVER = """
import http.server, os, signal, socketserver, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/heal" and os.path.exists("/tmp/sick"):
            # What an emptyDir holds outlives the container.
            os.remove("/tmp/sick")
        self.send_response(500 if os.path.exists("/tmp/sick") else 200)
        self.end_headers()
        self.wfile.write(str(os.getuid()).encode())

    def log_message(self, *args):
        pass

def stop(*args):
    print("stopping", flush=True)
    if "deaf" not in sys.argv:
        threading.Thread(target=server.shutdown).start()

host = "127.0.0.1" if "local" in sys.argv else ""
server = http.server.ThreadingHTTPServer((host, 8080), Handler)
signal.signal(signal.SIGTERM, stop)
print("serving", flush=True)
server.serve_forever()
"""
HTTP = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}


def _pod(*arguments: str, spec: Object | None = None, **container: Any) -> Object:
    return {
        "metadata": {"name": "simple"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "image",
                    "command": [sys.executable, "-c", SERVER, *arguments],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": HTTP,
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    **container,
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            **(spec or {}),
        },
    }


def _run(run_pod: Run, pod: Object) -> Pod:
    return run_pod(Cluster([], {"image": StoredImage(Image(user="1000:0"))}), pod)


def test_is_closed_off_from_the_machine(run_pod: Run) -> None:
    context = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = _run(run_pod, _pod(securityContext=context))
    pod.wait_until_ready()
    status = pod.container.run(["cat", "/proc/self/status"], 5).stdout
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["1000"] * 4
    assert lines["Gid"].split() == ["0"] * 4
    assert int(lines["CapBnd"], 16) == int(lines["CapEff"], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert pod.container.run(["cat", "/proc/1/cmdline"], 5).stdout.startswith(sys.executable)
    for path in ("/x", "/mnt/x", "/var/tmp/x", sys.prefix + "/x"):
        assert "Read-only" in pod.container.run(["touch", path], 5).stderr
    assert pod.container.run(["touch", "/tmp/x"], 5).returncode == 0
    assert pod.network.run(_answers, "127.0.0.1")
    assert not _answers("127.0.0.1")
    assert not Path("/tmp/x").exists()


def _answers(ip: str) -> bool:
    try:
        return httpx.get(f"http://{ip}:8080/", timeout=2).text == "1000"
    except httpx.TransportError:
        return False


def test_a_server_that_listens_on_the_loopback_alone_is_never_ready(run_pod: Run) -> None:
    pod = _run(run_pod, _pod("local"))
    pod.wait_until(lambda: len(pod.probes[0].answers) > 3, "probed")
    assert not pod.was_ready
    assert pod.network.run(_answers, "127.0.0.1")


def test_a_container_whose_liveness_fails_is_restarted(run_pod: Run) -> None:
    probes = {
        "livenessProbe": {**HTTP, "failureThreshold": 2},
        "startupProbe": {
            **HTTP,
            "failureThreshold": 60,
            "httpGet": {"path": "/heal", "port": 8080},
        },
    }
    pod = _run(run_pod, _pod(**probes))
    pod.wait_until_ready()
    pod.container.run(["touch", "/tmp/sick"], 5)
    pod.wait_until(lambda: pod.ends, "restarted")
    assert pod.ends[0].why == "liveness"
    pod.wait_until_ready()


def test_a_container_that_does_not_start_in_time_is_restarted(run_pod: Run) -> None:
    never = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 3}
    # Before it handles SIGTERM, the first process of a container does not hear it.
    pod = _run(run_pod, _pod(startupProbe=never, spec={"terminationGracePeriodSeconds": 1}))
    pod.wait_until(lambda: pod.ends, "restarted")
    assert pod.ends[0].why == "startup"
    assert not pod.was_ready


def test_each_kind_of_probe_is_run(run_pod: Run) -> None:
    pod = _run(run_pod, _pod())
    pod.wait_until_ready()
    assert pod._probe({"tcpSocket": {"port": "http"}}).result() is None
    assert pod._probe({"tcpSocket": {"port": 1}}).result()
    assert pod._probe({"exec": {"command": ["test", "-d", "/tmp"]}}).result() is None
    failed = pod._probe({"exec": {"command": ["test", "-d", "/none"]}}).result()
    assert failed is not None
    assert failed.startswith("exit code 1")
    # This server speaks no gRPC.
    assert pod._probe({"grpc": {"port": 8080}, "timeoutSeconds": 2}).result()


def test_the_end_begins_with_the_hook_and_is_forced_after_the_grace(run_pod: Run) -> None:
    hook = {"exec": {"command": ["sh", "-c", "touch /tmp/hook; sleep 1"]}}
    spec = {"terminationGracePeriodSeconds": 2}
    pod = _run(run_pod, _pod("deaf", spec=spec, lifecycle={"preStop": hook}))
    pod.wait_until_ready()
    end = pod.terminate()
    assert (end.code, end.killed) == (137, True)
    assert end.seconds >= 2
    assert "stopping" in pod.log
    assert (pod._volumes["tmp"] / "hook").exists()


def test_nothing_is_left(run_pod: Run) -> None:
    pod = _run(run_pod, _pod())
    pod.wait_until_ready()
    end = pod.terminate()
    assert (end.code, end.killed) == (0, False)
    pid, work = pod.container.pid, pod.container.plan["work"]
    pod.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not os.path.exists(work)
    assert work not in Path("/proc/self/mounts").read_text()
