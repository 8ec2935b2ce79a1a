"""The columns of the workloads, for servers and client alike. Needs only NumPy."""

import numpy as np

ROWS = {"t1": 10, "t2": 100_000, "t3": 10}
KINDS = {
    "t1": {
        **{f"i{index}": int for index in range(13)},
        **{f"f{index}": float for index in range(13)},
        **{f"b{index}": bool for index in range(5)},
        **{f"s{index}": str for index in range(8)},
    },
    "t2": {f"f{index}": float for index in range(10)},
    "t3": {"text": str, "city": str, "age": int, "income": float},
}
_WORDS = ["good", "bad", "slow", "quick", "broken", "lovely", "late", "cheap"]
_CITIES = ["Kyiv", "Oslo", "Lima", "São Paulo"]


def columns(workload, rows=0, seed=0):
    """Returns the columns of a workload as lists, by name."""
    random = np.random.default_rng(seed)
    rows = rows or ROWS[workload]

    def texts(name):
        if name == "city":
            return [_CITIES[index] for index in random.integers(0, len(_CITIES), rows)]
        picked = random.integers(0, len(_WORDS), (rows, 5))
        return [" ".join(_WORDS[index] for index in row) for row in picked]

    values = {
        int: lambda _: random.integers(18, 80, rows).tolist(),
        float: lambda _: random.random(rows).round(4).tolist(),
        bool: lambda _: (random.random(rows) < 0.5).tolist(),
        str: texts,
    }
    return {name: values[kind](name) for name, kind in KINDS[workload].items()}
