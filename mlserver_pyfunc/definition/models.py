"""The pydantic models of a definition: its keys, and which of them may be given together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from mlserver_pyfunc import models
from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.protocol.names import parameter_name

if TYPE_CHECKING:
    from typing_extensions import Self

    from mlserver_pyfunc.protocol.contract import TensorSpec

from .fields import (
    FROM_TEXT,
    AxisName,
    Bytes,
    DatatypeName,
    HandlerPath,
    JsonMapping,
    Lines,
    PythonVersion,
    Requirements,
    SamplePath,
    Shape,
    Text,
    Version,
    parsed,
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def _problems(self) -> Iterator[str]:
        """Yields what is wrong with keys that are right one by one. The first is reported."""
        yield from ()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self


class TensorDefinition(_Model):
    """A declared input or output tensor."""

    name: Annotated[str, Field(min_length=1)]
    datatype: DatatypeName
    shape: Shape = Field(
        description="One size per axis; -1 or a name admits any size. "
        "Axes of one name have equal sizes in a request and its answer."
    )
    description: str | None = None
    content_type: Literal["str"] | None = Field(
        None, description="`str`: the handler sees BYTES elements as str instead of bytes."
    )
    optional: bool = Field(False, description="A request may leave it out.")
    nullable: bool = Field(
        False, description="Elements may be null. For floats, null in JSON is NaN."
    )
    example: Any = Field(
        None, description="A value that fits: a scalar, or nested lists of the shape."
    )
    labels: list[Text] | None = Field(
        None, description="Names of the entries along the last axis that has as many."
    )
    default: Any = Field(
        None, description="What an optional input is taken for if a request leaves it out."
    )
    enum: list[str | int | float] | None = Field(None, description="The values that are allowed.")
    minimum: float | int | None = Field(None, description="The lowest value.")
    maximum: float | int | None = Field(None, description="The highest value.")
    exclusive_minimum: float | int | None = Field(None, description="All values are above it.")
    exclusive_maximum: float | int | None = Field(None, description="All values are below it.")

    @property
    def sizes(self) -> list[int]:
        """The shape as the protocol has it, with -1 for a named axis."""
        return [size if isinstance(size, int) else -1 for size in self.shape]

    @property
    def shape_text(self) -> str:
        """The shape as declared, for readers: `[rows, 4]`."""
        return f"[{', '.join(map(str, self.shape))}]"

    @property
    def spec(self) -> TensorSpec:
        """The tensor as the contract checks it."""
        from mlserver_pyfunc.protocol.contract import TensorSpec

        return TensorSpec.of(vars(self))

    @property
    def labels_axis(self) -> int:
        """Axis of the labels: the last one of their number."""
        count = len(self.labels or ())
        return max(axis for axis, size in enumerate(self.shape) if size == count)

    def _problems(self) -> Iterator[str]:
        for key in ("example", "default"):
            if (value := getattr(self, key)) is None:
                continue
            from mlserver_pyfunc.protocol.samples import example_array

            try:
                example_array(self.spec, value)
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                yield f"{key}: {error}"
        if self.labels is not None and len(self.labels) not in self.shape:
            count = len(self.labels)
            yield f"labels: expected an axis of size {count}, got shape {self.shape_text}"
        is_bytes = self.datatype == "BYTES"
        for key in ("minimum", "maximum", "exclusive_minimum", "exclusive_maximum"):
            if is_bytes and getattr(self, key) is not None:
                yield f"{key} is for numbers, got BYTES"
        if any(isinstance(value, str) != is_bytes for value in self.enum or ()):
            yield f"enum: expected values of {self.datatype}, got {self.enum}"
        if self.default is not None and not self.optional:
            yield "default is for an input that is optional: true"
        if self.content_type and not is_bytes:
            yield f"content_type is for BYTES tensors, got {self.datatype}"


class ColumnDefinition(TensorDefinition):
    """A tensor that is a column of a table, whose rows are its elements."""

    shape: Shape = [-1]

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.shape != [-1]:
            yield f"shape: a column has that of its table, got {self.shape_text}: leave it out"


class TableDefinition(_Model):
    """A declared table: each column is a tensor."""

    name: AxisName = Field(
        description="Name of the axis of rows, and of the handler's parameter for the frame."
    )
    columns: Annotated[list[ColumnDefinition], Field(min_length=1)]


def _tensors(declared: list[TensorDefinition | TableDefinition]) -> list[TensorDefinition]:
    """Replaces each table by its columns, along one axis that has the table's name."""
    found: list[TensorDefinition] = []
    for each in declared:
        columns = each.columns if isinstance(each, TableDefinition) else ()
        keys = [column.model_dump(exclude_unset=True) for column in columns]
        found += [TensorDefinition.model_validate({**k, "shape": [each.name]}) for k in keys]
        found += [each] if isinstance(each, TensorDefinition) else []
    return found


UNION_TAGS = ("(value)", "(mapping)", "(tensor)", "(table)")
"""Names of the members of a union: pydantic adds them to locations."""

if TYPE_CHECKING:
    _Tensors = list[TensorDefinition]
