"""Each example is served as its README says, and its client prints what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

from .conftest import Serve

pytestmark = pytest.mark.server

EXAMPLES = ROOT / "examples"
# tests/docs/test_gallery.py has the others.
NAMES = ["digitalhub", "image", "iris", "many", "text-stream"]
MODELS = {"digitalhub": ["review-score"], "many": ["celsius", "majority", "words"]}
STREAM = "the server loads the server loads the contract is answered with an error that says"
ANSWERS = {
    "iris": ["setosa     0.985 0.015 0.000", "virginica  0.000 0.039 0.961"],
    "image": ["32x16 pixels, mean colour 0.50 0.00 0.50"],
    "text-stream": [f"{STREAM} what a request"],
    "digitalhub": ["+1.0  a great film", "+0.0  good but dull", "-1.0  so bad"],
    "many": ["celsius  [0.0, 100.0]", "words    [2, 0]", "majority [True, False]"],
}


@pytest.mark.parametrize("name", NAMES)
def test_serves_the_example_and_answers_its_client(name: str, serve: Serve) -> None:
    server = serve(EXAMPLES / name, *MODELS.get(name, [name]))
    client = run_client(name, server.rest_address, server.grpc_address)
    assert client.returncode == 0, client.stderr
    expected = [f"{route}  {line}" for route in ("REST", "gRPC") for line in ANSWERS[name]]
    assert client.stdout.splitlines() == expected


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_the_commands_that_serve_and_ask_and_the_answer(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    assert f"    mlserver start examples/{name}\n" in readme
    assert f"    python examples/{name}/client.py" in readme
    shown = [f"{route}  {line}" for route in ("REST", "gRPC") for line in ANSWERS[name]]
    assert "\n".join(shown) in readme


@pytest.mark.parametrize("name", NAMES)
def test_client_needs_a_public_client_only(name: str) -> None:
    assert "mlserver" not in imports_of(EXAMPLES / name / "client.py")


def test_image_refuses_what_is_no_picture(serve: Serve, tmp_path: Path) -> None:
    server = serve(EXAMPLES / "image", "image")
    text = tmp_path / "picture.png"
    text.write_text("no picture")
    client = subprocess.run(
        [sys.executable, "client.py", str(text), "--http", server.rest_address],
        cwd=EXAMPLES / "image",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HTTP Error 415" in client.stderr


def test_each_function_of_many_has_its_own_modules() -> None:
    folders = [path.parent for path in (EXAMPLES / "many").glob("*/model-settings.json")]
    siblings = [sorted(p.name for p in folder.glob("*.py")) for folder in folders]
    assert siblings == [["handlers.py", "rules.py"]] * 3


def test_no_example_sets_a_port() -> None:
    ports = {"http_port", "grpc_port", "metrics_port"}
    for settings in EXAMPLES.rglob("settings.json"):
        assert not ports & set(json.loads(settings.read_text()))


def run_client(name: str, http: str, grpc: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name / "client.py"), "--http", http, "--grpc", grpc]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def imports_of(path: Path) -> set[str]:
    lines = path.read_text().splitlines()
    words = [line.split() for line in lines if line.startswith(("import ", "from "))]
    return {line[1].split(".")[0] for line in words}
