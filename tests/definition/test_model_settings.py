"""What model-settings.json says beside the definition."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.definition.model_settings import (
    disagreements,
    explicit_settings,
    seldon_model,
)


def _tensor(name: str, datatype: Any, *shape: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, datatype=datatype, shape=list(shape))


DECLARED = parse(
    {
        "model_name": "iris",
        "source": {"code": "def f(): ...", "handler": "f"},
        "model_version": "2",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
)


@pytest.mark.parametrize("datatype", ["FP32", SimpleNamespace(value="FP32")])
def test_settings_that_say_the_same_agree(datatype: Any) -> None:
    inputs, outputs = [_tensor("x", datatype, -1, 4)], [_tensor("y", "BYTES", -1)]
    assert disagreements(DECLARED, SimpleNamespace(inputs=inputs, outputs=outputs), "2") == []


def test_settings_that_say_nothing_agree() -> None:
    assert disagreements(DECLARED, SimpleNamespace(inputs=[], outputs=None), None) == []


def test_every_disagreement_is_told() -> None:
    inputs, outputs = [_tensor("x", "FP32", -1, 3)], [_tensor("z", "BYTES", -1)]
    found = disagreements(DECLARED, SimpleNamespace(inputs=inputs, outputs=outputs), "3")
    assert found == [
        'model_version is "2", but model-settings.json says "3"',
        "inputs are x FP32 [-1, 4], but model-settings.json says x FP32 [-1, 3]",
        "outputs are y BYTES [-1], but model-settings.json says z BYTES [-1]",
    ]


@pytest.mark.parametrize(
    ("content", "name"),
    [('{"name": "iris"}', "iris"), ('{"name": ""}', None), ("{}", None), ("[]", None), ("{", None)],
)
def test_the_name_that_the_settings_themselves_give(
    content: str, name: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "model-settings.json"
    file.write_text(content)
    assert (explicit_settings(file).get("name") or None) == name
    assert explicit_settings(None) == {}
    assert explicit_settings(tmp_path / "absent.json") == {}


@pytest.mark.parametrize(
    ("path", "name", "model"),
    [
        ("iris_3/1", "iris_3", "iris"),
        ("my_model_12/1", "my_model_12", "my_model"),
        ("iris_3/1", "iris", None),
        ("iris_3/2", "iris_3", None),
        ("iris_3", "iris_3", None),
        ("iris/1", "iris", None),
    ],
)
def test_a_folder_of_seldon_v2_is_known_by_its_layout(
    path: str, name: str, model: str | None, tmp_path: Path
) -> None:
    assert seldon_model(tmp_path / path / "model-settings.json", name) == model
    assert seldon_model(None, name) is None