else:
    _Tensors = Annotated[
        list[
            Annotated[
                Annotated[TensorDefinition, Tag(UNION_TAGS[2])]
                | Annotated[TableDefinition, Tag(UNION_TAGS[3])],
                Discriminator(
                    lambda value: UNION_TAGS[2 + (isinstance(value, dict) and "columns" in value)]
                ),
            ]
        ],
        FROM_TEXT,
        AfterValidator(_tensors),
    ]


def examples_of(
    tensors: Sequence[TensorDefinition], sizes: dict[str, int] | None = None
) -> list[dict[str, Any]]:
    """Returns tensors as a request or an answer has them, with their examples if they have one.

    `sizes` has those of named axes, and gets those that the examples tell.
    """
    from mlserver_pyfunc.protocol.samples import examples

    declared = {tensor.name: tensor.example for tensor in tensors if tensor.example is not None}
    return examples([tensor.spec for tensor in tensors], declared, sizes)


_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Format = Literal["onnx", "skops", "mlflow", "xgboost", "lightgbm", "joblib", "torch"]


class SourceDefinition(_Model):
    """The place of the code, and its functions to call."""

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
    model: SamplePath | None = Field(
        None, description="A model file in the source, in place of a handler."
    )
    format: _Format | None = Field(
        None, description="Kind of the model, if its name does not tell it, or it is a pickle."
    )
    lang: Literal["python"] | None = None

    @property
    def is_inline(self) -> bool:
        """Whether the definition itself holds the code."""
        return self.code is not None or self.base64 is not None

    @property
    def is_model(self) -> bool:
        """Whether the source is, or has, a model file, which needs no handler."""
        return self.handler == models.HANDLER

    @model_validator(mode="before")
    @classmethod
    def _with_handler(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "handler" in value:
            return value
        is_model = value.get("model") or re.search(models.PATTERN, str(value.get("source")))
        return {**value, "handler": models.HANDLER} if is_model else value

    def _problems(self) -> Iterator[str]:
        if (self.model or self.format) and not self.is_model:
            yield "expected one of handler and model, got both"
        inline = [key for key in ("code", "base64") if getattr(self, key) is not None]
        if len(inline) == 2:
            yield "expected one of code and base64, got both"
        if not inline and not self.source:
            yield "expected one of source, code and base64, got none"
        # digitalhub keeps the name of the file that it encoded.
        if inline and self.source and not re.fullmatch(r"[^:]*\.py", self.source):
            yield f"expected one of source, code and base64, got source and {inline[0]}"


def _source(value: Any) -> Any:
    value = parsed(value)
    return {"source": value} if isinstance(value, str) else value


class BatchDefinition(_Model):
    """How waiting requests are combined. Every tensor must have a leading -1."""

    max_size: Annotated[int, Field(ge=2)] = Field(description="Rows per call of the handler.")
    max_delay_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5, description="Milliseconds that a request may wait for others."
    )


_BY_TAG = Discriminator(lambda value: UNION_TAGS[isinstance(value, dict | BaseModel)])


class WarmupDefinition(_Model):
    """What the function is called with before the model is ready."""

    samples: Annotated[list[SamplePath], Field(min_length=1)] = Field(
        description="Files with a request as JSON, beside the definition or in the source."
    )


class DevicesDefinition(_Model):
    """How many devices each worker gets, of those that the server sees."""

    per_worker: Annotated[int, Field(ge=1)] = Field(description="Devices of each worker.")


