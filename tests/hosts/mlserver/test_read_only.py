"""A server whose file system is read-only but for one temporary folder, as in a hardened pod."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver_pyfunc.environments.uv import find_uv
from tests.needs import HERE, OTHER, require

from .models import inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

# In mounts of its own: $0 is read-only but for $0/writable, and so is the root.
MOUNT = """
mount --bind "$0" "$0" && cd "$0" && mount --bind "$0/writable" "$0/writable" &&
mount -o remount,bind,ro "$0" && mount -o remount,bind,ro / && exec "$@"
"""
NO_SHM = "mount -t tmpfs -o ro none /dev/shm &&"

CODE = """
import pathlib
import sys
import tempfile


def where(folder, context):
    for place in (folder[0], context.source_dir, pathlib.Path.home(), "/"):
        try:
            pathlib.Path(place, "written").write_text("x")
        except OSError:
            continue
        return f"{place} can be written"
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    return "%d.%d" % sys.version_info[:2]
"""


def prefix(folder: Path, first: str) -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", *as_root, "--mount", "--propagation", "private"]
    return [*unshare, "sh", "-c", first + MOUNT, str(folder)]


# MLServer's own pool of processes needs /dev/shm, ours does not.
@pytest.fixture(params=[("", "1"), (NO_SHM, "0")], ids=["with /dev/shm", "without /dev/shm"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A function in process, and an isolated one whose environment is there already."""
    (tmp_path / "writable").mkdir()
    require("mounts", f"Python {OTHER}")
    tensors = {
        "inputs": [tensor("folder", "BYTES", [1], content_type="str")],
        "outputs": [tensor("python", "BYTES", [1])],
    }
    models = {"here": inline(CODE, "where", tensors)}
    models["apart"] = {**inline(CODE, "where", tensors), "python_version": OTHER}
    write_repository(tmp_path / "models", models)
    cache = {"MLSERVER_PYFUNC_CACHE": str(tmp_path / "cache")}
    downloads = subprocess.run(
        [find_uv(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    subprocess.run(
        [Path(sys.executable).with_name("mlserver-pyfunc"), "env", tmp_path / "models" / "apart"],
        env={**os.environ, **cache, "UV_CACHE_DIR": downloads.stdout.strip()},
        check=True,
    )
    first, parallel_workers = request.param
    env = {
        **cache,
        "MLSERVER_PARALLEL_WORKERS": parallel_workers,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "writable"),
        "MLSERVER_ENVIRONMENTS_DIR": str(tmp_path / "writable" / "envs"),
        "MLSERVER_METRICS_DIR": str(tmp_path / "writable" / "metrics"),
    }
    # Its log is opened here, where the folder can be written.
    with serving(
        tmp_path / "models", tmp_path, *models, env=env, prefix=prefix(tmp_path, first)
    ) as running:
        yield running


@pytest.mark.heavy
def test_a_server_needs_no_more_than_a_temporary_folder(
    server: ServerProcess, tmp_path: Path
) -> None:
    for model, version in {"here": HERE, "apart": OTHER}.items():
        request = Request(model, [Tensor("folder", "BYTES", (1,), [str(tmp_path).encode()])])
        reply = rest_infer(server.client, request).expect_ok()
        assert reply.outputs["python"].values == [version.encode()], server.log
    assert server.stop() == 0, server.log
    assert not list((tmp_path / "writable").glob("pyfunc*"))
