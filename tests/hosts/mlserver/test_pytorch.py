"""Tensors of PyTorch as arguments and results, with PyTorch itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlserver_pyfunc.errors import LoadError, ResponseError
from mlserver_pyfunc.testing import Server, load
from tests.parity import assert_parity

pytestmark = [pytest.mark.needs("PyTorch"), pytest.mark.heavy]

CODE = """
from typing import Annotated, TypedDict

import torch
from jaxtyping import Bool, Float32, Int64

from mlserver_pyfunc import Tensor


class Answer(TypedDict):
    doubled: Float32[torch.Tensor, "rows 4"]
    turned: Float32[torch.Tensor, "4 rows"]
    every_other: Float32[torch.Tensor, "rows 2"]
    above: Bool[torch.Tensor, "rows"]
    largest: Int64[torch.Tensor, "rows"]
    total: Annotated[torch.Tensor, Tensor(1, datatype="FP64")]


def predict(
    rows: Float32[torch.Tensor, "rows 4"],
    count: Annotated[torch.Tensor, Tensor(1, datatype="INT8")],
) -> Answer:
    assert type(rows) is torch.Tensor and rows.dtype == torch.float32
    assert type(count) is torch.Tensor and count.dtype == torch.int8
    weight = torch.full((4,), 2.0, requires_grad=True)
    doubled = rows * weight
    assert doubled.requires_grad
    rows += 1  # its own copy: no other call sees it
    return {
        "doubled": doubled,
        "turned": rows.T,
        "every_other": rows[:, ::2],
        "above": rows[:, 0] > 0,
        "largest": rows.argmax(dim=1) if len(rows) else rows[:, 0].long(),
        "total": doubled.double().sum() + count,
    }
"""


@pytest.fixture(params=["none", "process"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path, CODE, request.param)


def written(folder: Path, code: str, isolation: str) -> Path:
    source = "{source: model.py, handler: predict}"
    text = f"model_name: torched\nsource: {source}\nserving: {{isolation: {isolation}}}\n"
    (folder / "function.yaml").write_text(text)
    (folder / "model.py").write_text(code)
    return folder


def test_tensors_are_arguments_and_results(folder: Path) -> None:
    rows = np.array([[1, 2, 3, 4], [-5, 0, 0, 2]], np.float32)
    with load(folder) as function:
        shapes = {tensor.name: tensor.shape_text for tensor in function.definition.outputs}
        assert (shapes["doubled"], shapes["turned"]) == ("[rows, 4]", "[4, rows]")
        answer = function(rows=rows, count=[3])
    assert answer["doubled"].tolist() == (rows * 2).tolist()
    assert answer["turned"].tolist() == (rows + 1).T.tolist()
    assert answer["every_other"].tolist() == (rows + 1)[:, ::2].tolist()
    assert answer["above"].tolist() == [True, False]
    assert answer["largest"].tolist() == [3, 3]
    assert answer["total"].tolist() == [17]


def test_every_route_answers_equally(folder: Path) -> None:
    with load(folder) as function:
        definition = function.definition
    with Server(folder) as server:
        report = assert_parity(server, definition, model="torched", requests=5)
    assert report.routes == ["REST JSON", "REST binary", "gRPC typed", "gRPC raw"]


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("x.bfloat16()", r"got one of torch.bfloat16 \(convert it in the handler: \.float\(\)\)"),
        ("x.to_sparse()", r"got one of torch.float32 \(.*to_dense"),
    ],
)
def test_what_numpy_has_not_is_said(
    result: str, message: str, isolation: str, tmp_path: Path
) -> None:
    hint = "Float32[torch.Tensor, 'n']"
    code = "import torch\nfrom jaxtyping import Float32\n"
    code += f"def predict(x: {hint}) -> {hint}: return {result}\n"
    raised = pytest.raises(ResponseError, match=f'output "output" .*{message}')
    with load(written(tmp_path, code, isolation)) as function, raised:
        function(x=[1.0, 0.0])


def test_an_annotation_of_bfloat16_is_no_datatype(tmp_path: Path) -> None:
    code = "import torch\nfrom jaxtyping import BFloat16\n"
    code += "def predict(x: BFloat16[torch.Tensor, 'n']) -> float: return 1.0\n"
    with pytest.raises(LoadError, match=r"BFloat16.* admits no datatype of the protocol"):
        load(written(tmp_path, code, "none"))
