"""Sends requests to a served model by every route, from a process without MLServer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlserver_pyfunc.client import InferResult
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS, SETTINGS_TEXT
from mlserver_pyfunc.testing import Server
from tests.parity import answers_by_route, input_of

Request = Mapping[str, tuple[str, Any]]
"""Datatype and array of each input."""


def folder_of(folder: Path, **definition: Any) -> Path:
    """Writes a definition into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "function.yaml").write_text(yaml.safe_dump(definition))
    (folder / MODEL_SETTINGS).write_text(SETTINGS_TEXT)
    return folder


def answers(place: Path, requests: Sequence[Request]) -> dict[str, list[Any]]:
    """Serves a folder or file, and returns the answers of each route: results or errors."""
    sent = [
        [input_of(name, datatype, np.asarray(array)) for name, (datatype, array) in each.items()]
        for each in requests
    ]
    with Server(place) as server:
        return answers_by_route(server, server.models[0], sent)


def assert_equal(answer: Any, expected: Mapping[str, Any]) -> None:
    """Checks that an answer has the framework's own values, bit for bit."""
    assert isinstance(answer, InferResult), answer
    assert answer.outputs.keys() == expected.keys()
    for name, array in expected.items():
        got = answer.outputs[name]
        if got.dtype.kind == "O":
            got = np.array([each.decode() for each in got.ravel()], object).reshape(got.shape)
            array = np.asarray(array, object)
        assert got.shape == np.shape(array), name
        assert np.array_equal(got, array), (name, got, array)
