"""Sends a picture, a file's or one drawn here, over REST and over gRPC."""

import argparse
import io
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as rest
from PIL import Image

WIDTH = np.array([32], dtype=np.int32)


def ask_rest(url, picture):
    """A gRPC tensor takes bytes as they are; JSON takes them as base64, which is said beside."""
    client = rest.InferenceServerClient(url)
    image = rest.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(picture, binary_data=True)
    width = rest.InferInput("width", [1], "INT32")
    width.set_data_from_numpy(WIDTH, binary_data=True)
    show("REST", client.infer("image", [image, width]))
    client.close()


def ask_grpc(url, picture):
    client = grpc.InferenceServerClient(url)
    image = grpc.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(picture)
    width = grpc.InferInput("width", [1], "INT32")
    width.set_data_from_numpy(WIDTH)
    show("gRPC", client.infer("image", [image, width]))
    client.close()
