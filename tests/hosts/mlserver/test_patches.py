"""The table of patches: each fits or is left off, and a server serves without it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlserver
import pytest
from mlserver.handlers import DataPlane

from mlserver_pyfunc.hosts.mlserver import patches
from mlserver_pyfunc.hosts.mlserver.patches import TABLE, WITHOUT, Patch, ProcessSetting

from .models import inline, tensor, write_model
from .process import serving

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docs"))
from generate import GENERATED, PATCHES, patches_page

sys.path.pop(0)

X, Y = (tensor(name, "FP32", [-1]) for name in "xy")
ECHO = inline("def handler(x):\n    return x\n", "handler", {"inputs": [X], "outputs": [Y]})
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}]}


class Counter:
    """Stands in for a class of MLServer."""

    def add(self, number: int, *, twice: bool = False) -> int:
        return number

    @classmethod
    def name(cls, suffix: str) -> str:
        return suffix


def doubled(stock: Any) -> Any:
    def add(self: Any, number: int, *, twice: bool = False) -> Any:
        return 2 * stock(self, number)

    return add


def shouted(stock: Any) -> Any:
    def name(suffix: str) -> Any:
        return stock(suffix).upper()

    return name


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> type[Counter]:
    fresh = type("Counter", (), dict(vars(Counter)))
    module = ModuleType("counting")
    vars(module)["Counter"] = fresh
    monkeypatch.setitem(sys.modules, "counting", module)
    return fresh


def patch(target: str = "counting:Counter.add", function: Any = doubled, **more: Any) -> Patch:
    return Patch(target, function, **{"group": "fixes", **more})


def test_a_patch_that_fits_replaces_the_attribute(counter: type[Counter]) -> None:
    assert patch().misfit() == ""
    patch().apply()
    assert counter().add(3) == 6


def test_a_patch_that_is_applied_again_changes_nothing(counter: type[Counter]) -> None:
    patch().apply()
    applied = counter.add
    assert patch().misfit() == ""
    patch().apply()
    assert counter.add is applied
    assert counter().add(3) == 6


def test_a_second_patch_of_an_attribute_wraps_the_first(counter: type[Counter]) -> None:
    def negated(stock: Any) -> Any:
        return lambda self, number, *, twice=False: -stock(self, number)

    rows = (patch(), patch(function=negated))
    for row in (*rows, *rows):
        assert row.misfit() == ""
        row.apply()
    assert counter().add(3) == -6


def test_a_class_method_is_called_as_before(counter: type[Counter]) -> None:
    shout = patch("counting:Counter.name", shouted)
    assert shout.misfit() == ""
    shout.apply()
    assert counter.name("a") == counter().name("a") == "A"


def test_a_missing_attribute_does_not_fit(counter: type[Counter]) -> None:
    del counter.add
    assert "counting:Counter.add cannot be replaced" in patch().misfit()
    assert "No module named 'absent'" in patch("absent:Thing.go").misfit()


def test_another_signature_does_not_fit(counter: type[Counter]) -> None:
    setattr(counter, "add", lambda self, number: number)  # noqa: B010
    assert patch().misfit() == (
        "expected counting:Counter.add(self, number, *, twice=False), got (self, number)"
    )


def test_another_source_does_not_fit_the_fast_path_and_is_told_of_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fix, fast = (row for row in TABLE if row.name in ("answer_grpc_calls", "drain_on_interrupt"))
    assert isinstance(fast, Patch)
    assert fast.misfit() == ""
    assert not fast.is_unseen()
    monkeypatch.setattr(patches, "_SEEN", {fast.target: ["0"], fix.target: ["0"]})
    monkeypatch.setattr(patches, "TABLE", (fast, fix))
    caplog.set_level(logging.INFO)
    off = patches.install()
    assert off[fast] == f"the source of {fast.target} is none that it was tested with"
    assert off[fix] == ""
    text = caplog.records[-1].getMessage()
    assert "; not tested with the source of this MLServer: drain_on_interrupt" in text


def test_the_sources_of_this_mlserver_are_known() -> None:
    """Add the digests to seen_sources.json when the tests pass with a new version."""
    rows = [row for row in TABLE if isinstance(row, Patch)]
    assert {row.target: row.digest() for row in rows if row.is_unseen()} == {}


def test_a_variable_of_a_decorated_function_is_replaced(counter: type[Counter]) -> None:
    def decorated(f: Any) -> Any:
        return lambda self, number: f(self, number)

    setattr(counter, "add", decorated(counter.add))  # noqa: B010
    bound = counter().add
    inner = patch("counting:Counter.add.f")
    assert inner.misfit() == ""
    inner.apply()
    inner.apply()
    assert bound(3) == 6


def test_each_row_says_what_happens_without_it() -> None:
    for row in TABLE:
        assert WITHOUT[row.name].endswith("."), row.name
        assert row.why == f"Without it, {WITHOUT[row.name]}"
    assert WITHOUT.keys() == {row.name for row in TABLE}


def test_each_row_of_the_table_fits_this_mlserver() -> None:
    assert {row.name: row.misfit() for row in TABLE if row.misfit()} == {}


def test_a_second_install_changes_nothing() -> None:
    first = patches.install()
    before = [_target(row) for row in TABLE if isinstance(row, Patch)]
    assert patches.install() == first
    assert [_target(row) for row in TABLE if isinstance(row, Patch)] == before


def _target(row: Patch) -> Any:
    return getattr(*row._place())


@pytest.fixture
def table(counter: type[Counter], monkeypatch: pytest.MonkeyPatch) -> list[ProcessSetting]:
    """A table with a fix, and two patches of the fast path."""
    rows: list[ProcessSetting] = [
        patch(),
        patch("counting:Counter.name", shouted, group="fast_path"),
        patch("counting:Counter.gone", shouted, group="fast_path"),
    ]
    monkeypatch.setattr(patches, "TABLE", tuple(rows))
    return rows


def test_the_fast_path_is_on_as_a_whole_or_off(
    table: list[ProcessSetting], counter: type[Counter], caplog: pytest.LogCaptureFixture
) -> None:
    off = patches.install()
    assert off[table[0]] == ""
    assert off[table[1]] == "shouted is off"
    assert "cannot be replaced" in off[table[2]]
    assert counter.name("a") == "a"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"MLServer {mlserver.__version__}: 1 patches are on; shouted is off: "
    )


@pytest.mark.parametrize(
    ("variables", "reasons"),
    [
        ({"MLSERVER_PYFUNC_PATCHES_OFF": "fixes"}, ["MLSERVER_PYFUNC_PATCHES_OFF", ""]),
        ({"MLSERVER_PYFUNC_PATCHES_OFF": "doubled"}, ["MLSERVER_PYFUNC_PATCHES_OFF", ""]),
        ({"MLSERVER_PYFUNC_PATCHES_OFF": "fast_path"}, ["", "MLSERVER_PYFUNC_PATCHES_OFF"]),
        ({"MLSERVER_PYFUNC_PATCHES_OFF": "x, fixes,"}, ["MLSERVER_PYFUNC_PATCHES_OFF", ""]),
        ({"MLSERVER_PYFUNC_FASTPATH": "0"}, ["", "MLSERVER_PYFUNC_FASTPATH"]),
    ],
)
def test_a_variable_switches_a_group_off(
    variables: dict[str, str],
    reasons: list[str],
    table: list[ProcessSetting],
    counter: type[Counter],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(patches, "TABLE", tuple(table[:2]))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.INFO)
    assert list(patches.install().values()) == reasons
    assert counter().add(3) == (3 if reasons[0] else 6)
    assert counter.name("a") == ("a" if reasons[1] else "A")
    last = caplog.records[-1]
    assert last.levelno == logging.INFO
    assert last.getMessage().startswith(f"MLServer {mlserver.__version__}: 1 patches are on; ")
    assert last.getMessage().endswith(f" is off: {reasons[0] or reasons[1]}")
    assert ('got "x"' in caplog.text) == ("x," in str(variables))


# Run by Python before MLServer: an MLServer of which one thing is different.
MISSING = """
from mlserver.grpc.servicers import InferenceServicer
del InferenceServicer._InsertHeaders
"""
ANOTHER_SIGNATURE = """
from mlserver.handlers import DataPlane
stock = DataPlane.model_ready
async def model_ready(self, name, version=None, deep=False):
    return await stock(self, name, version)
