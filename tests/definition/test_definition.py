from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlserver_pyfunc.definition import (
    FILE_NAME,
    FunctionDefinition,
    ServingDefinition,
    parse,
    read,
)
from mlserver_pyfunc.errors import DefinitionError
from tests.places import SCHEMA

MINIMAL: dict[str, Any] = {"source": {"code": "def f(): ...", "handler": "f"}}

WHOLE = """
model_name: iris
model_version: 1
source:
  source: git+https://example.org/iris.git#main
  handler: pkg.model:Model.predict
  init_function: pkg.model:setup
  unload_function: close
  subdirectory: services/iris
  sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF
  lang: python
python_version: "3.12"
requirements: [scikit-learn>=1.5, "numpy<3; python_version > '3.9'"]
base_image: python:3.12-slim
image: registry.example.org/iris:1
init_parameters: {weights: model.joblib, depth: 3, nothing: null}
inputs:
  - {name: features, datatype: fp32, shape: [-1, 4], description: cm}
  - {name: note, datatype: BYTES, shape: [], content_type: str, optional: true}
outputs:
  - {name: species, datatype: BYTES, shape: [-1]}
serving:
  isolation: process
  workers: 2
  concurrency: 3
  max_queue: 0
  timeout: 1.5
  stream_timeout: 30
  cancel: kill
  init_timeout: 30
  idempotent: true
  memory_limit: 2G
  max_requests: 1000
  batch: {max_size: 8, max_delay_ms: 2}
  warmup: true
build:
  instructions: [apt-get update]
  env: {OMP_NUM_THREADS: 1}
contract: {responses: warn}
deployment: {replicas: 2, env: {A: b}}
description: Tells irises apart.
labels: [demo]
project: flowers
"""


def _with(**changes: Any) -> dict[str, Any]:
    return {**MINIMAL, **changes}


def _source(**changes: Any) -> dict[str, Any]:
    return {"source": {**MINIMAL["source"], **changes}}


def _tensor(**changes: Any) -> dict[str, Any]:
    return _with(inputs=[{"name": "x", "datatype": "FP32", "shape": [1], **changes}])


