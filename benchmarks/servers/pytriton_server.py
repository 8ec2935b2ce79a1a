"""The workloads on PyTriton, with or without its dynamic batcher."""

import argparse
import time

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def double(x):
    if args.call_ms:
        time.sleep(args.call_ms / 1000)
    return [x * 2]


@batch
def head(x):
    return [x[:, :1000] * 2]


def double_one(requests):
    if args.call_ms:
        time.sleep(args.call_ms / 1000)
    return [{"y": request["x"] * 2} for request in requests]


def head_one(requests):
    return [{"y": request["x"][:, :1000] * 2} for request in requests]


def upper(requests):
    return [{"y": np.char.upper(request["x"].astype(bytes))} for request in requests]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    parser.add_argument("--grpc", type=int)
    parser.add_argument("--metrics", type=int)
    parser.add_argument("--batcher", action="store_true")
    parser.add_argument("--call-ms", type=float, default=0, help="extra milliseconds per call")
    args = parser.parse_args()
    config = TritonConfig(
        http_port=args.http, grpc_port=args.grpc, metrics_port=args.metrics, log_verbose=0
    )
    fp32 = [Tensor(name="y", dtype=np.float32, shape=(-1,))]
    with Triton(config=config) as triton:
        for name, batched, single in (
            ("w1", double, double_one),
            ("w2", head, head_one),
            ("w3", double, double_one),
        ):
            if args.batcher:
                triton.bind(
                    model_name=name,
                    infer_func=batched,
                    inputs=[Tensor(name="x", dtype=np.float32, shape=(-1,))],
                    outputs=fp32,
                    config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher()),
                )
            else:
                triton.bind(
                    model_name=name,
                    infer_func=single,
                    inputs=[Tensor(name="x", dtype=np.float32, shape=(-1, -1))],
                    outputs=[Tensor(name="y", dtype=np.float32, shape=(-1, -1))],
                    config=ModelConfig(batching=False),
                )
        triton.bind(
            model_name="w4",
            infer_func=upper,
            inputs=[Tensor(name="x", dtype=bytes, shape=(-1,))],
            outputs=[Tensor(name="y", dtype=bytes, shape=(-1,))],
            config=ModelConfig(batching=False),
        )
        triton.serve()
