"""Names: handler parameters of tensors, and datatypes as other libraries call them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

# What NumPy, Python, PyTorch and Triton call the protocol's datatypes.
_ELSEWHERE = {
    "BOOLEAN": "BOOL",
    "BYTE": "UINT8",
    "INT": "INT64",
    "LONG": "INT64",
    "HALF": "FP16",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "STR": "BYTES",
    "STRING": "BYTES",
    "TEXT": "BYTES",
    "OBJECT": "BYTES",
}


def parameter_name(tensor: str) -> str:
    """The handler's parameter that gets an input: `-` and `.` become `_`."""
    return re.sub(r"[-.]", "_", tensor)


def suggest_datatype(name: str, known: Sequence[str]) -> str:
    """The datatype that another name may mean; empty where none does.

    Args:
        name: As it was written.
        known: The protocol's names.
    """
    upper = name.upper().removeprefix("TYPE_").removeprefix("NP.").removeprefix("TORCH.")
    upper = upper.replace("FLOAT", "FP") if upper[-2:].isdigit() else upper
    meant = _ELSEWHERE.get(upper, upper)
    if meant in known:
        return meant
    return next(iter(difflib.get_close_matches(meant, known, n=1, cutoff=0.8)), "")
