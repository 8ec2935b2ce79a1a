"""ONNX files: answers as ONNX Runtime gives them, and what their contract refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto as Type
from onnx import helper

from mlserver_pyfunc import Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.errors import ContractError, LoadError
from tests.parity import ROUTES

from .routes import answers, assert_equal, folder_of

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
DTYPES = {
    "float16": Type.FLOAT16, "float32": Type.FLOAT, "float64": Type.DOUBLE, "bool": Type.BOOL,
    "int8": Type.INT8, "int16": Type.INT16, "int32": Type.INT32, "int64": Type.INT64,
    "uint8": Type.UINT8, "uint16": Type.UINT16, "uint32": Type.UINT32, "uint64": Type.UINT64,
}  # fmt: skip


def save(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = ()) -> Path:
    values = [
        [helper.make_tensor_value_info(*each) for each in tensors] for tensors in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *values, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """A model with an input whose name is one of our reserved ones, and dots in its output's."""
    return save(
        tmp_path / "linear.onnx",
        [helper.make_node("MatMul", ["inputs", "w"], ["logits.0"])],
        [("inputs", Type.FLOAT, ["batch", 4])],
        [("logits.0", Type.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w")],
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_answers_as_onnx_runtime_does_on_every_route(
    isolation: str, linear: Path, tmp_path: Path
) -> None:
    folder = folder_of(
        tmp_path / "served", source="../linear.onnx", serving={"isolation": isolation}
    )
    batches = [np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32) for n in (1, 0, 33)]
    wrong = {"inputs": ("FP32", np.zeros((2, 3), np.float32))}
    sent = [{"inputs": ("FP32", batch)} for batch in batches]
    told = answers(folder, [*sent, wrong])
    assert told.keys() == set(ROUTES)
    for given in told.values():
        for batch, answer in zip(batches, given, strict=False):
            [expected] = session(linear).run(None, {"inputs": batch})
            assert_equal(answer, {"logits.0": expected})
        assert "expected shape [-1, 4], got [2, 3]" in str(given[-1])


def test_a_file_is_served_without_a_definition(linear: Path) -> None:
    batch = np.ones((2, 4), np.float32)
    told = answers(linear, [{"inputs": ("FP32", batch)}])
    for [answer] in told.values():
        assert_equal(answer, {"logits.0": batch @ WEIGHTS})


def test_the_contract_is_the_file_s(linear: Path) -> None:
    with Function.load(linear) as fn:
        assert fn.name == "linear"
        [given], [output] = fn.contract.inputs.values(), fn.contract.outputs.values()
        assert (given.datatype.name, given.shape, given.axes) == ("FP32", (-1, 4), ("batch", None))
        assert (output.name, output.axes) == ("logits.0", ("batch", None))
        with pytest.raises(ContractError, match="expected datatype FP32, got FP64"):
            fn(inputs=np.zeros((1, 4)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_carries_every_datatype(dtype: str, tmp_path: Path) -> None:
    kind = DTYPES[dtype]
    path = save(
        tmp_path / "same.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", kind, [None, "n m"])],
        [("y", kind, [None, None])],
    )
    sent = np.array([[0, 1], [1, 0]], dtype)
    with Function.load(path) as fn:
        got = fn(x=sent)["y"]
        assert fn.contract.inputs["x"].axes == ()
    assert got.dtype == sent.dtype
    assert np.array_equal(got, sent)


def test_text_is_bytes(tmp_path: Path) -> None:
    path = save(
        tmp_path / "text.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Type.STRING, ["n"])],
        [("y", Type.STRING, ["n"])],
    )
    words = np.array(["a", "žluťoučký", ""], object)
    for [answer] in answers(path, [{"x": ("BYTES", words)}]).values():
        assert_equal(answer, {"y": words})


def test_calls_share_the_cores(linear: Path, tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[int] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, **more: Any) -> None:
            asked.append(options.intra_op_num_threads)
            super().__init__(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for concurrency in (1, 3, 99):
        serving = {"concurrency": concurrency, "isolation": "none"}
        folder = folder_of(tmp_path / "served", source="../linear.onnx", serving=serving)
        with Function.load(folder) as fn:
            fn(inputs=np.zeros((1, 4), np.float32))
    assert asked == [8, 2, 1]


def test_a_definition_may_write_the_tensors(linear: Path, tmp_path: Path) -> None:
    tensor = {"name": "inputs", "datatype": "FP32", "shape": ["batch", 4], "maximum": 1}
    folder = folder_of(tmp_path / "served", source="../linear.onnx", inputs=[tensor])
    with Function.load(folder) as fn, pytest.raises(ContractError, match="values of 1 or less"):
        fn(inputs=np.full((1, 4), 2, np.float32))
    folder_of(tmp_path / "served", source="../linear.onnx", inputs=[{**tensor, "datatype": "FP64"}])
    with pytest.raises(LoadError, match="inputs of the model are inputs FP32; got inputs FP64"):
        Function.load(folder).contract  # noqa: B018


def test_init_writes_a_definition_to_edit(linear: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "served"), "--from", str(linear)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "served" / "function.yaml").read_text()
    assert "{name: inputs, datatype: FP32, shape: [batch, 4]}" in text
    with Function.load(tmp_path / "served") as fn:
        assert fn(inputs=np.ones((1, 4), np.float32))["logits.0"].shape == (1, 3)


def test_every_command_takes_the_file(linear: Path) -> None:
    commands = [
        ["validate", str(linear)],
        ["run", str(linear), "--random", "--json"],
        ["openapi", str(linear)],
        ["client", str(linear)],
        ["manifest", "kserve", str(linear), "--image", "registry.example/linear:1"],
        ["lock", str(linear)],
    ]
    for command in commands:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, (command, done.output)
    locked = (linear.parent / "function.lock").read_text()
    linear.write_bytes(linear.read_bytes() + b"\0")
    assert "sha256: " in locked
    done = CliRunner().invoke(main, ["run", str(linear), "--random"])
    assert "function.lock has sha256" in done.output


def test_an_image_has_the_file_and_its_runtime(linear: Path, tmp_path: Path) -> None:
    (linear.parent / "secret.txt").write_text("not part of the model")
    Function.load(linear).build_context(tmp_path / "context")
    context = tmp_path / "context"
    assert [path.name for path in (context / "function" / "source").iterdir()] == ["linear.onnx"]
    assert "onnxruntime==" in (context / "requirements.txt").read_text()
    with Function.load(context / "function") as fn:
        assert fn(inputs=np.ones((1, 4), np.float32))["logits.0"].shape == (1, 3)


class Marker:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["file", "definition"])
def test_a_pickle_is_refused_before_anything_runs(place: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "model.onnx").write_bytes(pickle.dumps(Marker(ran)))
    given = tmp_path / "model.onnx"
    if place == "definition":
        given = folder_of(tmp_path / "served", source="../model.onnx")
    for command in ("validate", "run"):
        done = CliRunner().invoke(main, [command, str(given)])
        assert done.exit_code != 0
        assert "a pickle, whose loading would run code" in done.output
    assert not ran.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\x08\x09garbage", b"<html>", b"\0" * 5000], ids=repr
)
def test_a_broken_file_has_one_clear_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content[:40])
    done = CliRunner().invoke(main, ["run", str(tmp_path / "model.onnx"), "--random"])
    assert done.exit_code != 0
    [line] = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert '"model.onnx"' in line
    assert "onnx" in line.partition('"model.onnx"')[2]


