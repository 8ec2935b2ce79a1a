"""Sample values keep the contract that they are samples of."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.samples import examples, random_arrays, request_form, smallest_shape
from mlserver_pyfunc.protocol.tensors import DATATYPES


def spec(name: str, datatype: str, *shape: Any, **keys: Any) -> TensorSpec:
    return TensorSpec.of({"name": name, "datatype": datatype, "shape": list(shape), **keys})


@pytest.mark.parametrize("name", DATATYPES)
def test_random_arrays_have_both_ends_of_what_they_may_have(name: str) -> None:
    tensor = spec("x", name, -1, 2)
    arrays = [random_arrays([tensor], random.Random(seed))["x"] for seed in range(200)]
    assert {array.shape for array in arrays} == {(size, 2) for size in (1, 2, 3, 4)}
    assert {array.dtype for array in arrays} == {DATATYPES[name].dtype}
    elements = [element for array in arrays for element in array.ravel().tolist()]
    if name == "BOOL":
        assert set(elements) == {True, False}
    elif name == "BYTES":
        assert {len(element) for element in elements} >= set(range(9))
        assert "naïve".encode() in elements
    elif "INT" in name:
        assert (min(elements), max(elements)) == (0 if name[0] == "U" else -100, 100)
    else:
        assert len(set(elements)) > 100
        assert min(elements) < 0 < max(elements)


def test_random_arrays_of_one_seed_are_the_same() -> None:
    tensors = [spec("x", "FP32", -1), spec("t", "BYTES", -1)]
    first, second = (random_arrays(tensors, random.Random(7)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in ("x", "t"))


def test_random_text_is_text() -> None:
    tensor = spec("t", "BYTES", 4, content_type="str")
    for seed in range(50):
        for element in random_arrays([tensor], random.Random(seed))["t"]:
            element.decode()


def test_random_values_are_within_their_limits() -> None:
    tensor = spec("x", "INT32", 4, minimum=5, maximum=7)
    elements = {
        element
        for seed in range(20)
        for element in random_arrays([tensor], random.Random(seed))["x"].tolist()
    }
    assert elements <= {5, 6, 7}


def test_axes_without_a_name_are_drawn_one_by_one() -> None:
    tensors = [spec("x", "FP32", "rows", -1), spec("y", "FP32", "rows", -1)]
    given = {"x": np.zeros((2, 3), "f4")}
    shapes = {random_arrays(tensors, random.Random(n), given)["y"].shape for n in range(50)}
    assert shapes == {(2, size) for size in (1, 2, 3, 4)}
    pairs = [random_arrays(tensors, random.Random(n)) for n in range(50)]
    assert any(pair["x"].shape[1] != pair["y"].shape[1] for pair in pairs)
    assert all(pair["x"].shape[0] == pair["y"].shape[0] for pair in pairs)


def test_given_arrays_are_returned_as_they_are() -> None:
    given = {"x": np.zeros((2, 3), "f4")}
    arrays = random_arrays([spec("x", "FP32", -1, 3)], random.Random(1), given)
    assert arrays["x"] is given["x"]


def test_examples_are_requests_that_keep_the_contract() -> None:
    tensors = [
        *(spec(name, name, -1, 2) for name in DATATYPES),
        spec("declared", "INT8", "rows"),
        spec("beside", "FP32", "rows", 2),
        spec("plain", "INT8", 2),
        spec("half", "INT8", "columns", -1),
        spec("limited", "FP32", 1, minimum=3),
        spec("scalar", "INT64"),
    ]
    sizes: dict[str, int] = {}
    declared = {"declared": [1, 2, 3], "plain": [4, 5], "half": [[6, 7]]}
    body = {"inputs": examples(tensors, declared, sizes)}
    assert sizes == {"rows": 3, "columns": 1}
    request = InferenceRequest.from_json(json.loads(json.dumps(body)))
    arrays = Contract("m", tensors, []).decode_inputs(request.inputs)
    assert arrays["BOOL"].tolist() == [[True, True]]
    assert arrays["BYTES"].tolist() == [[b"text", b"text"]]
    assert arrays["FP32"].tolist() == [[0.5, 0.5]]
    assert arrays["UINT8"].tolist() == [[1, 1]]
    assert arrays["declared"].tolist() == [1, 2, 3]
    assert arrays["beside"].shape == (3, 2)
    assert arrays["limited"].tolist() == [3]
    assert arrays["scalar"].shape == ()
    assert examples([spec("x", "INT8", "rows")], {})[0]["shape"] == [1]


def test_the_smallest_shape_has_1_for_an_open_axis() -> None:
    assert smallest_shape(spec("x", "FP32", -1, 4, "rows", "other"), {"rows": 3}) == [1, 4, 3, 1]
    assert smallest_shape(spec("x", "FP32", -1, 4), {"": 9, "rows": 3}) in ([1, 4], [9, 4])


@pytest.mark.parametrize(
    ("tensors", "shown"),
    [
        ([], '{"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}'),
        (
            [spec("x", "INT8", -1, 2)],
            '{"inputs": [{"name": "x", "datatype": "INT8", "shape": [1, 2], "data": [1, 1]}]}',
        ),
        (
            [spec("x", "INT8", 2, 2)],
            '{"inputs": [{"name": "x", "datatype": "INT8", "shape": [2, 2], '
            '"data": [1, 1, 1, 1]}]}',
        ),
        (
            [spec("x", "INT8", 5)],
            '{"inputs": [{"name": "x", "datatype": "INT8", "shape": [5], '
            '"data": [1, 1, 1, 1, ...]}]}',
        ),
    ],
)
def test_the_form_of_a_request_is_shown_shortened(tensors: list[TensorSpec], shown: str) -> None:
    assert request_form(tensors) == shown


def test_the_form_has_required_tensors_and_up_to_four() -> None:
    need, may = spec("need", "INT8", 1), spec("may", "INT8", 1, optional=True)
    assert "may" not in request_form([may, need])
    assert request_form([may, may]).count('"may"') == 1
    assert "..." not in request_form([need] * 4)
    assert request_form([need] * 5).count('"need"') == 4
    assert request_form([need] * 5).endswith(", ...]}")
