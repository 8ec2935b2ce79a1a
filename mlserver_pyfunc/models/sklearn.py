"""scikit-learn's estimators, from skops files; from pickles only if the definition says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import BindError

from .model import FEATURES, ROWS, Model, features, outputs_of, tensor

_HARMLESS = ("numpy.dtype",)
"""Types beside those that skops trusts: of the columns of a frame."""
_MAX_ENUM = 100
_TEXT = "text"


def load(path: Path, kind: str, threads: int, options: Mapping[str, Any]) -> Model:
    """Reads an estimator. Its outputs are `predict` and, if it has it, `predict_proba`.

    One with text among its columns has an input for each column, any other a matrix. One that
    counts no columns, such as a pipeline that begins with a vectorizer of text, has text.
    """
    estimator = read(path, kind, [*_HARMLESS, *options.get("trusted_types", ())])
    methods = [name for name in ("predict", "predict_proba") if hasattr(estimator, name)]
    if not methods:
        raise BindError(f"a {type(estimator).__name__} has no predict")
    columns = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    texts = dict(_texts(estimator))
    sample: dict[str, Any] = {name: np.full(2, texts.get(name, ((), 0.0))[1]) for name in columns}
    if texts:
        inputs = [_column(name, *texts.get(name, ())) for name in columns]
    elif (count := getattr(estimator, "n_features_in_", None)) is not None:
        inputs, sample = [features(count, columns, "float64")], {FEATURES: np.zeros((2, count))}
    else:
        inputs, sample = [_column(_TEXT, (), "")], {_TEXT: np.array(["a", "a"], object)}

    def predict(*, request: Any = None, **given: Any) -> dict[str, Any]:
        wanted = ["predict", *(getattr(request, "outputs", None) or methods)]
        table = _table(given, columns)
        return {name: getattr(estimator, name)(table) for name in methods if name in wanted}

    keys = {"predict_proba": {"optional": True, "labels": getattr(estimator, "classes_", ())}}
    return Model(predict, inputs, outputs_of(predict(**sample), keys))


def read(path: Path, kind: str, trusted: list[str]) -> Any:
    """Reads an estimator; from skops files only if all its types are trusted."""
    if kind == "joblib":
        import joblib

        return joblib.load(path)
    from skops import io

    unknown = [name for name in io.get_untrusted_types(file=path) if name not in trusted]
    if unknown:
        raise BindError(
            "skops does not trust its types, and nothing was loaded: if you trust the file, write "
            f"into a definition, init_parameters: {{trusted_types: [{', '.join(unknown)}]}}"
        )
    return io.load(path, trusted=trusted)


def _texts(estimator: Any) -> Iterator[tuple[str, tuple[list[str], str]]]:
    """Yields the columns of text that a pipeline encodes: all values it takes, and one of them."""
    first = estimator[0] if hasattr(estimator, "steps") else estimator
    for _, transformer, columns in getattr(first, "transformers_", ()):
        for step in [each for _, each in getattr(transformer, "steps", [("", transformer)])]:
            for name, known in zip(columns, getattr(step, "categories_", ()), strict=False):
                if known.dtype.kind in "OUS":
                    values = [str(value) for value in known if isinstance(value, str)]
                    is_strict = step.handle_unknown == "error" and len(values) <= _MAX_ENUM
                    yield str(name), (values if is_strict else [], values[0])


def _column(name: str, enum: list[str] | tuple[()] = (), known: str | None = None) -> Any:
    keys: dict[str, Any] = {"enum": enum} if enum else {}
    return tensor(name, float if known is None else object, [ROWS], nullable=known is None, **keys)


def _table(given: dict[str, Any], columns: list[str]) -> Any:
    """Returns what an estimator was fitted on: a frame if that had names, else an array."""
    if not columns:
        return next(iter(given.values()))
    import pandas

    is_matrix = given.keys() == {FEATURES} and FEATURES not in columns
    return pandas.DataFrame(given[FEATURES] if is_matrix else given, columns=columns)
