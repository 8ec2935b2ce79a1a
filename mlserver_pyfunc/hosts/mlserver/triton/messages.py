"""Triton's gRPC messages that MLServer's stubs lack, as `messages.textproto` describes them.

protobuf allows each message name once in its default pool, and both MLServer's and Triton's stubs
use the package `inference` there. So these messages are in a pool of their own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from mlserver_pyfunc.protocol.datatypes import DATATYPES

DATA_TYPES = {name: f"TYPE_{name}" for name in DATATYPES} | {"BYTES": "TYPE_STRING"}
"""Triton's names of the protocol's datatypes."""

DURATIONS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip
"""Triton's names of the times that it measures."""


@cache
def message_class(name: str) -> Any:
    """Returns the class of one of Triton's messages."""
    return GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def message(name: str, content: dict[str, Any]) -> Any:
    """Returns one of Triton's messages, made from its JSON form."""
    return json_format.ParseDict(content, message_class(name)())


@cache
def _pool() -> DescriptorPool:
    text = (files(__package__) / "messages.textproto").read_text(encoding="utf-8")
    pool = DescriptorPool()
    pool.Add(text_format.Parse(text, FileDescriptorProto()))
    return pool
