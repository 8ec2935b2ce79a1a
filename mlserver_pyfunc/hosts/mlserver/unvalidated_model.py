"""Pydantic models without validation, for values that are checked elsewhere."""

from __future__ import annotations

from collections.abc import Set
from typing import Any


class UnvalidatedModel:
    """Makes a pydantic model take any attribute as it is, if it stands before it as a base.

    Pydantic checks and converts each value, which here would turn arrays into lists. Its
    `model_construct` does not, but makes an instance of the model only, not of a subclass with
    attributes of its own.
    """

    def _set_state(self, state: dict[str, Any], fields: Set[str] = frozenset()) -> None:
        """Sets all attributes at once, as `model_construct` does.

        Args:
            state: Attributes by name.
            fields: Names of the fields that pydantic takes for set.
        """
        object.__setattr__(self, "__dict__", state)
        object.__setattr__(self, "__pydantic_fields_set__", fields)
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
