"""Sends a picture from a file, or one drawn here, over REST and over gRPC."""

import argparse
import base64
import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
from PIL import Image

WIDTH = 32


def ask_rest(url, picture):
    """JSON has no bytes: they are sent as base64, and a parameter of the tensor says so."""
    image = {"name": "image", "shape": [1], "datatype": "BYTES"}
    image["data"] = [base64.b64encode(picture).decode()]
    image["parameters"] = {"content_type": "base64"}
    width = {"name": "width", "shape": [1], "datatype": "INT32", "data": [WIDTH]}
    request = urllib.request.Request(
        f"http://{url}/v2/models/image/infer",
        data=json.dumps({"inputs": [image, width]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        outputs = {output["name"]: output for output in json.load(response)["outputs"]}
    show("REST", outputs["pixels"]["shape"], outputs["mean_colour"]["data"])


def ask_grpc(url, picture):
    client = grpc.InferenceServerClient(url)
    image = grpc.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([picture], dtype=object))
    width = grpc.InferInput("width", [1], "INT32")
    width.set_data_from_numpy(np.array([WIDTH], dtype=np.int32))
    answer = client.infer("image", [image, width])
    show("gRPC", answer.as_numpy("pixels").shape, answer.as_numpy("mean_colour"))
    client.close()


def show(route, shape, colour):
    print(f"{route}  {shape[1]}x{shape[0]} pixels, mean colour", *(f"{c:.2f}" for c in colour))


def drawn():
    """A PNG of 128 x 64 pixels that fades from blue to red."""
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 128)
    pixels[..., 2] = 255 - pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="a PNG or JPEG file")
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="localhost:8081", metavar="HOST:PORT")
    arguments = parser.parse_args()
    data = arguments.picture.read_bytes() if arguments.picture else drawn()
    ask_rest(arguments.http, data)
    ask_grpc(arguments.grpc, data)