def test_tensors_beyond_the_protocol_are_named(tmp_path: Path) -> None:
    path = save(
        tmp_path / "half.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Type.BFLOAT16, [1])],
        [("y", Type.BFLOAT16, [1])],
    )
    done = CliRunner().invoke(main, ["run", str(path), "--random"])
    assert 'tensor "x" is of bfloat16, which the protocol does not have' in done.output


def test_a_missing_runtime_is_a_need_of_the_function(linear: Path, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "served",
        source="../linear.onnx",
        requirements=["onnxruntime<1"],
        serving={"isolation": "none"},
    )
    done = CliRunner().invoke(main, ["run", str(folder), "--random"])
    assert 'environment: expected "onnxruntime<1", installed is' in done.output


def test_the_json_form_reads_the_short_source(linear: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "served", source="../linear.onnx")
    (folder / "function.yaml").write_text(json.dumps({"source": "../linear.onnx"}))
    with Function.load(folder) as fn:
        assert list(fn.contract.inputs) == ["inputs"]


def test_code_has_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(x: float) -> float: return x")
    folder_of(tmp_path, source={"source": "m.py", "handler": "f", "model": "m.onnx"})
    done = CliRunner().invoke(main, ["validate", str(tmp_path)])
    assert "expected one of handler and model, got both" in done.output
    folder_of(tmp_path, source="m.py")
    done = CliRunner().invoke(main, ["validate", str(tmp_path)])
    assert "source.handler: missing" in done.output
