"""Sends 32 requests at a time to the batching example, and counts the calls that answered them."""

import argparse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as grpc

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    client = grpc.InferenceServerClient(parser.parse_args().grpc)

    def ask(number):
        features = grpc.InferInput("features", [1, 4], "FP32")
        features.set_data_from_numpy(np.full((1, 4), number, dtype=np.float32))
        answer = client.infer("batching", [features])
        assert answer.as_numpy("score")[0] == number, "the answer of another request"
        return int(answer.as_numpy("rows_in_call")[0])

    with ThreadPoolExecutor(32) as threads:
        rows = list(threads.map(ask, range(320)))
    calls = round(sum(1 / each for each in rows))
    print(f"{len(rows)} requests, {calls} calls, {max(rows)} rows in the largest")
