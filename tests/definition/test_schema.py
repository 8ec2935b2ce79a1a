"""The JSON Schema that is shipped for editors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mlserver_pyfunc import definition
from mlserver_pyfunc.deployment.manifests import Options
from mlserver_pyfunc.errors import DefinitionError
from tests.places import ROOT, SCHEMA

SHIPPED = json.loads(SCHEMA.read_text())
DEFINITIONS = sorted(
    path
    for folder in ("examples", "model-settings")
    for path in (ROOT / folder).rglob("function.yaml")
)
GOOD: dict[str, Any] = {
    "source": {"source": "model.py", "handler": "predict"},
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
}
validator = jsonschema.Draft202012Validator(SHIPPED)


def test_is_valid_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(SHIPPED)


def test_make_docs_writes_it_as_it_is_shipped(tmp_path: Path) -> None:
    before = SCHEMA.read_bytes()
    subprocess.run([sys.executable, "docs/generate.py"], cwd=ROOT, check=True)
    assert SCHEMA.read_bytes() == before


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_admits_the_definitions_we_ship(path: Path) -> None:
    validator.validate(yaml.safe_load(path.read_text()))
    definition.read(path)


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_is_named_by_the_definitions_we_ship(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    relative = first.partition("$schema=")[2]
    assert (path.parent / relative).resolve() == ROOT / "mlserver_pyfunc" / "function.schema.json"


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"sources": {}}, "sources"),
        ({"outputs": [{"name": "y", "datatype": "BF16", "shape": [1]}]}, "BF16"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": [-2]}]}, "-2"),
        ({"serving": {"timeout": 0}}, "0"),
        ({"serving": {"concurency": 2}}, "concurency"),
        ({"source": {"source": "model.py"}}, "handler"),
        ({"deployment": {"replica": 2}}, "replica"),
        ({"deployment": {"presets": {"gpu": {"gpus": -1}}}}, "-1"),
    ],
)
def test_rejects_what_the_reader_rejects(change: dict[str, Any], culprit: str) -> None:
    broken = {**GOOD, **change}
    validator.validate(GOOD)
    with pytest.raises(DefinitionError):
        definition.parse(broken)
    with pytest.raises(jsonschema.ValidationError) as caught:
        validator.validate(broken)
    assert culprit in caught.value.message


def test_describes_each_option_of_a_deployment() -> None:
    kept = SHIPPED["$defs"]["DeploymentDefinition"]["properties"]
    options = set(Options.model_fields) - {"preset", "image"}
    assert set(kept) == {*options, "presets"}
    assert kept["mode"]["description"] == "Deployment mode of KServe. Only for kserve."
    assert kept["mode"]["enum"] == ["standard", "knative"]
    taken = {"cpu": 2, "volumes": ["pvc/a:/a"], "secrets": {"A": {"secret": "s", "key": "k"}}}
    validator.validate({**GOOD, "deployment": {**taken, "presets": {"gpu": {"gpus": 1}}}})


def test_rejects_a_digitalhub_object_of_another_kind() -> None:
    assert not validator.is_valid({"kind": "container", "spec": GOOD})
    assert validator.is_valid({"kind": "openinference", "spec": GOOD})
