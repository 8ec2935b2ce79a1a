"""A model's life: loading, reloading, versions, unloading and the server's end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import Definition, inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

ANSWER = [tensor("answer", "BYTES", [1])]
X = Tensor("x", "FP64", (1,), [0.0])

CODE = """
import pathlib
import time

import sibling


def handler(x, context):
    with pathlib.Path(context.init_parameters["record"]).with_suffix(".begun").open("a") as file:
        file.write("x")
    time.sleep(x.item())
    return {"answer": f"SAYS {sibling.WORD}"}


def close(context):
    record = pathlib.Path(context.init_parameters["record"])
    with record.open("a") as file:
        file.write("SAYS closed\\\\n")
""".replace("\\\\n", "\\n")


def _definition(record: Path, **more: object) -> Definition:
    return {
        "source": {"source": ".", "handler": "model:handler", "unload_function": "model:close"},
        "init_parameters": {"record": str(record)},
        "inputs": [tensor("x", "FP64", [1])],
        "outputs": ANSWER,
        "serving": {"concurrency": 2},
        **more,
    }


def _until_calls_run(record: Path, count: int = 1) -> None:
    """Waits until so many calls of a function have begun."""
    begun = record.with_suffix(".begun")
    deadline = time.monotonic() + 60
    while not begun.exists() or len(begun.read_text()) < count:
        assert time.monotonic() < deadline, "the call does not begin"
        time.sleep(0.02)


def _write_code(folder: Path, says: str, word: str = "word") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(CODE.replace("SAYS", says))
    (folder / "sibling.py").write_text(f'WORD = "{word}"\n')
    # Within one second and at one size, a cached bytecode would still pass for this source.
    for file in folder.glob("*.py"):
        os.utime(file, (1_700_000_000, 1_700_000_000))


def _ask(server: ServerProcess, model: str, version: str = "", seconds: float = 0) -> str:
    request = Request(model, [Tensor("x", "FP64", (1,), [seconds])], version=version)
    return rest_infer(server.client, request).expect_ok().outputs["answer"].values[0].decode()


def _repository(server: ServerProcess, model: str, action: str) -> tuple[int, str]:
    response = server.client.post(f"/v2/repository/models/{model}/{action}")
    return response.status_code, response.json()["error"] if response.is_error else ""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("living")


@pytest.fixture(scope="module")
def living(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose repository the tests change; each test has models of its own."""
    write_model(repository / "anchor", _definition(repository / "anchor.txt"))
    _write_code(repository / "anchor", "anchor")
    with serving(repository, tmp_path_factory.mktemp("work"), "anchor") as server:
        yield server
        assert _ask(server, "anchor") == "anchor word"
        assert server.stop() == 0, server.log


def test_a_reload_runs_the_new_code_of_the_handler_and_of_its_siblings(
    living: ServerProcess, repository: Path
) -> None:
    folder, record = repository / "reloaded", repository / "reloaded.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "a", "one")
    assert _repository(living, "reloaded", "load")[0] == 200
    assert _ask(living, "reloaded") == "a one"
    for says, word in [("b", "one"), ("b", "two"), ("c", "six")]:
        _write_code(folder, says, word)
        assert _repository(living, "reloaded", "load")[0] == 200
        assert _ask(living, "reloaded") == f"{says} {word}"
    assert record.read_text().split("\n")[:-1] == ["a closed", "b closed", "b closed"]


def test_a_failed_reload_leaves_the_old_code_serving(
    living: ServerProcess, repository: Path
) -> None:
    folder, record = repository / "kept", repository / "kept.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "old", "one")
    assert _repository(living, "kept", "load")[0] == 200
    (folder / "sibling.py").write_text("WORD = 'two'\n")
    (folder / "model.py").write_text("import sibling\n\ndef handler(x:\n")
    status, text = _repository(living, "kept", "load")
    assert status == 500
    assert 'function "kept" failed to load: import: SyntaxError' in text
    assert _ask(living, "kept") == "old one"
    assert living.is_ready("kept")
    assert not record.exists(), "the old function was not unloaded"
    _write_code(folder, "new", "two")
    assert _repository(living, "kept", "load")[0] == 200
    assert _ask(living, "kept") == "new two"
    assert record.read_text() == "old closed\n"


def test_a_reload_loses_no_request_in_flight(living: ServerProcess, repository: Path) -> None:
    folder, record = repository / "busy", repository / "busy.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "old")
    assert _repository(living, "busy", "load")[0] == 200
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_ask, living, "busy", "", 0.8)
        _until_calls_run(record)
        _write_code(folder, "new")
        assert _repository(living, "busy", "load")[0] == 200
        assert _ask(living, "busy") == "new word"
        assert running.result() == "old word"
    assert record.read_text() == "old closed\n"


