"""Folders that MLflow has written, by their Python function. Their signature is the contract.

A table has one input for each column. Dates are text in ISO 8601, objects and maps are JSON.
A model in its framework's own format, which holds no code, is loaded without MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import InferenceError

from .model import ROWS, Model, tensor

_DTYPES = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32",
    "double": "float64", "binary": "S",
}  # fmt: skip
_PYTHON = {"boolean": bool, "integer": int, "long": int, "float": float, "double": float}
_JSON = ("object", "map", "any", "sparkml_vector")
Spec = Mapping[str, Any]

_LIGHT = {
    "sklearn": ("serialization_format", "skops", ("scikit-learn", "skops")),
    "xgboost": ("model_class", "xgboost.", ("xgboost", "scikit-learn")),
    "lightgbm": ("model_class", "lightgbm.basic.Booster", ("lightgbm",)),
}
"""What a flavor records if its model is in its own format, and the packages that load that."""


def light_needs(recorded: Spec) -> tuple[str, ...]:
    """Returns the packages that load a model without MLflow; none if only MLflow does."""
    name, own, function = _flavor(recorded)
    key, start, needs = _LIGHT.get(name, ("", "", ()))
    has_more = function.get("code") or (recorded.get("signature") or {}).get("params")
    is_light = needs and not has_more and str(own.get(key)).startswith(start)
    return (*needs, "pandas", "pyyaml") if is_light else ()


def _flavor(recorded: Spec) -> tuple[str, Spec, Spec]:
    """Returns the name of the framework, what its flavor records, and what the function does."""
    function = recorded["flavors"]["python_function"]
    name = function["loader_module"].removeprefix("mlflow.")
    return name, recorded["flavors"].get(name, {}), function


def load(path: Path, kind: str, threads: int, options: Mapping[str, Any]) -> Model:
    """Loads a model. Parameters are optional inputs, and may be parameters of a request too."""
    import yaml

    recorded = yaml.safe_load(path.read_text(encoding="utf-8"))
    if light_needs(recorded):
        answers = _light(path.parent, recorded, threads, options.get("trusted_types", ()))
    else:
        import mlflow.pyfunc

        answers = mlflow.pyfunc.load_model(str(path.parent)).predict
    told = recorded.get("signature") or {}
    listed = {key: json.loads(told.get(key) or "[]") for key in ("inputs", "outputs", "params")}
    columns, results = _named(listed["inputs"], "input"), _named(listed["outputs"], "output")
    names = _named(listed["params"], "")

    def predict(**given: Any) -> dict[str, Any]:
        chosen = {name: given.pop(name) for name in names if name in given}
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in chosen.items()}
        answer = answers(_data(columns, given), **({"params": plain} if plain else {}))
        return _answer(answer, results)

    only = Parameter.KEYWORD_ONLY
    scalars = [
        Parameter(n, only, default=s["default"], annotation=_PYTHON.get(s["type"], str))
        for n, s in names.items()
        if not s.get("shape")
    ]
    given = Parameter("given", Parameter.VAR_KEYWORD)
    vars(predict)["__signature__"] = Signature([*scalars, given])
    inputs = [_tensor(name, spec, ROWS) for name, spec in columns.items()]
    inputs += [_parameter(name, spec) for name, spec in names.items()]
    return Model(predict, inputs, [_tensor(name, spec, -1) for name, spec in results.items()])


def _light(folder: Path, recorded: Spec, threads: int, trusted: Sequence[str]) -> Any:
    """Loads a model by its framework, as MLflow does, and returns what predicts from a table."""
    name, own, function = _flavor(recorded)
    if name == "sklearn":
        from .sklearn import read

        types = [*(own.get("skops_trusted_types") or ()), *trusted]
        estimator = read(folder / own["pickled_model"], "skops", types)
        return getattr(estimator, function.get("predict_fn", "predict"))
    file = str(folder / own["data"])
    if name == "lightgbm":
        from .boosters import lightgbm

        return lightgbm(file, threads)[1]
    import xgboost

    model = getattr(xgboost, own["model_class"].rpartition(".")[2])()
    model.load_model(file)
    if isinstance(model, xgboost.Booster):
        return lambda table: model.predict(xgboost.DMatrix(table, nthread=threads))
    return model.set_params(n_jobs=threads).predict


def _named(specs: list[Spec], only: str) -> dict[str, Spec]:
    """Returns specifications by name: their own, that of the only one, or their position."""
    is_one = len(specs) == 1
    return {str(s.get("name", only if is_one else i)): s for i, s in enumerate(specs)}


def _tensor(name: str, spec: Spec, rows: int | str) -> dict[str, Any]:
    shape: list[int | str] = [rows]
    keys = {} if spec.get("required", not spec.get("optional")) else {"optional": True}
    if spec["type"] == "tensor":
        given = spec["tensor-spec"]
        shape = [rows if size == -1 else size for size in given["shape"][:1]]
        return tensor(name, given["dtype"], [*shape, *given["shape"][1:]])
    while spec["type"] == "array":
        shape, spec = [*shape, -1], spec["items"]
    keys |= {"nullable": True} if spec["type"] in ("float", "double") else {}
    return tensor(name, _DTYPES.get(spec["type"], "object"), shape, **keys)


def _parameter(name: str, spec: Spec) -> dict[str, Any]:
    value, is_list = spec["default"], bool(spec.get("shape"))
    default = {} if value is None else {"default": value if is_list else [value]}
    dtype = _DTYPES.get(spec["type"], "object")
    return tensor(name, dtype, [-1 if is_list else 1], optional=True, **default)


def _data(specs: Mapping[str, Spec], given: Mapping[str, Any]) -> Any:
    """Returns what a model predicts from: a frame, or tensors."""
    is_named = all("name" in spec for spec in specs.values())
    if any(spec["type"] == "tensor" for spec in specs.values()):
        return dict(given) if is_named else next(iter(given.values()))
    import pandas

    order = [name for name in specs or given if name in given]
    frame = pandas.DataFrame({n: _column(n, specs.get(n, {}), given[n]) for n in order})
    return frame if is_named else frame.set_axis(range(len(order)), axis=1)


def _column(name: str, spec: Spec, values: Any) -> Any:
    kind = spec.get("type")
    try:
        if kind == "datetime":
            return values.astype("datetime64[ns]")
        if kind in _JSON:
            return [json.loads(value) for value in values]
    except ValueError as error:
        expected = "JSON" if kind in _JSON else "dates in ISO 8601"
        raise InferenceError(f'input "{name}": expected {expected}: {error}') from None
    return values if values.ndim == 1 else list(values)


def _answer(result: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Returns a result by output: a frame's or a matrix's columns, or the whole as the only one."""
    is_tensor = any(spec["type"] == "tensor" for spec in specs.values())
    if isinstance(result, Mapping):
        parts: list[Any] = [result[name] for name in specs]
    elif hasattr(result, "columns") and not (is_tensor and len(specs) == 1):
        parts = [result[name] for name in (specs if {*specs} <= {*result} else result.columns)]
    else:
        parts = [result] if len(specs) == 1 else list(np.asarray(result).T)
    return {n: _array(s["type"], p) for (n, s), p in zip(specs.items(), parts, strict=True)}


def _array(kind: str, values: Any) -> Any:
    if kind in _JSON:
        return [json.dumps(value, default=np.ndarray.tolist) for value in values]
    array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if kind == "array" and len(array):
        return np.stack(list(array))
    return array.astype(str) if array.dtype.kind == "M" else array
