"""The one check that runs user code: loads the function and calls it."""

from __future__ import annotations

import random
from pathlib import Path

from mlserver_pyfunc.definition.folder import FunctionFolder, open_folder
from mlserver_pyfunc.errors import PyFuncError, RequestError
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.serving.local import LocalFunction

from .findings import Finding

CALLS = 3


def check_deeply(path: Path) -> list[Finding]:
    """Loads the function of a folder and calls it with random data that fits its contract."""
    folder = open_folder(path)
    try:
        with LocalFunction(folder) as function:
            return _called(folder, function)
    except PyFuncError as error:
        return [_finding("X701", folder, str(error))]


def _called(folder: FunctionFolder, function: LocalFunction) -> list[Finding]:
    for call in range(CALLS):
        source = random.Random(call)
        arrays = random_arrays(function.contract.inputs.values(), source)
        try:
            request = InferenceRequest.from_values(function.contract, arrays)
            for _ in function.infer_stream(request):
                pass
        except RequestError as error:
            # A status below 500 is an answer: the function may refuse random values.
            if error.status >= 500:
                return [_finding("X702", folder, f"{error}{_hint(function)}")]
    return []


def _hint(function: LocalFunction) -> str:
    """Says how to declare equal sizes, if random values had different ones for some axes."""
    shapes = [tensor.shape for tensor in function.definition.inputs]
    if sum(shape.count(-1) for shape in shapes) < 2:
        return ""
    return " (if sizes must be equal, give their axes one name in place of -1: shape: [rows])"


def _finding(rule: str, folder: FunctionFolder, message: str) -> Finding:
    where = Path(folder.located.where)
    return Finding(rule, message, where if where.is_file() else folder.located.folder, 1)