def test_unload_runs_the_unload_function_after_the_requests_in_flight(
    living: ServerProcess, repository: Path
) -> None:
    folder, record = repository / "leaving", repository / "leaving.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "bye")
    assert _repository(living, "leaving", "load")[0] == 200
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(_ask, living, "leaving", "", 2)
        _until_calls_run(record)
        unloading = pool.submit(_repository, living, "leaving", "unload")
        time.sleep(0.2)
        assert not record.exists(), "the unload function must wait for the request in flight"
        assert running.result() == "bye word"
        assert unloading.result()[0] == 200
    assert record.read_text() == "bye closed\n"
    gone = rest_infer(living.client, Request("leaving", [X]))
    assert gone.status == 404
    assert _repository(living, "leaving", "load")[0] == 200
    assert _ask(living, "leaving") == "bye word"


@pytest.mark.parametrize("where", ["model-settings.json", "function.yaml"])
def test_two_versions_serve_at_once_each_its_own_code(
    where: str, living: ServerProcess, repository: Path
) -> None:
    name = "twice-" + where.partition(".")[0]
    for version in ("1", "2"):
        folder, record = repository / name / version, repository / f"{name}.txt"
        definition = _definition(record)
        if where == "function.yaml":
            write_model(folder, {**definition, "model_version": version}, name=name)
        else:
            write_model(folder, definition, name=name, parameters={"version": version})
        _write_code(folder, f"v{version}", f"word{version}")
    status, text = _repository(living, name, "load")
    assert status == 200, text
    for _ in range(2):
        assert _ask(living, name, "1") == "v1 word1"
        assert _ask(living, name, "2") == "v2 word2"
    assert _ask(living, name) == "v2 word2", "the newest is the default"
    assert living.client.get(f"/v2/models/{name}").json()["versions"] == ["1", "2"]
    assert living.client.get(f"/v2/models/{name}/versions/1").json()["versions"] == ["1", "2"]
    assert living.client.get("/v2/health/ready").status_code == 200
    reply = rest_infer(living.client, Request(name, [X], version="1"))
    assert reply.version == "1"
    assert rest_infer(living.client, Request(name, [X], version="3")).status == 404


def test_a_model_without_a_version_names_none(living: ServerProcess) -> None:
    assert living.client.get("/v2/models/anchor").json()["versions"] == []
    assert rest_infer(living.client, Request("anchor", [X])).version == ""


def test_a_folder_that_is_added_is_loaded_by_the_name_of_its_definition(
    living: ServerProcess, repository: Path
) -> None:
    folder = repository / "folder-name"
    write_model(folder, _definition(repository / "n.txt", model_name="other-name"))
    _write_code(folder, "named")
    assert _repository(living, "folder-name", "load")[0] == 404
    assert _repository(living, "other-name", "load")[0] == 200
    assert _ask(living, "other-name") == "named word"


def _bad_source(**source: object) -> Definition:
    return {
        "source": {"source": "model.py", "handler": "handler", **source},
        "inputs": [tensor("x", "FP64", [1])],
        "outputs": ANSWER,
    }


def _code(code: str, **source: object) -> Definition:
    return {
        "source": {"code": code, "handler": "handler", **source},
        "inputs": [tensor("x", "FP64", [1])],
        "outputs": ANSWER,
    }


GOOD = "def handler(x):\n    return 'a'\n"
INIT_FAILS = "def init():\n    open('/no/such/file')\n\n" + GOOD
FAILURES: dict[str, tuple[Definition | None, str]] = {
    "no-such-handler": (
        _code("def predict(x):\n    return 'a'\n"),
        'bind: module "function" has no "handler", it has predict',
    ),
    "no-such-module": (
        {**_code(GOOD), "source": {"source": ".", "handler": "absent:handler"}},
        "import: ModuleNotFoundError: No module named",
    ),
    "syntax-error": (_code("def handler(x:\n"), "import: SyntaxError: "),
    "import-error": (_code("import no_such_library\n"), "import: ModuleNotFoundError: "),
    "exit-on-import": (_code("raise SystemExit(3)\n"), "import: SystemExit: 3"),
    "init-raises": (
        _code(INIT_FAILS, init_function="init"),
        "init: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'",
    ),
    "init-exits": (
        _code("import sys\n\ndef init():\n    sys.exit(0)\n\n" + GOOD, init_function="init"),
        "init: SystemExit: 0",
    ),
    "wrong-parameter": (
        _code("def handler(y, z):\n    return 'a'\n"),
        'bind: handler parameter "y", "z" matches nothing, expected one of x, request',
    ),
    "no-source-file": (_bad_source(), 'fetch: source "model.py": no such file or folder'),
    "wrong-sha256": (
        _code(GOOD, sha256="0" * 64),
        f"fetch: source.code: expected sha256 {'0' * 64}, got ",
    ),
    "unreadable-contract": (
        {**_code(GOOD), "inputs": [{"name": "x", "datatype": "FP31", "shap": [1]}]},
        "definition: ",
    ),
    "no-definition": (None, "definition: no function definition found, looked for parameters."),
    "missing-requirement": (
        {**_code(GOOD), "requirements": ["no-such-library>=1"], "serving": {"isolation": "none"}},
        "environment: ",
    ),
    "warmup-fails": (
        {**_code("def handler(x):\n    return 1 / 0\n"), "serving": {"warmup": True}},
        'warmup: handler of model "warmup-fails" raised ZeroDivisionError: division by zero',
    ),
}


