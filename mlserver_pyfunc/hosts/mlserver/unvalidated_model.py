"""Pydantic models made without validation: their values are ours, or checked elsewhere."""

from __future__ import annotations

from collections.abc import Set
from typing import Any


class BareModel:
    """Comes before a pydantic model among the bases of a class: takes any attribute as it is."""

    def _set_state(self, state: dict[str, Any], fields: Set[str] = frozenset()) -> None:
        """Sets up the model, as `model_construct` does.

        Args:
            state: Attributes by name.
            fields: Names of the fields that count as given.
        """
        object.__setattr__(self, "__dict__", state)
        object.__setattr__(self, "__pydantic_fields_set__", fields)
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
