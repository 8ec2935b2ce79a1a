"""Triton's gRPC messages that MLServer's stubs lack, with only the fields that are filled.

protobuf allows each message name once in its default pool, and both MLServer's and Triton's stubs
use the package `inference` there. So these messages are in a pool of their own. Names and numbers
of the fields are those of Triton's `grpc_service.proto` and `model_config.proto`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from mlserver_pyfunc.protocol.datatypes import DATATYPES

DATA_TYPES = {name: f"TYPE_{name}" for name in [*DATATYPES, "BF16"]} | {"BYTES": "TYPE_STRING"}
"""Triton's names of the protocol's datatypes, in the order of their numbers, from 1 on."""

UNKNOWN_TYPE = "TYPE_INVALID"
"""Triton's name of a datatype that it does not know. Its number is 0."""

_PACKAGE = "inference"
DURATIONS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip
"""Triton's names of the times that it measures, in the order of their fields."""
_NAME_AND_VERSION = {"name": (1, "string"), "version": (2, "string")}
# Each field has a number and a type. A star is a repeated field.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ModelConfigRequest": _NAME_AND_VERSION,
    "ModelConfigResponse": {"config": (1, "ModelConfig")},
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),
        "max_batch_size": (4, "int32"),
        "input": (5, "ModelInput*"),
        "output": (6, "ModelOutput*"),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "model_transaction_policy": (19, "ModelTransactionPolicy"),
    },
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "int64*"),
        "optional": (8, "bool"),
    },
    "ModelOutput": {"name": (1, "string"), "data_type": (2, "DataType"), "dims": (3, "int64*")},
    "ModelDynamicBatching": {"max_queue_delay_microseconds": (2, "uint64")},
    "ModelTransactionPolicy": {"decoupled": (1, "bool")},
    "ModelStatisticsRequest": _NAME_AND_VERSION,
    "ModelStatisticsResponse": {"model_stats": (1, "ModelStatistics*")},
    "ModelStatistics": {
        **_NAME_AND_VERSION,
        "inference_count": (4, "uint64"),
        "execution_count": (5, "uint64"),
        "inference_stats": (6, "InferStatistics"),
    },
    "InferStatistics": {
        name: (number, "StatisticDuration") for number, name in enumerate(DURATIONS, start=1)
    },
    "StatisticDuration": {"count": (1, "uint64"), "ns": (2, "uint64")},
    # The response is a message. It has the same bytes as the serialised message in a field of
    # bytes, and MLServer's message cannot be a field of a message in another pool.
    "ModelStreamInferResponse": {"error_message": (1, "string"), "infer_response": (2, "bytes")},
}


@cache
def message_class(name: str) -> Any:
    """Returns the class of one of Triton's messages."""
    return GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def message(name: str, content: dict[str, Any]) -> Any:
    """Returns one of Triton's messages, made from its JSON form."""
    return json_format.ParseDict(content, message_class(name)())


@cache
def _pool() -> DescriptorPool:
    file = FileDescriptorProto(name="pyfunc_triton.proto", package=_PACKAGE, syntax="proto3")
    data_type = file.enum_type.add(name="DataType")
    for number, value in enumerate([UNKNOWN_TYPE, *DATA_TYPES.values()]):
        data_type.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(described, field, number, kind)
    pool = DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(described: DescriptorProto, name: str, number: int, kind: str) -> None:
    types = FieldDescriptorProto
    label = types.LABEL_REPEATED if kind.endswith("*") else types.LABEL_OPTIONAL
    field = described.field.add(name=name, number=number, label=label)
    kind = kind.rstrip("*")
    if kind.islower():
        field.type = types.Type.Value(f"TYPE_{kind.upper()}")
        return
    field.type = types.TYPE_ENUM if kind == "DataType" else types.TYPE_MESSAGE
    field.type_name = f".{_PACKAGE}.{kind}"
