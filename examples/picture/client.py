"""Sends a picture to the picture example, and writes the drawing that it answers with."""

import argparse
from pathlib import Path

import numpy as np
import tritonclient.http as rest

PHOTO = Path(__file__).with_name("photo.jpg")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=PHOTO, help="a PNG or JPEG file")
    parser.add_argument("drawing", nargs="?", type=Path, default=Path("drawing.png"))
    parser.add_argument("--http", default="localhost:8080", metavar="HOST:PORT")
    arguments = parser.parse_args()
    picture = rest.InferInput("picture", [1], "BYTES")
    picture.set_data_from_numpy(np.array([arguments.picture.read_bytes()], dtype=object))
    answer = rest.InferenceServerClient(arguments.http).infer("picture", [picture])
    arguments.drawing.write_bytes(answer.as_numpy("output")[0])
    print("wrote", arguments.drawing)
