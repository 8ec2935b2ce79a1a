"""Null elements over each route: in process, isolated, and in batches."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from mlserver_pyfunc.client import CallError, InferResult
from mlserver_pyfunc.client.connection import connect
from mlserver_pyfunc.client.typed_client import client_module
from mlserver_pyfunc.definition import read
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec, companions
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.testing import Server
from tests.parity import ROUTES, answers_by_route

from . import null_calls

INPUTS = [
    {"name": "a", "datatype": "INT64", "shape": [-1], "nullable": True, "minimum": 1},
    {"name": "s", "datatype": "BYTES", "shape": [-1], "nullable": True, "optional": True,
     "content_type": "str"},
    {"name": "b", "datatype": "BOOL", "shape": [-1], "nullable": True, "optional": True},
    {"name": "u", "datatype": "UINT8", "shape": [-1, 2], "nullable": True, "optional": True},
    {"name": "f", "datatype": "FP64", "shape": [-1], "nullable": True, "optional": True},
    {"name": "strict", "datatype": "INT64", "shape": [-1], "optional": True},
]  # fmt: skip
ECHO = "def f(inputs):\n    return inputs\n"
ITEMS = "def f(a):\n    yield a\n    yield a[::-1]\n"
ROWS = """
from dataclasses import dataclass


@dataclass
class Row:
    a: int | None
    s: str | None = None


def f(rows: list[Row], more: list[bool | None]) -> list[Row]:
    assert len(rows) == len(more)
    return [row for row, keep in zip(rows, more) if keep is not None]
"""
MASKED = """
import numpy as np


def f(a, **given):
    sums = a.sum(), type(a).__name__, *sorted(given)
    return {"said": " ".join(map(str, sums)), "a": np.ma.masked_less(a, 3)}
"""
SAID = [
    {"name": "said", "datatype": "BYTES", "shape": [1], "content_type": "str"},
    {"name": "a", "datatype": "INT64", "shape": [-1], "nullable": True},
]
SERVINGS = {
    "": {},
    "-isolated": {"isolation": "process"},
    "-batched": {"batch": {"max_size": 64, "max_delay_ms": 20}},
    "-isolated-batched": {"isolation": "process", "batch": {"max_size": 64}},
}


def _write(folder: Path, name: str, code: str, definition: dict[str, Any]) -> None:
    (folder / name).mkdir()
    (folder / name / "m.py").write_text(code)
    source = {"source": "m.py", "handler": "f"}
    content = {"model_name": name, "source": source, **definition}
    (folder / name / "function.yaml").write_text(json.dumps(content))
    settings = {"name": name, "implementation": "mlserver_pyfunc.PyFuncRuntime"}
    (folder / name / "model-settings.json").write_text(json.dumps(settings))


# The plain path differs in the server alone, and has no binary tensors over REST.
PLACES = [*(("fast path", suffix) for suffix in SERVINGS), ("plain path", "")]


def _each(places: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """Runs a test by a path of the server, for the models of one serving."""
    return pytest.mark.parametrize(("path", "suffix"), places, indirect=["path"], scope="module")


everywhere = _each(PLACES)
fast_path = pytest.mark.parametrize("path", ["fast path"], indirect=True, scope="module")
unbatched = _each([(path, suffix) for path, suffix in PLACES if "batch" not in suffix])


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


@pytest.fixture(scope="module")
def server(path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("nulls")
    is_fast = path == "fast path"
    for suffix, serving in SERVINGS.items() if is_fast else [("", {})]:
        echo = {"inputs": INPUTS, "outputs": INPUTS, "serving": serving}
        _write(folder, f"echo{suffix}", ECHO, echo)
        if "batch" not in suffix:
            _write(folder, f"rows{suffix}", ROWS, {"serving": serving})
            masked = {"inputs": INPUTS[:3], "outputs": SAID, "serving": serving}
            _write(folder, f"masked{suffix}", MASKED, masked)
            warned = {**echo, "contract": {"requests": "warn", "responses": "warn"}}
            _write(folder, f"warned{suffix}", ECHO, warned)
            items = {"inputs": INPUTS[:1], "outputs": INPUTS[:1], "serving": serving}
            _write(folder, f"items{suffix}", ITEMS, items)
    env = {} if is_fast else {"MLSERVER_PYFUNC_FASTPATH": "0"}
    with Server(folder, env) as server:
        yield server


def _routes(path: str) -> list[str]:
    return [route for route in ROUTES if path == "fast path" or route != "REST binary"]


@pytest.fixture(scope="module")
def apart() -> Callable[..., Any]:
    """Runs a call in a process of its own: the stubs of two clients cannot share one."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()

    return call


