"""A definition as text: its values, and the line of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

Location = Sequence[int | str]


class Document:
    """A YAML or JSON file, or a part of one.

    Args:
        path: The file.
        text: Content of the file.
        prefix: Keys that lead to the part.

    Raises:
        yaml.YAMLError: The text is neither YAML nor JSON.
    """

    def __init__(self, path: Path, text: str, prefix: Location = ()) -> None:
        self.path = path
        self._text = text
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        self._prefix = tuple(prefix)

    def value(self) -> Any:
        """Returns the part's value; None if there is no such part."""
        value = yaml.safe_load(self._text)
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

    def repeated_keys(self) -> Iterator[tuple[int, str]]:
        """Yields line and name of each key that its mapping has already."""
        yield from _repeated(self._root)


def _child(node: Any, key: int | str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        child = node.value[key]
        return child.start_mark.line + 1, child
    if isinstance(node, yaml.MappingNode):
        for name, child in reversed(node.value):
            if name.value == key:
                return name.start_mark.line + 1, child
    return None


def _repeated(node: Any) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _repeated(child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for name, child in node.value:
        if name.value in seen:
            yield name.start_mark.line + 1, str(name.value)
        seen.add(name.value)
        yield from _repeated(child)
