"""Names of handler parameters, and the names that other libraries give to datatypes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

# Names of NumPy, Python, PyTorch and Triton for the protocol's datatypes.
_FOREIGN_NAMES = {
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
    """Returns the name of the handler parameter for an input: `-` and `.` become `_`."""
    return re.sub(r"[-.]", "_", tensor)


def suggest_datatype(name: str, known: Sequence[str]) -> str:
    """Returns the datatype that a wrong name probably means; empty if there is none."""
    upper = name.upper().removeprefix("TYPE_").removeprefix("NP.").removeprefix("TORCH.")
    upper = upper.replace("FLOAT", "FP") if upper[-2:].isdigit() else upper
    meant = _FOREIGN_NAMES.get(upper, upper)
    return next(iter(difflib.get_close_matches(meant, known, n=1, cutoff=0.8)), "")
