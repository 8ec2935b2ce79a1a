from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlserver_pyfunc.client.playground import model_page
from mlserver_pyfunc.definition import PYTHON_VERSIONS, parse
from mlserver_pyfunc.definition.locate import FunctionFolder
from mlserver_pyfunc.errors import ContractError, LoadError, ResponseError
from mlserver_pyfunc.serving.local import LocalFunction
from mlserver_pyfunc.validation import validate
from tests.needs import require

EVERY_KIND = '''
from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal, NamedTuple, Optional, TypedDict, Union

import numpy as np
from numpy.typing import NDArray

from mlserver_pyfunc import Tensor


class Color(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Place:
    """Where.

    Attributes:
        lat: Degrees north.
    """

    lat: float
    lon: float = 0.0
    tags: list[str] = field(default_factory=list)


class Result(TypedDict):
    total: float
    when: datetime.datetime
    colors: list[Color]
    rows: Annotated[NDArray[np.float32], Tensor("n", 2)]


def handler(
    rows: Annotated[NDArray[np.float32], Tensor("n", 2, description="Rows", labels=["x", "y"])],
    place: Place,
    color: Color,
    at: datetime.datetime,
    level: Literal[1, 2, 3] = 2,
    note: Optional[str] = None,
    raw: bytes = b"",
    weights: Union[Sequence[float], None] = None,
    flag: bool = False,
) -> Result:
    """Adds up.

    Args:
        color: Which color.
        level: How much.

    Returns:
        All of it.
    """
    assert isinstance(place, Place) and isinstance(color, Color), (place, color)
    assert type(level) is int and type(flag) is bool and type(raw) is bytes
    total = float(rows.sum()) + place.lat + place.lon + level + sum(weights or [])
    return {"total": total, "when": at, "colors": [color], "rows": rows}
'''

REQUEST = {
    "rows": np.ones((2, 2), np.float32), "lat": 1.5, "color": "red", "at": "2025-01-31T10:00:00",
    "level": 3, "weights": [1, 2],
}  # fmt: skip


def loaded(code: str, handler: str = "handler", **more: Any) -> LocalFunction:
    fields = {"source": {"code": code, "handler": handler}, **more}
    folder = Path(__file__).parent
    return LocalFunction(FunctionFolder(parse(fields), folder, "here", "m", None, None))


def contract_of(function: LocalFunction) -> Any:
    dumped = function.definition.model_dump(include={"inputs", "outputs", "description"})
    return {key: dumped[key] for key in ("inputs", "outputs", "description")}


@pytest.mark.parametrize("version", PYTHON_VERSIONS)
def test_every_python_derives_the_same_contract_in_its_workers(version: str) -> None:
    require(f"Python {version}")
    with loaded(EVERY_KIND) as here:
        expected, answer = contract_of(here), here(**REQUEST)
    serving = {"isolation": "process"}
    with loaded(EVERY_KIND, python_version=version, serving=serving) as function:
        assert function.function.metadata["python"].startswith(f"{version}.")
        assert contract_of(function) == expected
        for name, array in function(**REQUEST).items():
            np.testing.assert_array_equal(array, answer[name])


