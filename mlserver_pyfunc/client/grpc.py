"""Calls a server by gRPC. Tensors are sent as raw bytes; answers may have typed fields.

Importing this module raises ImportError if tritonclient is not installed. It fails ("duplicate
symbol") in a process that has imported MLServer: the docstring of the package says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.response import tensor_head
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array

from . import CallError, InferResult, Inputs, Results, Values

try:
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
except ImportError as error:
    raise ImportError(
        f"calls by gRPC need tritonclient ({error}): pip install 'mlserver-pyfunc[client]'"
    ) from None

_MAX_MESSAGE = 2**31 - 1


class GrpcClient:
    """Calls a server by gRPC, with tensors as raw bytes.

    The target is `HOST:PORT` or `unix:PATH`. Headers are sent as metadata, `host` as the authority.
    """

    name = "gRPC raw"

    def __init__(
        self, target: str, timeout: float = 60, headers: Values = None, version: str = ""
    ) -> None:
        if not re.fullmatch(r".+:\d+|unix:.+", target):
            raise CallError(f'"{target}": expected HOST:PORT')
        metadata = {name.lower(): value for name, value in (headers or {}).items()}
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ]
        if authority := metadata.pop("host", ""):
            options.append(("grpc.default_authority", authority))
        # gRPC takes bytes as the value of metadata if the name ends in -bin, else text.
        self._headers = [
            (name, value.encode() if name.endswith("-bin") else value)
            for name, value in metadata.items()
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._timeout = timeout
        self._version = version
        self._stub = GRPCInferenceServiceStub(self._channel)
        # tritonclient's own stream reads ModelStreamInferResponse, in which Triton wraps each
        # answer. The protocol has no such message: MLServer sends ModelInferResponse.
        self._stream = self._channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )

    def metadata(self, model: str) -> dict[str, Any]:
        """Fetches the metadata of a model, in the form that REST gives it."""
        answer = self._answer(
            self._stub.ModelMetadata,
            messages.ModelMetadataRequest(name=model, version=self._version),
        )
        described: dict[str, Any] = MessageToDict(answer, preserving_proto_field_name=True)
        for kind in ("inputs", "outputs"):
            described[kind] = [_described(tensor) for tensor in getattr(answer, kind)]
        return described

    def infer(self, model: str, inputs: Inputs, parameters: Values = None) -> InferResult:
        """Sends one request and returns its answer."""
        request = self._request(model, inputs, parameters)
        return _result(self._answer(self._stub.ModelInfer, request))

    def stream(self, model: str, inputs: Inputs, parameters: Values = None) -> Results:
        """Sends one request and yields each of its answers as it arrives."""
        request = self._request(model, inputs, parameters)
        answers = self._stream(iter([request]), timeout=self._timeout, metadata=self._headers)
        while (answer := _call(lambda: next(answers, None))) is not None:
            yield _result(answer)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _answer(self, call: Callable[..., Any], message: Any) -> Any:
        return _call(lambda: call(message, timeout=self._timeout, metadata=self._headers))

    def _request(self, model: str, inputs: Inputs, parameters: Values) -> Any:
        request = messages.ModelInferRequest(model_name=model, model_version=self._version)
        for name, value in (parameters or {}).items():
            kind = {bool: "bool_param", int: "int64_param"}.get(type(value), "string_param")
            sent = str(value) if kind == "string_param" else value
            setattr(request.parameters[name], kind, sent)
        for tensor in inputs:
            request.inputs.add(**tensor_head(tensor))
            raw = tensors.to_raw(tensor.spec.datatype, tensor.array)
            request.raw_input_contents.append(raw)
        return request


def _call(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except grpc.RpcError as error:
        raise CallError(error.details() or str(error.code()), error.code().name) from None


def _result(answer: Any) -> InferResult:
    outputs: dict[str, Array] = {}
    for index, tensor in enumerate(answer.outputs):
        datatype = DATATYPES[tensor.datatype]
        shape = list(tensor.shape)
        if answer.raw_output_contents:
            raw = answer.raw_output_contents[index]
            outputs[tensor.name] = tensors.from_raw(datatype, tensors.RawTensor(raw), shape)
            continue
        if datatype.contents is None:
            raise CallError(f'output "{tensor.name}": {datatype.name} has no typed field')
        elements = list(getattr(tensor.contents, datatype.contents))
        outputs[tensor.name] = np.array(elements, datatype.dtype).reshape(shape)
    datatypes = {tensor.name: tensor.datatype for tensor in answer.outputs}
    return InferResult(outputs, datatypes, _parameters(answer))


def _described(tensor: Any) -> dict[str, Any]:
    # tritonclient's message of a tensor's metadata lacks the protocol's field of parameters. That
    # of an input has all fields by the same numbers.
    full = messages.ModelInferRequest.InferInputTensor.FromString(tensor.SerializeToString())
    head = {"name": full.name, "datatype": full.datatype, "shape": list(full.shape)}
    parameters = _parameters(full)
    return {**head, "parameters": parameters} if parameters else head


def _parameters(message: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
    }
