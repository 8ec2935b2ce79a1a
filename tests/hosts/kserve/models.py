"""Functions that the server of KServe serves besides those of MLServer's tests."""

from __future__ import annotations

from tests.hosts.mlserver.models import inline, tensor

MORE = {
    "joined": inline(
        """
import time, numpy as np
def f(x):
    time.sleep(1)  # The calls that come meanwhile wait, and are joined.
    return {'y': x, 'rows': np.full(len(x), len(x))}
""",
        "f",
        {
            "inputs": [tensor("x", "FP32", [-1])],
            "outputs": [tensor("y", "FP32", [-1]), tensor("rows", "INT64", [-1])],
        },
        batch={"max_size": 8, "max_delay_ms": 200},
        concurrency=1,
    ),
    "tuned": inline(
        "import gc\ndef f(x): return x + gc.get_threshold()[0]",
        "f",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("y", "INT64", [1])]},
    ),
    "pair": inline(
        "def f(a, b): return a + b",
        "f",
        {
            "inputs": [tensor("a", "FP32", [-1]), tensor("b", "FP32", [-1])],
            "outputs": [tensor("c", "FP32", [-1])],
        },
    ),
    "bits": inline(
        "def f(data): return [each[::-1] for each in data]",
        "f",
        {"inputs": [tensor("data", "BYTES", [-1])], "outputs": [tensor("back", "BYTES", [-1])]},
    ),
    "whoami": inline(
        "import os\ndef f(x): return [os.getpid()]",
        "f",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("pid", "INT64", [1])]},
        isolation="process",
    ),
    "spare": inline(
        "def f(x): return x",
        "f",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("y", "INT64", [1])]},
    ),
    "modules": inline(
        "import json, sys\n"
        "def f(x): return json.dumps([name for name, module in sys.modules.items() if module])",
        "f",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("names", "BYTES", [])]},
    ),
    "told": inline(
        "import json\n"
        "def f(request, headers):\n"
        "    return json.dumps([headers['x-trace'], dict(request.parameters)])",
        "f",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("seen", "BYTES", [])]},
    ),
}
