"""Streams on PyTriton: a decoupled model, which a client calls by Triton's gRPC stream."""

import argparse

import numpy as np
from functions import items
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def texts(requests):
    for text in items(**_asked(requests)):
        yield [{"y": np.array([text.encode()], object)}]


def arrays(requests):
    for array in items(**_asked(requests)):
        yield [{"y": array}]


def _asked(requests):
    return {name: int(requests[0][name][0]) for name in NAMES}


NAMES = ("count", "size", "pause_us")

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--http", "--grpc", "--metrics"):
        parser.add_argument(name, type=int)
    args = parser.parse_args()
    ports = {"http_port": args.http, "grpc_port": args.grpc, "metrics_port": args.metrics}
    inputs = [Tensor(name=name, dtype=np.int64, shape=(-1,)) for name in NAMES]
    with Triton(config=TritonConfig(log_verbose=0, **ports)) as triton:
        for model, function, datatype in (("text", texts, bytes), ("array", arrays, np.float32)):
            triton.bind(
                model_name=model,
                infer_func=[function] * 8,
                inputs=inputs,
                outputs=[Tensor(name="y", dtype=datatype, shape=(-1,))],
                config=ModelConfig(batching=False, decoupled=True),
            )
        triton.serve()
