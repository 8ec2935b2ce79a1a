"""What is released: a wheel, installed by itself, serves as the clone does."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlserver_pyfunc.environments.uv import find_uv
from tests.places import ROOT

from .conftest import Serve
from .test_examples import ANSWERS, run_client


def test_holds_the_package_its_schema_and_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"mlserver_pyfunc/py.typed", "mlserver_pyfunc/function.schema.json"} <= names
    kinds = ("jinja", "sh")
    files = {
        str(path.relative_to(ROOT))
        for kind in kinds
        for path in ROOT.glob(f"mlserver_pyfunc/**/*.{kind}")
    }
    assert any(name.endswith("/Dockerfile.jinja") for name in files)
    assert any(name.endswith("/python.sh") for name in files)
    assert files <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2, f"expected the package and its metadata, got {sorted(tops)}"


@pytest.mark.server
@pytest.mark.heavy
def test_serves_an_example_from_an_environment_of_its_own(
    wheel: Path, serve: Serve, tmp_path: Path
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    packages = [str(wheel), "scikit-learn"]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [find_uv(), "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, *packages], check=True)
    where = subprocess.run(
        [python, "-c", "import mlserver_pyfunc; print(mlserver_pyfunc.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(tmp_path / "venv"))
    server = serve(ROOT / "examples" / "iris", "iris", python=str(python))
    client = run_client("iris", server.rest_address, server.grpc_address)
    assert [line[6:] for line in client.stdout.splitlines()] == ANSWERS["iris"] * 2
