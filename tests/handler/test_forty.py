"""Serves handlers in the manner of other frameworks as they are: in process and isolated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition import derived as derived_tensors
from mlserver_pyfunc.definition.derived import completed
from mlserver_pyfunc.definition.locate import FunctionFolder
from mlserver_pyfunc.errors import LoadError
from mlserver_pyfunc.handler.signature import Derived
from mlserver_pyfunc.protocol.request import InferenceRequest, Parameters
from mlserver_pyfunc.serving.local import LocalFunction, arrays_of
from mlserver_pyfunc.validation import validate

from .forty import FORTY, Case, plain, real


def folder_of(case: Case, folder: Path, **serving: Any) -> FunctionFolder:
    definition = FunctionDefinition.model_validate(
        {"source": {"code": case.code, "handler": case.handler}, "serving": serving}
    )
    return FunctionFolder(definition, folder, "here", case.name, None, None)


def written(tensors: list[TensorDefinition]) -> str:
    return ", ".join(
        f"{tensor.name}{'?' if tensor.optional else ''} {tensor.datatype} {tensor.shape_text}"
        for tensor in tensors
    )


def check(case: Case, folder: FunctionFolder) -> None:
    with LocalFunction(folder) as function:
        definition = function.definition
        assert written(definition.inputs) == case.inputs
        assert written(definition.outputs) == case.outputs
        request = InferenceRequest.from_values(function.contract, real(case.given))
        request.parameters = Parameters(case.parameters)
        answer = next(iter(function.infer_stream(request)))
        assert {n: plain(a) for n, a in arrays_of(answer).items()} == real(case.answer)


@pytest.mark.parametrize("case", [c for c in FORTY if not c.reason], ids=lambda c: c.name)
def test_a_handler_of_another_framework_is_served(case: Case, tmp_path: Path) -> None:
    check(case, folder_of(case, tmp_path))


@pytest.mark.parametrize("case", [c for c in FORTY if c.reason], ids=lambda c: c.name)
def test_what_cannot_be_derived_fails_with_what_to_write(case: Case, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="write its type, such as"):
        LocalFunction(folder_of(case, tmp_path))


@pytest.mark.parametrize("case", FORTY, ids=lambda case: case.name)
def test_validate_agrees_with_what_the_handler_tells_when_it_is_loaded(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def recorded(definition: FunctionDefinition, derived: Derived) -> FunctionDefinition:
        told.append(completed(definition, derived))
        return told[-1]

    monkeypatch.setattr(derived_tensors, "completed", recorded)
    (tmp_path / "model.py").write_text(case.code)
    findings = validate(tmp_path / f"model.py:{case.handler}")
    if case.reason:
        assert [finding.rule for finding in findings] == ["C405"]
    else:
        assert findings == []
        [definition] = told
        assert written(definition.inputs) == case.inputs
        assert written(definition.outputs) == case.outputs


def test_at_least_36_of_the_40_are_served() -> None:
    assert len(FORTY) == 40
    assert sum(not case.reason for case in FORTY) >= 36