def test_everything_an_annotation_tells_is_in_the_definition() -> None:
    with loaded(EVERY_KIND) as function:
        definition = function.definition
        answer = function(**REQUEST)
    tensors = {tensor.name: tensor for tensor in definition.inputs}
    assert [*tensors] == [
        "rows", "lat", "lon", "tags", "color", "at", "level", "note", "raw", "weights", "flag",
    ]  # fmt: skip
    assert tensors["rows"].shape == ["n", 2]
    assert tensors["rows"].labels == ["x", "y"]
    assert tensors["color"].enum == ["red", "blue"]
    assert (tensors["level"].enum, tensors["level"].default) == ([1, 2, 3], 2)
    assert (tensors["note"].optional, tensors["note"].default) == (True, None)
    described = {name: each.description for name, each in tensors.items() if each.description}
    assert described == {
        "rows": "Rows", "lat": "Degrees north.", "color": "Which color.", "level": "How much.",
    }  # fmt: skip
    assert definition.description == "Adds up."
    assert [tensor.name for tensor in definition.outputs] == ["total", "when", "colors", "rows"]
    assert answer["total"].tolist() == [11.5]
    assert answer["when"].tolist() == ["2025-01-31T10:00:00"]
    assert answer["colors"].tolist() == ["red"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"level": 4}, 'input "level" of model "m": expected one of 1, 2, 3, got 4 at index 0'),
        ({"color": "green"}, 'expected one of "red", "blue", got \'green\' at index 0'),
        (
            {"at": "today"},
            'input "at" of model "m": expected a datetime in ISO 8601, got \'today\'',
        ),
        ({"flag": 1}, 'input "flag" of model "m": expected true or false, got 1'),
    ],
)
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_values_are_checked(given: dict[str, Any], message: str, isolation: str) -> None:
    with loaded(EVERY_KIND, serving={"isolation": isolation}) as function:
        with pytest.raises(ContractError) as caught:
            function(**{**REQUEST, **given})
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def handler(x) -> int: ...", 'handler parameter "x": it has no annotation; write its'),
        ("def handler(x: int): ...", "the result of the handler: it has no annotation; write"),
        ("def handler(x: dict) -> int: ...", 'handler parameter "x": dict is no tensor; write'),
        (
            "def handler(x: 'Later') -> int: ...",
            'the annotation "Later" cannot be evaluated from the top of its module',
        ),
        ("def handler(x: int) -> dict: ...", "the result of the handler: dict is no tensor"),
        ("def handler(x: int) -> None: ...", "the result of the handler: None is no tensor"),
        (
            "import numpy as np\nfrom numpy.typing import NDArray\n"
            "def handler(x: NDArray[np.int8]) -> int: ...",
            'parameter "x": NDArray[int8] tells no shape; write its type, such as x: float or x: '
            "Annotated[NDArray[np.float32], Tensor(-1, 4)], or add to the definition's inputs "
            "- {name: x, datatype: FP32, shape: [-1]}",
        ),
        (
            "import numpy as np\ndef handler(x: np.ndarray) -> int: ...",
            "np.ndarray tells no datatype and no shape",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
            "def handler(a: A, x: int) -> int: ...",
            'two inputs of the handler are called "x" (in "a", "x"): rename one',
        ),
    ],
)
def test_what_cannot_be_derived_is_a_load_error_with_what_to_write(code: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        loaded(code)
    assert message in str(caught.value)


X = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
Y = [{"name": "y", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(
    "annotation", ["", ": np.ndarray", ": NDArray[np.float32]", ": float", ": 'Missing'", ": Any"]
)
def test_an_array_stays_an_array_where_the_annotation_does_not_fit(annotation: str) -> None:
    imports = "import numpy as np\nfrom numpy.typing import NDArray\nfrom typing import Any\n"
    code = f"{imports}def handler(x{annotation}, k: int = 3): return x.astype(float) * k"
    with loaded(code, inputs=X, outputs=Y) as function:
        assert function(x=[1, 2])["y"].tolist() == [3, 6]
        assert [*function.contract.inputs] == ["x"]


def test_a_written_input_of_one_value_becomes_the_value_that_is_annotated() -> None:
    k = {"name": "k", "datatype": "INT32", "shape": [1], "optional": True}
    code = "def handler(x, k: int = 3): return x * k if type(k) is int else 0"
    with loaded(code, inputs=[*X, k], outputs=Y) as function:
        assert function(x=[1.0], k=2)["y"].tolist() == [2]
        assert function(x=[1.0])["y"].tolist() == [3]


def test_a_definition_overrides_single_tensors() -> None:
    code = (
        "from typing import TypedDict\n"
        "class R(TypedDict):\n    a: float\n    b: int\n"
        "def handler(x: list[float], k: int, j: int = 1) -> R:\n"
        "    return {'a': sum(x), 'b': k + j}"
    )
    a = [{"name": "a", "datatype": "FP32", "shape": [1], "description": "written"}]
    with loaded(code, inputs=X, outputs=a) as function:
        inputs, outputs = function.definition.inputs, function.definition.outputs
        assert [(t.name, t.datatype) for t in inputs] == [
            ("x", "FP32"), ("k", "INT64"), ("j", "INT64"),
        ]  # fmt: skip
        assert [(t.name, t.datatype) for t in outputs] == [("a", "FP32"), ("b", "INT64")]
        assert outputs[0].description == "written"
        assert function(x=[1.5, 2], k=4)["b"].tolist() == [5]


def test_an_explicit_empty_list_of_inputs_is_kept() -> None:
    with loaded("def handler(k: int = 3) -> int: return k", inputs=[]) as function:
        assert not function.contract.inputs
        assert function()["output"].tolist() == [3]


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("written", [{}, {"inputs": X, "outputs": Y}])
def test_request_parameters_reach_annotated_parameters(
    isolation: str, written: dict[str, Any]
) -> None:
    code = (
        "def handler(x: list[float], scale: float = 1.0, other=0, mode: str = '') -> list[float]:\n"
        "    return [scale * each + other for each in x]"
    )
    with loaded(code, **written, serving={"isolation": isolation}) as function:
        tensor = {"name": "x", "datatype": function.definition.inputs[0].datatype}
        body: Any = {"inputs": [{**tensor, "shape": [1], "data": [2.0]}]}

        def answer(**parameters: Any) -> Any:
            return function.request({**body, "parameters": parameters})["outputs"][0]["data"]

        assert answer() == [2]
        assert answer(scale=3, unknown="x", other=7, mode="fast") == [6]
        with pytest.raises(ContractError, match=r'parameter "scale" of model "m": expected num'):
            answer(scale="much")


STYLES = {
    "Google": "Does.\n\n    Args:\n        x: The value.\n\n    Returns:\n        Twice it.\n    ",
    "NumPy": "Does.\n\n    Parameters\n    ----------\n    x : int\n        The value.\n\n"
    "    Returns\n    -------\n    int\n        Twice it.\n    ",
    "Sphinx": "Does.\n\n    :param x: The value.\n    :returns: Twice it.\n    ",
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_describe(style: str) -> None:
    code = f'def handler(x: int) -> int:\n    """{STYLES[style]}"""\n    return 2 * x\n'
    with loaded(code) as function:
        definition = function.definition
        assert definition.inputs[0].description == "The value."
        assert definition.outputs[0].description == "Twice it."
        assert definition.description == "Does."


ROW = "class Row(NamedTuple):\n    name: str\n    score: float\n"


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ("list[Row]", "[Row('a', 1.0), Row('b', 2.0)]"),
        ("Annotated[pd.DataFrame, Row]", "pd.DataFrame({'name': ['a', 'b'], 'score': [1.0, 2]})"),
    ],
)
def test_rows_give_a_tensor_for_each_column(result: str, value: str) -> None:
    imports = "import pandas as pd\nfrom typing import Annotated, NamedTuple\n"
    with loaded(f"{imports}{ROW}def handler(n: int) -> {result}: return {value}") as function:
        shapes = [(t.name, t.datatype, t.shape) for t in function.definition.outputs]
        assert shapes == [("name", "BYTES", [-1]), ("score", "FP64", [-1])]
        answer = function(n=1)
        assert (answer["name"].tolist(), answer["score"].tolist()) == (["a", "b"], [1, 2])


@pytest.mark.parametrize("value", ["[Row(1), Row(2)]", "[{'a': 1}, {'a': 2}]"])
def test_rows_of_one_field_give_its_column(value: str) -> None:
    row = "from typing import NamedTuple\nclass Row(NamedTuple):\n    a: int\n"
    with loaded(f"{row}def handler(n: int) -> list[Row]: return {value}") as function:
        assert function(n=1)["a"].tolist() == [1, 2]


def test_a_data_frame_gives_columns_to_written_outputs_and_a_matrix_to_one() -> None:
    code = "import pandas as pd\ndef handler(): return pd.DataFrame({'a': [1, 2], 'b': [0.5, 1]})"
    columns = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "ab"]
    with loaded(code, inputs=[], outputs=columns) as function:
        assert function()["b"].tolist() == [0.5, 1]
    matrix = [{"name": "m", "datatype": "FP64", "shape": [-1, 2]}]
    with loaded(code, inputs=[], outputs=matrix) as function:
        assert function()["m"].tolist() == [[1, 0.5], [2, 1]]
    assert pd.__version__


def test_a_pydantic_model_refuses_values_with_status_400() -> None:
    code = (
        "import pydantic\n"
        "class Range(pydantic.BaseModel):\n    low: int\n    high: int\n"
        "    @pydantic.model_validator(mode='after')\n"
        "    def ordered(self):\n"
        "        if self.low > self.high: raise ValueError('low is above high')\n"
        "        return self\n"
        "def handler(range: Range) -> int: return range.high - range.low"
    )
    with loaded(code) as function:
        assert function(low=1, high=3)["output"].tolist() == [2]
        with pytest.raises(ContractError, match=r'input "low, high" .*low is above high'):
            function(low=3, high=1)


class Tensor:
    """What is used of torch.Tensor. PyTorch itself is too large for the tests."""

    __module__ = "torch"

    def __init__(self, array: Any) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self.array


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("torch")
    module.Tensor, module.from_numpy = Tensor, Tensor
    monkeypatch.setitem(sys.modules, "torch", module)


ITEM = """
    @dataclass
    class Item:
        n: int
        color: 'Color'
    class Color(Enum):
        RED = "red"
"""
METHOD = f"class Model:{ITEM}\n    def handler(self, item: Item) -> Color: return item.color\n"
BY_PATH = f"class Model:{ITEM}\ndef handler(item: 'Model.Item') -> Model.Color: return item.color\n"
LOCAL = """
def make():
    @dataclass
    class Item:
        n: int
    class Color(Enum):
        RED = "red"
    def handler(item: Item, color: Color) -> Color:
        assert isinstance(item, Item)
        return Color(color)
    return handler
handler = make()
"""


@pytest.mark.parametrize("imports", ["", "from __future__ import annotations\n"])
@pytest.mark.parametrize(
    ("code", "handler", "unknown"),
    [(METHOD, "Model.handler", []), (BY_PATH, "handler", []), (LOCAL, "handler", ["C409"])],
)
def test_classes_in_classes_and_functions_are_annotations(
    imports: str, code: str, handler: str, unknown: list[str], tmp_path: Path
) -> None:
    code = f"{imports}from dataclasses import dataclass\nfrom enum import Enum\n{code}"
    with loaded(code, handler) as function:
        assert [(t.name, t.enum) for t in function.definition.inputs][1] == ("color", ["red"])
        assert function(n=1, color="red")["output"].tolist() == ["red"]
    (tmp_path / "model.py").write_text(code)
    assert [each.rule for each in validate(tmp_path / f"model.py:{handler}")] == unknown


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize(
    ("annotation", "shape"),
    [("A[torch.Tensor, Tensor(-1, 2, datatype='FP32')]", [-1, 2]),
     ("Float32[torch.Tensor, 'rows 2']", ["rows", 2])],
)  # fmt: skip
def test_pytorch_tensors_both_ways(annotation: str, shape: Any) -> None:
    code = (
        "import torch\nfrom typing import Annotated as A\nfrom jaxtyping import Float32\n"
        "from mlserver_pyfunc import Tensor\n"
        f"def handler(x: {annotation}) -> {annotation}:\n"
        "    assert isinstance(x, torch.Tensor)\n    return torch.Tensor(x.array * 2)"
    )
    with loaded(code) as function:
        assert function.definition.inputs[0].shape == shape
        assert function(x=[[1.0, 2.0]])["output"].tolist() == [[2, 4]]


def test_named_axes_of_jaxtyping_are_equal() -> None:
    code = (
        "import numpy as np\nfrom jaxtyping import Float32, Int64\n"
        "def handler(a: Float32[np.ndarray, 'n 2'], b: Int64[np.ndarray, 'n']"
        ") -> Float32[np.ndarray, 'n']: return a.sum(axis=1)[:1]"
    )
    with loaded(code) as function:
        with pytest.raises(ContractError, match='axis "n": expected 2 as in input "a", got 1'):
            function(a=[[1.0, 2.0], [3.0, 4.0]], b=[1])
        with pytest.raises(ResponseError, match='axis "n": expected 2'):
            function(a=[[1.0, 2.0], [3.0, 4.0]], b=[1, 2])


def test_an_optional_result_may_be_none() -> None:
    with loaded("def handler(x: int) -> int | None: return x or None") as function:
        assert function(x=2)["output"].tolist() == [2]
        assert function(x=0) == {}


def test_a_default_that_json_has_not_is_not_shown() -> None:
    parameters = "x: float = float('inf'), y: bytes = b'z', z: list[int] = []"
    code = f"def handler({parameters}) -> float: return x"
    with loaded(code) as function:
        assert [(t.optional, t.default) for t in function.definition.inputs] == [(True, None)] * 3
        assert function()["output"].tolist() == [float("inf")]


def test_nested_lists_of_dates_and_tuples_of_members() -> None:
    code = (
        "import datetime\nfrom enum import IntEnum\n"
        "class N(IntEnum):\n    ONE = 1\n    TWO = 2\n"
        "def handler(days: list[list[datetime.date]], n: tuple[N, ...]) -> list[list[int]]:\n"
        "    assert n == (N.ONE, N.TWO) and type(n) is tuple and type(n[0]) is N\n"
        "    return [[day.year for day in row] for row in days]"
    )
    with loaded(code) as function:
        answer = function(days=[["2024-01-01", "2025-01-01"]], n=[1, 2])
        assert answer["output"].tolist() == [[2024, 2025]]
        with pytest.raises(ContractError, match=r"expected a date in ISO 8601, got 'x'"):
            function(days=[["x"]], n=[1, 2])


def test_the_playground_begins_with_a_value_that_is_allowed() -> None:
    code = (
        "from typing import Annotated, Literal\nfrom annotated_types import Ge\n"
        "def handler(a: Literal['x', 'y'], b: Annotated[int, Ge(5)], c: float = 2.5) -> int: ..."
    )
    with loaded(code) as function:
        body = model_page(function.definition, "m", None, {}, streams=False).body
    for text in ('"data": ["\\"x\\""]', '"data": ["5"]', '"data": ["2.5"]'):
        assert text in body
