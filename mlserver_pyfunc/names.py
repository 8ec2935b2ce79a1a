"""The names under which a handler knows its inputs.

Needs only the standard library.
"""

from __future__ import annotations

import re


def parameter_name(tensor: str) -> str:
    """The handler's parameter that gets an input: `-` and `.` become `_`."""
    return re.sub(r"[-.]", "_", tensor)
