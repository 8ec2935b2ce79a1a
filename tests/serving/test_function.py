from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.errors import (
    ContractError,
    HandlerError,
    InferenceError,
    LoadError,
    RequestError,
    ResponseError,
)
from mlserver_pyfunc.handler.function_package import PREFIX
from mlserver_pyfunc.serving.function import Function

GOOD = "def handler(x):\n    return x * 2\n"
ASYNC_WAIT = "import asyncio\nasync def close():\n    await asyncio.sleep(3600)"


def _definition(code: str = GOOD, **more: Any) -> dict[str, Any]:
    source = {"code": code, "handler": "handler", **more.pop("source", {})}
    if source.get("source"):
        del source["code"]
    return {
        "source": source,
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
        **more,
    }


def request(
    data: Any = (1, 2), *, shape: Any = None, outputs: tuple[str, ...] = (), **tensor: Any
) -> Any:
    """An inference request as the host has it."""
    data = list(data) if isinstance(data, tuple) else data
    x = {"name": "x", "datatype": "INT64", "shape": shape or [len(data)], "data": data}
    wire = SimpleNamespace(**{**x, "parameters": None, **tensor})
    requested = [SimpleNamespace(name=name) for name in outputs]
    return SimpleNamespace(id="r-1", parameters=None, inputs=[wire], outputs=requested or None)


Load = Callable[..., Any]


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Load]:
    """Loads functions, and closes them when the test ends."""
    functions = []

    async def loaded(code: str = GOOD, **more: Any) -> Function:
        function = Function(parse(_definition(code, **more)), tmp_path, "iris", "1")
        await function.load()
        functions.append(function)
        return function

    yield loaded
    for function in functions:
        await function.close()
    assert not [name for name in sys.modules if name.startswith(PREFIX)]


async def _answer(function: Function, payload: Any = None) -> Any:
    answer = await function.infer(payload or request())
    return {named.spec.name: named.array.tolist() for named in answer.arrays}


async def _refused(code: str, tmp_path: Path, **more: Any) -> LoadError:
    function = Function(parse(_definition(code, **more)), tmp_path, "iris")
    with pytest.raises(LoadError) as caught:
        await function.load()
    assert not function.ready
    assert not [name for name in sys.modules if name.startswith(PREFIX)]
    with pytest.raises(RequestError, match="is not loaded"):
        await function.infer(request())
    return caught.value


@pytest.mark.parametrize(
    "code",
    [
        GOOD,
        "async def handler(x):\n    return x * 2\n",
        "import asyncio\n\nasync def handler(x):\n    await asyncio.sleep(0)\n    return x * 2\n",
        "async def later(x):\n    return x * 2\n\ndef handler(x):\n    return later(x)\n",
        "class handler:\n    def __call__(self, x):\n        return x * 2\n",
        "import functools\n\ndef scale(by, x):\n    return x * by\n\n"
        "handler = functools.partial(scale, 2)\n",
        "handler = lambda x: x * 2\n",
    ],
    ids=["sync", "async", "async sleep", "returns awaitable", "class", "partial", "lambda"],
)
async def test_every_kind_of_handler_answers(code: str, load: Load) -> None:
    assert await _answer(await load(code)) == {"y": [2, 4]}


async def test_a_method_of_a_class_that_is_made_once(load: Load) -> None:
    code = (
        "class Model:\n"
        "    made = 0\n"
        "    def __init__(self, context, scale):\n"
        "        Model.made += 1\n"
        "        self.scale = scale\n"
        "    def predict(self, x):\n"
        "        return x * self.scale + 100 * Model.made\n"
        "    def setup(self):\n"
        "        self.scale += 1\n"
    )
    function = await load(
        code,
        source={"handler": "Model.predict", "init_function": "Model.setup"},
        init_parameters={"scale": 2},
    )
    assert await _answer(function) == {"y": [103, 106]}
    assert await _answer(function) == {"y": [103, 106]}


INIT = """
def setup(context, scale):
    context.scale = scale

def handler(x, context):
    return x * context.scale
"""


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_init_runs_once_before_the_handler(prefix: str, load: Load) -> None:
    function = await load(
        INIT.replace("def setup", f"{prefix}def setup"),
        source={"init_function": "setup"},
        init_parameters={"scale": 3},
    )
    assert await _answer(function) == {"y": [3, 6]}


