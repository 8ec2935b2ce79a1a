"""Folders of MLflow whose model is in a format without code: they need no MLflow."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io

from mlserver_pyfunc import Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.environments.uv import SERVING_PYTHON
from mlserver_pyfunc.errors import ContractError, LoadError

from .routes import answers, assert_equal, folder_of

TABLE = pd.DataFrame(
    {"age": [20.0, 31, 44, 52], "visits": [1, 2, 0, 3], "town": ["Trento", "Rovereto"] * 2}
)
COLUMNS = [
    {"type": "double", "name": "age", "required": True},
    {"type": "long", "name": "visits", "required": True},
    {"type": "string", "name": "town", "required": True},
]
LABEL = [{"type": "string", "name": "label", "required": True}]


def mlflow_folder(
    folder: Path, flavor: str, own: dict[str, Any], inputs: Any, outputs: Any, **function: Any
) -> Path:
    """Writes what MLflow writes beside a model."""
    folder.mkdir(exist_ok=True)
    python = {"loader_module": f"mlflow.{flavor}", "python_version": f"{SERVING_PYTHON}.1"}
    signature = {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}
    recorded = {"flavors": {flavor: own, "python_function": {**python, **function}}}
    text = yaml.safe_dump({**recorded, "signature": signature})
    (folder / "MLmodel").write_text(text)
    (folder / "requirements.txt").write_text("mlflow==3.17.2  # which wrote it\n\nnumpy\n")
    return folder


def of_sklearn(folder: Path) -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(TABLE, ["no", "yes", "no", "yes"])
    own = {"pickled_model": "model.skops", "serialization_format": "skops"}
    mlflow_folder(folder, "sklearn", own, COLUMNS, LABEL, model_path="model.skops")
    io.dump(model, folder / "model.skops")
    return model


SENT = {
    "age": ("FP64", TABLE.age.to_numpy()),
    "visits": ("INT64", TABLE.visits.to_numpy()),
    "town": ("BYTES", TABLE.town.to_numpy(object)),
}


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_scikit_learn_by_every_route(isolation: str, tmp_path: Path) -> None:
    model = of_sklearn(tmp_path / "visits")
    serving = {"isolation": isolation}
    folder = folder_of(tmp_path / "served", source="../visits/MLmodel", serving=serving)
    requests = [SENT, {**SENT, "visits": ("FP64", np.ones(4))}, {"age": SENT["age"]}]
    for route, (good, typed, missing) in answers(folder, requests).items():
        assert_equal(good, {"label": model.predict(TABLE)}), route
        if route != "REST JSON":
            assert "expected datatype INT64, got FP64" in str(typed), route
        assert '"visits"' in str(missing), route


def test_the_folder_alone_is_a_function(tmp_path: Path) -> None:
    model = of_sklearn(tmp_path / "visits")
    for place in (tmp_path / "visits", tmp_path / "visits" / "MLmodel"):
        for answer in answers(place, [SENT]).values():
            assert_equal(answer[0], {"label": model.predict(TABLE)})


def test_boosters(tmp_path: Path) -> None:
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["p", "q"])
    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(values, values.p), 3)
    own = {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}
    columns = [{"type": "double", "name": name} for name in values]
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]
    folder = mlflow_folder(tmp_path / "trees", "lightgbm", own, columns, tensor)
    booster.save_model(folder / "model.lgb")
    with Function.load(folder) as fn:
        got = fn(p=values.p, q=values.q)["output"]
        assert np.array_equal(got, booster.predict(values))


@pytest.mark.needs("XGBoost")
@pytest.mark.parametrize("name", ["Booster", "XGBRegressor"])
def test_xgboost(name: str, tmp_path: Path) -> None:
    import xgboost

    values = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["p", "q"])
    model: Any = xgboost.XGBRegressor(n_estimators=3).fit(values, values.p)
    expected = model.predict(values)
    model = model.get_booster() if name == "Booster" else model
    own = {"data": "model.ubj", "model_class": f"{type(model).__module__}.{name}"}
    columns = [{"type": "double", "name": name} for name in values]
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}]
    folder = mlflow_folder(tmp_path / "trees", "xgboost", own, columns, tensor)
    model.save_model(folder / "model.ubj")
    (folder / "requirements.txt").write_text("mlflow-skinny\nxgboost-cpu\n")
    with Function.load(folder) as fn:
        assert np.array_equal(fn(p=values.p, q=values.q)["output"], expected)


def test_columns_that_the_signature_does_not_require_are_optional(tmp_path: Path) -> None:
    of_sklearn(tmp_path / "visits")
    columns = [*COLUMNS[:2], {**COLUMNS[2], "required": False}, {"type": "double", "name": "x"}]
    columns[3]["optional"] = True  # as MLflow 2 wrote before it had `required`
    own = {"pickled_model": "model.skops", "serialization_format": "skops"}
    mlflow_folder(tmp_path / "visits", "sklearn", own, columns, LABEL)
    with Function.load(tmp_path / "visits") as fn:
        with pytest.raises(ContractError, match='"visits"'):
            fn(age=[1.0])
        assert [each.name for each in fn.definition.inputs if each.optional] == ["town", "x"]


def test_what_the_definition_names_wins(tmp_path: Path) -> None:
    of_sklearn(tmp_path / "visits")
    (tmp_path / "visits" / "requirements.txt").write_text("numpy==1.0\n")
    with pytest.raises(LoadError, match=r"numpy==1\.0"):
        Function.load(tmp_path / "visits")(age=[1.0])
    served = {"source": "../visits/MLmodel", "requirements": ["numpy"]}
    with Function.load(folder_of(tmp_path / "served", **served)) as fn:
        assert fn(age=[1.0], visits=[1], town=["Trento"])["label"].shape == (1,)


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_nothing_runs_that_the_format_does_not_hold(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    tag = f'flavors: !!python/object/apply:os.mkdir ["{ran}"]\n'
    hostile = {
        "MLmodel": (tag.encode(), "MLmodel"),
        "MLmodel ": (pickle.dumps(Payload(str(ran))), "a pickle, whose loading would run code"),
        "model.skops": (pickle.dumps(Payload(str(ran))), "cannot be loaded as mlflow"),
    }
    for number, (name, (content, words)) in enumerate(hostile.items()):
        folder = tmp_path / f"visits-{number}"
        of_sklearn(folder)
        (folder / name.strip()).write_bytes(content)
        done = CliRunner().invoke(main, ["run", str(folder), "--random"])
        assert done.exit_code != 0
        assert words in done.output, done.output
        assert not ran.exists()


def test_types_that_skops_does_not_trust_are_refused_by_name(tmp_path: Path) -> None:
    of_sklearn(tmp_path / "visits")
    io.dump(Payload("x"), tmp_path / "visits" / "model.skops")
    done = CliRunner().invoke(main, ["run", str(tmp_path / "visits"), "--random"])
    assert done.exit_code == 3
    assert "Payload" in done.output
