"""The types of a definition's values, and how a value that arrives as text is read."""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticKnownError, to_jsonable_python

from mlserver_pyfunc.protocol.names import suggest_datatype
from mlserver_pyfunc.settings import parse_bytes

from .yaml_reader import YamlError, load

PYTHON_VERSIONS = ("3.10", "3.11", "3.12", "3.13")
MAX_RANK = 32
MAX_ELEMENTS = 2**40
"""Largest number of elements of a declared shape, with -1 and names counted as 1."""
_AXIS_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

_Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip


def parsed(value: Any) -> Any:
    """Parses a list or mapping that arrives as text: Seldon sends every parameter as text."""
    if not isinstance(value, str):
        return value
    try:
        found = load(value, "text")
    except YamlError:
        return value
    return found if isinstance(found, list | dict) else value


def _json_values(value: Any) -> Any:
    """Makes values what JSON makes of them: a function gets the same in process and in a worker."""
    try:
        return to_jsonable_python(value)
    except ValueError as error:
        raise ValueError(f"expected values that JSON can carry: {error}") from None


def _lines(value: Any) -> Any:
    value = parsed(value)
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _python_version(value: Any) -> Any:
    if value == 3.1:
        raise ValueError('got the number 3.1: write it in quotes, "3.10"')
    match = re.fullmatch(r"(?:PYTHON)?(\d+)[._](\d+)(?:\.\d+)?", str(value), re.IGNORECASE)
    version = f"{match[1]}.{match[2]}" if match else value
    if version not in PYTHON_VERSIONS:
        raise ValueError(f'expected one of {", ".join(PYTHON_VERSIONS)}, got "{value}"')
    return version


def _version(value: Any) -> Any:
    if isinstance(value, float):
        # YAML has already read 1.10 as 1.1.
        raise ValueError(f'got the number {value}: write it in quotes, as "{value}"')
    return _text(value)


def _requirement(value: str) -> str:
    if re.match(r"-|.*\.(txt|in|toml|lock|cfg)$", value):
        what = "an option of pip" if value.startswith("-") else "a file"
        raise ValueError(f'"{value}" is {what}, expected the packages themselves, one a line')
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f'"{value}" is no requirement such as "numpy>=1.26": {reason}') from None
    return value


def _handler_path(value: str) -> str:
    if not re.fullmatch(r"(?:[^\W\d]\w*(?:\.[^\W\d]\w*)*:)?[^\W\d]\w*(?:\.[^\W\d]\w*)*", value):
        raise ValueError(f'expected "module.path:callable" or "callable", got "{value}"')
    return value


def _sample_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f'expected a path in the folder of the definition, got "{value}"')
    return value


def _datatype(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    known: tuple[str, ...] = get_args(_Datatype)
    if value.upper() in known:
        return value.upper()
    meant = suggest_datatype(value, known)
    hint = f'did you mean "{meant}"?' if meant else f"expected one of {', '.join(known)}"
    raise ValueError(f'unknown datatype "{value}", {hint}')


def _axis(value: Any) -> Any:
    """Reads a size or the name of an axis; a size may be text."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < -1:
            raise PydanticKnownError("greater_than_equal", {"ge": -1})
        return value
    if isinstance(value, str) and re.fullmatch(_AXIS_NAME, value):
        return value
    # YAML reads the words yes, no, on and off as true and false.
    hint = ", write the name in quotes" if isinstance(value, bool) else ""
    got = json.dumps(value, default=str)[:80]
    raise ValueError(f"expected a size, -1, or a name such as rows, got {got}{hint}")


def _shape(value: list[int | str]) -> list[int | str]:
    if math.prod(abs(size) or 1 for size in value if isinstance(size, int)) > MAX_ELEMENTS:
        raise ValueError(f"expected up to {MAX_ELEMENTS} elements, got shape {value}")
    return value


FROM_TEXT = BeforeValidator(parsed)
JsonMapping = Annotated[dict[str, Any], FROM_TEXT, AfterValidator(_json_values)]

DatatypeName = Annotated[_Datatype, BeforeValidator(_datatype)]
AxisName = Annotated[str, Field(pattern=_AXIS_NAME)]
_Size = Annotated[Annotated[int, Field(ge=-1)] | AxisName, BeforeValidator(_axis)]
Shape = Annotated[list[_Size], FROM_TEXT, Field(max_length=MAX_RANK), AfterValidator(_shape)]
Text = Annotated[str, BeforeValidator(_text)]
Version = Annotated[str, BeforeValidator(_version), Field(min_length=1, pattern=r"^[^/\s]+$")]
Lines = Annotated[list[str], BeforeValidator(_lines)]
HandlerPath = Annotated[str, AfterValidator(_handler_path)]
SamplePath = Annotated[str, AfterValidator(_sample_path)]
PythonVersion = Annotated[
    str, BeforeValidator(_python_version), Field(json_schema_extra={"examples": ["3.12"]})
]
Requirements = Annotated[
    list[Annotated[str, AfterValidator(_requirement)]], BeforeValidator(_lines)
]
Bytes = Annotated[
    int, BeforeValidator(lambda value: parse_bytes(value) if isinstance(value, str) else value)
]