def test_modules_of_a_model_do_not_stand_in_for_the_servers(
    living: ServerProcess, repository: Path
) -> None:
    folder = repository / "hiding"
    write_model(folder, _definition(repository / "hiding.txt"))
    _write_code(folder, "hiding")
    # MLServer has this folder first on sys.path while it imports the runtime anew.
    (folder / "mlserver_pyfunc").mkdir()
    (folder / "mlserver_pyfunc" / "__init__.py").write_text("raise ValueError('not yours')\n")
    status, text = _repository(living, "hiding", "load")
    assert status == 500
    assert text.startswith('function "hiding" failed to load: import: ImportError: the source has')
    # What the server imports only now is still its own.
    row = [tensor("x", "FP64", [-1])]
    batch = {"max_size": 8}
    code = "def handler(x):\n    return x\n"
    batched = inline(code, "handler", {"inputs": row, "outputs": row}, batch=batch)
    write_model(repository / "batched", batched)
    assert _repository(living, "batched", "load") == (200, "")
    assert rest_infer(living.client, Request("batched", [X])).status == 200


def test_a_model_may_have_a_module_of_a_name_that_the_runtime_imports(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "iris"
    write_model(folder, _definition(tmp_path / "record"))
    _write_code(folder, "own")
    for name in ("filelock", "simdjson", "tenacity"):
        (folder / f"{name}.py").write_text("MINE = True\n")
    (folder / "sibling.py").write_text("import filelock\nWORD = filelock.MINE\n")
    with serving(tmp_path / "models", tmp_path, "iris") as server:
        assert _ask(server, "iris") == "own True"


@pytest.mark.parametrize("name", FAILURES)
def test_a_load_that_fails_names_function_phase_and_cause(
    name: str, living: ServerProcess, repository: Path
) -> None:
    definition, cause = FAILURES[name]
    write_model(repository / name, definition)
    status, text = _repository(living, name, "load")
    assert status == 500, text
    line = f'function "{name}" failed to load: {cause}'
    assert text.startswith(line)
    assert any(line in each for each in living.log.splitlines())
    assert not living.is_ready(name)
    assert rest_infer(living.client, Request(name, [X])).status == 404
    assert living.client.get("/v2/health/ready").status_code == 200


def test_settings_that_disagree_with_the_definition_are_a_load_error(
    living: ServerProcess, repository: Path
) -> None:
    definition = {**_code(GOOD), "model_name": "iris", "model_version": "2"}
    write_model(
        repository / "torn",
        definition,
        name="torn",
        parameters={"version": "3"},
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}],
        max_batch_size=8,
        max_batch_time=0.1,
    )
    status, text = _repository(living, "torn", "load")
    assert status == 500
    for problem in (
        'model_name is "iris", but model-settings.json says "torn"',
        'model_version is "2", but model-settings.json says "3"',
        "inputs are x FP64 [1], but model-settings.json says x FP32 [1]",
        "max_batch_size is set in model-settings.json",
    ):
        assert problem in text


