"""Runs the image tests against a real Docker engine, of Debian's packages, started privately.

    python -m tests.deployment.engines.docker_engines [26] [-- ARGUMENTS OF PYTEST]

26 is Debian 13's, with buildx. It is not installed: its packages are unpacked into a temporary
folder. As root, on Linux.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.places import ROOT

from .storage import mount_memory, unmount

START_SECONDS = 60
_BRIDGE = Path("/sys/class/net/docker0")


@dataclass(frozen=True)
class Release:
    debian: str
    packages: tuple[str, ...]
    network: str


RELEASES = {
    "26": Release("trixie", ("docker.io", "docker-cli", "docker-buildx"), "172.30.0.1/16"),
}


def main(arguments: list[str]) -> int:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, more = arguments[:cut] or list(RELEASES), arguments[cut + 1 :]
    codes = []
    for name in chosen:
        with (
            tempfile.TemporaryDirectory(prefix="docker-", dir="/var/tmp") as folder,
            docker(RELEASES[name], Path(folder)) as env,
        ):
            subprocess.run(["docker", "version"], env=env, check=True)
            command = [sys.executable, "-m", "pytest", "tests/deployment/engines", "-v", *more]
            codes.append(subprocess.run(command, cwd=ROOT, env=env, check=False).returncode)
        print(f"Docker {name}: {'passed' if codes[-1] == 0 else 'FAILED'}", flush=True)
    return max(codes)


@contextlib.contextmanager
def docker(release: Release, work: Path) -> Iterator[dict[str, str]]:
    """A running engine, and the environment in which `docker` reaches it."""
    mount_memory(work)
    system = work / "system"
    env = _unpacked(release, system, work)
    limit = {"Name": "nofile", "Soft": 20000, "Hard": 20000}
    (work / "daemon.json").write_text(json.dumps({"default-ulimits": {"nofile": limit}}))
    had_bridge = _BRIDGE.exists()
    command = [
        "dockerd", f"--data-root={work}/data", f"--exec-root={work}/exec",
        f"--host={env['DOCKER_HOST']}", f"--pidfile={work}/docker.pid",
        f"--config-file={work}/daemon.json", f"--bip={release.network}",
    ]  # fmt: skip
    with (work / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(daemon, env, work)
        yield env
    finally:
        daemon.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        unmount(work)
        if not had_bridge:
            _remove_network(release.network)


def _unpacked(release: Release, system: Path, work: Path) -> dict[str, str]:
    """Unpacks the packages; gives the environment in which they come first."""
    include = ",".join(release.packages)
    subprocess.run(
        ["mmdebstrap", "--variant=extract", "--quiet", f"--include={include}", release.debian,
         system],
        check=True,
    )  # fmt: skip
    # Only what is needed: the unpacked system's own shell and tools are for another C library.
    tools = work / "bin"
    tools.mkdir()
    for folder in ("usr/bin", "usr/sbin"):
        for path in (system / folder).iterdir():
            if path.name.startswith(("docker", "containerd")):
                (tools / path.name).symlink_to(path)
    plugins = work / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    for path in system.glob("usr/*/docker/cli-plugins/docker-buildx"):
        (plugins / path.name).symlink_to(path)
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}:/usr/sbin",
        "DOCKER_HOST": f"unix://{work}/docker.sock",
        "DOCKER_CONFIG": str(work / "config"),
        "PYFUNC_TEST_ENGINES": "docker",
    }


def _wait(daemon: subprocess.Popen[bytes], env: dict[str, str], work: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(["docker", "info"], env=env, stdout=-3, stderr=-3).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"dockerd does not run:\n{(work / 'dockerd.log').read_text()[-3000:]}")
        time.sleep(0.3)


def _remove_network(network: str) -> None:
    """Removes the bridge and the rules of the packet filter, which the engine leaves behind."""
    subprocess.run(["ip", "link", "delete", _BRIDGE.name], check=False)
    own = ipaddress.ip_interface(network).network
    for table in ("nat", "filter"):
        listed = subprocess.run(["iptables", "-t", table, "-S"], stdout=-1, text=True, check=True)
        rules = [line.split() for line in listed.stdout.splitlines()]
        for kind, chain, *rest in rules:
            if kind == "-A" and (chain.startswith("DOCKER") or _is_docker(rest, str(own))):
                subprocess.run(["iptables", "-t", table, "-D", chain, *rest], check=False)
        for kind, chain, *_ in rules:
            if kind == "-N" and chain.startswith("DOCKER"):
                subprocess.run(["iptables", "-t", table, "-X", chain], check=False)


def _is_docker(rule: list[str], network: str) -> bool:
    return any(part == network or part.startswith(("docker0", "DOCKER")) for part in rule)


if __name__ == "__main__":
    missing = [tool for tool in ("mmdebstrap", "iptables", "buildah") if not shutil.which(tool)]
    if os.geteuid() or missing:
        sys.exit(f"expected root and mmdebstrap, iptables and buildah; missing: {missing}")
    sys.exit(main(sys.argv[1:]))
