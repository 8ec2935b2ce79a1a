"""Interpreters for functions: from `python_version` and `requirements` to an environment."""
