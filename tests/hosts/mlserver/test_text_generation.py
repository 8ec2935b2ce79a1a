"""`/generate` and `/generate_stream` with a text: generate_rest.yaml of the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from tests.needs import require
from tests.places import PROTOCOL

from .models import inline, tensor, write_model
from .process import ServerProcess, serving

CODE = """
from mlserver_pyfunc import InferenceError

def words(text_input, max_tokens=None, temperature: float = 1.0):
    if temperature < 0:
        raise InferenceError("too cold", 400)
    found = text_input.item().split()[: 20 if max_tokens is None else max_tokens.item()]
    text = f"{' '.join(found)} at {temperature:g}"
    return {
        "outputs": [
            {"name": "count", "datatype": "INT32", "shape": [], "data": [len(found)]},
            {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": [text]},
        ],
        "parameters": {"details": {"finish_reason": "length", "logprobs": []}},
    }

def say(prompt):
    for word in prompt.item().split():
        if word == "fail":
            raise ValueError("cannot say it")
        yield word + " "

def total(x):
    return x.sum()
"""
MODELS = {
    "words": {
        "inputs": [
            tensor("text_input", "BYTES", [1], content_type="str"),
            tensor("max_tokens", "INT32", [], optional=True, minimum=1),
        ],
        "outputs": [tensor("count", "INT32", []), tensor("text_output", "BYTES", [1])],
    },
    "say": {
        "inputs": [tensor("prompt", "BYTES", [], content_type="str")],
        "outputs": [tensor("text", "BYTES", [])],
    },
    "total": {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("sum", "FP32", [])]},
}
STREAM = "generate_stream"


@pytest.fixture(scope="module", params=["none", "process"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("generate")
    for name, tensors in MODELS.items():
        write_model(folder / name, inline(CODE, name, tensors, isolation=request.param))
    with serving(folder, folder, *MODELS) as process:
        yield process


def _post(server: ServerProcess, model: str, body: Any, route: str = "generate") -> httpx.Response:
    return server.client.post(f"/v2/models/{model}/{route}", json=body)


def _fits(kind: str, body: Any) -> bool:
    path = PROTOCOL / "generate_rest.yaml"
    if path.is_file():
        schemas = yaml.safe_load(path.read_text())["components"]
        schema = {"$ref": f"#/components/schemas/{kind}", "components": schemas}
        Draft202012Validator(schema).validate(body)
    return True


def test_a_text_is_answered_with_a_text(server: ServerProcess) -> None:
    body = {"text_input": "one two three", "parameters": {"max_tokens": 2, "temperature": 0.5}}
    assert _fits("GenerateRequest", body)
    reply = _post(server, "words", body)
    assert reply.status_code == 200, reply.text
    assert reply.json() == {
        "text_output": "one two at 0.5",
        "count": 2,
        "details": {"finish_reason": "length", "logprobs": []},
        "model_name": "words",
    }
    assert _fits("GenerateResponse", reply.json())


def test_a_stream_has_an_event_for_each_text(server: ServerProcess) -> None:
    reply = _post(server, "say", {"text_input": "now then fail"}, STREAM)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(event.removeprefix("data: ")) for event in reply.text.split("\n\n")[:-1]]
    assert events[:2] == [{"text_output": text, "model_name": "say"} for text in ("now ", "then ")]
    assert "cannot say it" in events[2]["error"]
    assert len(events) == 3


@pytest.mark.parametrize(
    ("model", "body", "status", "error"),
    [
        ("words", {}, 400, 'expected {"inputs": ['),
        ("words", {"text_input": 3}, 422, 'expected {"text_input": text'),
        ("words", {"text_input": "a", "parameters": [1]}, 422, 'expected {"text_input": text'),
        (
            "words", {"text_input": "a", "parameters": {"max_tokens": "many"}}, 422,
            'input "max_tokens" of model "words"',
        ),
        ("words", {"text_input": "a", "parameters": {"temperature": -1}}, 422, "too cold"),
        (
            "total", {"text_input": "a"}, 422,
            'model "total" cannot generate: expected an input "text_input"',
        ),
        ("nobody", {"text_input": "a"}, 404, 'model "nobody" not found'),
    ],
)  # fmt: skip
def test_a_wrong_request_has_the_statuses_of_the_text_form(
    model: str, body: Any, status: int, error: str, server: ServerProcess
) -> None:
    reply = _post(server, model, body)
    assert error in reply.json()["error"], reply.text
    assert reply.status_code == status
    assert _fits("GenerateErrorResponse", reply.json())


def test_an_error_before_the_first_text_is_the_status_of_the_stream(server: ServerProcess) -> None:
    reply = _post(server, "say", {"text_input": "fail"}, STREAM)
    assert (reply.status_code, "cannot say it" in reply.json()["error"]) == (500, True)
    assert _post(server, "say", {"text_input": "fail"}).status_code == 422, "it streams"


def test_both_paths_take_requests_of_infer(server: ServerProcess) -> None:
    sent = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a b"]}
    reply = _post(server, "words", {"inputs": [sent]})
    assert reply.json()["outputs"][1]["data"] == ["a b at 1"]
    wrong = _post(server, "words", {"inputs": []})
    assert wrong.status_code == 400


@pytest.mark.parametrize("route", ["generate", STREAM])
def test_whatever_the_document_allows_is_answered_as_it_says(
    route: str, server: ServerProcess
) -> None:
    require("OpenAPI of the protocol")
    document = yaml.safe_load((PROTOCOL / "generate_rest.yaml").read_text())
    [item] = [item for path, item in document["paths"].items() if path.endswith(f"/{route}")]
    del item["post"]["parameters"]
    item["post"]["requestBody"]["required"] = True  # without one, it is a request of infer
    document["paths"] = {f"/v2/models/words/{route}": item}
    statuses = set()
    [found] = schemathesis.openapi.from_dict(document).get_all_operations()

    @settings(
        max_examples=100,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=found.ok().as_strategy())
    def check(case: Any) -> None:
        # A connection that idles while a request is made up may be closed under it.
        reply = case.call(base_url=server.url, headers={"Connection": "close"})
        statuses.add(reply.status_code)
        case.validate_response(reply, checks=[not_a_server_error, status_code_conformance])
        if reply.status_code != 200:
            assert _fits("GenerateErrorResponse", reply.json())
        elif route == "generate":
            assert _fits("GenerateResponse", reply.json())
        else:
            event = json.loads(reply.text.removeprefix("data: "))
            del event["details"]  # the handler gives those of a whole text
            assert _fits("GenerateStreamResponse", event)

    check()
    assert 200 in statuses
    assert statuses <= {200, 422}