def _error(value: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        parse(value)
    return str(caught.value)


NO_BOUNDS = {f"{kind}{end}": None for kind in ("", "exclusive_") for end in ("minimum", "maximum")}


def test_reads_every_key(tmp_path: Path) -> None:
    path = tmp_path / "function.yaml"
    path.write_text(WHOLE)
    definition = read(path)
    assert definition.model_dump() == {
        "model_name": "iris",
        "model_version": "1",
        "source": {
            "source": "git+https://example.org/iris.git#main",
            "code": None,
            "base64": None,
            "handler": "pkg.model:Model.predict",
            "init_function": "pkg.model:setup",
            "unload_function": "close",
            "subdirectory": "services/iris",
            "model": None, "format": None, "sha256": "0123456789abcdef" * 3 + "0123456789ABCDEF",
            "lang": "python",
        },
        "python_version": "3.12",
        "requirements": ["scikit-learn>=1.5", "numpy<3; python_version > '3.9'"],
        "base_image": "python:3.12-slim",
        "image": "registry.example.org/iris:1",
        "init_parameters": {"weights": "model.joblib", "depth": 3, "nothing": None},
        "inputs": [
            {
                "name": "features", "datatype": "FP32", "shape": [-1, 4], "description": "cm",
                "content_type": None, "optional": False, "nullable": False,
                "example": None, "labels": None, "default": None, "enum": None, **NO_BOUNDS,
            },
            {
                "name": "note", "datatype": "BYTES", "shape": [], "description": None,
                "content_type": "str", "optional": True, "nullable": False,
                "example": None, "labels": None, "default": None, "enum": None, **NO_BOUNDS,
            },
        ],
        "outputs": [
            {
                "name": "species", "datatype": "BYTES", "shape": [-1], "description": None,
                "content_type": None, "optional": False, "nullable": False,
                "example": None, "labels": None, "default": None, "enum": None, **NO_BOUNDS,
            }
        ],
        "serving": {
            "isolation": "process", "workers": 2, "concurrency": 3, "max_queue": 0,
            "timeout": 1.5, "stream_timeout": 30, "cancel": "kill", "init_timeout": 30,
            "idempotent": True, "memory_limit": 2 * 2**30, "max_requests": 1000,
            "batch": {"max_size": 8, "max_delay_ms": 2}, "warmup": True, "devices": [],
        },
        "build": {
            "instructions": ["apt-get update"], "env": {"OMP_NUM_THREADS": "1"}, "labels": {},
        },
        "contract": {"requests": "enforce", "responses": "warn"},
        "deployment": {"replicas": 2, "env": {"A": "b"}},
        "dialect": None, "description": "Tells irises apart.", "labels": ["demo"],
        "project": "flowers",
    }  # fmt: skip


def test_every_key_of_serving_has_a_default() -> None:
    assert parse(MINIMAL).serving == ServingDefinition(
        isolation="auto", workers=1, concurrency=1, max_queue=64, timeout=60, warmup=False
    )


@pytest.mark.parametrize("left_out", [{}, {"datatype": None}])
def test_a_tensor_of_a_digitalhub_spec_is_fp32_where_none_is_given(
    left_out: dict[str, None],
) -> None:
    tensors = [{"name": "x", "shape": [-1], **left_out}]
    text = [{"name": "t", "datatype": "BYTES", "shape": [1]}]
    plain = _with(inputs=tensors, outputs=text)
    wrapped = parse({"kind": "openinference", "spec": plain})
    assert [tensor.datatype for tensor in wrapped.inputs] == ["FP32"]
    assert [tensor.datatype for tensor in wrapped.outputs] == ["BYTES"]
    as_text = parse({"spec": _with(inputs=json.dumps(tensors), outputs=text)})
    assert as_text.inputs == wrapped.inputs
    assert "inputs.0.datatype: missing" in _error(plain)


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "function.json"
    path.write_text(json.dumps(MINIMAL))
    assert read(path) == parse(MINIMAL)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("source", '{"code": "x = 1", "handler": "f"}', {"code": "x = 1", "handler": "f"}),
        ("inputs", '[{"name": "x", "datatype": "FP32", "shape": "[-1, 4]"}]', None),
        ("outputs", "[{name: y, datatype: INT8, shape: []}]", None),
        ("init_parameters", '{"depth": 3}', None),
        ("requirements", '["numpy", "pillow>=10"]', ["numpy", "pillow>=10"]),
        ("requirements", "numpy\n\n  pillow>=10\n", ["numpy", "pillow>=10"]),
        ("serving", '{"workers": "2", "timeout": "1.5", "warmup": "true"}', None),
        ("build", '{"instructions": "apt-get update", "env": {"A": 1.5}}', None),
        ("model_version", 2, "2"),
    ],
)
def test_values_that_arrive_as_text_are_read(key: str, text: Any, value: Any) -> None:
    plain = yaml.safe_load(text) if value is None else value
    assert getattr(parse(_with(**{key: text})), key) == getattr(parse(_with(**{key: plain})), key)


def test_scalars_that_arrive_as_text_become_their_types() -> None:
    serving = parse(
        _with(serving={"workers": "2", "concurrency": "3", "timeout": "0.5", "warmup": "false"})
    ).serving
    assert (serving.workers, serving.concurrency, serving.timeout) == (2, 3, 0.5)
    assert serving.warmup is False


@pytest.mark.parametrize(
    ("given", "version"),
    [
        ("3.12", "3.12"),
        ("PYTHON3_11", "3.11"),
        ("python3_10", "3.10"),
        ("3.11.7", "3.11"),
        (3.11, "3.11"),
        ("3.13", "3.13"),
    ],
)
def test_reads_a_python_version_however_it_is_written(given: Any, version: str) -> None:
    assert parse(_with(python_version=given)).python_version == version


@pytest.mark.parametrize("given", ["2.7", "3.9", "PYTHON3_9", "latest", "3", 3, True, "3.14"])
def test_refuses_another_python_version(given: Any) -> None:
    assert _error(_with(python_version=given)) == (
        "function definition: python_version: expected one of 3.10, 3.11, 3.12, 3.13, "
        f'got "{given}"'
    )


