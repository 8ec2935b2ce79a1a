"""Sends three reviews to the digitalhub example, over REST and over gRPC."""

import argparse

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as rest

REVIEWS = np.array([b"a great film", b"good but dull", b"so bad"], dtype=object)


def ask_rest(url):
    client = rest.InferenceServerClient(url)
    text = rest.InferInput("text", REVIEWS.shape, "BYTES")
    text.set_data_from_numpy(REVIEWS)
    show("REST", client.infer("review-score", [text]))
    client.close()


def ask_grpc(url):
    client = grpc.InferenceServerClient(url)
    text = grpc.InferInput("text", REVIEWS.shape, "BYTES")
    text.set_data_from_numpy(REVIEWS)
    show("gRPC", client.infer("review-score", [text]))
    client.close()


def show(route, answer):
    for review, score in zip(REVIEWS, answer.as_numpy("score"), strict=True):
        print(f"{route}  {score:+.1f}  {review.decode()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    urls = parser.parse_args()
    ask_rest(urls.http)
    ask_grpc(urls.grpc)
