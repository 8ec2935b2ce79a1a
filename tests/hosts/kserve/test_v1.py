"""KServe's V1 protocol: `:predict` with rows of instances."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from .process import KServeProcess

PIXELS = base64.b64encode(b"\xff\x00").decode()


def _predict(server: KServeProcess, model: str, body: Any, **headers: str) -> Any:
    return server.client.post(f"/v1/models/{model}:predict", json=body, headers=headers)


@pytest.mark.parametrize(
    ("model", "body", "predictions"),
    [
        ("upper", {"instances": ["a", "b"]}, ["A", "B"]),
        ("upper", {"inputs": ["a"]}, ["A"]),
        ("upper", {"instances": [{"text": "a"}, {"text": "b"}]}, ["A", "B"]),
        ("strict", {"instances": [[1, 2, 3, 4]]}, [{"sum": 10.0, "rows": 1}]),
        ("strict", {"instances": [[1] * 4, [2] * 4]}, {"sum": [4.0, 8.0], "rows": [2]}),
        ("pair", {"instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}, [3.0, 7.0]),
        ("bits", {"instances": [{"b64": PIXELS}, {"b64": ""}]}, [{"b64": "AP8="}, ""]),
        ("bits", {"instances": ["ab"]}, ["ba"]),
    ],
)
def test_rows_in_and_rows_out(
    model: str, body: Any, predictions: Any, server: KServeProcess
) -> None:
    reply = _predict(server, model, body)
    assert (reply.status_code, reply.json()) == (200, {"predictions": predictions}), reply.text


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("upper", {}, 'request of model "upper": expected {"instances": [...]}, got {}'),
        ("upper", [1], 'request of model "upper": expected {"instances": [...]}, got [1]'),
        ("upper", {"instances": [1]},
         'input "text" of model "upper": expected strings, got 1 at index 0'),
        ("strict", {"instances": [[1, 2]]},
         'input "x" of model "strict": expected shape [-1, 4], got [1, 2]'),
        ("pair", {"instances": [1]},
         'instances of model "pair": expected objects with "a", "b", got [1]'),
        (
            "pair",
            {"instances": [{"a": 1, "b": 2}, {"a": 1}]},
            'instances[1] of model "pair": expected an object with "a", "b", as instances[0] has, '
            "got {'a': 1}",
        ),
        ("bits", {"instances": [{"b64": "?"}]}, "b64 of model \"bits\": expected base64, got '?'"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_refused(
    model: str, body: Any, message: str, server: KServeProcess
) -> None:
    reply = _predict(server, model, body)
    assert (reply.status_code, reply.json()) == (400, {"error": message})


def test_json_that_is_not_called_so_is_read_too(server: KServeProcess) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    path = "/v1/models/upper:predict"
    reply = server.client.post(path, content=b'{"instances": ["a"]}', headers=headers)
    assert reply.json() == {"predictions": ["A"]}
    assert server.client.post(path, content=b"a=1", headers=headers).status_code == 400


def test_a_cloud_event_is_answered_with_one(server: KServeProcess) -> None:
    event = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "test", "ce-type": "t"}
    reply = _predict(server, "upper", {"instances": ["a"]}, **event)
    assert reply.json() == {"predictions": ["A"]}
    assert reply.headers["ce-type"] == "io.kserve.inference.response"


def test_the_handler_gets_headers_and_parameters(server: KServeProcess) -> None:
    body = {"instances": [1], "parameters": {"mode": "fast"}}
    reply = _predict(server, "told", body, **{"x-trace": "abc"})
    assert reply.json() == {"predictions": ['["abc", {"mode": "fast"}]']}


def test_an_unknown_model_and_an_explanation_are_refused(server: KServeProcess) -> None:
    unknown = _predict(server, "no-such-model", {"instances": [1]})
    assert unknown.status_code == 404
    assert unknown.json()["error"].startswith('model "no-such-model" not found, expected ')
    reply = server.client.post("/v1/models/upper:explain", json={"instances": ["a"]})
    assert (reply.status_code, reply.json()) == (
        501,
        {"error": 'model "upper" cannot explain: it is a function'},
    )


@pytest.mark.parametrize("path", ["/v1/models/upper:predict", "/v2/models/upper/infer"])
def test_a_body_that_is_too_large_is_refused(path: str, server: KServeProcess) -> None:
    message = "request body: expected up to 1048576 bytes (MLSERVER_PYFUNC_MAX_BODY), got more"
    headers = {"Content-Type": "application/json"}
    for content in (b" " * (1 << 20 | 1), iter([b" " * (1 << 20), b" "])):
        reply = server.client.post(path, content=content, headers=headers)
        assert (reply.status_code, reply.json()) == (413, {"error": message})