async def test_init_handler_and_unload_share_globals_and_one_thread(
    load: Load, tmp_path: Path
) -> None:
    code = (
        "import threading\n\n"
        "STATE = {}\n\n"
        "def setup():\n    STATE['thread'] = threading.get_ident()\n\n"
        "def handler(x):\n    assert STATE['thread'] == threading.get_ident()\n    return x\n\n"
        "def close(path):\n"
        "    open(path, 'w').write(str(STATE['thread'] == threading.get_ident()))\n"
    )
    function = await load(
        code,
        source={"init_function": "setup", "unload_function": "close"},
        init_parameters={"path": str(tmp_path / "closed")},
    )
    assert await _answer(function) == {"y": [1, 2]}
    await function.close()
    assert (tmp_path / "closed").read_text() == "True"


async def test_the_context_has_what_user_code_may_need(load: Load, tmp_path: Path) -> None:
    code = (
        "def handler(x, context):\n"
        "    assert (context.model_name, context.model_version) == ('iris', '1')\n"
        "    assert context.definition['inputs'][0]['name'] == 'x'\n"
        f"    assert str(context.source_dir) == {str(tmp_path)!r}\n"
        "    assert context.init_parameters == {'a': [1]}\n"
        "    context.logger.info('said by the handler')\n"
        "    context.seen = getattr(context, 'seen', 0) + 1\n"
        "    return x * context.seen\n"
    )
    function = await load(code, init_parameters={"a": [1]})
    assert await _answer(function) == {"y": [1, 2]}
    assert await _answer(function) == {"y": [2, 4]}


async def test_the_handler_gets_the_declared_datatype_read_only_where_it_views_the_wire(
    load: Load,
) -> None:
    from mlserver_pyfunc.protocol.tensors import RawTensor

    code = "def handler(x):\n    assert x.dtype == 'int64'\n    x[0] = 5\n    return x\n"
    function = await load(code)
    raw = RawTensor(np.array([1, 2], "<i8").tobytes())
    with pytest.raises(HandlerError, match="read-only"):
        await function.infer(request(data=raw, shape=[2]))


async def test_requested_outputs_are_the_only_ones(load: Load) -> None:
    outputs = [{"name": name, "datatype": "INT64", "shape": [-1]} for name in ("a", "b", "c")]
    function = await load("def handler(x):\n    return x, x + 1, x + 2\n", outputs=outputs)
    assert await _answer(function) == {"a": [1, 2], "b": [2, 3], "c": [3, 4]}
    chosen = await function.infer(request(outputs=("c", "a")))
    assert [named.spec.name for named in chosen.arrays] == ["c", "a"]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (request(datatype="FP32"), "expected datatype INT64, got FP32"),
        (request(shape=[1, 2]), "expected shape [-1], got [1, 2]"),
        (request(name="z"), 'input "z" of model "iris": unknown'),
        (request(outputs=("z",)), 'output "z" of model "iris": unknown'),
    ],
)
async def test_a_request_that_breaks_the_contract_never_reaches_the_handler(
    payload: Any, message: str, load: Load
) -> None:
    function = await load("def handler(x):\n    raise SystemExit\n")
    with pytest.raises(ContractError) as caught:
        await function.infer(payload)
    assert message in str(caught.value)


