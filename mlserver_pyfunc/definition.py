"""The function definition: what a function is, read from YAML, JSON or a digitalhub spec."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from .datatype_names import suggestion
from .errors import DefinitionError
from .names import parameter_name

FILE_NAME = "function.yaml"
PYTHON_VERSIONS = ("3.10", "3.11", "3.12", "3.13")
MAX_RANK = 32
MAX_ELEMENTS = 2**40
"""Of a declared shape, -1 being 1: no machine holds more."""

DatatypeName = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip


def _parsed(value: Any) -> Any:
    """Reads a list or mapping that arrived as text, as Seldon sends every parameter."""
    if not isinstance(value, str):
        return value
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return parsed if isinstance(parsed, list | dict) else value


def _lines(value: Any) -> Any:
    value = _parsed(value)
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


def _size(value: Any) -> Any:
    """Reads bytes from text, `512M` or `2 GiB`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f'expected bytes, for example 512M or 2G, got "{value}"')
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _version(value: Any) -> Any:
    if isinstance(value, float):
        # 1.10 is 1.1 by now.
        raise ValueError(f'got the number {value}: write it in quotes, as "{value}"')
    return _text(value)


def _requirement(value: str) -> str:
    if re.match(r"-|.*\.(txt|in|toml|lock|cfg)$", value):
        what = "an option of pip" if value.startswith("-") else "a file"
        raise ValueError(f'"{value}" is {what}, expected the packages themselves, one a line')
    try:
        Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f'"{value}" is not a PEP 508 requirement: {reason}') from None
    return value


def _handler_path(value: str) -> str:
    if not re.fullmatch(r"(?:[^\W\d]\w*(?:\.[^\W\d]\w*)*:)?[^\W\d]\w*(?:\.[^\W\d]\w*)*", value):
        raise ValueError(f'expected "module.path:callable" or "callable", got "{value}"')
    return value


def _datatype(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    known: tuple[str, ...] = get_args(DatatypeName)
    if value.upper() in known:
        return value.upper()
    meant = suggestion(value, known)
    hint = f'did you mean "{meant}"?' if meant else f"expected one of {', '.join(known)}"
    raise ValueError(f'unknown datatype "{value}", {hint}')


def _shape(value: list[int]) -> list[int]:
    if math.prod(abs(size) or 1 for size in value) > MAX_ELEMENTS:
        raise ValueError(f"expected up to {MAX_ELEMENTS} elements, got shape {value}")
    return value


HandlerPath = Annotated[str, AfterValidator(_handler_path)]
Text = Annotated[str, BeforeValidator(_text)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TensorDefinition(_Model):
    """A declared input or output tensor."""

    name: Annotated[str, Field(min_length=1)]
    datatype: Annotated[DatatypeName, BeforeValidator(_datatype)]
    shape: Annotated[
        list[Annotated[int, Field(ge=-1)]],
        BeforeValidator(_parsed),
        Field(max_length=MAX_RANK),
        AfterValidator(_shape),
    ] = Field(description="One size per axis; -1 admits any size.")
    description: str | None = None
    content_type: Literal["str"] | None = Field(
        None, description="`str`: the handler sees BYTES elements as str instead of bytes."
    )
    optional: bool = Field(False, description="A request may leave it out.")

    @model_validator(mode="after")
    def _only_bytes_are_text(self) -> TensorDefinition:
        if self.content_type and self.datatype != "BYTES":
            raise ValueError(f"content_type is for BYTES tensors, got {self.datatype}")
        return self


class SourceDefinition(_Model):
    """Where the code is, and which of its functions to call."""

    handler: HandlerPath = Field(description="`module.path:callable`; called once per request.")
    init_function: HandlerPath | None = Field(None, description="Called once at load.")
    unload_function: HandlerPath | None = Field(None, description="Called once at unload.")
    source: str | None = Field(None, description="A URI, or a path beside the definition.")
    code: str | None = Field(None, description="Inline Python.")
    base64: str | None = Field(None, description="Inline Python, base64 encoded.")
    subdirectory: str | None = Field(None, description="Folder inside a git tree or archive.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        None, description="Of the archive or file; a mismatch never loads."
    )
    lang: Literal["python"] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> SourceDefinition:
        inline = [key for key in ("code", "base64") if getattr(self, key) is not None]
        if len(inline) == 2:
            raise ValueError("expected one of code and base64, got both")
        if not inline and not self.source:
            raise ValueError("expected one of source, code and base64, got none")
        # digitalhub keeps the name of the file that it encoded.
        if inline and self.source and not re.fullmatch(r"[^:]*\.py", self.source):
            raise ValueError(f"expected one of source, code and base64, got source and {inline[0]}")
        return self


class BatchDefinition(_Model):
    """How requests are joined. Every tensor must have a leading -1."""

    max_size: Annotated[int, Field(ge=2)] = Field(description="Rows per call of the handler.")
    max_delay_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5, description="How long a request may wait for others."
    )


class ServingDefinition(_Model):
    """How the function is run."""

    isolation: Literal["auto", "none", "process"] = "auto"
    workers: Annotated[int, Field(ge=1, le=256)] = Field(1, description="Processes, if isolated.")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Calls at a time per worker."
    )
    max_queue: Annotated[int, Field(ge=0)] = Field(
        64, description="Requests that may wait for a call to end; beyond: 503."
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        60, description="Seconds per call; beyond: 504."
    )
    init_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        300, description="Seconds from start to ready, once source and environment are there."
    )
    idempotent: bool = Field(
        False, description="A call may be repeated, once, if its worker dies. Isolated only."
    )
    memory_limit: Annotated[int, BeforeValidator(_size), Field(ge=2**20)] | None = Field(
        None,
        description="Bytes of private memory per worker, or text: 512M, 2G. Isolated only.",
        json_schema_extra={
            "anyOf": [{"type": "integer", "minimum": 2**20}, {"type": "string"}, {"type": "null"}],
            "examples": ["2G"],
        },
    )
    max_requests: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Calls after which a worker is replaced. Isolated only."
    )
    batch: Annotated[BatchDefinition, BeforeValidator(_parsed)] | None = Field(
        None, description="Joins requests that wait into one call of the handler."
    )
    warmup: bool = Field(False, description="Call once with zeros before ready.")

    @property
    def for_processes(self) -> list[str]:
        """Keys that are given and count in processes of the function's own alone."""
        keys = ("workers", "idempotent", "memory_limit", "max_requests")
        default = ServingDefinition.model_fields
        return [key for key in keys if getattr(self, key) != default[key].default]


