"""What a handler can ask of a call, and how its error is worded."""

from __future__ import annotations

import datetime
import logging
import types
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from mlserver.types import Parameters

from mlserver_pyfunc.handler.call import InferenceCall, handler_error, printable_id
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES

HERE = Path("/nowhere")


def context(version: str | None) -> Context:
    return Context(
        logger=logging.getLogger("test"),
        model_name="iris",
        model_version=version,
        definition={"source": "model.py"},
        source_dir=HERE,
        init_parameters={"k": 1},
        metrics=Metrics(print),
    )


def call(*, version: str | None = "1", request: Any = None, **arrays: Any) -> InferenceCall:
    """Makes a call with inputs: INT64 of numbers, BYTES of others."""
    inputs = {name: np.array(value) for name, value in arrays.items()}
    for name, array in inputs.items():
        inputs[name] = array if array.dtype.kind == "i" else array.astype(object)
    kinds = {name: "INT64" if a.dtype.kind == "i" else "BYTES" for name, a in inputs.items()}
    specs = {name: TensorSpec(name, DATATYPES[kind], (-1,)) for name, kind in kinds.items()}
    return InferenceCall(context(version), inputs, specs, request)


def sent(parameters: Any = None, outputs: Any = None, **of_inputs: Any) -> Any:
    """Makes a request with the parameters of its inputs by name."""
    inputs = [types.SimpleNamespace(name=n, parameters=each) for n, each in of_inputs.items()]
    outputs = outputs and [types.SimpleNamespace(name=name) for name in outputs]
    return types.SimpleNamespace(id="r-1", parameters=parameters, inputs=inputs, outputs=outputs)


def test_a_context_has_what_it_was_made_of_and_says_what_it_has_not() -> None:
    made = context("1")
    assert (made.definition, made.source_dir) == ({"source": "model.py"}, HERE)
    assert (made.init_parameters, made.model_version) == ({"k": 1}, "1")
    with pytest.raises(AttributeError, match=r'^context has no "model": set it in the init fun'):
        _ = made.model


class OtherParameters(pydantic.BaseModel):
    mode: str | None = None


@pytest.mark.parametrize("parameters", [None, {}, Parameters(), OtherParameters()])
def test_a_request_without_parameters(parameters: Any) -> None:
    made = call(x=[1], request=sent(parameters, x=parameters))
    assert (made.parameters, made.headers, made.outputs) == ({}, {}, [])
    assert made.tensor_parameters == {"x": {}}
    assert made.event.body == {
        "id": "r-1",
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}],
    }


def test_parameters_are_without_headers_and_without_what_is_not_set() -> None:
    made = call(x=[1], request=sent(Parameters(headers={"a": "b"}, mode="fast"), ["y"]))
    assert (made.parameters, made.headers) == ({"mode": "fast"}, {"a": "b"})
    assert made.event.body["parameters"] == {"mode": "fast"}
    assert made.event.body["outputs"] == [{"name": "y"}]
    assert made.event.fields == {"mode": "fast"}


@pytest.mark.parametrize(("version", "shown"), [("7", "7"), (None, "")])
def test_the_event_names_the_model_and_the_time(version: str | None, shown: str) -> None:
    event = call(x=[1], version=version, request=sent({"headers": {}})).event
    assert event.headers == {
        "X-Model-Name": "iris", "X-Model-Version": shown, "X-Request-ID": "r-1",
    }  # fmt: skip
    assert event.get_header("x-model-name") == "iris"
    assert event.get_header("x-other", 5) == 5
    assert event.path == "/v2/models/iris/infer"
    age = datetime.datetime.now(tz=datetime.timezone.utc) - event.timestamp
    assert abs(age) < datetime.timedelta(hours=1)


def test_the_event_says_of_a_tensor_how_it_is_here_not_how_it_came() -> None:
    came = {"content_type": "np", "binary_data_size": 8, "unit": "cm"}
    made = call(x=[1], t=[b"text"], b=[b"\xff"], request=sent(x=came, t=came, b=None))
    tensors = made.event.body["inputs"]
    assert [each.get("parameters") for each in tensors] == [
        {"unit": "cm"}, {"unit": "cm"}, {"content_type": "base64"},
    ]  # fmt: skip
    assert [each["data"] for each in tensors] == [[1], ["text"], ["/w=="]]


def test_the_request_of_a_warm_up_has_no_parameters() -> None:
    request = call(x=[1]).request
    assert (request.id, request.parameters, request.outputs) == ("", {}, [])
    [tensor] = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape, tensor.parameters) == (
        "x", "INT64", [1], {},
    )  # fmt: skip


def test_an_id_is_short_and_on_one_line_in_the_log() -> None:
    assert printable_id("r-1") == "r-1"
    assert printable_id("a\nb\x1b") == "a?b?"
    assert printable_id("x" * 80) == "x" * 80
    assert printable_id("x" * 81) == "x" * 80


NOTE = " (inputs are read-only, to change one copy it: x.copy())"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError("destination is read-only"), f"ValueError: destination is read-only{NOTE}"),
        (RuntimeError("disk is read-only"), "RuntimeError: disk is read-only"),
    ],
)
@pytest.mark.parametrize(("call_id", "named"), [("r\n1", " (request r?1)"), ("", "")])
def test_an_error_of_a_handler_names_it_and_the_request(
    error: Exception, said: str, call_id: str, named: str
) -> None:
    found = handler_error("iris", error, call_id)
    assert str(found) == f'handler of model "iris" raised {said}{named}'
    noted = handler_error("iris", TypeError("no"), call_id, " (note)")
    assert str(noted) == f'handler of model "iris" raised TypeError: no (note){named}'
