"""What declares a tensor in the metadata of an annotation. Needs only the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LIMITS = {
    "ge": "minimum", "le": "maximum", "gt": "exclusive_minimum", "lt": "exclusive_maximum",
}  # fmt: skip


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
        nullable: Whether elements may be null. Floats are NaN then.
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


def noted(notes: Sequence[Any]) -> dict[str, Any]:
    """Returns what Tensor, annotated_types, dtypes and pydantic's `Field` or `Doc` tell."""
    keys: dict[str, Any] = {}
    for note in notes:
        if isinstance(note, Tensor):
            keys.update(note.keys)
            if note.shape:
                keys["shape"] = note.shape
            if note.datatype:
                keys["datatype"] = note.datatype
            continue
        keys.update(noted(getattr(note, "metadata", None) or ()))
        for attribute, key in _LIMITS.items():
            if isinstance(bound := getattr(note, attribute, None), int | float):
                keys[key] = bound
        for attribute in ("description", "documentation"):
            if isinstance(text := getattr(note, attribute, None), str):
                keys["description"] = text
        if (categories := getattr(note, "categories", None)) is not None and len(categories):
            keys["enum"] = list(categories)
        examples = getattr(note, "examples", None)
        if isinstance(examples, Sequence) and examples:
            keys["example"] = examples[0]
    return keys