class BuildDefinition(_Model):
    """What goes into the image besides the function."""

    instructions: Annotated[list[str], BeforeValidator(_lines)] = []
    env: Annotated[dict[str, Text], BeforeValidator(_parsed)] = {}


class FunctionDefinition(_Model):
    """A function: its tensors, its source and how to run it.

    Raises:
        pydantic.ValidationError: From the constructor; `parse` and `read` give
            `DefinitionError` instead.
    """

    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/\s]+$")] | None = None
    model_version: (
        Annotated[str, BeforeValidator(_version), Field(min_length=1, pattern=r"^[^/\s]+$")] | None
    ) = None
    source: Annotated[SourceDefinition, BeforeValidator(_parsed)]
    python_version: (
        Annotated[
            str, BeforeValidator(_python_version), Field(json_schema_extra={"examples": ["3.12"]})
        ]
        | None
    ) = None
    requirements: Annotated[
        list[Annotated[str, AfterValidator(_requirement)]], BeforeValidator(_lines)
    ] = []
    base_image: str | None = None
    image: str | None = None
    init_parameters: Annotated[dict[str, Any], BeforeValidator(_parsed)] = {}
    inputs: Annotated[list[TensorDefinition], BeforeValidator(_parsed)] = []
    outputs: Annotated[list[TensorDefinition], BeforeValidator(_parsed)] = []
    serving: Annotated[ServingDefinition, BeforeValidator(_parsed)] = ServingDefinition()
    build: Annotated[BuildDefinition, BeforeValidator(_parsed)] = BuildDefinition()

    @model_validator(mode="after")
    def _names_are_unique(self) -> FunctionDefinition:
        for kind in ("inputs", "outputs"):
            names = [tensor.name for tensor in getattr(self, kind)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f'{kind}: tensor "{twice[0]}" is declared twice')
        return self

    @model_validator(mode="after")
    def _inputs_reach_parameters_of_their_own(self) -> FunctionDefinition:
        taken: dict[str, str] = {}
        for tensor in self.inputs:
            parameter = parameter_name(tensor.name)
            other = taken.setdefault(parameter, tensor.name)
            if other != tensor.name:
                raise ValueError(
                    f'inputs: "{other}" and "{tensor.name}" are both "{parameter}" '
                    "as parameters of the handler, rename one"
                )
        return self


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a definition.

    Attributes:
        location: Keys and indices that lead to it.
        kind: What pydantic calls it, `missing` for one.
        message: Names the key, what was expected and what was got.
    """

    location: tuple[int | str, ...]
    kind: str
    message: str


def parse(value: Any, where: str = "function definition") -> FunctionDefinition:
    """Reads a definition from a mapping, plain or a digitalhub `{kind, spec}`.

    Args:
        value: The mapping.
        where: Named in errors, a file for one.

    Raises:
        DefinitionError: Every problem found, each with its key.
    """
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{where}: expected a mapping, got {type(value).__name__}")
    try:
        return FunctionDefinition.model_validate(_without_nulls(_unwrapped(value, where)))
    except ValidationError as error:
        messages = (problem.message for problem in _problems(error))
        raise DefinitionError(f"{where}: " + "; ".join(messages)) from None


def problems(value: Mapping[str, Any], where: str = "function definition") -> list[Problem]:
    """Lists what makes a mapping no definition; empty where `parse` takes it.

    Raises:
        DefinitionError: It is of another kind altogether.
    """
    try:
        FunctionDefinition.model_validate(_without_nulls(_unwrapped(value, where)))
    except ValidationError as error:
        return list(_problems(error))
    return []


def read(path: Path) -> FunctionDefinition:
    """Reads a definition from a YAML or JSON file.

    Raises:
        DefinitionError: The file cannot be read, or is not a definition.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        return parse(value, str(path))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise DefinitionError(f"{path}: nested too deep, or within itself") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema by which editors check and complete `function.yaml`.

    A digitalhub object is recognised by its `spec`, whose keys may be null: only the
    object's own form is described.
    """
    function = FunctionDefinition.model_json_schema()
    parts = function.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "function.yaml",
        "if": {"required": ["spec"]},
        "then": {
            "type": "object",
            "properties": {"kind": {"const": "openinference"}, "spec": {"type": "object"}},
        },
        "else": {"$ref": "#/$defs/FunctionDefinition"},
        "$defs": {**parts, "FunctionDefinition": function},
    }


def _unwrapped(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "spec" not in value:
        if "kind" in value:
            kind = value["kind"]
            raise DefinitionError(f'{where}: spec: missing, which an object of kind "{kind}" has')
        return value
    kind = value.get("kind", "openinference")
    if kind != "openinference" or not isinstance(value["spec"], Mapping):
        raise DefinitionError(f'{where}: kind: expected "openinference" with a spec, got "{kind}"')
    spec = dict(value["spec"])
    if spec.get("model_name") is None and value.get("name"):
        spec["model_name"] = value["name"]
    for kind in ("inputs", "outputs"):
        if isinstance(tensors := _parsed(spec.get(kind)), list):
            spec[kind] = [_with_datatype(tensor) for tensor in tensors]
    return spec


def _with_datatype(tensor: Any) -> Any:
    """A tensor of a digitalhub spec, whose datatype is FP32 where none is given."""
    if isinstance(tensor, Mapping) and tensor.get("datatype") is None:
        return {**tensor, "datatype": "FP32"}
    return tensor


def _without_nulls(value: Any) -> Any:
    """Drops keys set to null: digitalhub writes each key that has no value so."""
    if isinstance(value, Mapping):
        return {
            key: item if key == "init_parameters" else _without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _problems(error: ValidationError) -> Iterator[Problem]:
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        path = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            message = f"{path}: unknown key{_nearest(location)}"
        elif problem["type"] == "missing":
            message = f"{path}: missing"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            message = f"{path}: {text}" if path else text
        else:
            got = json.dumps(problem["input"], default=str)
            said = problem["msg"]
            message = f"{path}: {said[0].lower()}{said[1:]}, got {got[:80]}"
        yield Problem(location, problem["type"], message)


def _nearest(location: tuple[int | str, ...]) -> str:
    model = _model_at(location[:-1])
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f', did you mean "{near[0]}"?'
    return f", expected one of {', '.join(known)}"


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = FunctionDefinition
    for key in location:
        if isinstance(key, int):
            continue
        model = next(_models_in(model.model_fields[key].annotation))
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
