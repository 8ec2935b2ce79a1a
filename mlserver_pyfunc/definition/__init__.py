"""The function definition, read from YAML, JSON or a digitalhub spec."""

from .fields import PYTHON_VERSIONS
from .models import (
    BatchDefinition,
    FunctionDefinition,
    ServingDefinition,
    SourceDefinition,
    TensorDefinition,
    json_schema,
)
from .reading import FILE_NAME, Problem, parse, problems, read

__all__ = [
    "FILE_NAME",
    "PYTHON_VERSIONS",
    "BatchDefinition",
    "FunctionDefinition",
    "Problem",
    "ServingDefinition",
    "SourceDefinition",
    "TensorDefinition",
    "json_schema",
    "parse",
    "problems",
    "read",
]
