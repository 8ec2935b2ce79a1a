"""Reads a stream of tokens over server-sent events and over gRPC."""

import argparse
import json
import urllib.request

import grpc
from tritonclient.grpc import service_pb2

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def ask_rest(url, prompt):
    tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [prompt]}
    request = urllib.request.Request(
        f"http://{url}/v2/models/text-stream/infer_stream",
        data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as events:
        for line in events:
            if line.startswith(b"data: "):
                event = json.loads(line.removeprefix(b"data: "))
                yield event["outputs"][0]["data"][0]


def ask_grpc(url, prompt):
    """MLServer streams `ModelInferResponse`; tritonclient's own stream reads another message."""
    request = service_pb2.ModelInferRequest(model_name="text-stream")
    tensor = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(prompt.encode())
    with grpc.insecure_channel(url) as channel:
        call = channel.stream_stream(
            STREAM,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        for answer in call(iter([request])):
            yield answer.outputs[0].contents.bytes_contents[0].decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="the server")
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    arguments = parser.parse_args()
    for route, ask, url in (("REST", ask_rest, arguments.http), ("gRPC", ask_grpc, arguments.grpc)):
        print(f"{route}  {arguments.prompt}", end="", flush=True)
        for token in ask(url, arguments.prompt):
            print(token, end="", flush=True)
        print()