def test_an_unquoted_3_10_is_explained() -> None:
    assert 'got the number 3.1: write it in quotes, "3.10"' in _error(_with(python_version=3.1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_with(handlr="f"), "handlr: unknown key, expected one of model_name, model_version, "),
        (_with(requirement=[]), 'requirement: unknown key, did you mean "requirements"?'),
        (_source(init_fun="f"), 'source.init_fun: unknown key, did you mean "init_function"?'),
        (_source(sha265="0"), 'source.sha265: unknown key, did you mean "sha256"?'),
        (_tensor(shpe=[1]), 'inputs.0.shpe: unknown key, did you mean "shape"?'),
        (_with(serving={"wokers": 1}), 'serving.wokers: unknown key, did you mean "workers"?'),
        (_with(build={"envs": {}}), 'build.envs: unknown key, did you mean "env"?'),
        (_with(serving={"zzz": 1}), "serving.zzz: unknown key, expected one of isolation, "),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(value: Any, message: str) -> None:
    assert message in _error(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "source: missing"),
        ({"source": {"code": "x"}}, "source.handler: missing"),
        ({"source": {"handler": "f"}}, "source: expected one of source, code and base64, got none"),
        (
            _source(base64="eA=="),
            "source: expected one of code and base64, got both",
        ),
        (
            _source(source="folder/"),
            "source: expected one of source, code and base64, got source and code",
        ),
        (
            _source(handler="not a name"),
            'source.handler: expected "module.path:callable" or "callable", got "not a name"',
        ),
        (_source(handler="a:b:c"), 'source.handler: expected "module.path:callable"'),
        (_source(handler=""), 'source.handler: expected "module.path:callable"'),
        (_source(init_function="1f"), 'source.init_function: expected "module.path:callable"'),
        (_source(sha256="abc"), "source.sha256: expected text that matches"),
        (_source(lang="java"), "source.lang: expected 'python', got \"java\""),
        (
            _with(requirements=["not a requirement!"]),
            'requirements.0: "not a requirement!" is no requirement',
        ),
        (_with(model_name="a/b"), "model_name: expected text that matches"),
        (_with(model_name=""), "model_name: "),
        (_with(model_version="a b"), "model_version: expected text that matches"),
        (_with(serving={"isolation": "docker"}), "serving.isolation: expected 'auto', "),
        (_with(serving={"workers": 0}), "serving.workers: expected at least 1, got 0"),
        (_with(serving={"concurrency": 0}), "serving.concurrency: expected at least 1"),
        (_with(serving={"max_queue": -1}), "serving.max_queue: expected at least 0"),
        (_with(serving={"timeout": 0}), "serving.timeout: expected more than 0"),
        (_with(serving={"timeout": float("nan")}), "serving.timeout: "),
        (_with(serving={"timeout": float("inf")}), "serving.timeout: "),
        (_with(serving=3), "serving: "),
        (
            _tensor(datatype="FP31"),
            'inputs.0.datatype: unknown datatype "FP31", expected one of ',
        ),
        (
            _with(
                inputs=[
                    {"name": "x", "datatype": "INT8", "shape": [1], "nullable": True},
                    {"name": "x.nulls", "datatype": "BOOL", "shape": [1]},
                ]
            ),
            'inputs: "x.nulls" tells which elements of another tensor are null, rename it',
        ),
        (_tensor(example="a"), "inputs.0: example: expected numbers up to"),
        (_tensor(example=[1, 2]), "inputs.0: example: expected shape [1], got [2]"),
        (_tensor(example=[float("nan")]), "inputs.0: example: "),
        (_tensor(datatype="BYTES", example=[b"a"]), "inputs.0: example: "),
        (
            _with(
                inputs=[
                    {"name": n, "datatype": "INT8", "shape": ["rows"], "example": [1] * len(n)}
                    for n in ("a", "bb")
                ]
            ),
            'example: input "bb" of model "": axis "rows": expected 1 as in input "a", got 2',
        ),
        (
            _tensor(shape=["rows", 2], labels=["a"]),
            "inputs.0: labels: expected an axis of size 1, got shape [rows, 2]",
        ),
        (_with(serving={"warmup": {}}), "serving.warmup.samples: missing"),
        (_with(serving={"warmup": {"samples": []}}), "serving.warmup.samples: "),
        (
            _with(serving={"warmup": {"sample": ["a.json"]}}),
            'serving.warmup.sample: unknown key, did you mean "samples"?',
        ),
        (
            _with(serving={"warmup": {"samples": ["../a.json"]}}),
            'expected a path in the folder of the definition, got "../a.json"',
        ),
        (_with(serving={"warmup": 3}), "serving.warmup: "),
        (_tensor(shape=[-2]), "inputs.0.shape.0: expected at least -1"),
        (_tensor(shape=[1.5]), "inputs.0.shape.0: "),
        (_tensor(shape=[1] * 33), "inputs.0.shape: "),
        (_tensor(shape="4"), "inputs.0.shape: "),
        (_tensor(name=""), "inputs.0.name: "),
        (
            _tensor(content_type="str"),
            "inputs.0: content_type is for BYTES tensors, got FP32",
        ),
        (
            _tensor(datatype="BYTES", content_type="np"),
            "inputs.0.content_type: expected 'str', got \"np\"",
        ),
        (
            _with(outputs=[{"name": "y", "datatype": "INT8", "shape": []}] * 2),
            'outputs: tensor "y" is declared twice',
        ),
        (
            _with(inputs=[{"name": n, "datatype": "INT8", "shape": []} for n in ("a-b", "a_b")]),
            'inputs: "a-b" and "a_b" are both "a_b" as parameters of the handler, rename one',
        ),
    ],
)
def test_what_is_impossible_is_named_by_its_key(value: Any, message: str) -> None:
    assert message in _error(value)


