"""Engines, by programs in their place that record how they are called."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.deployment.image import engines
from mlserver_pyfunc.deployment.image.build_context import Options
from mlserver_pyfunc.deployment.names import BuildError

from .fakes import DIGEST, ID, Put

WITHOUT_BUILDX = {"buildx version": (1, "docker: 'buildx' is not a docker command")}
PODMAN_SOCKET = {"version": (0, "Client:\n Version: 20.10.24\nServer: linux\n Podman Engine:\n")}


def called(calls: Path, word: str) -> list[str]:
    """The arguments of the last call that has a word."""
    lines = [json.loads(line) for line in calls.read_text().splitlines()]
    found: list[str] = [line for line in lines if word in line][-1]
    return found


def build(tmp_path: Path, **keys: Any) -> engines.Built:
    context, name = tmp_path / "context", "registry.example/iris:1"
    return engines.choose().build(context, name, Options(**keys), tmp_path)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (("docker", "podman", "buildah"), "docker"),
        (("podman", "buildah"), "podman"),
        (("buildah",), "buildah"),
    ],
)
def test_takes_the_first_engine_that_is_there(
    put: Put, there: tuple[str, ...], chosen: str
) -> None:
    for name in there:
        put(name)
    assert engines.choose().name == chosen


def test_passes_over_an_engine_that_does_not_answer(put: Put) -> None:
    put("docker", {"version": (1, "Cannot connect to the Docker daemon")})
    put("podman")
    assert engines.choose().name == "podman"
    with pytest.raises(BuildError, match="docker does not answer"):
        engines.choose("docker")


@pytest.mark.usefixtures("put")
def test_says_what_to_do_where_there_is_no_engine() -> None:
    with pytest.raises(BuildError, match=r"looked for docker, podman, buildah.*--output DIR"):
        engines.choose()


@pytest.mark.parametrize("answers", [WITHOUT_BUILDX, PODMAN_SOCKET])
def test_passes_over_a_docker_that_cannot_build(
    put: Put, answers: dict[str, tuple[int, str]]
) -> None:
    put("docker", answers)
    put("podman")
    assert engines.choose().name == "podman"
    with pytest.raises(BuildError, match="its plugin buildx"):
        engines.choose("docker")


def test_builds_by_buildx(put: Put, calls: Path, tmp_path: Path) -> None:
    put("docker")
    built = build(
        tmp_path,
        platforms="linux/arm64",
        no_cache=True,
        arguments=["A=1 2", "B"],
        secrets=["id=netrc,src=/x"],
        extra=["--network=host"],
    )
    command = called(calls, "build")
    assert re.fullmatch(
        r"--label=org\.opencontainers\.image\.created=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00",
        command.pop(5),
    )
    assert command == [
        "docker",
        "buildx",
        "build",
        "--tag=registry.example/iris:1",
        f"--iidfile={tmp_path}/image.id",
        "--platform=linux/arm64",
        "--no-cache",
        "--build-arg=A=1 2",
        "--build-arg=B",
        "--secret=id=netrc,src=/x",
        "--progress=plain",
        f"--metadata-file={tmp_path}/metadata.json",
        "--output=type=docker,name=registry.example/iris:1",
        "--network=host",
        str(tmp_path / "context"),
    ]
    assert (built.id, built.digest) == (ID, None)


def test_buildx_pushes_as_it_builds(put: Put, calls: Path, tmp_path: Path) -> None:
    put("docker")
    built = build(tmp_path, push=True, platforms="linux/amd64,linux/arm64")
    expected = "--output=type=image,push=true,name=registry.example/iris:1"
    assert expected in called(calls, "build")
    assert built.digest == DIGEST


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_builds_by_podman_and_buildah(put: Put, calls: Path, tmp_path: Path, name: str) -> None:
    put(name)
    built = build(tmp_path, push=True, extra=["--tls-verify=false"])
    got = called(calls, "build")
    assert got[:3] == [name, "build", "--tag=registry.example/iris:1"]
    assert {"--format=docker", "--layers", "--tls-verify=false"} <= set(got)
    assert got[-1] == str(tmp_path / "context")
    assert called(calls, "push")[1:3] == ["push", "--tls-verify=false"]
    assert (built.id, built.digest) == (ID, DIGEST)


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_several_platforms_make_a_list(put: Put, calls: Path, tmp_path: Path, name: str) -> None:
    put(name)
    platforms = "linux/amd64,linux/arm64"
    built = build(tmp_path, platforms=platforms, push=True)
    assert "--manifest=registry.example/iris:1" in called(calls, f"--platform={platforms}")
    assert called(calls, "push")[1:4] == ["manifest", "push", "--all"]
    assert (built.id, built.digest) == (None, DIGEST)


PODMAN_FAILURE = """[2/5] STEP 3/9: COPY server.txt /build/server.txt
[2/5] STEP 4/9: RUN uv pip install -r /build/server.txt
error: no such package
Error: building at STEP "RUN uv pip install": exit status 1"""

BUILDKIT_FAILURE = """#12 [server 3/5] RUN uv pip install -r /build/server.txt
#12 0.9 error: no such package
#13 [requirements 3/3] RUN uv venv
------
 > [server 3/5] RUN uv pip install -r /build/server.txt:
0.9 error: no such package
------
Dockerfile:9
--------------------
ERROR: failed to solve: exit code: 1"""


@pytest.mark.parametrize(
    ("name", "answers", "step"),
    [
        ("podman", {"build ": (1, PODMAN_FAILURE)}, "RUN uv pip install -r /build/server.txt"),
        (
            "docker",
            {"buildx build": (1, BUILDKIT_FAILURE)},
            "server 3/5: RUN uv pip install -r /build/server.txt",
        ),
    ],
)
def test_a_failure_names_its_step_and_shows_the_last_lines(
    put: Put,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    answers: dict[str, tuple[int, str]],
    step: str,
) -> None:
    put(name, answers)
    with pytest.raises(BuildError) as caught:
        build(tmp_path)
    text = str(caught.value)
    assert f'{name} failed at step "{step}"; its last lines:\n' in text
    assert "error: no such package" in text
    assert "Dockerfile:9" not in text
    assert "error: no such package" in capfd.readouterr().err, "progress is passed on"


def test_finds_the_engine_that_has_an_image(put: Put) -> None:
    put("docker", {"image inspect": (1, "")})
    put("podman")
    found = engines.holder("iris:1")
    assert found is not None
    assert found.name == "podman"
    assert found.run_command("iris:1", {8080: 80}, "127.0.0.1") == [
        "podman",
        "run",
        "--rm",
        "--init",
        "--publish=127.0.0.1:80:8080",
        "iris:1",
    ]


def test_buildah_runs_nothing(put: Put) -> None:
    put("buildah")
    assert engines.holder("iris:1") is None
    assert os.environ["PATH"]
