"""Classifies irises by the sizes of their flowers."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def train(context):
    """Runs once, when the model is loaded."""
    data = load_iris()
    context.model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        data.data, data.target
    )
    context.names = data.target_names


def predict(features, context):
    """Runs once per inference request. `features` is a float32 array of shape [n, 4]."""
    probabilities = context.model.predict_proba(features)
    return {
        "species": context.names[probabilities.argmax(axis=1)],
        "probabilities": probabilities,
    }