def test_every_problem_is_told_at_once() -> None:
    message = _error(_with(python_version="2.7", serving={"workers": 0}, nonsense=1))
    for key in ("python_version: ", "serving.workers: ", "nonsense: unknown key"):
        assert key in message


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "function.yaml"
    path.write_text("source: {handler: f, code: x}\nnonsense: 1\n")
    with pytest.raises(DefinitionError, match=f"^{path}: nonsense: unknown key"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "1: not YAML: "),
        (b"\xff\xfe\x00", "1: not YAML: "),
        (b"- a\n- b\n", " expected a mapping, got list"),
        (b"", " expected a mapping, got nothing"),
        (b"!!python/object/apply:os.system ['true']", "1: expected a value that JSON has too"),
    ],
)
def test_a_file_that_is_no_definition_is_a_definition_error(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "function.yaml"
    path.write_bytes(content)
    with pytest.raises(DefinitionError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_is_a_definition_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="No such file or directory"):
        read(tmp_path / "function.yaml")


DIGITALHUB = {
    "kind": "openinference",
    "name": "iris-function",
    "metadata": {"project": "p", "created": "2025-01-01"},
    "spec": {
        "python_version": "PYTHON3_11",
        "source": {
            "source": "main.py",
            "handler": "serve",
            "init_function": "init",
            "base64": "ZGVmIHNlcnZlKCk6IC4uLg==",
            "code": None,
            "lang": "python",
        },
        "requirements": None,
        "base_image": None,
        "image": None,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    },
    "status": {"state": "READY"},
}


def test_a_digitalhub_function_loads_unchanged() -> None:
    definition = parse(DIGITALHUB)
    assert definition.model_name == "iris-function"
    assert definition.python_version == "3.11"
    assert definition.source.base64 == "ZGVmIHNlcnZlKCk6IC4uLg=="
    assert definition.source.init_function == "init"
    assert definition.requirements == []


def test_a_digitalhub_spec_loads_without_its_wrapper() -> None:
    assert parse(DIGITALHUB["spec"]).inputs == parse(DIGITALHUB).inputs


def test_the_specs_own_model_name_goes_before_the_functions_name() -> None:
    spec = {**DIGITALHUB["spec"], "model_name": "served-name"}
    assert parse({**DIGITALHUB, "spec": spec}).model_name == "served-name"


def test_digitalhub_fills_in_what_its_specs_leave_out() -> None:
    spec = {**DIGITALHUB["spec"], "inputs": [{}], "outputs": [{"name": "y"}, {"name": None}]}
    definition = parse({**DIGITALHUB, "spec": spec})
    assert [(t.name, t.datatype, t.shape) for t in definition.inputs] == [("input-0", "FP32", [-1])]
    assert [tensor.name for tensor in definition.outputs] == ["y", "output-1"]
    assert (definition.dialect, definition.project) == ("digitalhub", "p")
    assert definition.contract.lenient == ("requests", "responses")


@pytest.mark.parametrize(
    ("given", "lenient"),
    [
        (None, ("requests", "responses")),
        ({"requests": "enforce"}, ("responses",)),
        ({"responses": "enforce"}, ("requests",)),
        ('{"requests": "enforce", "responses": null}', ("responses",)),
    ],
)
def test_the_contract_of_a_digitalhub_spec_warns(given: Any, lenient: tuple[str, ...]) -> None:
    spec = {**DIGITALHUB["spec"], "contract": given}
    assert parse({**DIGITALHUB, "spec": spec}).contract.lenient == lenient
    assert parse(_with(contract={})).contract.lenient == ()


@pytest.mark.parametrize("kind", ["python", "mlflowserve", 3])
def test_another_kind_of_digitalhub_function_is_refused(kind: Any) -> None:
    assert f'expected "openinference" with a spec, got "{kind}"' in _error(
        {**DIGITALHUB, "kind": kind}
    )


def test_nulls_are_keys_left_out() -> None:
    definition = parse(
        _with(python_version=None, requirements=None, inputs=None, serving={"timeout": None})
    )
    assert definition == parse(MINIMAL)


def test_nulls_inside_init_parameters_are_kept() -> None:
    assert parse(_with(init_parameters={"a": None})).init_parameters == {"a": None}


def test_the_json_schema_takes_what_the_definition_takes() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = yaml.safe_load(WHOLE.replace("fp32", "FP32").replace(": 1\n", ': "1"\n'))
    whole["build"]["env"] = {"OMP_NUM_THREADS": "1"}
    jsonschema.validate(whole, schema)
    with pytest.raises(jsonschema.ValidationError, match="nonsense"):
        jsonschema.validate({**MINIMAL, "nonsense": 1}, schema)


def test_a_definition_survives_its_own_dump() -> None:
    definition = parse(yaml.safe_load(WHOLE))
    assert parse(definition.model_dump(mode="json")) == definition
    assert FunctionDefinition.model_validate_json(definition.model_dump_json()) == definition


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*FunctionDefinition.model_fields, "spec", "kind", "handler", "code"])
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(_VALUES)
def test_no_value_raises_anything_but_a_definition_error(value: Any) -> None:
    with contextlib.suppress(DefinitionError):
        parse(value)