async def test_the_handlers_error_names_its_type_message_and_request(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    function = await load("def handler(x):\n    raise KeyError('weights')\n")
    with caplog.at_level(logging.ERROR), pytest.raises(HandlerError) as caught:
        await function.infer(request())
    assert str(caught.value) == (
        "handler of model \"iris\" raised KeyError: 'weights' (request r-1)"
    )
    assert "raise KeyError('weights')" in caplog.text, "the traceback is in the log"


async def test_an_inference_error_is_not_logged_as_a_failure(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "from mlserver_pyfunc import InferenceError\n\n"
        "def handler(x):\n    raise InferenceError('too many', 429)\n"
    )
    function = await load(code)
    with caplog.at_level(logging.WARNING), pytest.raises(InferenceError) as caught:
        await function.infer(request())
    assert (str(caught.value), caught.value.status) == ("too many", 429)
    assert not caplog.records


async def test_a_result_that_breaks_the_contract_is_the_handlers_error(load: Load) -> None:
    function = await load("def handler(x):\n    return x.reshape(-1, 1)\n")
    with pytest.raises(ResponseError, match=r"expected shape \[-1\], got \[2, 1\]"):
        await function.infer(request())


@pytest.mark.parametrize(
    ("code", "phase", "cause"),
    [
        ("def handler(:\n", "import", "SyntaxError: "),
        ("import no_such_library\n", "import", "ModuleNotFoundError: No module named"),
        ("raise KeyboardInterrupt\n", "import", "KeyboardInterrupt"),
        ("raise SystemExit(0)\n", "import", "SystemExit: 0"),
        ("def f(): return f()\nf()\n", "import", "RecursionError: "),
        ("x = 1\n", "bind", 'module "function" has no "handler", it has no callables'),
        ("handler = 3\n", "bind", '"handler" is not callable, it is a int'),
        ("def handler(p, q): ...\n", "bind", 'handler parameter "p", "q" matches nothing'),
        ("class handler: ...\n", "bind", '"handler" is a class whose instances cannot be called'),
        ("class handler:\n    def __init__(self): 1 / 0\n", "bind", "ZeroDivisionError: "),
    ],
)
async def test_a_load_that_fails_names_the_phase_and_leaves_nothing(
    code: str, phase: str, cause: str, tmp_path: Path
) -> None:
    meta_path, path = list(sys.meta_path), list(sys.path)
    error = await _refused(code, tmp_path)
    assert error.phase == phase, error
    assert str(error).startswith(f'function "iris" failed to load: {phase}: {cause}')
    assert (sys.meta_path, sys.path) == (meta_path, path)


@pytest.mark.parametrize(
    ("init", "cause"),
    [
        ("def init(): raise ValueError('no')", "ValueError: no"),
        ("async def init(): raise ValueError('no')", "ValueError: no"),
        ("def init(): raise SystemExit(1)", "SystemExit: 1"),
        ("async def init(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def other(): ...", 'module "function" has no "init", it has handler, other'),
        (
            "def init(context, weights): ...",
            '"init" requires "weights", which is not in init_parameters',
        ),
    ],
)
async def test_an_init_that_fails_is_a_load_error(init: str, cause: str, tmp_path: Path) -> None:
    error = await _refused(f"{GOOD}\n{init}\n", tmp_path, source={"init_function": "init"})
    assert error.phase == "init"
    assert cause in str(error)


async def test_a_load_that_takes_too_long_names_its_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(sys, "go", go, raising=False)
    error = await _refused(
        "import sys\nsys.go.wait(60)\n" + GOOD, tmp_path, serving={"init_timeout": 0.2}
    )
    go.set()
    assert "failed to load: import: passed its limit of 0.2 s" in str(error)


async def test_an_unload_function_that_is_not_there_is_a_load_error(tmp_path: Path) -> None:
    error = await _refused(GOOD, tmp_path, source={"unload_function": "absent"})
    assert (error.phase, 'has no "absent"' in str(error)) == ("bind", True)


@pytest.mark.parametrize(
    ("more", "phase", "cause"),
    [
        ({"outputs": []}, "definition", "outputs: expected at least one tensor, got none"),
        ({"source": {"source": "absent.py"}}, "fetch", 'source "absent.py": no such file'),
        ({"source": {"source": "ftp://a/b"}}, "fetch", 'unknown scheme "ftp"'),
        ({"source": {"sha256": "0" * 64}}, "fetch", "expected sha256 000"),
    ],
)
async def test_what_fails_before_the_import_is_a_load_error(
    more: dict[str, Any], phase: str, cause: str, tmp_path: Path
) -> None:
    error = await _refused(GOOD, tmp_path, **more)
    assert (error.phase, cause in str(error)) == (phase, True), error


async def test_an_environment_that_cannot_be_read_is_a_load_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/venv")

    monkeypatch.setattr("mlserver_pyfunc.serving.function.provide", denied)
    error = await _refused(GOOD, tmp_path, serving={"isolation": "process"})
    assert (error.phase, "Permission denied: '/venv'" in str(error)) == ("environment", True), error


COUNT = "SEEN = []\n\ndef handler(x):\n    SEEN.append(x.tolist())\n    return sum(SEEN, [])\n"


def _sample(path: Path, *data: Any) -> None:
    x = {"name": "x", "datatype": "INT64", "shape": [len(data)], "data": data}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"inputs": [x]}))


