"""The OpenAPI document is valid, is the contract's, and is true of the running server."""

import json
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlserver_pyfunc.client.openapi import document
from mlserver_pyfunc.definition import read
from mlserver_pyfunc.protocol.samples import examples
from mlserver_pyfunc.testing import Server, load, requests_for
from tests.places import FUNCTIONS, IRIS
from tests.testing.bad_requests import bad_requests_for

FOLDERS = [
    FUNCTIONS / "echo",
    FUNCTIONS / "shout",
    FUNCTIONS / "flaky",
    Path(__file__).with_name("functions") / "gallery",
    Path(__file__).with_name("functions") / "table",
    IRIS,
]
ECHO = read(FUNCTIONS / "echo/function.yaml")
TABLE = Path(__file__).with_name("functions") / "table"
quick = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def validator(described, name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_declared_examples_are_the_documents():
    described = document(read(TABLE / "function.yaml"), "table")
    call = described["paths"]["/v2/models/table/infer"]["post"]
    content = call["requestBody"]["content"]["application/json"]
    inputs = content["examples"]["contract"]["value"]["inputs"]
    assert [tensor["shape"] for tensor in inputs] == [[2, 3], [2], [2], [1]]
    assert [tensor["data"] for tensor in inputs] == [
        [1.5, 2, 3, 4, 5, 6], [9007199254740993, 2], ["one", "two"], [2.5],
    ]  # fmt: skip
    answer = call["responses"]["200"]["content"]["application/json"]["examples"]["contract"]
    assert [tensor["shape"] for tensor in answer["value"]["outputs"]] == [[2], [2]]
    cells = described["components"]["schemas"]["Input_0"]["description"]
    assert "Shape [rows, 3]: rows may be of any size" in cells
    assert "Axis 1: width, height, depth" in cells


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_document_is_valid_openapi(folder):
    described = document(read(folder / "function.yaml"), "a/b c", "1", "/prefix")
    OpenAPIV31SpecValidator(described).validate()
    assert "/v2/models/a%2Fb%20c/infer" in described["paths"]
    assert "/v2/models/a%2Fb%20c/versions/1/infer" in described["paths"]
    assert described["servers"] == [{"url": "/prefix"}]
    json.dumps(described)


@quick
@given(requests_for(ECHO))
def test_every_request_that_keeps_the_contract_is_in_the_schema(body):
    validator(document(ECHO, "echo"), "InferenceRequest").validate(body)


BEYOND_THE_SCHEMA = {
    "element count",  # an open axis: JSON Schema cannot multiply
    "duplicate",
    "requested outputs",
}


@settings(quick, max_examples=80)
@given(bad_requests_for(ECHO))
def test_requests_that_break_it_are_not(bad):
    if bad.rule in BEYOND_THE_SCHEMA:
        return
    with pytest.raises(jsonschema.ValidationError):
        validator(document(ECHO, "echo"), "InferenceRequest").validate(bad.body)


def test_the_examples_are_answered_and_the_answers_are_in_the_schema():
    for folder in (FOLDERS[0], FOLDERS[2], FOLDERS[4]):
        definition = read(folder / "function.yaml")
        with load(folder) as function:
            body = {"inputs": examples([tensor.spec for tensor in definition.inputs], {})}
            answer = function.request(body)
        del answer["id"]
        validator(document(definition, "m"), "InferenceResponse").validate(answer)


@pytest.mark.server
def test_the_running_server_keeps_its_own_document():
    """Generated calls, good and bad: no error of ours, and every answer as documented."""
    with Server(FOLDERS[0]) as server:
        url = f"{server.url}/v2/models/echo/openapi.json"
        described = json.load(urllib.request.urlopen(url))
        assert described == document(ECHO, "echo")
        schema = schemathesis.openapi.from_url(url)
        checks = [
            schemathesis.checks.not_a_server_error,
            response_schema_conformance,
            content_type_conformance,
            status_code_conformance,
        ]
        statuses = set()
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(quick, max_examples=12)
            @given(case=operation.as_strategy())
            def call(case):
                response = case.call(base_url=server.url)
                statuses.add(response.status_code)
                case.validate_response(response, checks=checks)

            call()
    assert statuses >= {200, 400}
