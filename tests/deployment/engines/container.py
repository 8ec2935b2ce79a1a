"""A container that runs an image as a careful platform would, and the calls that reach it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 90.0
HARDENED = (
    "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--memory=1g", "--tmpfs=/tmp:rw,mode=1777",
)  # fmt: skip
"""No way out, nothing to write to but /tmp, no capability, and a limit."""


class Container:
    """A running container.

    Args:
        engine: The command that runs containers, `podman` or `docker`.
        env: The environment of that command.
        identity: The container's.
    """

    def __init__(self, engine: str, env: Mapping[str, str], identity: str) -> None:
        self._engine = engine
        self._env = dict(env)
        self.identity = identity

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self._run("inspect", self.identity))[0])

    @property
    def pid(self) -> int:
        """Of the server, as this machine has it; 0 once it has ended."""
        return int(self.state()["State"]["Pid"])

    @property
    def log(self) -> str:
        done = subprocess.run(
            [self._engine, "logs", self.identity], env=self._env, stdout=-1, stderr=-2, text=True
        )
        return done.stdout

    def exec(self, *command: str) -> str:
        return self._run("exec", self.identity, *command)

    def get(self, path: str) -> tuple[int, str]:
        """Asks the server for a page, from inside its network."""
        code = (
            "import sys, httpx\n"
            "answer = httpx.get(sys.argv[1], timeout=60)\n"
            "print(answer.status_code)\nprint(answer.text)"
        )
        done = self._inside([sys.executable, "-c", code, f"http://127.0.0.1:8080{path}"])
        if done.returncode:
            return 0, done.stderr
        status, _, text = done.stdout.partition("\n")
        return int(status), text

    def infer(self, model: str, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The outputs' values by name, of `rest` and of `grpc`."""
        question = {"rest": "127.0.0.1:8080", "grpc": "127.0.0.1:8081"}
        question |= {"model": model, "inputs": list(inputs)}  # type: ignore[dict-item]
        calls = str(Path(__file__).with_name("calls.py"))
        done = self._inside([sys.executable, calls], input=json.dumps(question))
        assert done.returncode == 0, f"{done.stderr}\n{self.log}"
        return dict(json.loads(done.stdout))

    def wait_until_ready(self, *models: str, seconds: float = START_SECONDS) -> float:
        """Returns the seconds that it took, from now."""
        started = time.monotonic()
        for model in models:
            while self.get(f"/v2/models/{model}/ready")[0] != 200:
                assert self.state()["State"]["Running"], f"it ended:\n{self.log}"
                assert time.monotonic() - started < seconds, f"{model} is not ready:\n{self.log}"
                time.sleep(0.1)
        return time.monotonic() - started

    def check_health(self) -> int:
        """Runs the image's own check of health inside, now; returns its exit code."""
        config = self.state()["Config"]
        kind, *command = config["Healthcheck"]["Test"]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *command]
        done = subprocess.run(
            [self._engine, "exec", self.identity, *command], env=self._env, capture_output=True
        )
        return done.returncode

    def wait_for_end(self, seconds: float = START_SECONDS) -> int:
        """Returns the exit code."""
        deadline = time.monotonic() + seconds
        while self.state()["State"]["Running"]:
            assert time.monotonic() < deadline, f"still running:\n{self.log}"
            time.sleep(0.1)
        return int(self.state()["State"]["ExitCode"])

    def stop(self) -> int:
        """Ends it by SIGTERM; returns the exit code."""
        self._run("stop", "--time", "20", self.identity)
        return int(self.state()["State"]["ExitCode"])

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):
            self._run("rm", "--force", self.identity)

    def _inside(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        pid = str(self.pid)
        if pid == "0":
            return subprocess.CompletedProcess(command, 1, "", "the container is not running")
        return subprocess.run(
            ["nsenter", "--net", "--target", pid, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **more,
        )

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._engine, *arguments], env=self._env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def running(
    env: Mapping[str, str], image: str, *options: str, engine: str = "podman"
) -> Iterator[Container]:
    """Runs an image with these options, gone at the end."""
    command = [engine, "run", "--detach", *options, image]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stderr}"
    container = Container(engine, env, done.stdout.split()[-1])
    try:
        yield container
    finally:
        container.remove()