DataPlane.model_ready = model_ready
"""


@pytest.mark.parametrize(
    ("change", "variables", "logged"),
    [
        (
            MISSING,
            {},
            [
                "read_grpc_requests is off: mlserver.grpc.servicers:InferenceServicer."
                "_InsertHeaders cannot be ",
                "Without it, the tensors of a gRPC request become Python lists",
                "answer_grpc_calls is off: read_grpc_requests is off",
            ],
        ),
        (
            ANOTHER_SIGNATURE,
            {},
            [
                "separate_readiness_from_availability is off: expected "
                "mlserver.handlers:DataPlane.model_ready(self, name, version=None), "
                "got (self, name, version=None, deep=False). Without it, "
            ],
        ),
        ("", {"MLSERVER_PYFUNC_FASTPATH": "0"}, ["; fast_path is off: MLSERVER_PYFUNC_FASTPATH"]),
        (
            "",
            {"MLSERVER_PYFUNC_PATCHES_OFF": "fixes,process"},
            [
                "; fixes is off: MLSERVER_PYFUNC_PATCHES_OFF",
                "; process is off: MLSERVER_PYFUNC_PATCHES_OFF",
            ],
        ),
        ("", {}, [f"MLServer {mlserver.__version__}: {len(TABLE)} patches are on"]),
    ],
    ids=["missing", "another signature", "no fast path", "no fixes", "all on"],
)
def test_a_server_serves_without_a_patch_and_says_so(
    change: str, variables: dict[str, str], logged: list[str], tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "sitecustomize.py").write_text(change)
    write_model(tmp_path / "repository" / "echo", ECHO)
    path = os.pathsep.join([str(changed), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, **variables}
    with serving(tmp_path / "repository", tmp_path, "echo", env=env) as server:
        for _ in range(2):
            response = server.client.post("/v2/models/echo/infer", json=BODY)
            assert response.status_code == 200, response.text
            assert response.json()["outputs"][0]["data"] == [1.5]
        (line,) = [line for line in server.log.splitlines() if " patches are on" in line]
        assert [text for text in logged if text not in line] == [], line
        assert server.stop() == 0, server.log


def test_the_page_of_patches_is_generated_from_the_table() -> None:
    assert GENERATED[PATCHES] is patches_page
    assert PATCHES.read_text() == patches_page(), "out of date: run `make docs` and commit the file"
    for row in TABLE:
        assert row.target in patches_page()


def test_the_readiness_patch_is_in_place() -> None:
    patches.install()
    assert DataPlane.model_ready.__module__ == "mlserver_pyfunc.hosts.mlserver.models"
