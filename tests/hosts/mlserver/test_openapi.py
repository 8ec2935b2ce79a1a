"""Requests made up from the protocol's own OpenAPI document."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.needs import require
from tests.places import PROTOCOL

from .models import MODELS
from .process import ServerProcess

CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    content_type_conformance,
    status_code_conformance,
]
MODEL, VERSION = "versioned", "1"


def _document() -> dict[str, Any]:
    require("OpenAPI of the protocol")
    document: dict[str, Any] = yaml.safe_load((PROTOCOL / "open_inference_rest.yaml").read_text())
    document["paths"] = {
        path.replace("${MODEL_NAME}", MODEL).replace("${MODEL_VERSION}", VERSION): {
            key: value for key, value in item.items() if key != "parameters"
        }
        for path, item in document["paths"].items()
    }
    return document


def _declared_tensors(document: dict[str, Any]) -> dict[str, Any]:
    """Narrows requests to names, datatypes and shapes near the declared ones."""
    narrow = copy.deepcopy(document)
    tensor = narrow["components"]["schemas"]["request_input"]["properties"]
    declared = MODELS[MODEL]["inputs"]
    tensor["name"]["enum"] = [each["name"] for each in declared]
    tensor["datatype"]["enum"] = sorted({each["datatype"] for each in declared})
    tensor["shape"] = {"type": "array", "minItems": 1, "maxItems": 1, "items": {"enum": [0, 1, 2]}}
    tensor["data"] = {"type": "array", "maxItems": 2, "items": {"type": "integer"}}
    output = narrow["components"]["schemas"]["request_output"]["properties"]
    output["name"]["enum"] = [each["name"] for each in MODELS[MODEL]["outputs"]]
    return narrow


def _run(document: dict[str, Any], server: ServerProcess, examples: int) -> dict[int, int]:
    """Calls every operation; how many answers there were of each status."""
    statuses: dict[int, int] = {}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            # A connection that idles while a request is made up may be closed under it.
            response = case.call(base_url=server.url, headers={"Connection": "close"})
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            case.validate_response(response, checks=CHECKS)

        check()
    return statuses


def test_whatever_the_document_allows_is_answered_as_it_says(server: ServerProcess) -> None:
    statuses = _run(_document(), server, examples=150)
    assert statuses[200]
    assert set(statuses) > {200}, "nothing was refused"
    assert set(statuses) <= {200, 400}


def test_requests_near_the_contract_are_answered_as_the_document_says(
    server: ServerProcess,
) -> None:
    statuses = _run(_declared_tensors(_document()), server, examples=150)
    assert statuses[200] > 20, f"too few requests were valid to tell: {statuses}"
    assert set(statuses) <= {200, 400}


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v2", "metadata_server_response"),
        ("/v2/models/{}", "metadata_model_response"),
        ("/v2/models/{}/versions/1", "metadata_model_response"),
    ],
)
def test_metadata_is_of_the_documents_form(path: str, schema: str, server: ServerProcess) -> None:
    import jsonschema

    document = _document()
    answer = server.client.get(path.format(MODEL)).json()
    root = {**document["components"]["schemas"][schema], "components": document["components"]}
    jsonschema.validate(json.loads(json.dumps(answer)), root)
