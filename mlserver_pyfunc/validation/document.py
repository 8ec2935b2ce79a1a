"""A definition as text: its values, and the place of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS
from mlserver_pyfunc.definition.yaml_reader import compose, construct, repeated_keys

from .findings import Finding

Location = Sequence[int | str]


class Document:
    """A YAML or JSON file, or the part of one that the keys of `prefix` lead to.

    The text may be a string in the file, `is_embedded`: then its columns are not the file's.
    `repeated_keys` has the line and name of each key that its mapping has already. Raises YamlError
    if the text is neither YAML nor JSON, or larger than the bounds.
    """

    def __init__(
        self, path: Path, text: str, prefix: Location = (), *, is_embedded: bool = False
    ) -> None:
        self.path = path
        is_json = path.name == MODEL_SETTINGS
        # JSON has tabs between values only, and YAML refuses them there.
        self._root = compose(text.replace("\t", " ") if is_json else text, str(path))
        self.repeated_keys = list(repeated_keys(self._root))
        self._value = json.loads(text) if is_json else construct(self._root, str(path))
        self._prefix = tuple(prefix)
        self._is_embedded = is_embedded

    def value(self, location: Location = ()) -> Any:
        """Returns the value at a location in the part; None if there is none."""
        value = self._value
        for key in (*self._prefix, *location):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def finding(
        self, rule: str, message: str, location: Location = (), fix: str | None = None
    ) -> Finding:
        """Makes a finding about the value at a location, or its nearest existing parent.

        An unknown key and the key of a list or mapping are marked in place of their value.
        """
        key, value = self._nodes(location)
        is_of_key = rule == "D101" or ": unknown key" in message
        marked = value if isinstance(value, yaml.ScalarNode) and not is_of_key else key
        line = marked.start_mark.line + 1 if marked else 1
        if marked is None or self._is_embedded:
            return Finding(rule, message, self.path, line)
        start, end = marked.start_mark, marked.end_mark
        quote = int(getattr(marked, "style", None) in ("'", '"'))
        until = end.column + 1 - quote if end.line == start.line else 0
        column = start.column + 1 + quote
        return Finding(rule, message, self.path, line, column, until, fix if value else None)

    def code_line(self, location: Location) -> int:
        """Returns the line before the first line of a text value; counted from 1."""
        key, node = self._nodes(location)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return int(node.start_mark.line) + 1
        return int(key.start_mark.line) if key else 0

    def written(self, location: Location) -> str:
        """Returns a plain value as it is written; empty for any other value."""
        _, node = self._nodes(location)
        return str(node.value) if isinstance(node, yaml.ScalarNode) and not node.style else ""

    def is_cut(self, location: Location) -> bool:
        """Whether a key in `{ }` has no text as its value, since a comma ends a value there."""
        _, parent = self._nodes(location[:-1])
        _, value = self._nodes(location)
        is_empty = isinstance(value, yaml.ScalarNode) and not value.value
        return is_empty and bool(getattr(parent, "flow_style", False))

    def _nodes(self, location: Location) -> tuple[yaml.Node | None, yaml.Node | None]:
        """Returns the nodes of a key and its value; without a value, the key of a parent."""
        key, node = None, self._root
        for part in (*self._prefix, *location):
            found = _child(node, part)
            if found is None:
                return key, None
            key, node = found
        return key, node


def _child(node: Any, key: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in reversed(node.value) if pair[0].value == key), None)
    return None
