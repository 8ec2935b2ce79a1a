"""Boosted trees of XGBoost and LightGBM, in their own formats."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from click.testing import CliRunner

from mlserver_pyfunc import Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.environments.environment import with_needs
from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.sources import fetch

from .routes import answers, assert_equal, folder_of

TABLE = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
LABELS = TABLE[:, 0] * 2 + (TABLE[:, 1] > 0)
CLASSES = np.digitize(LABELS, [-1, 1])
GAPS = TABLE[:4].copy()
GAPS[1, 0] = np.nan


def of_lightgbm(path: Path, objective: str, named: bool) -> Any:
    labels = LABELS if objective == "regression" else CLASSES
    names: Any = ["p", "q", "r"] if named else "auto"
    data = lightgbm.Dataset(TABLE, labels, feature_name=names)
    keys = {"verbose": -1, "objective": objective}
    keys |= {} if objective == "regression" else {"num_class": 3}
    lightgbm.train(keys, data, 4).save_model(path)
    return lightgbm.Booster(model_file=path).predict(GAPS)


def of_xgboost(path: Path, objective: str, named: bool) -> Any:
    import xgboost

    names = ["p", "q", "r"] if named else None
    labels = LABELS if objective == "reg:squarederror" else CLASSES
    data = xgboost.DMatrix(TABLE, labels, feature_names=names)
    keys = {"objective": objective} | ({"num_class": 3} if objective == "multi:softprob" else {})
    booster = xgboost.train(keys, data, 4)
    booster.save_model(path)
    return booster.predict(xgboost.DMatrix(GAPS, feature_names=names))


WITHOUT_GPU = {"requirements": ["xgboost-cpu"]}
OF_XGBOOST = (of_xgboost, "reg:squarederror", "multi:softprob", "FP32")
KINDS = [
    pytest.param(name, *OF_XGBOOST, marks=pytest.mark.needs("XGBoost"), id=name)
    for name in ("model.ubj", "model.json")
] + [pytest.param("model.txt", of_lightgbm, "regression", "multiclass", "FP64", id="model.txt")]


@pytest.mark.parametrize(("name", "train", "numbers", "classes", "datatype"), KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_answers_as_the_framework_does(
    name: str, train: Any, numbers: str, classes: str, datatype: str, named: bool, tmp_path: Path
) -> None:
    for objective in (numbers, classes):
        expected = train(tmp_path / name, objective, named)
        folder = folder_of(tmp_path / "served", source=f"../{name}", **WITHOUT_GPU)
        with Function.load(folder) as fn:
            sent = GAPS.astype("f4" if datatype == "FP32" else "f8")
            assert np.array_equal(fn(features=sent)["predict"], expected)
            [given], [got] = fn.definition.inputs, fn.definition.outputs
            assert (given.datatype, given.shape, given.nullable) == (datatype, ["rows", 3], True)
            assert given.labels == (["p", "q", "r"] if named else None)
            assert got.shape == ["rows", *expected.shape[1:]]
            with pytest.raises(ContractError, match=r"expected shape \[-1, 3\]"):
                fn(features=sent[:, :2])


@pytest.mark.parametrize("name", ["model.ubj", "model.txt"])
@pytest.mark.needs("XGBoost")
def test_by_every_route(name: str, tmp_path: Path) -> None:
    train, objective = (of_xgboost, "reg:squarederror")
    if name == "model.txt":
        train, objective = (of_lightgbm, "regression")
    expected = train(tmp_path / name, objective, True)
    folder = folder_of(tmp_path / "served", source=f"../{name}", **WITHOUT_GPU)
    kind = "FP32" if name == "model.ubj" else "FP64"
    requests = [{"features": (kind, rows)} for rows in (GAPS, GAPS[:, :2])]
    for route, (good, wrong) in answers(folder, requests).items():
        assert_equal(good, {"predict": expected}), route
        assert "[-1, 3]" in str(wrong), route


def test_the_file_alone_is_a_function(tmp_path: Path) -> None:
    expected = of_lightgbm(tmp_path / "model.txt", "regression", named=False)
    with Function.load(tmp_path / "model.txt") as fn:
        assert fn.name == "model"
        assert np.array_equal(fn(features=GAPS.astype(float))["predict"], expected)


@pytest.mark.parametrize("line", ["xgboost-cpu>=3", "xgboost==3.0.5", "XGBoost"])
def test_a_build_stands_in_for_the_package(line: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"learner": 1}')
    definition = parse({"source": "model.json", "requirements": [line]})
    found = with_needs(definition, fetch(definition.source, tmp_path))
    assert found.requirements == [line]


def test_other_text_and_json_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("trees are green")
    (tmp_path / "other.json").write_text('{"learned": 1}')
    for name, words in (("notes.txt", "no lightgbm model"), ("other.json", "no xgboost model")):
        folder = folder_of(tmp_path / "served", source=f"../{name}")
        done = CliRunner().invoke(main, ["validate", str(folder)])
        assert done.exit_code == 1
        assert f'"{name}" is {words}' in done.output
    function = {"source": {"code": "def f(x): return x", "handler": "m:f"}}
    function["inputs"] = function["outputs"] = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    (tmp_path / "function.json").write_text(json.dumps(function))
    done = CliRunner().invoke(main, ["run", str(tmp_path / "function.json"), "-i", "x=[1]"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", ["model.ubj", "model.json", "model.txt"])
def test_a_pickle_under_such_a_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"tree": 1}))
    folder = folder_of(tmp_path / "served", source=f"../{name}")
    done = CliRunner().invoke(main, ["validate", str(folder)])
    assert done.exit_code == 1
    assert "a pickle, whose loading would run code" in done.output


@pytest.mark.parametrize("name", ["model.ubj", "model.txt"])
@pytest.mark.needs("XGBoost")
def test_a_file_that_is_cut_is_named(name: str, tmp_path: Path) -> None:
    train: Any = of_xgboost if name == "model.ubj" else of_lightgbm
    train(tmp_path / name, "reg:squarederror" if name == "model.ubj" else "regression", False)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:120])
    folder = folder_of(tmp_path / "served", source=f"../{name}", **WITHOUT_GPU)
    done = CliRunner().invoke(main, ["run", str(folder), "--random"])
    assert done.exit_code == 3
    assert f'"{name}" cannot be loaded as' in done.output
