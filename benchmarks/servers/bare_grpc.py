"""The fastest possible server over gRPC: grpc.aio, NumPy and MLServer's messages, no checks."""

import argparse
import asyncio
import ctypes
from pathlib import Path

import numpy as np
import uvloop
from grpc import aio
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)


class Servicer(GRPCInferenceServiceServicer):
    def __init__(self, folder=None):
        self.sessions = {}
        if folder:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.sessions = {
                file.stem: onnxruntime.InferenceSession(file, options)
                for file in Path(folder).glob("*.onnx")
            }

    async def ServerReady(self, request, context):  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    async def ModelInfer(self, request, context):  # noqa: N802
        tensor = request.inputs[0]
        response = pb.ModelInferResponse(model_name=request.model_name)
        raw = request.raw_input_contents
        if request.model_name == "w4":
            text = raw[0][4:] if raw else tensor.contents.bytes_contents[0]
            output = response.outputs.add(name="y", datatype="BYTES", shape=[1])
            if raw:
                response.raw_output_contents.append(len(text).to_bytes(4, "little") + text.upper())
            else:
                output.contents.bytes_contents.append(text.upper())
            return response
        data = np.frombuffer(raw[0], np.float32) if raw else np.array(tensor.contents.fp32_contents)
        x = data.astype(np.float32, copy=False).reshape(tuple(tensor.shape))
        if self.sessions:
            [y] = self.sessions[request.model_name].run(["y"], {"x": x})
        else:
            y = (x[:, :1000] if request.model_name == "w2" else x) * 2
        output = response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        if raw:
            response.raw_output_contents.append(y.tobytes())
        else:
            output.contents.fp32_contents.extend(y.ravel().tolist())
        return response


async def main(port, folder):
    limit = 256 << 20
    options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
    server = aio.server(options=options)
    add_GRPCInferenceServiceServicer_to_server(Servicer(folder), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc", type=int)
    parser.add_argument("--onnx", help="folder of files to compute with, in place of NumPy")
    args = parser.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 256 << 20)
    libc.mallopt(-1, 512 << 20)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main(args.grpc, args.onnx))
