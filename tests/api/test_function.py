"""Functions as objects: define, call, look, check, save."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlserver_pyfunc
from mlserver_pyfunc import Function
from mlserver_pyfunc.errors import ContractError, DefinitionError
from tests.places import FUNCTIONS, IRIS

X = {"name": "x", "datatype": "FP32", "shape": [-1], "description": "<any>"}
Y = {"name": "y", "datatype": "FP32", "shape": [-1]}


def script(tmp_path: Path, text: str) -> str:
    """Runs a script, whose functions belong to `__main__` as those of a notebook do."""
    file = tmp_path / "script.py"
    tensors = f"X, Y = {X!r}, {Y!r}\nfrom mlserver_pyfunc import Function\n"
    file.write_text(tensors + textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_s_function_takes_what_it_uses_along(tmp_path: Path) -> None:
    shown = script(
        tmp_path,
        """
        import multiprocessing  # it registers this module as `__mp_main__` too
        import numpy as np
        import xml.dom
        from dataclasses import dataclass
        from math import sqrt as root
        from numpy.typing import NDArray

        SCALES = {"a": [1.0, 2.0]}
        Rows = NDArray[np.float32]
        unused = object()

        @dataclass
        class Pair:
            scale: float
            shift: float

        def scaled(x: Rows) -> Rows:
            pair = Pair(*SCALES["a"])
            assert xml.dom.Node
            return x * pair.scale + pair.shift + root(4)

        def predict(x: Rows) -> Rows:
            unused = scaled(x)
            return unused

        with Function(predict, inputs=[X], outputs=[Y]) as fn:
            print(fn(x=[1])["y"].tolist(), (fn.folder / "model.py").read_text())
        """,
    )
    assert shown.startswith("[5.0]")
    assert "unused = object()" not in shown
    assert "__main__" not in shown
    assert "Function(" not in shown


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("model = np.zeros(3)\ndef predict(x): return model", '"model" is a ndarray'),
        ("def outer(k):\n    def predict(x): return k\n    return predict\npredict = outer(1)",
         '"predict" is defined inside another function'),
        ("predict = lambda x: x", "got a lambda"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_as_source_is_named(tmp_path: Path, code: str, named: str) -> None:
    shown = script(
        tmp_path,
        "import numpy as np\n" + code + "\n"
        "try:\n    Function(predict, inputs=[X], outputs=[Y])\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n",
    )
    assert shown.startswith("DefinitionError")
    assert named in shown


def test_a_function_of_a_file_is_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("SHIFT = 1\n")
    (tmp_path / "handlers.py").write_text(
        "from beside import SHIFT\nclass Adds:\n    def __call__(self, x): return x + SHIFT\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from handlers import Adds  # type: ignore[import-not-found]

    with Function(Adds, name="adds", inputs=[X], outputs=[Y]) as fn:
        assert fn(x=[1])["y"].tolist() == [2]
        assert (
            repr(fn) == f"Function(adds: x FP32 [-1] -> y FP32 [-1]; {tmp_path}/handlers.py:Adds)"
        )


def test_a_function_of_a_package_is_imported_from_it() -> None:
    with Function(np.flip, inputs=[{**X, "name": "m"}], outputs=[Y]) as fn:
        assert fn(m=[1, 2])["y"].tolist() == [2, 1]


def test_a_folder_is_opened_and_called_within_a_running_event_loop() -> None:
    async def cell() -> Any:
        with Function.load(FUNCTIONS / "flaky") as fn:
            assert list(fn.contract.inputs) == ["x"]
            with pytest.raises(ContractError, match='input "z"'):
                fn(z=1)
            return fn(x=[1, 2])

    (answer,) = asyncio.run(cell()).values()
    assert answer.tolist() == [2, 4]


def test_a_source_is_described_by_its_uri() -> None:
    fn = Function.from_source(f"file://{IRIS}/model.py", "IrisClassifier", name="i", outputs=[Y])
    assert (fn.name, fn.definition.source.handler) == ("i", "IrisClassifier")
    with pytest.raises(DefinitionError, match="requirements"):
        Function.from_source("x.py", "f", requirements=["not a requirement !"])


def test_it_shows_itself(tmp_path: Path) -> None:
    fn = Function(np.flip, name="<b>", inputs=[X], outputs=[Y], requirements=["numpy"])
    assert "x FP32 [-1] -> y FP32 [-1]" in repr(fn)
    page = fn._repr_html_()
    assert "&lt;b&gt;" in page
    assert "&lt;any&gt;" in page
    assert "requires numpy" in page


def test_a_saved_function_is_the_same_function(tmp_path: Path) -> None:
    with Function.load(FUNCTIONS / "flaky") as fn:
        folder = fn.save(tmp_path / "copy")
    with Function.load(folder) as copy:
        assert [a.tolist() for a in copy(x=[3]).values()] == [[6]]
        assert copy.name == "flaky"
        assert not [one for one in copy.validate() if one.severity == "error"]
        assert copy.lock() == folder / "function.lock"
        context = copy.build_context(tmp_path / "context")
    assert (context / "Dockerfile").is_file()
    with pytest.raises(DefinitionError, match="already"):
        copy.save(folder)


def test_its_folder_goes_with_it() -> None:
    fn = Function(np.flip, inputs=[X], outputs=[Y])
    folder = fn.folder
    assert folder.is_dir()
    del fn
    assert not folder.exists()


def test_the_root_lists_its_names_and_imports_none_of_them() -> None:
    assert set(mlserver_pyfunc.__all__) <= set(dir(mlserver_pyfunc))
    program = (
        "import sys, mlserver_pyfunc; dir(mlserver_pyfunc);"
        "print([m for m in ('numpy', 'pydantic', 'mlserver', 'click') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"


USER = """
from mlserver_pyfunc import Function, Model, Server, connect

