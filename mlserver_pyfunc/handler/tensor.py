"""The class by which an annotation declares a tensor. Needs only the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Tensor:
    """Declares a tensor in an annotation, where the type alone does not tell it.

    >>> from typing import Annotated
    >>> import numpy as np
    >>> from numpy.typing import NDArray
    >>> Rows = Annotated[NDArray[np.float32], Tensor("rows", 4, description="cm")]

    Args:
        shape: One size per axis; -1 or a name admits any size.
        datatype: Datatype in the protocol's spelling, if the type tells none.
        description: Description for readers.
        example: A value that fits.
        labels: Names of the entries along the last axis that has as many.
        nullable: Whether null in JSON is NaN.
    """

    def __init__(
        self,
        *shape: int | str,
        datatype: str | None = None,
        description: str | None = None,
        example: Any = None,
        labels: Sequence[str] | None = None,
        nullable: bool = False,
    ) -> None:
        self.shape = shape
        self.datatype = datatype
        given = {"description": description, "example": example, "labels": labels}
        self.keys = {key: value for key, value in given.items() if value is not None}
        if nullable:
            self.keys["nullable"] = True

    def __repr__(self) -> str:
        return f"Tensor({', '.join(map(repr, self.shape))})"
