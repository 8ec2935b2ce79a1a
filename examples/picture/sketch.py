"""Turns a picture into a pencil drawing."""

from typing import Annotated

from PIL import Image, ImageChops, ImageFilter, ImageOps
from pydantic import Field


def sketch(picture: Image.Image, softness: Annotated[float, Field(ge=1, le=50)] = 4) -> Image.Image:
    """Brightens each point by its surroundings: what is left are the edges.

    Args:
        picture: A PNG or JPEG file.
        softness: Width of the strokes, in points.
    """
    grey = ImageOps.grayscale(picture)
    around = grey.filter(ImageFilter.GaussianBlur(softness))
    return ImageOps.autocontrast(
        ImageChops.add(grey, ImageOps.invert(around), scale=2), cutoff=(2, 50)
    )
