from typing import Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray
from rules import convert

from mlserver_pyfunc import Tensor

Degrees = Annotated[NDArray[np.float64], Tensor(-1)]


class Answer(TypedDict):
    celsius: Degrees


def predict(fahrenheit: Degrees) -> Answer:
    return {"celsius": convert(fahrenheit)}
