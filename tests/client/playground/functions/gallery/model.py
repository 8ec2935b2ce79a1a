"""Takes and gives every kind of tensor that the playground has a view for."""

import io

import numpy as np
from PIL import Image


def show(picture, frame, weights, flags, id, steps=None):  # noqa: A002
    with Image.open(io.BytesIO(picture[0])) as image:
        size = image.size
        image.thumbnail((64, 64))
        encoded = io.BytesIO()
        image.save(encoded, "PNG")
    points = 200 if steps is None else int(steps[0])
    return {
        "size": size,
        "thumbnail": [encoded.getvalue()],
        "frame": frame[::-1],
        "weights": weights * 2,
        "wave": np.sin(np.linspace(0, 12, points)),
        "flags": ~flags,
        "id": id,
    }
