"""A function called from plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.serving.local import load

DEFINITION = """
model_name: double
source: {code: "def predict(x): return 2 * x", handler: predict}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""


def test_a_call_takes_values_by_name_and_raises_what_a_client_gets(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(DEFINITION)
    with load(tmp_path) as double:
        answer = double(x=[1, 2.5])
        assert answer["y"].dtype == np.float32
        assert answer["y"].tolist() == [2, 5]
        with pytest.raises(ContractError, match='input "z" of model "double": unknown'):
            double(z=[1])
