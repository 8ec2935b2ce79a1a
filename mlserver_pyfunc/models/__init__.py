"""Model files as functions: what each kind of file is recognised by, and what it needs.

Each kind has a module with `load(path, kind, threads, options) -> Model`, which alone imports the
framework, in the interpreter that the function runs in. The rest needs only NumPy and the standard
library, because workers in other interpreters import it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.errors import SourceError

HANDLER = "mlserver_pyfunc.models:predict"
"""Stands for the handler in the definition of a model file."""

MLFLOW = "MLmodel"
"""Name of the file in a folder that MLflow has written."""


@dataclass(frozen=True)
class Kind:
    """A kind of model file."""

    module: str  # that loads it, of this package
    names: tuple[str, ...]  # how the names of such files end
    head: bytes  # pattern of the first bytes
    requirements: tuple[str, ...]  # packages that loading it needs
    runs_code: bool = False  # whether loading runs code that the file holds


_LEARNER = rb'\{\s*("|[LiIl]\x00*\x07)learner'
_SKLEARN = ("scikit-learn", "pandas")
KINDS = {
    "onnx": Kind("onnx", (".onnx",), rb"\x08", ("onnxruntime",)),
    "skops": Kind("sklearn", (".skops",), rb"PK\x03\x04", (*_SKLEARN, "skops")),
    "mlflow": Kind("mlflow", (MLFLOW,), rb"\w+:", ("mlflow",)),
    "xgboost": Kind("boosters", (".ubj", ".json"), _LEARNER, ("xgboost",)),
    "lightgbm": Kind("boosters", (".txt",), rb"tree\s", ("lightgbm",)),
    "joblib": Kind("sklearn", (".joblib", ".pkl"), b"", (*_SKLEARN, "joblib"), runs_code=True),
    "torch": Kind("torch", (".pt2",), rb"PK\x03\x04", ("torch", "numpy"), runs_code=True),
}

NAMES = tuple(name for kind in KINDS.values() for name in kind.names)
"""How the names of model files end."""
PATTERN = rf"({'|'.join(map(re.escape, NAMES))})([?#].*)?$"


def is_model(path: Path) -> bool:
    """Whether a file is a model by its name, and by its content if others have such names too."""
    named = [kind for kind in KINDS.values() if path.name.endswith(kind.names)]
    if not named or not path.is_file():
        return False
    return path.suffix not in (".json", ".txt") or bool(re.match(named[0].head, _head(path)))


def kind_of(path: Path, named: str | None = None) -> str:
    """Returns the kind of a model file by its name and first bytes. Loads nothing.

    A kind whose loading runs code has to be `named`. A SourceError tells that the file is of no
    kind, or not of that which its name says.
    """
    kind = named or next((k for k, v in KINDS.items() if path.name.endswith(v.names)), "")
    if not kind:
        raise SourceError(f'"{path.name}" is no model file, expected one of {", ".join(NAMES)}')
    if KINDS[kind].runs_code and not named:
        raise SourceError(
            f'"{path.name}" is a {kind} file, and loading it runs code that it holds: if you trust '
            f"it, write format: {kind} beside its source; else save the model as skops or ONNX"
        )
    head = _head(path)
    if not re.match(KINDS[kind].head, head):
        pickle = ": a pickle, whose loading would run code" if head[:1] == b"\x80" else ""
        raise SourceError(f'"{path.name}" is no {kind} model, it begins {head[:8]!r}{pickle}')
    return kind


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)
