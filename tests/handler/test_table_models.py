"""Models of scikit-learn on tables of text, categories and numbers, served as they were trained."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlserver_pyfunc import Columns

from .tables import KINDS, Handler, Kind, sent

ROWS = 60


def served(model: Any, row: Any) -> Handler:
    """Serves a model whose handler converts nothing."""

    def predict(table):
        return model.predict_proba(table)[:, 1]

    predict.__annotations__ = {"table": Annotated[pd.DataFrame, row], "return": list[float]}
    return Handler(predict)


def as_sent(table: pd.DataFrame, kinds: dict[str, Kind]) -> list[Any]:
    plain = table.astype(object).where(table.notna(), None)
    return sent({name: (kind, plain[name].tolist()) for name, kind in kinds.items()})


@pytest.fixture
def table() -> pd.DataFrame:
    draw = np.random.default_rng(1)
    missing = draw.random((2, ROWS)) < 0.2
    age = draw.normal(40, 10, ROWS)
    plan = draw.choice(["basic", "pro"], ROWS).astype(object)
    age[missing[0]], plan[missing[1]] = np.nan, np.nan
    return pd.DataFrame({
        "note": draw.choice(["late again", "very happy", "", "late"], ROWS),
        "plan": plan,
        "age": age,
        "visits": draw.integers(0, 9, ROWS),
    })  # fmt: skip


def test_a_pipeline_gets_text_categories_and_numbers_with_missing_values(
    table: pd.DataFrame,
) -> None:
    columns = ColumnTransformer([
        ("note", TfidfVectorizer(), "note"),
        ("plan", OneHotEncoder(), ["plan"]),
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]),
    ])  # fmt: skip
    model = make_pipeline(columns, LogisticRegression())
    model.fit(table, table.note.str.contains("late"))
    kinds = {
        "note": KINDS["text"], "plan": KINDS["text_or_null"], "age": KINDS["float_or_null"],
        "visits": KINDS["int64"],
    }  # fmt: skip
    row = Columns({name: kind.type for name, kind in kinds.items()})
    outputs = served(model, row)(as_sent(table, kinds))
    np.testing.assert_allclose(outputs["output"], model.predict_proba(table)[:, 1])


def test_a_pipeline_of_mixed_types_is_served(table: pd.DataFrame) -> None:
    """The case of https://github.com/kserve/kserve/issues/1799."""
    draw = np.random.default_rng(2)
    mixed = pd.DataFrame(draw.normal(size=(ROWS, 3)), columns=["a", "b", "c"])
    mixed = mixed.mask(draw.random(mixed.shape) < 0.1)
    for name, values in (("d", ["x", "y"]), ("e", ["u", "v", "w"]), ("f", ["p", "q"])):
        mixed[name] = draw.choice(values, ROWS).astype(object)
        mixed.loc[draw.random(ROWS) < 0.1, name] = np.nan
    numbers = make_pipeline(SimpleImputer(strategy="mean"), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = ColumnTransformer(
        [("numerical", numbers, ["a", "b", "c"]), ("categorical", categories, ["d", "e", "f"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(mixed, draw.random(ROWS) < 0.5)
    kinds = dict.fromkeys("abc", KINDS["float_or_null"]) | dict.fromkeys(
        "def", KINDS["text_or_null"]
    )
    row = Columns({name: kind.type for name, kind in kinds.items()})
    outputs = served(model, row)(as_sent(mixed, kinds))
    np.testing.assert_allclose(outputs["output"], model.predict_proba(mixed)[:, 1])
