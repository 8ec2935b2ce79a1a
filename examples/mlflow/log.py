"""Trains a model of visits on a drawn table, and writes it as MLflow does into `model`."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FOLDER = Path(__file__).with_name("model")

if __name__ == "__main__":
    draw = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "day": draw.choice(["weekday", "weekend"], 300),
            "celsius": draw.uniform(0, 35, 300).round(1),
            "rain": draw.choice([True, False], 300),
        }
    )
    visits = 200 + 150 * (table.day == "weekend") + 6 * table.celsius - 80 * table.rain
    columns = make_column_transformer(
        (OneHotEncoder(), ["day"]), (StandardScaler(), ["celsius"]), remainder="passthrough"
    )
    model = make_pipeline(columns, Ridge()).fit(table, visits)
    shutil.rmtree(FOLDER, ignore_errors=True)
    mlflow.sklearn.save_model(
        model,
        FOLDER,
        signature=infer_signature(table, model.predict(table)),
        input_example=table.head(1),
        pip_requirements=[
            "mlflow-skinny==3.17.2",
            "scikit-learn==1.7.2",
            "skops==0.13.0",
            "pandas",
        ],
        serialization_format="skops",
    )
