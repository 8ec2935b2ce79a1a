"""What tests need besides the packages of the `dev` extra, and how to get it.

A test names its needs by a marker, `@pytest.mark.needs("sshd")`; a fixture calls `require("sshd")`.
Without what it needs, a test is skipped, and the run ends with one line per missing thing.
With `CI` or `MLSERVER_PYFUNC_TESTS_REQUIRE_ALL` in the environment, the test fails instead, unless
`MLSERVER_PYFUNC_TESTS_WITHOUT` names the thing (names are separated by commas).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import PYTHON_VERSIONS
from mlserver_pyfunc.environments import uv

from .places import CRDS, EXAMPLES, PROTOCOL

PREFIX = "needs "
"""Begins the reason of a test that is skipped for want of something."""

HERE = uv.SERVING_PYTHON


@dataclass(frozen=True)
class Need:
    """A program, a right or a file that the machine may lack.

    Attributes:
        how: How to get it: a command, or a few words.
        is_there: Looks for it.
    """

    how: str
    is_there: Callable[[], bool]


def find(*names: str) -> str | None:
    """Returns the path of the first program that is installed."""
    return next(filter(None, map(shutil.which, names)), None)


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(map(find, names))


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def has_python(version: str) -> bool:
    try:
        uv.find_python(version)
    except uv.UvError:
        return False
    return True


def prefix_of(version: str) -> Path:
    """Returns the folder that a Python is installed in."""
    code = "import sys; print(sys.base_prefix)"
    command = [uv.find_python(version), "-I", "-c", code]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def _has_python_in_a_folder(version: str) -> bool:
    return has_python(version) and prefix_of(version) != Path("/usr")


def _has_packages_of(example: str) -> bool:
    """Makes the environment of an example, which is kept in the cache."""
    return _runs(
        str(Path(sys.executable).with_name("mlserver-pyfunc")), "env", str(EXAMPLES / example)
    )


def _can_build_images() -> bool:
    tools = _programs("podman", "buildah", "runc", "mmdebstrap", "nsenter", "openssl")
    return os.geteuid() == 0 and tools() and platform.freedesktop_os_release()["ID"] == "debian"


def _can_make_pods() -> bool:
    tools = _programs("unshare", "nsenter", "setpriv", "mount", "pivot_root", "ip")
    kinds = ("--mount", "--net", "--pid", "--ipc", "--uts")
    return os.geteuid() == 0 and tools() and _runs("unshare", *kinds, "--fork", "true")


def _can_mount() -> bool:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return _runs("unshare", *as_root, "--mount", "mount", "--bind", "/tmp", "/tmp")


OTHER = next(
    (v for v in reversed(PYTHON_VERSIONS) if v != HERE and has_python(v)),
    "3.13" if HERE != "3.13" else "3.12",
)
"""A Python that is not the serving one: the newest of this machine."""

NEEDS = {
    "atheris": Need(
        "pip install atheris, which has wheels for Python 3.11 and later on x86-64",
        lambda: importlib.util.find_spec("atheris") is not None,
    ),
    "axe-core": Need(
        "apt-get install npm, or AXE_CORE=PATH of axe.min.js",
        lambda: bool(os.environ.get("AXE_CORE") or find("npm")),
    ),
    "Chromium": Need(
        "apt-get install chromium chromium-driver",
        lambda: bool(find("chromium", "google-chrome") and find("chromedriver")),
    ),
    "CRD schemas": Need(
        f"put those of KServe and Seldon as JSON into {CRDS}, or CRD_SCHEMAS=FOLDER", CRDS.is_dir
    ),
    "curl": Need("apt-get install curl", _programs("curl")),
    "docker-registry": Need("apt-get install docker-registry", _programs("docker-registry")),
    "h2load": Need("apt-get install nghttp2-client", _programs("h2load")),
    "haproxy": Need("apt-get install haproxy", _programs("haproxy")),
    "image builds": Need(
        "Debian, root, apt-get install podman buildah runc mmdebstrap openssl netavark "
        "aardvark-dns iptables catatonit uidmap",
        _can_build_images,
    ),
    "kserve": Need(
        "pip install mlserver-pyfunc[kserve]",
        lambda: importlib.util.find_spec("kserve") is not None,
    ),
    "kube-apiserver": Need(
        "make test-apiserver builds it in ten minutes, and runs these tests",
        lambda: bool(os.environ.get("KUBE_APISERVER")),
    ),
    "mounts": Need("Linux, root or user namespaces", _can_mount),
    "OpenAPI of the protocol": Need(
        "git clone https://github.com/kserve/open-inference-protocol, then "
        "OPEN_INFERENCE_PROTOCOL=its folder specification/protocol",
        (PROTOCOL / "open_inference_rest.yaml").is_file,
    ),
    "mounts as root": Need("Linux, root", lambda: os.geteuid() == 0 and _can_mount()),
    "nginx": Need("apt-get install nginx-light", _programs("nginx")),
    "openssl": Need("apt-get install openssl", _programs("openssl")),
    "pods": Need("Linux, root with all capabilities, apt-get install iproute2", _can_make_pods),
    "prometheus": Need("apt-get install prometheus", _programs("prometheus")),
    "PyTorch": Need(
        "pip install torch==2.13.0+cpu, from an index of PyTorch's own",
        lambda: importlib.util.find_spec("torch") is not None,
    ),
    "sshd": Need(
        "apt-get install openssh-client openssh-server", _programs("sshd", "ssh", "ssh-keygen")
    ),
    "XGBoost": Need(
        "pip install xgboost-cpu, or xgboost if it has none for this machine",
        lambda: importlib.util.find_spec("xgboost") is not None,
    ),
    **{
        f"packages of examples/{name}": Need(
            f"an index that uv reaches: mlserver-pyfunc env examples/{name} says what is missing",
            functools.partial(_has_packages_of, name),
        )
        for name in ("audio", "embeddings", "forecast", "mlflow", "onnx")
    },
    **{
        f"Python {version} in a folder": Need(
            f"pyenv install {version}", functools.partial(_has_python_in_a_folder, version)
        )
        for version in PYTHON_VERSIONS
    },
    **{
        f"Python {version}": Need(
            f"uv python install {version}, or pyenv install {version}",
            functools.partial(has_python, version),
        )
        for version in PYTHON_VERSIONS
    },
}


@functools.cache
def is_there(name: str) -> bool:
    """Whether this machine has something of `NEEDS`."""
    return NEEDS[name].is_there()


def require(*names: str) -> None:
    """Skips the test that runs, or fails it in CI, if the machine lacks one of `names`."""
    missing = [name for name in names if not is_there(name)]
    if not missing:
        return
    reason = PREFIX + ", ".join(missing)
    if any(map(must_have, missing)):
        pytest.fail("\n".join([reason, *map(line, missing)]), pytrace=False)
    pytest.skip(reason)


def must_have(name: str) -> bool:
    """Whether tests fail for want of it, instead of being skipped."""
    strict = any(os.environ.get(name) for name in ("CI", "MLSERVER_PYFUNC_TESTS_REQUIRE_ALL"))
    return strict and name not in os.environ.get("MLSERVER_PYFUNC_TESTS_WITHOUT", "").split(",")


def line(name: str) -> str:
    """How to get something, in one line."""
    return f"{name}: {NEEDS[name].how}"


def summary(reasons: list[str]) -> list[str]:
    """One line for each missing thing.

    Args:
        reasons: Of each skipped test.
    """
    counts: dict[str, int] = {}
    for reason in reasons:
        for name in reason.removeprefix(PREFIX).split(", ") if reason.startswith(PREFIX) else []:
            counts[name] = counts.get(name, 0) + 1
    return [f"{count:5} skipped, need {line(name)}" for name, count in sorted(counts.items())]
