"""gRPC calls, by stubs that are generated from the protocol's own proto.

MLServer's stubs and these cannot live in one process, nor these and tritonclient's: each
function here runs in a process that does nothing else.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import mixture
from .wire import CONTENTS, Reply, Request, Tensor, decode_raw, encode_raw

_METHOD = "/inference.GRPCInferenceService/"


def use_stubs(folder: str) -> None:
    """Prepares the process for the calls below.

    Args:
        folder: Holds the stubs; if it is empty, Triton's stubs are used.
    """
    if any(Path(folder).iterdir()):
        sys.path.insert(0, folder)
        return
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    sys.modules["open_inference_grpc_pb2"] = service_pb2
    sys.modules["open_inference_grpc_pb2_grpc"] = service_pb2_grpc


def infer(address: str, request: Request, raw: bool) -> Reply:
    return infer_together(address, [request], raw)[0]


def infer_together(address: str, requests: list[Request], raw: bool) -> list[Reply]:
    """Sends the requests at once; replies in their order."""
    import grpc
    import open_inference_grpc_pb2_grpc as stubs

    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(len(requests)) as pool:
        stub = stubs.GRPCInferenceServiceStub(channel)
        return list(pool.map(lambda request: _infer(stub, request, raw), requests))


def stream(
    address: str, requests: list[Request], raw: bool, take: int | None = None
) -> tuple[list[Reply], Reply]:
    """Reads a ModelStreamInfer, at most `take` items; the items and how it ended."""
    import grpc
    import open_inference_grpc_pb2 as pb

    with grpc.insecure_channel(address) as channel:
        # The method is MLServer's: the protocol's proto has no streaming.
        call = channel.stream_stream(
            _METHOD + "ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )(iter([_message(request, raw) for request in requests]), timeout=60)
        items: list[Reply] = []
        try:
            for item in call:
                items.append(_reply(item))
                if len(items) == take:
                    call.cancel()
                    return items, Reply("CANCELLED")
        except grpc.RpcError as error:
            return items, Reply(error.code().name, error.details())
        return items, Reply("OK")


def stall(address: str, request: Request, until: str) -> str:
    """Reads one item of a stream and then nothing until a file exists; returns how it ended."""
    import grpc
    import open_inference_grpc_pb2 as pb

    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            _METHOD + "ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )(iter([_message(request, raw=True)]))
        next(call)
        while not Path(until).exists():
            time.sleep(0.05)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def hold(address: str, until: str) -> str:
    """Opens a stream and sends nothing until a file exists; returns how it ended."""
    import grpc

    def nothing() -> Iterator[bytes]:
        while not Path(until).exists():
            time.sleep(0.05)
        yield from ()

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
        call = channel.stream_stream(_METHOD + "ModelStreamInfer")(nothing())
        Path(until).with_suffix(".open").touch()
        try:
            list(call)
        except grpc.RpcError as error:
            return str(error.code().name)
        finally:
            Path(until).touch()
    return "OK"


def infer_and_cancel(address: str, request: Request, seconds: float) -> Reply:
    """Gives up on a request after some time."""
    import grpc
    import open_inference_grpc_pb2_grpc as stubs

    with grpc.insecure_channel(address) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        try:
            return _reply(stub.ModelInfer(_message(request, raw=True), timeout=seconds))
        except grpc.RpcError as error:
            return Reply(error.code().name, error.details())


def leave(address: str, request: Request, how: str, log: str, seconds: float | None) -> str:
    """Cancels a call once a file exists, or has a deadline for it; returns how it ended."""
    import grpc
    import open_inference_grpc_pb2 as pb

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
        message = _message(request, raw=True)
        if how == "stream":
            stream = channel.stream_stream(
                _METHOD + "ModelStreamInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
            )
            call: Any = stream(iter([message]), timeout=seconds)
        else:
            unary = channel.unary_unary(
                _METHOD + "ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
            )
            call = unary.future(message, timeout=seconds)
        while seconds is None and not Path(log).exists():
            time.sleep(0.01)
        if seconds is None:
            call.cancel()
        return str(call.code().name)


def metadata(address: str, model: str) -> dict[str, Any]:
    import grpc
    import open_inference_grpc_pb2 as pb
    import open_inference_grpc_pb2_grpc as stubs

    with grpc.insecure_channel(address) as channel:
        answer = stubs.GRPCInferenceServiceStub(channel).ModelMetadata(
            pb.ModelMetadataRequest(name=model), timeout=60
        )
    return {
        "name": answer.name,
        "versions": list(answer.versions),
        "platform": answer.platform,
        "inputs": [(t.name, t.datatype, list(t.shape)) for t in answer.inputs],
        "outputs": [(t.name, t.datatype, list(t.shape)) for t in answer.outputs],
    }


def is_ready(address: str, model: str) -> bool:
    import grpc
    import open_inference_grpc_pb2 as pb
    import open_inference_grpc_pb2_grpc as stubs

    with grpc.insecure_channel(address) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        return bool(stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=60).ready)


def _infer(stub: Any, request: Request, raw: bool) -> Reply:
    import grpc

    try:
        call: Future[Any] = stub.ModelInfer.future(
            _message(request, raw), timeout=60, metadata=tuple(request.headers.items())
        )
        return _reply(call.result(), call.trailing_metadata())  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        return Reply(error.code().name, error.details())


def _message(request: Request, raw: bool) -> Any:
    import open_inference_grpc_pb2 as pb

    message = pb.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.id
    )
    _set_parameters(message.parameters, request.parameters)
    for tensor in request.inputs:
        part = message.inputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape)
        )
        _set_parameters(part.parameters, tensor.parameters)
        if raw:
            content = tensor.raw
            if content is None:
                content = encode_raw(tensor.datatype, tensor.values)
            message.raw_input_contents.append(content)
        else:
            contents = tensor.contents or CONTENTS[tensor.datatype]
            getattr(part.contents, contents).extend(tensor.values)
            if tensor.second_contents:
                getattr(part.contents, tensor.second_contents).extend(tensor.values)
    for name in request.outputs:
        message.outputs.add(name=name)
    return message


def _set_parameters(target: Any, parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(target[name], kind, value)


def _reply(message: Any, trailing: Iterable[tuple[str, str]] = ()) -> Reply:
    outputs = {}
    for index, part in enumerate(message.outputs):
        if message.raw_output_contents:
            values = decode_raw(part.datatype, message.raw_output_contents[index])
        else:
            values = list(getattr(part.contents, CONTENTS[part.datatype]))
        outputs[part.name] = Tensor(part.name, part.datatype, tuple(part.shape), values)
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
    }
    return Reply(
        "OK",
        outputs=outputs,
        id=message.id,
        version=message.model_version,
        headers=dict(trailing),
        parameters=parameters,
    )


def hammer(address: str, clients: int, seconds: float) -> tuple[int, list[str]]:
    """Sends the mixture from many threads over one channel."""
    import grpc
    import open_inference_grpc_pb2_grpc as stubs

    with grpc.insecure_channel(address) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        return mixture.hammer(
            clients, seconds, 10**9, lambda: lambda request: _infer(stub, request, raw=True)
        )


def count_answers(address: str, request: Request, until: str, clients: int) -> Counter[str]:
    """Calls on channels of their own until a file exists; how often each answer or error came."""
    import grpc
    import open_inference_grpc_pb2_grpc as stubs

    options = [("grpc.use_local_subchannel_pool", 1)]

    def call_on(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with grpc.insecure_channel(address, options) as channel:
            stub = stubs.GRPCInferenceServiceStub(channel)
            while not Path(until).exists():
                reply = _infer(stub, request, raw=True)
                answers[pod_of(reply)] += 1
                time.sleep(0.005)
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(call_on, range(clients)), Counter())


def pod_of(reply: Reply) -> str:
    return (
        f"{reply.status}: {reply.error}" if reply.error else reply.outputs["pod"].values[0].decode()
    )