class ServingDefinition(_Model):
    """How the function is run."""

    isolation: Literal["auto", "none", "process"] = "auto"
    workers: Annotated[int, Field(ge=1, le=256)] = Field(1, description="Processes, if isolated.")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Calls that a worker runs at a time."
    )
    max_queue: Annotated[int, Field(ge=0)] = Field(
        64, description="Requests that may wait for a call to end; beyond: 503."
    )
    timeout: _Seconds = Field(60, description="Seconds per call; beyond: 504.")
    stream_timeout: _Seconds | None = Field(
        None, description="Seconds per stream, beside `timeout` per item; beyond: 504."
    )
    init_timeout: _Seconds = Field(
        300,
        description="Seconds from start to ready, after the source and environment are fetched.",
    )
    cancel: Literal["mark", "kill"] = Field(
        "mark",
        description="If a client leaves: `kill` ends the worker that runs its call. Isolated only.",
    )
    idempotent: bool = Field(
        False, description="A call may be repeated once if its worker dies. Isolated only."
    )
    memory_limit: Annotated[Bytes, Field(ge=2**20)] | None = Field(
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
    devices: Annotated[
        Annotated[list[Annotated[int, Field(ge=0)]], Tag(UNION_TAGS[0])]
        | Annotated[DevicesDefinition, Tag(UNION_TAGS[1])],
        _BY_TAG,
    ] = Field(
        [],
        description="GPUs, by number, dealt out to the workers; or `per_worker: 1`. Isolated only.",
    )
    batch: Annotated[BatchDefinition, FROM_TEXT] | None = Field(
        None, description="Combines waiting requests into one call of the handler."
    )
    warmup: Annotated[
        Annotated[bool, Tag(UNION_TAGS[0])] | Annotated[WarmupDefinition, Tag(UNION_TAGS[1])],
        _BY_TAG,
        FROM_TEXT,
    ] = Field(False, description="Call before ready: once with an example, or with each sample.")

    def devices_of(self, worker: int) -> list[int]:
        """Returns the devices of a worker. Workers share them if there are fewer."""
        if isinstance(self.devices, DevicesDefinition):
            count = self.devices.per_worker
            return list(range(worker * count, (worker + 1) * count))
        own = self.devices[worker :: self.workers]
        return own or self.devices[worker % max(len(self.devices), 1) :][:1]

    @property
    def device_count(self) -> int:
        """Number of devices that the workers use together."""
        return len({device for worker in range(self.workers) for device in self.devices_of(worker)})

    @property
    def samples(self) -> list[str]:
        """Paths of the requests to warm up with."""
        return [] if isinstance(self.warmup, bool) else self.warmup.samples

    @property
    def for_processes(self) -> list[str]:
        """Keys that are set, but take effect only in processes of the function's own."""
        keys = ("workers", "cancel", "idempotent", "memory_limit", "max_requests", "devices")
        default = ServingDefinition.model_fields
        return [key for key in keys if getattr(self, key) != default[key].default]


class BuildDefinition(_Model):
    """What goes into the image besides the function."""

    instructions: Lines = []
    env: Annotated[dict[str, Text], FROM_TEXT] = {}
    labels: Annotated[dict[str, Text], FROM_TEXT] = {}


class ContractDefinition(_Model):
    """What a breach of the declared tensors does."""

    requests: Literal["enforce", "warn"] = Field(
        "enforce", description="`warn`: a request that breaks the contract reaches the handler."
    )
    responses: Literal["enforce", "warn"] = Field(
        "enforce", description="`warn`: a result that breaks the contract is sent as it is."
    )

    @property
    def lenient(self) -> tuple[str, ...]:
        """Which of `requests` and `responses` only warn."""
        return tuple(side for side in ("requests", "responses") if getattr(self, side) == "warn")


def _checked_deployment(value: dict[str, Any]) -> dict[str, Any]:
    if value:
        # Imported here: its models take as long to import as all others, and servers have no use
        # for them.
        from .deployment import DeploymentDefinition

        DeploymentDefinition.model_validate(value)
    return value


class FunctionDefinition(_Model):
    """A function: its tensors, its source and how to run it.

    Raises:
        pydantic.ValidationError: From the constructor; `parse` and `read` raise
            `DefinitionError` instead.
    """

    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/\s]+$")] | None = None
    model_version: Version | None = None
    source: Annotated[SourceDefinition, BeforeValidator(_source)]
    python_version: PythonVersion | None = None
    requirements: Requirements = []
    base_image: str | None = None
    image: str | None = None
    init_parameters: JsonMapping = {}
    inputs: _Tensors = []
    outputs: _Tensors = []
    serving: Annotated[ServingDefinition, FROM_TEXT] = ServingDefinition()
    build: Annotated[BuildDefinition, FROM_TEXT] = BuildDefinition()
    contract: Annotated[ContractDefinition, FROM_TEXT] = ContractDefinition()
    deployment: Annotated[JsonMapping, AfterValidator(_checked_deployment)] = Field(
        {}, description="Options of `mlserver-pyfunc manifest` and `deploy`, and `presets` of them."
    )
    dialect: Literal["digitalhub"] | None = Field(
        None, description="`digitalhub`: the handler gets request, run and project as there."
    )
    description: str | None = None
    labels: Lines = []
    project: Text | None = None

    @property
    def written(self) -> tuple[str, ...]:
        """Which of `inputs` and `outputs` the handler's signature does not have to tell."""
        sides = {"inputs": self.contract.requests, "outputs": self.contract.responses}
        told = self.model_fields_set
        return tuple(key for key, side in sides.items() if key in told or side == "warn")

    def _problems(self) -> Iterator[str]:
        for kind in ("inputs", "outputs"):
            names = [tensor.name for tensor in getattr(self, kind)]
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f'{kind}: tensor "{name}" is declared twice'
            companions = [each.spec.companion for each in getattr(self, kind) if each.nullable]
            for name in [each.name for each in companions if each and each.name in names]:
                yield f'{kind}: "{name}" tells which elements of another tensor are null, rename it'
        given = [tensor for tensor in self.inputs if tensor.example is not None]
        if given:
            from mlserver_pyfunc.protocol.contract import Contract
            from mlserver_pyfunc.protocol.samples import example_array

            examples = {each.name: example_array(each.spec, each.example) for each in given}
            contract = Contract(self.model_name or "", [t.spec for t in self.inputs], [])
            try:
                contract.axis_sizes(examples)
            except ContractError as error:
                yield f"inputs: example: {error}"
        taken: dict[str, str] = {}
        for tensor in self.inputs:
            parameter = parameter_name(tensor.name)
            other = taken.setdefault(parameter, tensor.name)
            if other != tensor.name:
                yield (
                    f'inputs: "{other}" and "{tensor.name}" are both "{parameter}" '
                    "as parameters of the handler, rename one"
                )