def _post(server: Server, model: str, *given: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"inputs": list(given), **more}
    answer: dict[str, Any] = httpx.post(
        f"{server.url}/v2/models/{model}/infer", json=body, timeout=60
    ).json()
    return answer


def _outputs(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def _json(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


@everywhere
@pytest.mark.parametrize("count", [1, 2000], ids=["small", "large"])
def test_json_has_null_both_ways(server: Server, suffix: str, count: int) -> None:
    data = {"a": [1, None] * count, "s": [None, ""] * count, "b": [None, True] * count}
    data["f"] = [None, 0.5] * count
    types = {"a": "INT64", "s": "BYTES", "b": "BOOL", "f": "FP64"}
    tensors = [_json(name, types[name], values) for name, values in data.items()]
    tensors.append({"name": "u", "datatype": "UINT8", "shape": [2 * count, 2],
                    "data": [[None, 7]] * (2 * count)})  # fmt: skip
    if count * 2 > 64 and "batch" in suffix:
        count = 1
    answer = _post(server, f"echo{suffix}", *tensors)
    expected = {**data, "u": [None, 7] * (len(data["a"]))}
    assert _outputs(answer) == expected
    only = _post(server, f"echo{suffix}", *tensors, outputs=[{"name": "s"}])
    assert _outputs(only) == {"s": data["s"]}


def _mask(name: str, nulls: list[bool]) -> NamedArray:
    spec = TensorSpec.of({"name": f"{name}.nulls", "datatype": "BOOL", "shape": [-1]})
    return NamedArray(spec, np.array(nulls))


def _drawn(seed: int) -> list[NamedArray]:
    source = random.Random(seed)
    specs = [TensorSpec.of(each) for each in INPUTS[:5]]
    rows = source.randint(1, 5)
    specs = [replace(spec, shape=(rows, *spec.shape[1:])) for spec in specs]
    arrays = random_arrays(specs[:1] + [s for s in specs[1:] if source.random() < 0.7], source)
    generator = np.random.default_rng(seed)
    named = []
    for spec in specs:
        if spec.name not in arrays:
            continue
        array = arrays[spec.name]
        if spec.companion is not None:
            nulls = generator.random(array.shape) < source.choice([0, 0.5, 1])
            array[nulls] = b"" if spec.datatype.is_bytes else 0
            array = np.ma.MaskedArray(array, nulls)
        named.append(NamedArray.of(spec, array))
    return named


@everywhere
def test_every_route_is_exact(server: Server, path: str, suffix: str) -> None:
    drawn = [_drawn(seed) for seed in range(40)]
    sent = [[*named, *companions(named)] for named in drawn]
    routes = _routes(path)
    answers = answers_by_route(server, f"echo{suffix}", sent, routes)
    for route in routes:
        for named, answer in zip(drawn, answers[route], strict=True):
            assert isinstance(answer, InferResult), (route, answer)
            expected = {each.spec.name: each.masked.tolist() for each in named}
            got = {name: array.tolist() for name, array in answer.outputs.items()}
            assert got == expected, route


@everywhere
def test_null_where_none_may_be_is_refused_alike(server: Server, path: str, suffix: str) -> None:
    model = f"echo{suffix}"
    refused = _post(server, model, _json("a", "INT64", [1]), _json("strict", "INT64", [None]))
    words = "whole numbers from -9223372036854775808 to 9223372036854775807"
    text = f'input "strict" of model "{model}": expected {words}, got null at index 0'
    text += " (nullable: true, or | None in an annotation, admits null)"
    assert refused == {"error": text}
    bools = _mask("strict", [True])
    a, far = NamedArray(TensorSpec.of(INPUTS[0]), np.array([1])), _mask("a", [True, False])
    zero = NamedArray(a.spec, np.array([0]))
    routes = _routes(path)
    answers = answers_by_route(server, model, [[a, bools], [a, far], [zero]], routes)
    for route in routes:
        unknown, misshapen, low = answers[route]
        assert str(unknown).startswith(f'input "strict.nulls" of model "{model}": unknown'), route
        assert str(misshapen) == f'input "a.nulls" of model "{model}": expected shape [1], got [2]'
        assert str(low).endswith("expected values of 1 or more, got 0 at index 0"), route
        for each in answers[route]:
            assert isinstance(each, CallError)
            assert each.status in (400, "INVALID_ARGUMENT")


@everywhere
@pytest.mark.parametrize("asked", [[], ["a", "s"], ["a", "a.nulls"]])
def test_triton_clients_send_and_get_the_companion(
    server: Server, path: str, suffix: str, apart: Callable[..., Any], asked: list[str]
) -> None:
    arrays = null_calls.mixed(7)
    wanted = {name: array.tolist() for name, array in arrays.items()}
    if asked:
        wanted = {n: each for n, each in wanted.items() if n.removesuffix(".nulls") in asked}
    addresses = {"grpc": server.grpc_target}
    if path == "fast path":
        addresses["http"] = server.url
    for protocol, address in addresses.items():
        got = apart(null_calls.triton, protocol, address, f"echo{suffix}", arrays, asked)
        assert got == wanted, protocol


FRAME = pd.DataFrame(
    {
        "a": [1, 2, 3],
        "s": ["x", "", "é"],
        "b": [True, False, True],
        "f": [1.5, -0.0, 2.0],
    }
)
TEXTS = ["x", "7", "é"]


@everywhere
def test_pandas_codec_is_understood_unchanged(
    server: Server, suffix: str, apart: Callable[..., Any]
) -> None:
    """It sends columns of the shape [N, 1] under the content type pd."""
    model = f"echo{suffix}"
    missing = FRAME.assign(f=[1.5, None, 2.0])
    mixed = FRAME.assign(s=pd.Series(["x", 7, "é"], dtype=object))
    assert_equal = pd.testing.assert_frame_equal
    assert_equal(apart(null_calls.pandas_by_rest, server.url, model, missing), missing)
    assert_equal(apart(null_calls.pandas_by_rest, server.url, model, mixed), mixed.assign(s=TEXTS))
    objects = FRAME.assign(a=pd.Series([1, np.nan, 3], dtype=object))
    answer = _post(server, model, **apart(null_calls.pandas_body, objects))
    assert _outputs(answer)["a"] == [1, None, 3]
    for raw in (False, True):
        call = partial(apart, null_calls.pandas_by_grpc, server.grpc_target, model)
        assert_equal(call(FRAME, raw), FRAME)
        assert_equal(call(mixed, raw), mixed.assign(s=TEXTS))
        answer = call(objects, raw)
        assert answer["a"].tolist() == [1, 0, 3]
        assert answer["a.nulls"].tolist() == [False, True, False]
    wide = _post(server, model, {**_json("a", "INT64", [1]), "shape": [1, 1]})
    assert wide["error"].endswith("expected shape [-1], got [1, 1]")


@unbatched
def test_rows_and_lists_have_none(server: Server, suffix: str) -> None:
    answer = _post(
        server,
        f"rows{suffix}",
        _json("a", "INT64", [1, None, 3]),
        _json("s", "BYTES", [None, "x", "y"]),
        _json("more", "BOOL", [True, False, None]),
    )
    assert _outputs(answer) == {"a": [1, None], "s": [None, "x"]}
    metadata = httpx.get(f"{server.url}/v2/models/rows{suffix}").json()
    names = ["a", "s", "more", "a.nulls", "s.nulls", "more.nulls"]
    assert [each["name"] for each in metadata["inputs"]] == names
    assert metadata["inputs"][0]["parameters"] == {"nullable": True, "axes": "[rows]"}
    assert metadata["inputs"][3]["datatype"] == "BOOL"
    assert metadata["inputs"][3]["parameters"]["optional"] is True


@unbatched
def test_a_plain_parameter_is_masked(server: Server, suffix: str) -> None:
    inputs = [_json("a", "INT64", [1, None, 5]), _json("s", "BYTES", ["x", None, ""])]
    outputs = _outputs(_post(server, f"masked{suffix}", *inputs))
    assert outputs == {"said": ["6 MaskedArray s"], "a": [None, None, 5]}
    outputs = _outputs(_post(server, f"masked{suffix}", _json("a", "INT64", [4, 5])))
    assert outputs == {"said": ["9 ndarray"], "a": [4, 5]}


@unbatched
def test_items_of_streams_have_nulls(server: Server, suffix: str) -> None:
    url = f"{server.url}/v2/models/items{suffix}/infer_stream"
    lines = httpx.post(url, json={"inputs": [_json("a", "INT64", [1, None])]}).text.split("\n")
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    assert [_outputs(event)["a"] for event in events] == [[1, None], [None, 1]]


@unbatched
def test_a_contract_that_warns_has_nulls(server: Server, suffix: str) -> None:
    model = f"warned{suffix}"
    more = _json("more", "INT64", [7])
    assert _outputs(_post(server, model, _json("a", "INT64", [1, None]), more))["a"] == [1, None]
    inputs = [_json("a", "INT64", [5, 6]), _json("a.nulls", "BOOL", [False, True]), more]
    assert _outputs(_post(server, model, *inputs)) == {"a": [5, None], "more": [7]}
    refused = _post(server, model, more, _json("strict", "INT64", [None]))
    assert "got null at index 0" in refused["error"]


@fast_path
def test_requests_with_and_without_nulls_share_a_batch(server: Server) -> None:
    bodies = [[i + 1, None] if i % 2 else [i + 1, i + 2] for i in range(16)]

    def send(data: list[Any]) -> Any:
        return _outputs(_post(server, "echo-batched", _json("a", "INT64", data)))["a"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(send, bodies)) == bodies


TYPED = """
import sys
import numpy as np
from generated import Client

_, url, protocol, model = sys.argv
with Client(url, protocol=protocol, model_name=model) as client:
    got = client.predict(a=np.ma.array([5, 2], mask=[False, True]), s=np.array(["x", ""], object))
    assert (got.a.tolist(), got.s.tolist(), got.b) == ([5, None], ["x", ""], None), got
    got = client.predict(a=np.array([5]), s=np.ma.array(["x"], mask=[True], dtype=object))
    assert (got.a.tolist(), got.s.tolist()) == ([5], [None]), got
"""


@fast_path
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_typed_clients_take_and_give_masked_arrays(
    server: Server, protocol: str, tmp_path: Path
) -> None:
    definition = read(server.folder / "echo/function.yaml")
    (tmp_path / "generated.py").write_text(client_module(definition, "echo"))
    (tmp_path / "caller.py").write_text(TYPED)
    address = server.url if protocol == "rest" else server.grpc_target
    command = [sys.executable, "caller.py", address, protocol, "echo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@everywhere
def test_the_client_takes_none_and_gives_masked_arrays(
    server: Server, path: str, suffix: str
) -> None:
    for binary in (False, True) if path == "fast path" else (False,):
        with connect(server.url, f"echo{suffix}", binary=binary) as model:
            got = model.infer(a=[1, None], s=np.ma.array(["x", "y"], mask=[True, False]))
            assert {name: array.tolist() for name, array in got.items()} == {
                "a": [1, None],
                "s": [None, "y"],
            }
            assert list(model.contract.inputs) == [each["name"] for each in INPUTS]
            assert asyncio.run(model.infer_async(a=[1]))["a"].tolist() == [1]


BY_GRPC = """
import sys
from mlserver_pyfunc import connect
with connect(f"grpc://{sys.argv[1]}", sys.argv[2]) as model:
    print([array.tolist() for array in model.infer(a=[1, None], f=[1.5, None]).values()])
"""


@everywhere
def test_the_client_takes_none_for_floats_by_grpc_too(server: Server, suffix: str) -> None:
    command = [sys.executable, "-c", BY_GRPC, server.grpc_target, f"echo{suffix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[[1, None], [1.5, nan]]\n", done.stderr
