"""Resizes a picture and computes its mean colour."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from mlserver_pyfunc import InferenceError


def resize(image, context, width=None):
    """`image` is an array of one `bytes`. `width` is an array of one int32, or None."""
    picture = opened(image[0], context.init_parameters["max_pixels"])
    columns = 64 if width is None else int(width[0])
    if not 1 <= columns <= 4096:
        raise InferenceError(f'input "width": expected from 1 to 4096, got {columns}')
    rows = max(1, round(picture.height * columns / picture.width))
    if rows > 4096:
        raise InferenceError(f"the result would be {rows} pixels high, more than 4096")
    pixels = np.asarray(picture.convert("RGB").resize((columns, rows)))
    return {"pixels": pixels, "mean_colour": pixels.mean(axis=(0, 1)) / 255}


def opened(data, max_pixels):
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if picture.width * picture.height > max_pixels:
            raise InferenceError(f"the picture has more than {max_pixels} pixels", status=413)
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise InferenceError('input "image": expected a PNG or JPEG file', status=415) from None
    return picture