async def test_a_warm_up_calls_the_handler_with_an_example_of_the_contract(load: Load) -> None:
    function = await load(COUNT, serving={"warmup": True})
    assert await _answer(function) == {"y": [1, 1, 2]}, "the first one is the example"


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_a_warm_up_sends_each_sample_once(isolation: str, load: Load, tmp_path: Path) -> None:
    _sample(tmp_path / "first.json", 1, 2)
    _sample(tmp_path / "samples" / "second.json", 3)
    warmup = {"samples": ["first.json", "samples/second.json"]}
    function = await load(COUNT, serving={"isolation": isolation, "warmup": warmup})
    assert await _answer(function, request((4,))) == {"y": [1, 2, 3, 4]}


async def test_a_sample_may_be_in_the_source(load: Load, tmp_path: Path) -> None:
    _sample(tmp_path / "package" / "sample.json", 5)
    (tmp_path / "package" / "model.py").write_text(COUNT)
    function = await load(
        source={"source": "package", "handler": "model:handler"},
        serving={"warmup": {"samples": ["sample.json"]}},
    )
    assert await _answer(function, request((6,))) == {"y": [5, 6]}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "no such file in "),
        ("{", "not JSON: "),
        ("{}", 'request: expected {"inputs": ['),
        ('{"inputs": []}', 'input "x" of model "iris": missing from the request'),
        (
            '{"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}]}',
            "ZeroDivisionError",
        ),
    ],
)
async def test_a_sample_that_fails_is_named(text: str | None, cause: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    code = "def handler(x):\n    return [1 // int(x[0])]\n"
    error = await _refused(code, tmp_path, serving={"warmup": {"samples": ["bad.json"]}})
    assert error.phase == "warmup"
    assert 'sample "bad.json": ' in str(error)
    assert cause in str(error)


async def test_a_warm_up_of_a_generator_takes_one_item(load: Load) -> None:
    function = await load("def handler(x):\n    yield x\n", serving={"warmup": True})
    assert [item async for item in function.stream(request())]


async def test_a_warm_up_that_fails_is_a_load_error_and_unloads(tmp_path: Path) -> None:
    code = "def handler(x):\n    1 / 0\n\ndef close(path):\n    open(path, 'w').write('closed')\n"
    error = await _refused(
        code,
        tmp_path,
        serving={"warmup": True},
        source={"unload_function": "close"},
        init_parameters={"path": str(tmp_path / "closed")},
    )
    assert error.phase == "warmup"
    assert "ZeroDivisionError: division by zero" in str(error)
    assert (tmp_path / "closed").read_text() == "closed"


async def test_close_waits_for_calls_then_unloads_then_forgets(load: Load, tmp_path: Path) -> None:
    code = (
        "import time\n\n"
        "def handler(x, context):\n"
        "    time.sleep(0.3)\n"
        "    context.order = getattr(context, 'order', []) + ['handler']\n"
        "    return x\n\n"
        "async def close(context, path):\n"
        "    import json\n"
        "    open(path, 'w').write(json.dumps(context.order + ['close']))\n"
    )
    function = await load(
        code,
        source={"unload_function": "close"},
        init_parameters={"path": str(tmp_path / "order")},
        serving={"concurrency": 2},
    )
    calls = [asyncio.ensure_future(function.infer(request())) for _ in range(2)]
    await asyncio.sleep(0.1)
    await function.close()
    assert all(call.done() for call in calls)
    assert (tmp_path / "order").read_text() == '["handler", "handler", "close"]'
    assert not function.ready
    with pytest.raises(RequestError, match="is not loaded") as caught:
        await function.infer(request())
    assert caught.value.status == 503
    await function.close()


@pytest.mark.parametrize("error", ["ValueError('no')", "SystemExit(1)", "KeyboardInterrupt"])
async def test_an_unload_function_that_fails_is_logged_and_no_more(
    error: str, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    function = await load(
        f"{GOOD}\ndef close():\n    raise {error}\n", source={"unload_function": "close"}
    )
    with caplog.at_level(logging.ERROR):
        await function.close()
    assert 'function "iris": unload_function failed' in caplog.text


async def test_an_async_unload_function_that_cancels_itself_is_logged_and_no_more(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"import asyncio\n{GOOD}\nasync def close():\n    raise asyncio.CancelledError\n"
    function = await load(code, source={"unload_function": "close"})
    await function.close()
    assert 'function "iris": unload_function failed' in caplog.text


@pytest.mark.parametrize("wait", ["def close():\n    sys.go.wait(60)", ASYNC_WAIT])
async def test_an_unload_function_that_takes_too_long_is_logged(
    wait: str, load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(sys, "go", go, raising=False)
    monkeypatch.setattr("mlserver_pyfunc.serving.limits.UNLOAD_SECONDS", 0.2)
    function = await load(f"import sys\n{GOOD}\n{wait}\n", source={"unload_function": "close"})
    await function.close()
    go.set()
    assert 'function "iris": unload_function still runs after 0.2 s' in caplog.text


@pytest.mark.parametrize(
    ("broken", "status"), [(SimpleNamespace(id="r-1"), 500), (request([0.5]), 400)]
)
async def test_the_metrics_count_a_stream_that_fails_by_its_status(
    broken: Any, status: int, load: Load
) -> None:
    function, name = await load(), "pyfunc_request_duration_seconds_count"
    labels = {"model": "iris", "version": "1", "status": str(status)}
    before = REGISTRY.get_sample_value(name, labels) or 0
    with pytest.raises((AttributeError, ContractError)):
        await function.stream(broken).__anext__()
    assert REGISTRY.get_sample_value(name, labels) == before + 1


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_generator_streams_checked_answers(prefix: str, load: Load) -> None:
    code = f"{prefix}def handler(x):\n    for n in x:\n        yield [n]\n    yield 'text'\n"
    function = await load(code)
    answers = function.stream(request())
    assert [(await answers.__anext__()).arrays[0].array.tolist() for _ in range(2)] == [[1], [2]]
    with pytest.raises(ResponseError, match='output "y" of model "iris": expected whole numbers'):
        await answers.__anext__()


async def test_a_generator_cannot_be_called_for_one_answer(load: Load) -> None:
    function = await load("def handler(x):\n    yield x\n")
    with pytest.raises(ContractError, match="streams its answers: call infer_stream"):
        await function.infer(request())


async def test_a_plain_handler_streams_one_answer(load: Load) -> None:
    answers = [answer async for answer in (await load()).stream(request())]
    assert [answer.arrays[0].array.tolist() for answer in answers] == [[2, 4]]


async def test_many_calls_at_once_each_get_their_own_answer(load: Load) -> None:
    code = "import time\n\ndef handler(x):\n    time.sleep(0.001)\n    return x\n"
    function = await load(code, serving={"concurrency": 4, "max_queue": 200})
    answers = await asyncio.gather(*[_answer(function, request([n])) for n in range(100)])
    assert answers == [{"y": [n]} for n in range(100)]


async def test_a_file_source_is_read_from_the_definitions_folder(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(
        "import sibling\n\ndef handler(x):\n    return x * sibling.N\n"
    )
    (tmp_path / "sibling.py").write_text("N = 7\n")
    for source in ({"source": "model.py"}, {"source": ".", "handler": "model:handler"}):
        function = await load(source=source)
        assert await _answer(function) == {"y": [7, 14]}


async def test_provenance_is_known_once_loaded(load: Load) -> None:
    function = await load()
    assert function.provenance["source"] == "inline code"
    assert len(function.provenance["sha256"]) == 64


@pytest.mark.parametrize("isolation", ["none", "auto"])
async def test_keys_of_processes_are_not_ignored_without_a_word(
    isolation: str, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await load(serving={"isolation": isolation, "workers": 2, "memory_limit": "1G"})
    (record,) = caplog.records
    assert record.getMessage() == (
        'function "iris" runs in the server\'s process, where serving.workers, '
        "serving.memory_limit does not count: set serving.isolation to process"
    )


MADE = """
import weakref
import numpy as np
left = []
def made(x):
    result = (x * 2).view(type("Result", (np.ndarray,), {}))
    left.append(weakref.ref(result))
    return result
def handler(x):
    if x[0] < 0:
        return [sum(result() is not None for result in left)]
    return made(x)
async def awaited(x):
    return handler(x)
def generator(x):
    yield handler(x)
async def async_generator(x):
    yield handler(x)
"""


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("handler", ["handler", "awaited", "generator", "async_generator"])
async def test_a_result_is_freed_when_its_answer_is_sent(
    load: Load, handler: str, isolation: str
) -> None:
    function = await load(MADE, source={"handler": handler}, serving={"isolation": isolation})

    async def call(*data: int) -> list[int]:
        [item] = [item.arrays[0].array.tolist() async for item in function.stream(request(data))]
        return item

    assert await call(1, 2) == [2, 4]
    assert await call(-1) == [0]
    assert await call(-1) == [0]
