"""Saves models of MLflow with what they answer. Runs in an environment that has MLflow.

    python mlflow_models.py FOLDER GROUP REQUIREMENT...

Each model is a folder `FOLDER/NAME` with `model/`, as MLflow writes it, and `case.json`: the inputs
of a request, and the answer of `mlflow.pyfunc.load_model(...).predict` in this process.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

warnings.filterwarnings("ignore")
FOLDER, GROUP, REQUIREMENTS = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
NUMBERS = pd.DataFrame({"a": [1.0, 2.5, 3.25], "b": [1, 2, 5]})
KINDS = {"b": "BOOL", "i4": "INT32", "i8": "INT64", "f4": "FP32", "f8": "FP64"}


def tensor(values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    if array.dtype.kind == "M":
        array = array.astype("datetime64[ns]").astype(str)
    kind = array.dtype.str[1:] if array.dtype.kind != "b" else "b"
    data = [None if isinstance(v, float) and np.isnan(v) else v for v in array.ravel().tolist()]
    return {"datatype": KINDS.get(kind, "BYTES"), "shape": list(array.shape), "data": data}


def case(name: str, given: Any, params: Any = None, sent: Any = None) -> None:
    """Writes a request and its answer."""
    model = mlflow.pyfunc.load_model(str(FOLDER / name / "model"))
    answer = model.predict(given, params=params) if params else model.predict(given)
    if sent is None:
        sent = {str(key): tensor(given[key].to_numpy()) for key in given}
    if isinstance(answer, pd.DataFrame):
        outputs = {str(key): tensor(answer[key].to_numpy()) for key in answer}
    elif isinstance(answer, dict):
        outputs = {key: tensor(value) for key, value in answer.items()}
    else:
        outputs = {"output": tensor(answer)}
    written = {"inputs": sent, "parameters": params or {}, "outputs": outputs}
    (FOLDER / name / "case.json").write_text(json.dumps(written))


def save(flavour: Any, name: str, **keys: Any) -> None:
    path = FOLDER / name / "model"
    flavour.save_model(path=str(path), pip_requirements=REQUIREMENTS, **keys)


def python(
    name: str, model: Any, inputs: Any, outputs: Any, params: Any = None, **more: Any
) -> None:
    signature = ModelSignature(Schema(inputs), Schema(outputs), params and ParamSchema(params))
    save(mlflow.pyfunc, name, python_model=model, signature=signature, **more)


class Apply(PythonModel):
    """Applies a function to what it gets."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.function(model_input, params or {})


def tables() -> None:
    linear = LinearRegression().fit(NUMBERS, [1.0, 2, 3])
    save(mlflow.sklearn, "linear", sk_model=linear, signature=infer_signature(NUMBERS, [1.0]))
    (FOLDER / "linear" / "model" / "requirements.txt").unlink()  # conda.yaml has them too
    case("linear", NUMBERS)
    values = NUMBERS.to_numpy(np.float64)
    forest = RandomForestClassifier(3, random_state=0).fit(values, ["x", "y", "x"])
    told = infer_signature(values, np.array(["x"], object))
    save(mlflow.sklearn, "forest", sk_model=forest, signature=told, serialization_format="pickle")
    case("forest", values, sent={"input": tensor(values)})


