"""A loaded model, and the description of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import BindError, InferenceError, describe
from mlserver_pyfunc.protocol.datatypes import BY_DTYPE

from . import KINDS

ROWS = "rows"
"""Name of the axis that counts the rows of a table."""
FEATURES = "features"


@dataclass(frozen=True)
class Model:
    """A loaded model: its handler, and its tensors with the keys of a definition."""

    handler: Callable[..., Any]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def load(kind: str, path: Path, threads: int, options: Mapping[str, Any]) -> Model:
    """Loads a model file of a kind, by the definition's `init_parameters`, for so many threads."""
    try:
        module = import_module(f"{__package__}.{KINDS[kind].module}")
        model: Model = module.load(path, kind, threads, options)
    except BindError as error:
        raise BindError(f'"{path.name}": {error}') from None
    except Exception as error:
        cause = " ".join(describe(error).split())
        raise BindError(f'"{path.name}" cannot be loaded as {kind}: {cause[:400]}') from error
    return replace(model, handler=_refusing_nan(model.handler))


def _refusing_nan(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the error of a model that takes no missing values one of the request."""

    @wraps(handler)
    def call(*args: Any, **given: Any) -> Any:
        try:
            return handler(*args, **given)
        except ValueError as error:
            text = " ".join(str(error).split())[:100]
            missing = [name for name, value in given.items() if _has_nan(value)]
            if not missing or "nan" not in text.lower():
                raise
            where = f'input "{missing[0]}"'
            raise InferenceError(f"{where}: the model takes no null or NaN: {text}", 400) from None

    return call


def _has_nan(value: Any) -> bool:
    return getattr(value, "dtype", None) in (np.float32, np.float64) and bool(np.isnan(value).any())


def tensor(name: str, dtype: Any, shape: list[int | str], **keys: Any) -> dict[str, Any]:
    """Describes a tensor as a definition does. Text and objects are BYTES, seen as `str`."""
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is not None and kind.kind in "SOUT":
        text = {} if kind.kind == "S" else {"content_type": "str"}
        return {"name": name, "datatype": "BYTES", "shape": shape, **text, **keys}
    if kind not in BY_DTYPE:
        raise BindError(f'tensor "{name}" is of {dtype}, which the protocol does not have')
    return {"name": name, "datatype": BY_DTYPE[kind].name, "shape": shape, **keys}


def features(count: int, names: Sequence[str], dtype: str) -> dict[str, Any]:
    """Describes a matrix of features. Values that are missing are null in JSON, else NaN."""
    labels = {"labels": list(names)} if len(names) == count else {}
    return tensor(FEATURES, dtype, [ROWS, count], nullable=True, **labels)


def outputs_of(sample: Mapping[str, Any], keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describes the outputs by the answer to a sample of two rows, with further keys of each."""
    found = []
    for name, array in sample.items():
        shape = [ROWS, *np.shape(array)[1:]]
        given = dict(keys.get(name, {}))
        labels = [str(each) for each in given.pop("labels", ())]
        given |= {"labels": labels} if len(labels) == shape[-1] else {}
        found.append(tensor(name, np.asarray(array).dtype, shape, **given))
    return found
