"""podman and buildah on a storage of their own: no image, setting or container of the user's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_ENOUGH_MEMORY = 12 * 2**30

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{root}/graph"
runroot = "{root}/run"
"""
# Where limits cannot be raised, and where cgroups are half v1 and half v2, the defaults fail.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


class Storage:
    """A place for images and containers, gone with everything in it at the end.

    Args:
        root: An empty folder or one to make, on a file system that overlay takes.

    Attributes:
        env: The environment in which podman and buildah use it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        mount_memory(root)
        settings = root / "settings"
        settings.mkdir(parents=True)
        (settings / "storage.conf").write_text(_STORAGE.format(root=root))
        (settings / "containers.conf").write_text(_CONTAINERS)
        (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (settings / "auth.json").write_text("{}")
        (settings / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
        self.env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
            "CONTAINERS_CONF": str(settings / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(settings / "registries.conf"),
            "REGISTRY_AUTH_FILE": str(settings / "auth.json"),
            "TMPDIR": str(root),
        }

    def run(self, *command: str | Path, check: bool = True, **more: Any) -> str:
        """Runs a command on this storage; returns its output."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.env, **more.pop("env", {})},
            capture_output=True,
            text=True,
            check=False,
            **more,
        )
        assert done.returncode == 0 or not check, f"{command}:\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    def admit_insecure(self, registry: str) -> None:
        """Lets `HOST:PORT` be spoken to without TLS."""
        with (self.root / "settings" / "registries.conf").open("a") as settings:
            settings.write(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')

    def close(self) -> None:
        """Removes containers, mounts and files."""
        self.run("podman", "rm", "--all", "--force", "--time", "0", check=False)
        self.run("buildah", "rm", "--all", check=False)
        unmount(self.root)
        shutil.rmtree(self.root)


def unmount(folder: Path) -> None:
    """Unmounts whatever was mounted on a folder or in it."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        point = line.split()[1]
        if point == str(folder) or point.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", point], check=False)


def mount_memory(folder: Path) -> None:
    """Puts a folder into memory where there is plenty: thousands of files go at once, unsynced."""
    (line,) = re.findall(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    if int(line) * 1024 > _ENOUGH_MEMORY:
        size = f"size={_ENOUGH_MEMORY * 2 // 3}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False)