def predict(x: float) -> float:
    return x

def main() -> None:
    fn = Function(predict, requirements=["numpy"], python_version="3.12", outputs=[{"name": "y"}])
    total: float = fn(x=[1.0])["y"].sum()
    server: Server = fn.serve()
    url: str = server.url
    model: Model = connect(url, "predict", headers={"a": "b"})
    again: list[int] = model.infer(x=1)["y"].tolist()
    server.infer(x=1)["y"].reshape(-1)
    server.pid.nothing
"""


def test_a_user_s_script_is_checked_strictly(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "user.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    assert len(errors) == 1, done.stdout + done.stderr
    assert '"int" has no attribute "nothing"' in errors[0]


def test_the_signature_of_the_handler_tells_the_tensors(tmp_path: Path) -> None:
    shown = script(
        tmp_path,
        """
        from typing import Annotated
        import numpy as np
        from numpy.typing import NDArray
        from mlserver_pyfunc import Tensor

        Rows = Annotated[NDArray[np.float32], Tensor("rows", 2)]

        class Sums:
            def __call__(self, rows: Rows, times: int = 3) -> float:
                return float(rows.sum()) * times

        fn = Function(Sums, name="sums")
        print(fn)
        print(fn(rows=[[1, 2]])["output"].tolist(), list(fn.contract.inputs))
        loaded = Function.load(fn.save("saved"))
        print(loaded)
        print("from mlserver_pyfunc import Tensor" in (fn.folder / "model.py").read_text())
        """,
    )
    assert shown.splitlines() == [
        "Function(sums: rows FP32 [rows, 2], times INT64 [1] -> output FP64 [1]; model.py:Sums)",
        "[9.0] ['rows', 'times']",
        "Function(sums: the code tells its tensors; model.py:Sums)",
        "True",
    ]


def test_a_handler_in_a_file_is_loaded_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def double(x: float) -> float: return 2 * x\n")
    with Function.load(f"{tmp_path}/model.py:double") as fn:
        assert fn(x=2)["output"].tolist() == [4]
