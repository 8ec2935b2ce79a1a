"""Saves a workload as a model of MLflow with a signature, and serves it by its own command."""

import os
import sys
from pathlib import Path

import mlflow
import pandas as pd
from answers import answer
from columns import columns
from mlflow.models import infer_signature


class Framed(mlflow.pyfunc.PythonModel):
    def __init__(self, workload):
        self.workload = workload

    def predict(self, context, model_input, params=None):
        return answer(self.workload, model_input)


if __name__ == "__main__":
    workload, port = sys.argv[1:]
    frame = pd.DataFrame(columns(workload, rows=20))
    mlflow.pyfunc.save_model(
        f"model-{workload}",
        python_model=Framed(workload),
        signature=infer_signature(frame, answer(workload, frame)),
        pip_requirements=[],
        code_paths=[str(Path(__file__).with_name(f"{name}.py")) for name in ("answers", "columns")],
    )
    program = str(Path(sys.executable).with_name("mlflow"))
    options = ["-m", f"model-{workload}", "--port", port, "--env-manager", "local"]
    os.execv(program, [program, "models", "serve", *options])
