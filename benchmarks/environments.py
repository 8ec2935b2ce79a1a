"""Makes a virtual environment for each system, once, in .bench/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".bench"

_DRIVER = [
    "numpy>=1.26,<3",
    "orjson>=3.10,<4",
    "grpcio>=1.67,<2",
    "tritonclient[grpc]>=2.60,<3",
    "matplotlib>=3.9,<4",
    "psutil>=6,<8",
    "rich>=13,<16",
]
_FRAMES = ["pandas>=2.2,<4", "scikit-learn>=1.5,<2"]
REQUIREMENTS = {
    "driver": _DRIVER,
    "server": ["-e", str(ROOT)],
    "onnx": ["-e", str(ROOT), "onnxruntime>=1.18,<2"],
    "pytriton": ["nvidia-pytriton==0.7.0"],
    "kserve": ["kserve==0.21.0", "kubernetes<37"],
    "kserve-pyfunc": [
        "-r",
        str(ROOT / "examples" / "kubernetes" / "modelserver" / "requirements.txt"),
        "kubernetes<37",
    ],
    "litserve": ["litserve==0.2.19", "numpy>=1.26,<3"],
    "bentoml": ["bentoml==1.4.39", "numpy>=1.26,<3"],
    "tables": ["-e", str(ROOT), *_FRAMES, "pyarrow>=17,<26"],
    "tables-driver": [*_DRIVER, "pyarrow>=17,<26"],
    "tables-kserve": ["kserve==0.21.0", "kubernetes<37", *_FRAMES],
    "tables-bentoml": ["bentoml==1.4.39", *_FRAMES],
    "tables-mlflow": ["mlflow==3.5.1", "starlette<1", *_FRAMES],
}

OURS = ("server", "onnx", "tables")

# Systems whose backend loads libpython: their interpreter must have it as a shared library.
SHARED_LIBPYTHON = ("pytriton",)


def python(name: str) -> Path:
    """Returns the interpreter of a system's environment; makes the environment if it is missing."""
    folder = HOME / name
    done = folder / ".complete"
    # Our own environments are made again after a change of pyproject.toml.
    newest = (ROOT / "pyproject.toml").stat().st_mtime if name in OURS else 0
    if not done.exists() or done.stat().st_mtime < newest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        print(f"making the environment of {name}", flush=True)
        _make(folder, REQUIREMENTS[name], _interpreter(name))
        done.touch()
    return folder / "bin" / "python"


def _interpreter(name: str) -> str:
    """Returns this interpreter; or the operating system's, if a shared libpython is needed."""
    system = "/usr/bin/python3"
    if name not in SHARED_LIBPYTHON or not Path(system).exists():
        return sys.executable
    return system


def _make(folder: Path, requirements: list[str], base: str) -> None:
    interpreter = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--seed", "-p", base, folder], check=True)
        install = [uv, "pip", "install", "-q", "-p", interpreter]
    else:
        subprocess.run([base, "-m", "venv", folder], check=True)
        install = [interpreter, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *requirements], check=True)
