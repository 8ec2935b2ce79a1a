"""Continues a monthly series by exponential smoothing with a trend and a season."""

import sys

import numpy as np
import pandas as pd
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from mlserver_pyfunc import InferenceError


def forecast(history, months=None):
    if len(history) < 24:
        raise InferenceError(f'input "history": expected 24 months or more, got {len(history)}')
    series = pd.Series(history)
    model = ETSModel(series, error="mul", trend="add", seasonal="mul", seasonal_periods=12)
    count = 6 if months is None else int(months[0])
    months_ahead = range(len(series), len(series) + count)
    prediction = model.fit(disp=False).get_prediction(
        months_ahead[0], months_ahead[-1], simulate_repetitions=2000, random_state=1
    )
    table = prediction.summary_frame(alpha=0.1).round()
    return {
        "expected": table["mean"],
        "low": table["pi_lower"],
        "high": table["pi_upper"],
        "runs_on": f"Python {sys.version_info[0]}.{sys.version_info[1]}, NumPy {np.__version__}",
    }
