"""The description of a handler that server and workers share, and its load steps."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_pyfunc.definition import TensorDefinition, parse
from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.handler import digitalhub
from mlserver_pyfunc.handler.loading import HandlerLoader, HandlerSpec, cause_of
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.datatypes import DATATYPES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
SPECS = st.builds(
    HandlerSpec,
    model_name=st.text(min_size=1),
    model_version=st.none() | st.text(min_size=1),
    definition=st.dictionaries(st.text(), VALUES),
    written=st.sampled_from([[], ["outputs"], ["inputs", "outputs"]]),
    init_parameters=st.dictionaries(st.text(), VALUES),
    source_dir=st.sampled_from([Path("/nowhere"), Path("/nowhere/at all/ä")]),
    default_module=st.none() | st.text(min_size=1),
    inline=st.dictionaries(st.text(), st.text()),
)


@given(SPECS)
def test_a_spec_survives_its_way_to_a_worker(spec: HandlerSpec) -> None:
    assert HandlerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("change", ["lacks a field", "has an unknown field"])
def test_a_spec_of_another_version_is_refused(change: str) -> None:
    values = new_spec().to_json()
    if change == "lacks a field":
        del values["definition"]
    else:
        values["extra"] = 1
    with pytest.raises(TypeError):
        HandlerSpec.from_json(values)


def test_a_relative_source_folder_is_absolute_for_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_spec(source_dir=Path("code")).to_json()["source_dir"] == str(tmp_path / "code")


def new_spec(
    code: str = "def handler(x): return x", source_dir: Path = Path("/nowhere"), **keys: Any
) -> HandlerSpec:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1]}
    functions = {k: keys.pop(k) for k in ("init_function", "unload_function") if k in keys}
    source = {"code": code, "handler": "handler", **functions}
    definition = parse({"source": source, "inputs": [tensor], "outputs": [tensor], **keys})
    return HandlerSpec(
        model_name="subject",
        model_version=None,
        definition=definition.model_dump(mode="json"),
        written=definition.written,
        init_parameters=definition.init_parameters,
        source_dir=source_dir,
        default_module="subject",
        inline={"subject": code},
    )


def undeclared(code: str) -> HandlerSpec:
    return replace(new_spec(code, inputs=[], outputs=[]), written=())


def new_loader(spec: HandlerSpec) -> HandlerLoader:
    return HandlerLoader(spec, spec.new_context(logging.getLogger("test"), Metrics(print)))


def test_the_steps_import_then_init_then_bind() -> None:
    code = """
def setup(context, start):
    context.n = start

def handler(x, context):
    context.n += 1
    return context.n

def close(context):
    return context.n
"""
    spec = new_spec(
        code, init_function="setup", unload_function="close", init_parameters={"start": 3}
    )
    loader = new_loader(spec)
    assert loader.plan is None
    phases = []
    for phase, step in loader.load_steps():
        phases.append(phase)
        step()
    assert phases == ["import", "init", "bind"]
    assert loader.plan is not None
    assert loader.plan.kind == "sync"
    assert loader.unload is not None
    assert loader.unload() == 3
    loader.close()


def test_what_is_loaded_is_forgotten_when_it_is_closed() -> None:
    modules = set(sys.modules)
    spec = new_spec()
    loader = new_loader(spec)
    tensor = TensorSpec("x", DATATYPES["FP32"], (-1,))
    assert loader.tensors == ([tensor], [tensor])
    for _, step in loader.load_steps():
        step()
    assert set(sys.modules) > modules
    loader.close()
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    ("shape", "keys"),
    [
        ([], {}),
        ([-1, 4], {"maximum": 1}),
        (["rows", 4, -1], {"optional": True}),
        ([2], {"nullable": True}),
        ([1], {"datatype": "BYTES", "content_type": "str", "enum": ["a", "b"]}),
    ],
)
def test_a_worker_checks_the_tensors_that_the_definition_declares(
    shape: list[Any], keys: dict[str, Any]
) -> None:
    tensor = TensorDefinition(**{"name": "x", "datatype": "FP32", "shape": shape, **keys})
    spec = new_spec(inputs=[tensor.model_dump(exclude_unset=True)])
    received = HandlerSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert new_loader(received).tensors[0] == [tensor.spec]


@pytest.mark.parametrize(("dialect", "project"), [("digitalhub", "plants"), (None, None)])
def test_a_dialect_decides_on_the_context_and_the_request(
    dialect: str | None, project: str | None
) -> None:
    code = "def handler(request): return request"
    loader = new_loader(new_spec(code, dialect=dialect, project="plants"))
    context = new_spec(dialect=dialect, project="plants").new_context(
        logging.getLogger("test"), Metrics(print)
    )
    assert getattr(getattr(context, "project", None), "name", None) == project
    for _, step in loader.load_steps():
        step()
    assert loader.plan is not None
    is_flat = loader.plan.reserved["request"] is digitalhub.flat_request
    assert is_flat is (dialect == "digitalhub")
    loader.close()


def test_derived_tensors_are_bound_beside_the_declared_ones() -> None:
    code = "def handler(x, k: int) -> float: return k"
    loader = new_loader(undeclared(code))
    steps = dict(loader.load_steps())
    steps["import"]()
    with pytest.raises(BindError, match='"x": it has no annotation'):
        steps["bind"]()
    loader.close()
    loader = new_loader(undeclared(code.replace("x, ", "")))
    for _, step in loader.load_steps():
        step()
    inputs, outputs = loader.tensors
    assert [spec.name for spec in [*inputs, *outputs]] == ["k", "output"]
    assert loader.plan is not None
    assert loader.plan.taken == {"k"}
    loader.close()


def test_without_init_and_unload_functions_there_are_no_steps_for_them() -> None:
    loader = new_loader(new_spec())
    phases = []
    for phase, step in loader.load_steps():
        phases.append(phase)
        step()
    assert phases == ["import", "bind"]
    assert loader.unload is None
    loader.close()


def test_an_async_init_function_is_left_to_the_caller_to_await() -> None:
    code = "async def setup():\n    pass\ndef handler(x):\n    return x\n"
    loader = new_loader(new_spec(code, init_function="setup"))
    steps = dict(loader.load_steps())
    steps["import"]()
    coroutine = steps["init"]()
    assert hasattr(coroutine, "__await__")
    coroutine.close()
    loader.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BindError("no such handler"), "no such handler"),
        (ValueError("bad input"), "ValueError: bad input"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_the_cause_is_our_own_words_or_the_exception_of_user_code(
    error: BaseException, words: str
) -> None:
    assert cause_of(error) == words
