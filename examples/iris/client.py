"""Sends two flowers to the iris example, over REST and over gRPC."""

import argparse

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as rest

FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], dtype=np.float32)


def ask_rest(url):
    client = rest.InferenceServerClient(url)
    features = rest.InferInput("features", FLOWERS.shape, "FP32")
    features.set_data_from_numpy(FLOWERS)
    show("REST", client.infer("iris", [features]))
    client.close()


def ask_grpc(url):
    client = grpc.InferenceServerClient(url)
    features = grpc.InferInput("features", FLOWERS.shape, "FP32")
    features.set_data_from_numpy(FLOWERS)
    show("gRPC", client.infer("iris", [features]))
    client.close()


def show(route, answer):
    for name, row in zip(answer.as_numpy("species"), answer.as_numpy("probabilities"), strict=True):
        name = name.decode() if isinstance(name, bytes) else name
        print(f"{route}  {name:10}", " ".join(f"{p:.3f}" for p in row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    urls = parser.parse_args()
    ask_rest(urls.http)
    ask_grpc(urls.grpc)