def test_a_package_that_is_missing_is_named_in_the_log(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    # Found before the installed one, it acts as if there were none.
    (hidden / "simdjson.py").write_text(
        'raise ModuleNotFoundError("No module named \'simdjson\'", name="simdjson")\n'
    )
    write_model(tmp_path / "models" / "iris", _definition(tmp_path / "record"))
    server = ServerProcess(tmp_path / "models", tmp_path, {"PYTHONPATH": str(hidden)})
    server.start()
    try:
        server.wait_for_end()
        assert (
            "mlserver-pyfunc lacks a dependency: No module named 'simdjson'; run pip" in server.log
        )
    finally:
        server.close()


@pytest.mark.parametrize("name", ["init-raises", "unreadable-contract"])
def test_a_start_up_that_fails_is_in_the_log_and_never_ready(name: str, tmp_path: Path) -> None:
    definition, cause = FAILURES[name]
    write_model(tmp_path / "models" / name, definition)
    server = ServerProcess(tmp_path / "models", tmp_path)
    server.start()
    try:
        while server.running:
            assert not server.is_ready(name)
            time.sleep(0.02)
        # MLServer ends with 0 where a model fails at start.
        assert server.wait_for_end() == 0
        assert f'function "{name}" failed to load: {cause}' in server.log
    finally:
        server.close()


def test_a_model_is_not_ready_while_its_init_runs(living: ServerProcess, repository: Path) -> None:
    code = "import time\n\ndef init():\n    time.sleep(2)\n\n" + GOOD
    write_model(repository / "slow-start", _code(code, init_function="init"))
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_repository, living, "slow-start", "load")
        time.sleep(0.3)
        rounds = 0
        while not loading.done():
            # It may be ready a moment before the answer to the load arrives.
            assert not living.is_ready("slow-start") or time.monotonic() - began >= 2
            assert living.client.get("/v2/health/live").status_code == 200
            rounds += not loading.done()
            time.sleep(0.02)
        assert loading.result()[0] == 200
    assert rounds > 1, "the server does not answer while a model loads"
    assert living.is_ready("slow-start")


@pytest.mark.parametrize("command", ["mlserver start", "mlserver-pyfunc serve"])
@pytest.mark.parametrize("end", [ServerProcess.terminate, ServerProcess.interrupt])
def test_a_signal_answers_the_requests_in_flight_then_unloads_and_exits_with_zero(
    end: Callable[[ServerProcess], None], command: str, tmp_path: Path, grpc_call: GrpcCall
) -> None:
    folder, record = tmp_path / "models" / "last", tmp_path / "record.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "last")
    models = tmp_path / "models"
    with (
        serving(models, tmp_path, "last", command=command) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        # Until the worker of the inference pool is up, which MLServer starts and we do not
        # use, it takes its time to end.
        time.sleep(3)
        address = server.grpc_address
        grpc_call(grpc_calls.is_ready, address, "last")
        # Over gRPC it is longer than the 5 s that MLServer itself gives a call. Over REST it is
        # longer still: MLServer stops REST when the calls over gRPC have ended.
        request, longer = (Request("last", [Tensor("x", "FP64", (1,), [s])]) for s in (6.5, 9))
        by_grpc = pool.submit(grpc_call, grpc_calls.infer, address, request, True)
        by_rest = pool.submit(rest_infer, server.client, longer)
        _until_calls_run(record, 2)
        end(server)
        code = server.wait_for_end()
        for running in (by_rest, by_grpc):
            assert running.result().expect_ok().outputs["answer"].values == [b"last word"]
        assert code == 0, server.log
        assert record.read_text() == "last closed\n"


def test_a_second_interrupt_ends_the_requests_in_flight(tmp_path: Path) -> None:
    folder, record = tmp_path / "models" / "last", tmp_path / "record.txt"
    write_model(folder, _definition(record))
    _write_code(folder, "last")
    with (
        serving(tmp_path / "models", tmp_path, "last") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        request = Request("last", [Tensor("x", "FP64", (1,), [45])])
        running = pool.submit(rest_infer, server.client, request)
        _until_calls_run(record, 1)
        started = time.monotonic()
        server.interrupt()
        time.sleep(1)
        assert server.running
        server.interrupt()
        server.wait_for_end()
        assert time.monotonic() - started < 44
        running.exception()


def test_a_model_defined_by_environment_alone_is_served(tmp_path: Path) -> None:
    source = tmp_path / "mounted"
    write_model(source, _definition(tmp_path / "record.txt"))
    (source / "model-settings.json").unlink()
    _write_code(source, "env")
    (tmp_path / "empty").mkdir()
    env = {
        "MLSERVER_MODEL_NAME": "from-env",
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_pyfunc.PyFuncRuntime",
        "MLSERVER_MODEL_URI": str(source),
    }
    with serving(tmp_path / "empty", tmp_path, "from-env", env=env) as server:
        assert _ask(server, "from-env") == "env word"
        assert server.client.get("/v2/models/from-env").json()["inputs"][0]["name"] == "x"


def test_a_model_defined_by_extra_in_the_environment_is_served(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    env = {
        "MLSERVER_MODEL_NAME": "extra-env",
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_pyfunc.PyFuncRuntime",
        "MLSERVER_MODEL_EXTRA": json.dumps({"function": _code(GOOD)}),
    }
    with serving(tmp_path / "empty", tmp_path, "extra-env", env=env) as server:
        assert _ask(server, "extra-env") == "a"
