"""Models of MLflow: those that it wrote, by one server, and broken ones.

`mlflow_models.py` writes them, in environments that uv makes. A few are tested, and all twenty with
`MLSERVER_PYFUNC_MLFLOW_MODELS=all`, which takes some minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc import Function, InferenceError
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.client import InferResult
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS
from mlserver_pyfunc.environments import uv
from mlserver_pyfunc.environments.environment import with_needs
from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.sources import fetch
from mlserver_pyfunc.testing import Server
from tests.parity import answers_by_route, input_of

MLFLOW = ["mlflow-skinny==3.17.2", "scikit-learn==1.7.2", "skops==0.13.0", "pandas==2.3.3"]
GROUPS = {
    "main": ("3.11", [*MLFLOW, "numpy==2.3.3", "lightgbm==4.6.0"]),
    "statsmodels": ("3.11", [*MLFLOW, "numpy==2.3.3", "statsmodels==0.14.5"]),
    "old": ("3.10", ["mlflow-skinny==2.14.3", "numpy==1.26.4", "pandas==2.2.2",
                     "scikit-learn==1.5.2", "setuptools<80"]),
    "xgboost": ("3.12", [*MLFLOW, "numpy==2.3.3", "xgboost==3.0.5"]),
    "new": ("3.13", [*MLFLOW, "numpy==2.3.3"]),
}  # fmt: skip
IS_ALL = os.environ.get("MLSERVER_PYFUNC_MLFLOW_MODELS") == "all"
NAMES = ["linear", "scaled-by-params", "next-day", "optional-given", "every-type", "lightgbm"]
PYTHONS = ["3.11"]
if IS_ALL:
    NAMES += ["forest", "scaled", "days", "optional-left-out", "nullable", "text", "tensors"]
    NAMES += ["local-code", "statsmodels", "xgboost", "versions-main", "versions-old"]
    NAMES += ["versions-xgboost", "versions-new", "linear-old", "linear-new"]
    PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
SCRIPT = Path(__file__).with_name("mlflow_models.py")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.needs(*(f"Python {version}" for version in PYTHONS)),
    pytest.mark.timeout(3600),
    pytest.mark.flaky(reruns=0),  # If models cannot be written, that is found out once.
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: in each a folder as MLflow writes it, and a request with its answer."""
    root, made = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("environments")
    for group, (version, requirements) in GROUPS.items():
        if group != "main" and not IS_ALL:
            continue
        uv.run(["venv", "--quiet", "-p", str(uv.find_python(version)), str(made / group)])
        python = str(made / group / "bin" / "python")
        uv.run(["pip", "install", "--quiet", "--python", python, *requirements])
        command = [python, str(SCRIPT), str(root), group, *requirements]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=made)
        assert ran.returncode == 0, ran.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def server(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the folders as they are. model-settings.json names them as MLServer wants it."""
    folder = tmp_path_factory.mktemp("served")
    for name in NAMES:
        shutil.copytree(written / name / "model", folder / name)
        done = CliRunner().invoke(main, ["env", str(folder / name)])
        assert done.exit_code == 0, done.output
        settings = {"name": name, "implementation": "mlserver_pyfunc.PyFuncRuntime"}
        (folder / name / MODEL_SETTINGS).write_text(json.dumps(settings))
    with Server(folder) as server:
        yield server


def value(tensor: dict[str, Any]) -> Any:
    kinds = {"FP64": "f8", "FP32": "f4", "INT64": "i8", "INT32": "i4", "BOOL": "?"}
    dtype = kinds.get(tensor["datatype"], "O")
    data = [np.nan if v is None else v for v in tensor["data"]]
    return np.array(data, dtype).reshape(tensor["shape"])


def check(got: Any, expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        array, wanted = np.asarray(got[name]), value(tensor)
        if wanted.dtype.kind == "O":
            array = np.array([each.decode() for each in array.ravel()], object)
        assert array.dtype == wanted.dtype, name
        is_float = wanted.dtype.kind == "f"
        assert np.array_equal(array.reshape(wanted.shape), wanted, equal_nan=is_float), name


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_mlflow_does(name: str, written: Path, server: Server) -> None:
    case = json.loads((written / name / "case.json").read_text())
    inputs = {key: (each["datatype"], value(each)) for key, each in case["inputs"].items()}
    if parameters := case["parameters"]:
        client = RestClient(server.url)
        sent = [input_of(key, *each) for key, each in inputs.items()]
        check(client.infer(name, sent, parameters).outputs, case["outputs"])
        client.close()
        inputs |= {key: ("FP64", np.array([each])) for key, each in parameters.items()}
    sent = [input_of(key, *each) for key, each in inputs.items()]
    for route, [answer] in answers_by_route(server, name, [sent]).items():
        assert isinstance(answer, InferResult), (route, answer)
        check(answer.outputs, case["outputs"])


def test_a_date_that_is_none_is_refused(written: Path) -> None:
    with Function.load(written / "next-day" / "model") as fn:
        assert fn(when=["2024-02-28"])["output"].tolist() == ["2024-02-29T00:00:00.000000000"]
        with pytest.raises(
            InferenceError, match=r'input "when": expected dates in ISO 8601: .*soon'
        ):
            fn(when=["soon"])


def test_a_format_without_code_needs_no_mlflow(written: Path) -> None:
    for name, is_light in (("linear", True), ("lightgbm", True), ("scaled", False)):
        definition = parse({"source": str(written / name / "model" / "MLmodel")})
        needs = " ".join(with_needs(definition, fetch(definition.source, written)).requirements)
        assert ("mlflow" not in needs) == is_light, needs
        assert "pandas==2.3.3" in needs


def test_the_signature_refuses_wrong_requests(written: Path) -> None:
    with Function.load(written / "every-type" / "model") as fn:
        sent = {name: [value] for name, value in EVERY.items()}
        assert fn(sent)["string"].tolist() == ["a"]
        assert fn.definition.python_version == "3.11"
        for change, words in (
            ({"long": [1.5]}, "expected whole numbers"),
            ({"extra": [1]}, 'input "extra"'),
            ({"double": [1, 2]}, 'axis "rows"'),
            ({"integer": np.array([1])}, "expected datatype INT32"),
        ):
            with pytest.raises(ContractError, match=words):
                fn({**sent, **change})
        del sent["string"]
        with pytest.raises(ContractError, match='"string" of model'):
            fn(sent)


EVERY = {"boolean": True, "integer": 1, "long": 2, "float": 0.5, "double": 0.25, "string": "a"}


def changed(file: str, old: str, new: str) -> Any:
    def change(model: Path) -> None:
        text = (model / file).read_text()
        assert old in text
        (model / file).write_text(text.replace(old, new))

    return change


def removed(*files: str) -> Any:
    return lambda model: [(model / file).unlink() for file in files]


BROKEN = {
    "not YAML": (lambda m: (m / "MLmodel").write_text("flavors: [1"), "MLmodel"),
    "empty": (lambda m: (m / "MLmodel").write_text(""), "is no mlflow model"),
    "no function": (changed("MLmodel", "python_function", "other"), "no Python function of MLflow"),
    "old Python": (changed("python_env.yaml", "python: 3.11", "python: 3.7"), "Python 3.7"),
    "a local package": (changed("requirements.txt", "numpy", "-e ./mine\nnumpy"), "-e ./mine"),
    "no such version": (changed("requirements.txt", "numpy==", "numpy==9"), "numpy"),
    "no requirements": (removed("requirements.txt", "conda.yaml"), "conda.yaml"),
    "no pickle": (removed("python_model.pkl"), "python_model.pkl"),
    "cut pickle": (lambda m: (m / "python_model.pkl").write_bytes(b"\x80"), "cannot be loaded"),
    "no signature": (lambda m: without_signature(m / "MLmodel"), "does not tell its inputs"),
}


def without_signature(file: Path) -> None:
    kept = yaml.safe_load(file.read_text())
    del kept["signature"]
    file.write_text(yaml.safe_dump(kept))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_model_names_its_cause_in_one_line(
    fault: str, written: Path, tmp_path: Path
) -> None:
    change, words = BROKEN[fault]
    shutil.copytree(written / "scaled" / "model", tmp_path / "model")
    change(tmp_path / "model")
    done = CliRunner().invoke(main, ["run", str(tmp_path / "model"), "--random"])
    assert done.exit_code != 0
    [line] = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert words in line, done.output
