"""The function definition: what a function is, read from YAML, JSON or a digitalhub spec."""

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
