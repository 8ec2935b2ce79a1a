"""A definition as text: its values, and the line of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS
from mlserver_pyfunc.definition.yaml_reader import compose, construct, repeated_keys

Location = Sequence[int | str]


class Document:
    """A YAML or JSON file, or the part of one that the keys of `prefix` lead to.

    `repeated_keys` has the line and name of each key that its mapping has already. Raises YamlError
    if the text is neither YAML nor JSON, or larger than the bounds.
    """

    def __init__(self, path: Path, text: str, prefix: Location = ()) -> None:
        self.path = path
        is_json = path.name == MODEL_SETTINGS
        # JSON has tabs between values only, and YAML refuses them there.
        self._root = compose(text.replace("\t", " ") if is_json else text, str(path))
        self.repeated_keys = list(repeated_keys(self._root))
        self._value = json.loads(text) if is_json else construct(self._root, str(path))
        self._prefix = tuple(prefix)

    def value(self) -> Any:
        """Returns the part's value; None if there is no such part."""
        value = self._value
        for key in self._prefix:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def line(self, location: Location = ()) -> int:
        """Returns the line, counted from 1, of a key or item, or of its nearest existing parent."""
        node, line = self._root, 1
        for key in (*self._prefix, *location):
            found = _child(node, key)
            if found is None:
                break
            line, node = found
        return line

    def code_line(self, location: Location) -> int:
        """Returns the line before the first line of a text value; counted from 1."""
        node, line = self._root, 1
        for key in (*self._prefix, *location):
            found = _child(node, key)
            if found is None:
                return line - 1
            line, node = found
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return int(node.start_mark.line) + 1
        return line - 1


def _child(node: Any, key: int | str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        child = node.value[key]
        return child.start_mark.line + 1, child
    if isinstance(node, yaml.MappingNode):
        for name, child in reversed(node.value):
            if name.value == key:
                return name.start_mark.line + 1, child
    return None
