"""A model that takes as long for sixty rows as for one, as most do on a GPU."""

import time

import numpy as np


def predict(features):
    """`features` has the rows of all requests that wait, in one array."""
    time.sleep(0.02)
    rows = len(features)
    return {"score": features.mean(axis=1), "rows_in_call": np.full(rows, rows)}
