"""Makes the inside of a container and gives its place to the container's command.

Run as root in new mount, network, process, host name and IPC namespaces, with the plan of
`container.py` as its one argument. The image's file system is this machine's, under an overlay
that keeps what is written; nothing that is made here outlives the namespaces.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def main(plan: dict[str, Any]) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{plan['ip']}/32", "dev", "lo")
    socket.sethostname(plan["hostname"])
    root = _image(Path(plan["work"]), plan["visible"])
    _kernel_folders(root)
    for mount in plan["mounts"]:
        _bind(Path(mount["source"]), root / mount["target"].lstrip("/"), mount["read_only"])
    for path in plan["visible"]:
        _bind(Path(path), root / path.lstrip("/"), read_only=True)
    if plan["read_only_root"]:
        _run("mount", "-o", "remount,bind,ro", str(root))
    _change_root(root)
    os.chdir(plan["working_folder"])
    os.execvpe("setpriv", ["setpriv", *plan["privileges"], "--", *plan["argv"]], plan["env"])


def _image(work: Path, visible: list[str]) -> Path:
    """The machine's root under an overlay, with an empty /tmp."""
    _run("mount", "-t", "tmpfs", "tmpfs", str(work))
    layers = {name: work / name for name in ("upper", "work", "root")}
    for folder in layers.values():
        folder.mkdir()
    empty = layers["upper"] / "tmp"
    empty.mkdir()
    empty.chmod(0o1777)
    os.setxattr(empty, "trusted.overlay.opaque", b"y")
    options = f"lowerdir=/,upperdir={layers['upper']},workdir={layers['work']}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, str(layers["root"]))
    # An interpreter may be in the home folder of root: the image's is for everyone.
    for path in visible:
        for parent in reversed(Path(path).parents):
            inside = layers["root"] / str(parent).lstrip("/")
            if inside.is_dir():
                inside.chmod(inside.stat().st_mode | 0o555)
    return layers["root"]


def _kernel_folders(root: Path) -> None:
    _run("mount", "-t", "proc", "proc", str(root / "proc"))
    _run("mount", "-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in DEVICES:
        _bind(Path("/dev", name), root / "dev" / name, read_only=False)
    (root / "dev" / "shm").mkdir()
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev" / "shm"))


def _bind(source: Path, target: Path, read_only: bool) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _run("mount", "--bind", str(source), str(target))
    if read_only:
        _run("mount", "-o", "remount,bind,ro", str(target))


def _change_root(root: Path) -> None:
    os.chdir(root)
    _run("pivot_root", ".", ".")
    detach = 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(b".", detach):
        raise OSError(ctypes.get_errno(), "umount2")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
