"""Programs of torch.export. Loading one runs code, so it has to be asked for by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mlserver_pyfunc import Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.errors import ContractError

from .routes import answers, assert_equal, folder_of

pytestmark = [pytest.mark.needs("PyTorch"), pytest.mark.heavy]

ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def exported(path: Path, call: Any, *given: Any, rows: bool = True, **named: Any) -> Any:
    """Writes a program, and returns the module that it is made of."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 3)

    Net.forward = call
    dynamic = {0: torch.export.Dim("rows", min=1, max=64)}
    names = [*inspect.signature(call).parameters][1:]
    sizes = dict.fromkeys(names, dynamic) if rows else None
    program = torch.export.export(Net(), given, named, dynamic_shapes=sizes)
    torch.export.save(program, path)
    return program.module()


def served(tmp_path: Path, **serving: Any) -> Path:
    source = {"source": "../net.pt2", "format": "torch"}
    return folder_of(tmp_path / "served", source=source, serving=serving)


def scores(self: Any, x: Any, scale: Any) -> Any:
    logits = self.layer(x) * scale.unsqueeze(1)
    return {"logits": logits, "label": logits.argmax(1), "twice": logits.repeat(2, 1)}


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_by_every_route(isolation: str, tmp_path: Path) -> None:
    import torch

    x, scale = torch.randn(2, 4), torch.ones(2)
    module = exported(tmp_path / "net.pt2", scores, x, scale=scale)
    with torch.inference_mode():
        expected = module(torch.from_numpy(ROWS), scale=torch.arange(5.0))
    sent = {"x": ("FP32", ROWS), "scale": ("FP32", np.arange(5, dtype="f4"))}
    requests = [sent, {**sent, "scale": ("FP32", np.ones(4, "f4"))}]
    for route, (good, uneven) in answers(served(tmp_path, isolation=isolation), requests).items():
        assert_equal(good, {name: value.numpy() for name, value in expected.items()}), route
        assert 'axis "rows": expected 5' in str(uneven), route


def test_tells_names_datatypes_and_axes(tmp_path: Path) -> None:
    import torch

    exported(tmp_path / "net.pt2", scores, torch.randn(2, 4), scale=torch.ones(2))
    with Function.load(served(tmp_path)) as fn:
        fn(x=ROWS, scale=ROWS[:, 0])
        given = [(each.name, each.datatype, each.shape) for each in fn.definition.inputs]
        got = [(each.name, each.datatype, each.shape) for each in fn.definition.outputs]
        with pytest.raises(ContractError, match=r"expected shape \[-1, 4\]"):
            fn(x=ROWS[:, :2], scale=ROWS[:, 0])
    assert given == [("x", "FP32", ["rows", 4]), ("scale", "FP32", ["rows"])]
    logits, label = ("logits", "FP32", ["rows", 3]), ("label", "INT64", ["rows"])
    assert got == [logits, label, ("twice", "FP32", [-1, 3])]


def one(self: Any, x: Any) -> Any:
    return self.layer(x)


def two(self: Any, x: Any) -> Any:
    x.add_(1)
    return self.layer(x), x[0]


@pytest.mark.parametrize(("call", "names"), [(one, ["output"]), (two, ["output_0", "output_1"])])
def test_outputs_without_names_and_inputs_that_are_written(
    call: Any, names: list[str], tmp_path: Path
) -> None:
    import torch

    module = exported(tmp_path / "net.pt2", call, torch.randn(2, 4), rows=False)
    sent = ROWS[:2].copy()
    sent.flags.writeable = False
    with torch.inference_mode():
        expected = module(torch.from_numpy(ROWS[:2].copy()))
    expected = [expected] if torch.is_tensor(expected) else [*expected]
    with Function.load(served(tmp_path)) as fn:
        for _ in range(2):
            got = fn(x=sent)
            assert [*got] == names
            for array, tensor in zip(got.values(), expected, strict=True):
                assert np.array_equal(array, tensor.numpy())


def test_has_to_be_asked_for_by_name(tmp_path: Path) -> None:
    import torch

    exported(tmp_path / "net.pt2", one, torch.randn(2, 4))
    for command in (["validate"], ["run", "--random"], ["lock"]):
        done = CliRunner().invoke(main, [*command, str(tmp_path / "net.pt2")])
        assert done.exit_code != 0
        assert "write format: torch beside its source" in done.output


def as_bfloat16(self: Any, x: Any) -> Any:
    import torch

    return x.to(torch.bfloat16)


def test_what_the_protocol_does_not_have_is_named(tmp_path: Path) -> None:
    import torch

    exported(tmp_path / "net.pt2", as_bfloat16, torch.randn(2, 4))
    done = CliRunner().invoke(main, ["run", str(served(tmp_path)), "--random"])
    assert done.exit_code == 3
    assert '"net.pt2": tensor "output" is of bfloat16' in done.output


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", None])
def test_other_archives_are_refused(content: bytes | None, tmp_path: Path) -> None:
    import torch

    (tmp_path / "net.pt2").write_bytes(content or b"")
    if content is None:
        torch.save(torch.ones(1), tmp_path / "net.pt2")
    done = CliRunner().invoke(main, ["run", str(served(tmp_path)), "--random"])
    assert done.exit_code == 3
    assert '"net.pt2" cannot be loaded as torch' in done.output
