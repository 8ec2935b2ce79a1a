"""Images that `mlserver-pyfunc build` makes of functions, and what they do when they are run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver_pyfunc import definition
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.sources import lock

from .build import Built, build, build_fails
from .container import HARDENED, Container
from .engines import ENGINES, Engine
from .functions import CASES, NUMBERS, Case, write_inline

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def built(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("function") / case.name
    case.write(folder)
    return build(engine, case, folder)


@pytest.fixture(scope="module")
def container(engine: Engine, built: Built) -> Iterator[Container]:
    """Without network and on a read-only root.

    One engine's with a user id of the platform's own choice, as OpenShift does.
    """
    user = "1000" if engine.name == ENGINES[0] else "1234567"
    options = [] if user == "1000" else [f"--user={user}:0"]
    with engine.running(built.tag, *HARDENED, *options) as container:
        container.wait_until_ready(built.case.name)
        assert container.exec("id", "-u").strip() == user
        yield container


def test_answers_over_rest_and_grpc(built: Built, container: Container) -> None:
    expected = built.case.answer()
    got = container.infer(built.case.name, [NUMBERS])
    assert got == {"rest": expected, "grpc": expected}
    assert container.check_health() == 0


def test_is_recorded_in_the_lock(engine: Engine, built: Built) -> None:
    held = lock.read(built.folder)
    assert held is not None
    assert held.image is not None
    assert held.image.name == built.tag
    identity = engine.inspect(built.tag)["Id"].removeprefix("sha256:")
    assert held.image.id == f"sha256:{identity}"
    found = record.recorded(definition.read(built.folder / "function.yaml"), built.folder)
    assert found is not None
    assert (found.reference, found.why) == (built.tag, "")


def test_says_what_it_is(engine: Engine, built: Built) -> None:
    facts = engine.inspect(built.tag)
    config = facts["Config"]
    assert config["User"] == "1000:0"
    # podman has it beside the configuration.
    check = facts.get("Healthcheck") or config["Healthcheck"]
    assert check["Test"][0] == "CMD"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp", "8082/tcp"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == built.case.name
    assert str(built.folder.parent) not in str(config), "a path of this machine"
    if built.case.name == "git":
        assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


def test_runs_as_any_user(builder: Engine, tmp_path: Path) -> None:
    case = CASES[0]
    case.write(tmp_path / case.name)
    tag = build(builder, case, tmp_path / case.name).tag
    with builder.running(tag, *HARDENED, "--user=7654321:0") as container:
        container.wait_until_ready(case.name)
        assert container.exec("id", "-u").strip() == "7654321"


def test_refuses_to_load_a_source_that_is_not_the_one_it_was_built_of(
    builder: Engine, tmp_path: Path
) -> None:
    case = CASES[0]
    case.write(tmp_path / case.name)
    other = tmp_path / "source"
    other.mkdir()
    (other / "function.py").write_text("def predict(x): ...\n")
    over = f"--volume={other}:/opt/function/source:ro"
    tag = build(builder, case, tmp_path / case.name).tag
    with builder.running(tag, *HARDENED, over) as container:
        container.wait_for_end()
        assert "function.lock has tree_sha256" in container.log


def test_a_record_is_stale_once_the_source_changes(builder: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "inline"
    write_inline(folder)
    build(builder, CASES[0], folder)
    path = folder / "function.yaml"
    path.write_text(path.read_text().replace("x * 2", "x * 7"))
    found = record.recorded(definition.read(path), folder)
    assert found is not None
    assert found.why
    assert "definition" in found.why


def test_a_failure_shows_the_step_and_its_last_lines(builder: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "inline"
    write_inline(folder)
    path = folder / "function.yaml"
    step = "echo before; echo the cause of it >&2; exit 7"
    path.write_text(path.read_text() + f"build: {{instructions: ['{step}']}}\n")
    said = build_fails(builder, folder)
    assert "echo before; echo the cause of it" in said
    assert "the cause of it" in said.replace("echo the cause of it", "")
    assert "7" in said
    assert "Traceback" not in said
    assert lock.read(folder) is None


def test_a_base_image_of_another_python_is_refused(builder: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "inline"
    write_inline(folder)
    path = folder / "function.yaml"
    path.write_text(path.read_text() + "base_image: python:3.12-slim\npython_version: '3.11'\n")
    builder.base("3.12")
    said = build_fails(builder, folder)
    assert "the base image has Python 3.12" in said
    assert "expected 3.11" in said
