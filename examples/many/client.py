"""Calls each of the three functions once, over REST and over gRPC."""

import argparse

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as rest

QUESTIONS = {
    "celsius": ("fahrenheit", "FP64", np.array([32.0, 212.0])),
    "words": ("text", "BYTES", np.array([b"one two", b""], dtype=object)),
    "majority": ("votes", "BOOL", np.array([[True, True, False], [True, False, False]])),
}
OUTPUTS = {"celsius": "celsius", "words": "count", "majority": "carried"}


def ask_rest(url):
    client = rest.InferenceServerClient(url)
    for model, (name, datatype, value) in QUESTIONS.items():
        tensor = rest.InferInput(name, value.shape, datatype)
        tensor.set_data_from_numpy(value)
        show("REST", model, client.infer(model, [tensor]))
    client.close()


def ask_grpc(url):
    client = grpc.InferenceServerClient(url)
    for model, (name, datatype, value) in QUESTIONS.items():
        tensor = grpc.InferInput(name, value.shape, datatype)
        tensor.set_data_from_numpy(value)
        show("gRPC", model, client.infer(model, [tensor]))
    client.close()


def show(route, model, answer):
    print(f"{route}  {model:8}", answer.as_numpy(OUTPUTS[model]).tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    urls = parser.parse_args()
    ask_rest(urls.http)
    ask_grpc(urls.grpc)
