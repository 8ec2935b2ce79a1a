"""A virtual environment for each system, made once under .bench/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".bench"

REQUIREMENTS = {
    "driver": [
        "numpy>=1.26,<3",
        "orjson>=3.10,<4",
        "grpcio>=1.67,<2",
        "tritonclient[grpc]>=2.60,<3",
        "matplotlib>=3.9,<4",
        "psutil>=6,<8",
        "rich>=13,<16",
    ],
    "server": ["-e", str(ROOT)],
    "pytriton": ["nvidia-pytriton==0.7.0"],
    "kserve": ["kserve==0.21.0", "kubernetes<37"],
    "litserve": ["litserve==0.2.19", "numpy>=1.26,<3"],
    "bentoml": ["bentoml==1.4.39", "numpy>=1.26,<3"],
}

# PyTriton brings an embedded Python that does not understand the library of later patches.
PYTHONS = {"pytriton": "3.10"}


def python(name: str) -> Path:
    """The interpreter of a system's environment, which is made where it is absent."""
    folder = HOME / name
    done = folder / ".complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        print(f"making the environment of {name}", flush=True)
        _make(folder, REQUIREMENTS[name], _interpreter(PYTHONS.get(name)))
        done.touch()
    return folder / "bin" / "python"


def _interpreter(version: str | None) -> str:
    """An interpreter of a version, on PATH or of pyenv's; else the one that runs this."""
    if version is None:
        return sys.executable
    # Those of pyenv first: its shim on PATH answers for versions that it does not run.
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which(f"python{version}") or sys.executable


def _make(folder: Path, requirements: list[str], base: str) -> None:
    interpreter = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--seed", "-p", base, folder], check=True)
        install = [uv, "pip", "install", "-q", "-p", interpreter]
    else:
        subprocess.run([base, "-m", "venv", folder], check=True)
        install = [interpreter, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *requirements], check=True)
