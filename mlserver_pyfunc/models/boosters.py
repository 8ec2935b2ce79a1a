"""Boosted trees in their frameworks' own formats: of XGBoost (UBJSON, JSON), LightGBM (text)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .model import FEATURES, Model, features, outputs_of


def load(path: Path, kind: str, threads: int, options: Mapping[str, Any]) -> Model:
    """Reads a booster, which answers what its objective predicts."""
    given, answers = (_xgboost if kind == "xgboost" else lightgbm)(str(path), threads)

    def predict(**given: Any) -> dict[str, Any]:
        return {"predict": answers(given[FEATURES])}

    sample = predict(features=np.zeros((2, given["shape"][1]), np.float32))
    return Model(predict, [given], outputs_of(sample, {}))


def _xgboost(path: str, threads: int) -> tuple[dict[str, Any], Any]:
    import xgboost

    booster = xgboost.Booster({"nthread": threads}, model_file=path)
    names = booster.feature_names
    keys = {"feature_names": names, "feature_types": booster.feature_types}
    given = features(booster.num_features(), names or (), "float32")
    return given, lambda x: booster.predict(xgboost.DMatrix(x, **keys, enable_categorical=True))


def lightgbm(path: str, threads: int) -> tuple[dict[str, Any], Any]:
    """Reads a booster of LightGBM. Returns its input, and what predicts from a matrix or table."""
    from lightgbm import Booster

    booster = Booster(model_file=path)
    names = booster.feature_name()
    is_named = names != [f"Column_{index}" for index in range(len(names))]
    given = features(len(names), names if is_named else (), "float64")
    return given, lambda x: booster.predict(x, num_threads=threads)
