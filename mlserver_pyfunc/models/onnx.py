"""ONNX files, by ONNX Runtime. They name their tensors, with datatypes and axes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .model import Model, tensor

_NAMES = {"float": "float32", "double": "float64", "string": "object"}
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+")
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def load(path: Path, kind: str, threads: int, options: Mapping[str, Any]) -> Model:
    """Opens a session."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    there = onnxruntime.get_available_providers()
    providers = [name for name in _PROVIDERS if name in there]
    session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    names = [output.name for output in session.get_outputs()]

    def predict(**inputs: Any) -> dict[str, Any]:
        results = session.run(names, inputs)
        return {
            name: np.array([[*row.values()] for row in result]) if type(result) is list else result
            for name, result in zip(names, results, strict=True)
        }

    return Model(
        predict,
        [_tensor(given) for given in session.get_inputs()],
        [_tensor(given) for given in session.get_outputs()],
    )


def _tensor(given: Any) -> dict[str, Any]:
    # scikit-learn's classifiers give a sequence of mappings, from class to probability.
    match = re.fullmatch(r"(?:seq\(map\(\w+,)?tensor\((\w+)\)\)*", given.type)
    name = match[1] if match else given.type
    sizes = given.shape if given.type.startswith("tensor") else [-1, -1]
    shape = [size if _AXIS.fullmatch(str(size or "")) else -1 for size in sizes]
    return tensor(given.name, _NAMES.get(name, name), shape)