@given(st.dictionaries(st.sampled_from(list(FunctionDefinition.model_fields)), _VALUES))
def test_no_value_of_a_known_key_raises_anything_but_a_definition_error(
    value: dict[str, Any],
) -> None:
    with contextlib.suppress(DefinitionError):
        parse({**MINIMAL, **value})


@given(st.text())
def test_no_text_raises_anything_but_a_definition_error(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        parse({**MINIMAL, "serving": text, "inputs": text, "requirements": text})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("float32", "FP32"),
        ("np.float64", "FP64"),
        ("float", "FP32"),
        ("double", "FP64"),
        ("int", "INT64"),
        ("str", "BYTES"),
        ("STRING", "BYTES"),
        ("TYPE_STRING", "BYTES"),
        ("boolean", "BOOL"),
        ("unit8", "UINT8"),
        ("INT_32", "INT32"),
    ],
)
def test_a_datatype_by_another_name_is_told_the_protocols(written: str, meant: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse({**MINIMAL, "outputs": [{"name": "y", "datatype": written, "shape": [1]}]})
    said = f'outputs.0.datatype: unknown datatype "{written}", did you mean "{meant}"?'
    assert said in str(caught.value)


def test_a_definition_within_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("source: &a {source: m.py, handler: f, lang: [*a]}\n")
    with pytest.raises(DefinitionError, match=r"yaml:1: an alias stands for .* that contains it"):
        read(tmp_path / FILE_NAME)


def _table(*columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return _with(inputs=[{"name": "people", "columns": [*columns], **more}, _FREE])


_FREE = {"name": "free", "datatype": "FP32", "shape": [-1]}
_AGE = {"name": "age", "datatype": "INT64", "nullable": True, "minimum": 0}


def test_columns_of_a_table_are_tensors_along_its_rows() -> None:
    plan = {"name": "plan", "datatype": "BYTES", "enum": ["basic"], "example": ["basic"]}
    definition = parse(_table(_AGE, plan))
    rows = {"shape": ["people"]}
    assert definition == parse(_with(inputs=[{**_AGE, **rows}, {**plan, **rows}, _FREE]))
    assert parse(definition.model_dump()) == definition
    assert parse(_with(inputs=json.dumps(_table(_AGE, plan)["inputs"]))) == definition


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table(), "inputs.0.columns: list should have at least 1 item"),
        (_table({"name": "age"}), "inputs.0.columns.0.datatype: missing"),
        (
            _table({**_AGE, "nulable": 1}),
            'inputs.0.columns.0.nulable: unknown key, did you mean "n',
        ),
        (
            _table({**_AGE, "shape": [2]}),
            "shape: a column has that of its table, got [2]: leave it",
        ),
        (_table(_AGE, _AGE), 'inputs: tensor "age" is declared twice'),
        (_table(_AGE, shape=[-1]), "inputs.0.shape: unknown key, expected one of name, columns"),
        (_with(inputs=[{"name": "a b", "columns": [_AGE]}]), "inputs.0.name: expected text that m"),
        (_with(inputs=[5]), "inputs.0: expected a mapping, got 5"),
    ],
)
def test_says_what_is_wrong_with_a_table(table: dict[str, Any], message: str) -> None:
    assert message in _error(table)
