"""From `python_version` and `requirements` to an interpreter that satisfies them."""
