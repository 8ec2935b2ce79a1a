"""scikit-learn's estimators: answers as their own methods give them, from skops and pickles."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skops import io

from mlserver_pyfunc import Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.errors import ContractError, HandlerError

from .routes import answers, assert_equal, folder_of

IRIS = load_iris(as_frame=True)
TABLE = pd.DataFrame(
    {"age": [20.0, 31, 44, 52], "visits": [1, 2, 0, 3], "town": ["Trento", "Rovereto"] * 2}
)


def mixed(handle_unknown: str = "error") -> Any:
    encoder = OneHotEncoder(handle_unknown=handle_unknown)
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]),
            ("words", make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), ["town"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, ["no", "yes", "no", "yes"])


def both(model: Any, table: Any) -> dict[str, Any]:
    return {"predict": model.predict(table), "predict_proba": model.predict_proba(table)}


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_mixed_table_has_an_input_for_each_column(isolation: str, tmp_path: Path) -> None:
    model = mixed()
    io.dump(model, tmp_path / "visits.skops")
    folder = folder_of(
        tmp_path / "served", source="../visits.skops", serving={"isolation": isolation}
    )
    table = TABLE.assign(age=[1.5, None, 3.0, 40.0])
    good = {
        "age": ("FP64", table.age.to_numpy()),
        "visits": ("FP64", table.visits.to_numpy(float)),
        "town": ("BYTES", table.town.to_numpy(object)),
    }
    requests = [
        good,
        {**good, "town": ("BYTES", np.array(["Trento", "Bolzano"] * 2, object))},
        {**good, "visits": ("FP64", np.ones(3))},
    ]
    for route, (first, unknown, uneven) in answers(folder, requests).items():
        assert_equal(first, both(model, table)), route
        assert "expected one of " in str(unknown)
        assert "'Bolzano' at index 1" in str(unknown)
        assert 'axis "rows": expected 4' in str(uneven)


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        RandomForestClassifier(5, random_state=0),
        KMeans(3, random_state=0, n_init=1),
        HistGradientBoostingRegressor(max_iter=5),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("named", [True, False])
def test_a_table_of_numbers_is_a_matrix(model: Any, named: bool, tmp_path: Path) -> None:
    values = np.ascontiguousarray(IRIS.data)
    table = pd.DataFrame(values, columns=IRIS.data.columns) if named else values
    model.fit(table, IRIS.target)
    io.dump(model, tmp_path / "iris.skops")
    types = {"trusted_types": io.get_untrusted_types(file=tmp_path / "iris.skops")}
    folder = folder_of(tmp_path / "served", source="../iris.skops", init_parameters=types)
    with Function.load(folder) as fn:
        got = fn(features=values)
        assert got["predict"].dtype == model.predict(table).dtype
        assert np.array_equal(got["predict"], model.predict(table))
        if "predict_proba" in got:
            assert np.array_equal(got["predict_proba"], model.predict_proba(table))
        assert ("predict_proba" in got) == hasattr(model, "predict_proba")
        [given] = fn.definition.inputs
        assert given.shape == ["rows", 4]
        assert given.labels == (list(IRIS.data) if named else None)
        with pytest.raises(ContractError, match=r"expected shape \[-1, 4\]"):
            fn(features=np.zeros((2, 5)))


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_model_that_takes_no_missing_value_says_so(isolation: str, tmp_path: Path) -> None:
    io.dump(LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target), tmp_path / "m.skops")
    serving = {"isolation": isolation}
    folder = folder_of(tmp_path / "served", source="../m.skops", serving=serving)
    requests = [{"features": ("FP64", np.array([[1.0, 2, 3, given]]))} for given in (4, np.nan)]
    for route, (good, missing) in answers(folder, requests).items():
        assert good.outputs["predict"].tolist() == [2], route
        assert 'input "features": the model takes no null or NaN: Input X contains NaN' in str(
            missing
        )
        assert missing.status in (400, "INVALID_ARGUMENT")


def test_only_what_is_asked_for_is_computed(tmp_path: Path) -> None:
    io.dump(LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target), tmp_path / "m.skops")
    given = {"name": "features", "datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3, 4]}
    with Function.load(tmp_path / "m.skops") as fn, pytest.MonkeyPatch.context() as patch:
        fn(features=np.zeros((1, 4)))
        patch.delattr(LogisticRegression, "predict_proba")
        body = {"inputs": [given], "outputs": [{"name": "predict"}]}
        [output] = fn._local.request(body)["outputs"]
        assert output["name"] == "predict"
        with pytest.raises(HandlerError):
            fn._local.request({"inputs": [given], "outputs": [{"name": "predict_proba"}]})


def test_a_pipeline_of_text_takes_text(tmp_path: Path) -> None:
    words = ["good and fine", "bad and sad", "fine", "sad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, [1, 0, 1, 0])
    io.dump(model, tmp_path / "mood.skops")
    with Function.load(tmp_path / "mood.skops") as fn:
        got = fn(text=np.array(words[1:], object))
    assert np.array_equal(got["predict_proba"], model.predict_proba(words[1:]))


def test_unknown_categories_pass_if_the_encoder_takes_them(tmp_path: Path) -> None:
    model = mixed("ignore")
    io.dump(model, tmp_path / "visits.skops")
    with Function.load(tmp_path / "visits.skops") as fn:
        got = fn(age=[1.0], visits=[0.0], town=["Bolzano"])
    table = pd.DataFrame({"age": [1.0], "visits": [0], "town": ["Bolzano"]})
    assert np.array_equal(got["predict"], model.predict(table))


class Custom(LinearRegression):
    """A type that skops does not know."""


def test_types_that_skops_does_not_trust_are_refused_by_name(tmp_path: Path) -> None:
    io.dump(Custom().fit(IRIS.data, IRIS.target), tmp_path / "custom.skops")
    done = CliRunner().invoke(main, ["run", str(tmp_path / "custom.skops"), "--random"])
    assert done.exit_code == 3
    assert "skops does not trust its types, and nothing was loaded" in done.output
    assert "{trusted_types: [tests.models.test_sklearn.Custom]}" in done.output


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl"])
def test_a_pickle_has_to_be_asked_for_by_name(name: str, tmp_path: Path) -> None:
    file, ran = tmp_path / name, tmp_path / "ran"
    joblib.dump(Payload(str(ran)), file)
    commands = [["validate"], ["run", "--random"], ["lock"], ["manifest", "kserve", "--image", "x"]]
    for command in commands[:3]:
        done = CliRunner().invoke(main, [*command, str(file)])
        assert done.exit_code != 0, command
        assert "loading it runs code that it holds" in done.output
    assert not ran.exists()
    folder = folder_of(tmp_path / "served", source={"source": f"../{name}", "format": "joblib"})
    done = CliRunner().invoke(main, ["validate", str(folder)])
    assert done.exit_code == 0, done.output
    assert not ran.exists()
    CliRunner().invoke(main, ["run", str(folder)])
    assert ran.exists()  # which shows that the payload works


@pytest.mark.parametrize("kind", ["joblib", "pickle"])
def test_a_pickle_that_is_asked_for_answers(kind: str, tmp_path: Path) -> None:
    model = mixed()
    file = tmp_path / "visits.model"
    joblib.dump(model, file) if kind == "joblib" else file.write_bytes(pickle.dumps(model))
    folder = folder_of(
        tmp_path / "served", source={"source": "..", "model": "visits.model", "format": "joblib"}
    )
    with Function.load(folder) as fn:
        got = fn(age=[1.0], visits=[0.0], town=["Trento"])
    table = pd.DataFrame({"age": [1.0], "visits": [0], "town": ["Trento"]})
    assert np.array_equal(got["predict_proba"], model.predict_proba(table))


def test_what_does_not_predict_is_named(tmp_path: Path) -> None:
    io.dump(StandardScaler().fit(IRIS.data), tmp_path / "scaler.skops")
    done = CliRunner().invoke(main, ["run", str(tmp_path / "scaler.skops"), "--random"])
    assert '"scaler.skops": a StandardScaler has no predict' in done.output