def python_models() -> None:
    double = ColSpec("double")
    python(
        "scaled",
        Apply(lambda x, p: x["a"] * p["by"] + sum(p["add"])),
        [ColSpec("double", "a")],
        [double],
        [ParamSpec("by", "double", 2.0), ParamSpec("add", "long", [1], shape=(-1,))],
    )
    case("scaled", NUMBERS[["a"]])
    python(
        "scaled-by-params",
        Apply(lambda x, p: x["a"] * p["by"]),
        [ColSpec("double", "a")],
        [double],
        [ParamSpec("by", "double", 2.0)],
    )
    case("scaled-by-params", NUMBERS[["a"]], {"by": 3.5})
    days = pd.DataFrame({"when": pd.to_datetime(["2024-02-29T00:00:00", "2025-01-01T12:30:00"])})
    python(
        "days",
        Apply(lambda x, p: x["when"].dt.dayofyear.astype("int64")),
        [ColSpec("datetime", "when")],
        [ColSpec("long")],
    )
    case("days", days)
    python(
        "next-day",
        Apply(lambda x, p: x["when"] + pd.Timedelta(days=1)),
        [ColSpec("datetime", "when")],
        [ColSpec("datetime")],
    )
    case("next-day", days)
    optional = [ColSpec("double", "a"), ColSpec("double", "extra", required=False)]
    total = Apply(lambda x, p: x.sum(axis=1))
    python("optional-left-out", total, optional, [double])
    case("optional-left-out", NUMBERS[["a"]])
    python("optional-given", total, optional, [double])
    case("optional-given", NUMBERS[["a"]].assign(extra=[1.0, 2, 3]))
    python("nullable", Apply(lambda x, p: x["a"].fillna(-1)), [ColSpec("double", "a")], [double])
    case("nullable", pd.DataFrame({"a": [1.0, None, 3.0]}))
    types = ("boolean", "integer", "long", "float", "double", "string")
    mixed = pd.DataFrame(
        {
            "boolean": [True, False], "integer": np.array([1, -2], "int32"), "long": [3, 2**40],
            "float": np.array([0.5, 1.5], "float32"), "double": [0.1, 0.2], "string": ["a", "žluť"],
        }
    )  # fmt: skip
    columns = [ColSpec(kind, kind) for kind in types]
    python("every-type", Apply(lambda x, p: x[::-1]), columns, columns)
    case("every-type", mixed)
    python(
        "text",
        Apply(lambda x, p: [each.upper() for each in x[0]]),
        [ColSpec("string")],
        [ColSpec("string")],
    )
    case("text", pd.DataFrame(["one", "two"]), sent={"input": tensor(["one", "two"])})
    two = [TensorSpec(np.dtype("float32"), (-1, 2), "x"), TensorSpec(np.dtype("int64"), (-1,), "n")]
    given = {"x": np.ones((2, 2), "float32"), "n": np.array([2, 3])}
    (sent := {key: tensor(value) for key, value in given.items()})["n"]["datatype"] = "INT64"
    python(
        "tensors",
        Apply(lambda x, p: {"y": (x["x"] * 2).astype("float32")}),
        two,
        [TensorSpec(np.dtype("float32"), (-1, 2), "y")],
    )
    case("tensors", given, sent=sent)
    code = FOLDER / "local_rules.py"
    code.write_text("def rule(x):\n    return x * 10\n")
    sys.path.insert(0, str(FOLDER))
    import local_rules

    python(
        "local-code",
        Apply(lambda x, p: __import__("local_rules").rule(x["a"])),
        [ColSpec("double", "a")],
        [double],
        code_paths=[str(code)],
    )
    assert local_rules.rule(1) == 10
    case("local-code", NUMBERS[["a"]])


def boosters() -> None:
    import lightgbm

    booster = lightgbm.train({"verbose": -1, "objective": "regression"}, lightgbm.Dataset(X, Y), 5)
    save(mlflow.lightgbm, "lightgbm", lgb_model=booster, signature=infer_signature(X, NUMBER))
    case("lightgbm", X.head(4))


def statistics() -> None:
    import statsmodels.api as sm

    told = infer_signature(X, NUMBER)
    save(mlflow.statsmodels, "statsmodels", statsmodels_model=sm.OLS(Y, X).fit(), signature=told)
    case("statsmodels", X.head(4))


def trees() -> None:
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=4).fit(X, Y)
    told = infer_signature(X, NUMBER.astype("float32"))
    save(mlflow.xgboost, "xgboost", xgb_model=model, signature=told)
    case("xgboost", X.head(4))


def versions() -> None:
    """A model that answers with the versions that it runs on, and one of scikit-learn."""

    def told(x: Any, p: Any) -> Any:
        import platform

        import numpy

        return [f"{platform.python_version_tuple()[:2]} {numpy.__version__}" for _ in x["a"]]

    python(f"versions-{GROUP}", Apply(told), [ColSpec("double", "a")], [ColSpec("string")])
    case(f"versions-{GROUP}", NUMBERS[["a"]])
    linear, told_of = LinearRegression().fit(NUMBERS, [1.0, 2, 3]), infer_signature(NUMBERS, NUMBER)
    save(mlflow.sklearn, f"linear-{GROUP}", sk_model=linear, signature=told_of)
    case(f"linear-{GROUP}", NUMBERS)


if __name__ == "__main__":
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["p", "q", "r"])
    Y, NUMBER = X.p * 2 + X.q, np.array([1.0])
    more = {
        "main": (versions, tables, python_models, boosters),
        "statsmodels": (statistics,),
        "xgboost": (versions, trees),
    }
    for write in more.get(GROUP, (versions,)):
        write()
